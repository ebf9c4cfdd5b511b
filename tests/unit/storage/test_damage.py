"""One bit of a log or an index flips below the recovery point: what was appended is read, or CORRUPT_MESSAGE."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from kraft.protocol.batches.batch_check import DamagedBatch, check_batches
from kraft.protocol.batches.header import header_at
from kraft.protocol.errors import CorruptMessage
from metadata.environment import Environment
from metadata.image import TopicIdPartition
from metadata.settings import BrokerSettings, TopicSettings
from replication.storage.log_manager import LogManager
from replication.storage.partition_log import PartitionLog
from tests.unit.storage.world import NOW_MS, TOPIC_ID, RecordedEvents, batch, load, run

SMALL = TopicSettings(segment_bytes=1_000, index_interval_bytes=0)
KEY = TopicIdPartition(TOPIC_ID, 0)
FLIPS = 25


def _fill(log: PartitionLog) -> None:
    for turn in range(12):
        log.append_as_leader(batch(2, timestamp_ms=NOW_MS + turn), leader_epoch=turn // 5, now_ms=NOW_MS)


def _read(log: PartitionLog, rng: random.Random) -> list[bytes | None]:
    """Of each offset the batch that holds it; None where the log says that it is damaged."""
    found: list[bytes | None] = []
    for offset in range(log.log_end_offset):
        try:
            data = bytes(log.read(offset, bytes_max=rng.choice((1, 1_000)), upper_bound=24).data)
        except CorruptMessage:
            found.append(None)
        else:
            found.append(data[: header_at(data).size])
    return found


@pytest.mark.parametrize("suffix", [".log", ".index", ".timeindex"])
def test_a_flipped_bit_is_never_handed_out(suffix: str, tmp_path: Path) -> None:
    rng = random.Random(f"flips {suffix}")

    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path / "whole"), settings=SMALL)
        _fill(log)
        whole = _read(log, rng)
        await log.flush()
        await log.abandon()
        files = sorted(path for path in (tmp_path / "whole").glob(f"*{suffix}") if path.stat().st_size)[:-1]
        damaged = 0
        for turn in range(FLIPS):
            copy = tmp_path / f"t-{turn}"
            shutil.copytree(tmp_path / "whole", copy)
            victim = copy / rng.choice(files).name
            at = rng.randrange(victim.stat().st_size)
            _flip(victim, at, rng.randrange(8))
            log, _ = load(environment, str(copy), settings=SMALL, recovery_point=24)
            found = _read(log, rng)
            await log.abandon()
            assert all(data in (None, expected) for data, expected in zip(found, whole, strict=False)), (victim, at)
            damaged += found != whole
        assert bool(damaged) == (suffix == ".log"), "a log without its indexes is whole"

    run(play)


def test_every_bit_of_a_batch_is_checked() -> None:
    data = bytearray(batch(2, base_offset=40, leader_epoch=3))
    assert check_batches(data, expected=40, epoch_of=lambda _: 3) == (42, False)
    for at in range(8 * len(data)):
        data[at // 8] ^= 1 << at % 8
        try:
            next_offset, has_gap = check_batches(data, expected=40, epoch_of=lambda _: 3)
        except DamagedBatch:
            pass
        else:
            assert (at < 64, has_gap, next_offset > 42) == (True, True, True), "its neighbours tell a larger offset"
        data[at // 8] ^= 1 << at % 8


@pytest.mark.parametrize("others_have_it", [True, False])
def test_a_damaged_log_goes_offline_when_others_have_what_it_loses(others_have_it: bool, tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        events, reported = RecordedEvents(), list[str]()
        manager = LogManager(
            environment,
            directories=[str(tmp_path)],
            events=events,
            cluster_id="c1",
            node_id=1,
            settings=BrokerSettings,
            topic_settings_of=lambda _topic: SMALL,
        )
        manager.watch_failures(lambda _key, reason, _is_readable: reported.append(reason), lambda _key: others_have_it)
        await manager.start()
        log = manager.get_or_create(topic="t", topic_id=TOPIC_ID, partition=0, settings=SMALL)
        _fill(log)
        await log.flush()
        _flip(tmp_path / "t-0" / f"{0:020d}.log", 30)
        for _ in range(2):
            with pytest.raises(CorruptMessage, match="CRC"):
                log.read(1, bytes_max=1, upper_bound=24)
            if others_have_it:
                break
        assert log.is_offline is others_have_it
        assert len(reported) == others_have_it
        assert events.names().count("log_damaged") == 1
        if others_have_it:
            await manager.reopen(KEY, topic="t", is_last=False)
            mended = manager.get(KEY)
            assert mended is not None
            assert mended.log_end_offset == 0, "cut where it is damaged: the leader has it"
        else:
            assert log.read(2, bytes_max=1, upper_bound=24).next_offset == 4
        await manager.stop()

    run(play)


def test_the_last_log_in_sync_keeps_what_stands_behind_its_damage(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        manager = LogManager(
            environment,
            directories=[str(tmp_path)],
            events=RecordedEvents(),
            cluster_id="c1",
            node_id=1,
            settings=BrokerSettings,
            topic_settings_of=lambda _topic: SMALL,
        )
        manager.watch_failures(lambda *_: None, lambda _key: True)
        await manager.start()
        log = manager.get_or_create(topic="t", topic_id=TOPIC_ID, partition=0, settings=SMALL)
        _fill(log)
        await log.flush()
        _flip(tmp_path / "t-0" / f"{0:020d}.log", 30)
        with pytest.raises(CorruptMessage):
            log.read(1, bytes_max=1, upper_bound=24)
        await manager.reopen(KEY, topic="t", is_last=True)
        again = manager.get(KEY)
        assert again is not None
        assert again.log_end_offset == 24
        await manager.stop()

    run(play)


def _flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)
