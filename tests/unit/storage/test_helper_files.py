"""Every file beside the records (indexes, snapshots, checkpoints, remains of a compaction) may be damaged in any way:
the node starts, it costs at most this partition, and nothing where the batches tell the same again."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from uuid import UUID

import pytest

from kraft.protocol.errors import KafkaError
from metadata.environment import Environment
from metadata.image import TopicIdPartition
from metadata.settings import BrokerSettings, TopicSettings
from replication.partition.log import ReplicaLog
from replication.storage.log_manager import LogManager
from replication.storage.names import NEEDED_SUFFIXES
from replication.storage.partition_log import PartitionLog
from tests.support.repetitions import few_and_many
from tests.unit.storage.world import NOW_MS, TOPIC_ID, RecordedEvents, batch, load, run

SMALL = TopicSettings(segment_bytes=1_000, index_interval_bytes=100)
COMPACTED = SMALL.model_copy(update={"cleanup_policy": ("compact",)})
BATCHES = 24
NEIGHBOUR = UUID(int=7)
DAMAGES = few_and_many("damages", 5, 20)
"""Of each kind of file, by one generator."""


def _fill(log: PartitionLog, batches: int = BATCHES) -> None:
    for turn in range(batches):
        data = batch(2, timestamp_ms=NOW_MS + 10 * turn, producer_id=4, producer_epoch=0, base_sequence=2 * turn)
        log.append_as_leader(data, leader_epoch=turn // 7, now_ms=NOW_MS)


def _records(log: ReplicaLog) -> bytes:
    found, offset = b"", log.log_start_offset
    while offset < log.log_end_offset:
        read = log.read(offset, bytes_max=10_000, upper_bound=log.log_end_offset)
        found += bytes(read.data)
        offset = read.next_offset
    return found


def _manager(environment: Environment, folder: Path, events: RecordedEvents) -> LogManager:
    return LogManager(
        environment,
        directories=[str(folder)],
        events=events,
        cluster_id="c1",
        node_id=1,
        settings=BrokerSettings,
        topic_settings_of=lambda _topic: SMALL,
    )


async def _closed_node(environment: Environment, folder: Path) -> bytes:
    """Two partitions, the first of which is going to be damaged; what is in it."""
    manager = _manager(environment, folder, RecordedEvents())
    await manager.start()
    log = manager.get_or_create(topic="t", topic_id=TOPIC_ID, partition=0, settings=SMALL)
    _fill(log)
    whole = _records(log)
    _fill(manager.get_or_create(topic="n", topic_id=NEIGHBOUR, partition=0, settings=SMALL))
    await manager.stop()
    return whole


# 17: an index


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.long)])
def test_any_flipped_bit_of_an_active_index_after_a_clean_stop_costs_nothing(
    suffix: str, step: int, tmp_path: Path
) -> None:
    """A flipped timestamp made every append raise, while its bytes stayed in the log: base offsets 6, 6, 6.
    Each bit, or each fifth."""
    settings = TopicSettings(index_interval_bytes=100)

    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path / "whole"), settings=settings)
        _fill(log, 6)
        whole, latest = _records(log), log.max_timestamp(upper_bound=12)
        await log.close()
        size = (tmp_path / "whole" / f"{0:020d}{suffix}").stat().st_size
        assert size >= 16
        for bit in range(0, 8 * size, step):
            folder = tmp_path / f"bit{bit}"
            shutil.copytree(tmp_path / "whole", folder)
            _flip(folder / f"{0:020d}{suffix}", bit)
            log, _ = load(environment, str(folder), settings=settings, is_clean=True)
            assert log.max_timestamp(upper_bound=12) == latest, bit
            for timestamp in range(NOW_MS, NOW_MS + 62, 10):
                found = log.offset_for_timestamp(timestamp, upper_bound=12)
                assert (found and found.offset) == _first_since(timestamp), (bit, timestamp)
            for turn in range(6, 9):
                data = batch(2, timestamp_ms=NOW_MS + 10 * turn)
                assert log.append_as_leader(data, leader_epoch=0, now_ms=NOW_MS).base_offset == 2 * turn, bit
            assert _records(log).startswith(whole)
            await log.close()
            shutil.rmtree(folder)

    run(play)


def _first_since(timestamp: int) -> int | None:
    """Batch t holds records at 10 t and 10 t + 1 ms."""
    since = timestamp - NOW_MS
    offset = 2 * (since // 10) + min(since % 10, 2)
    return offset if offset < 12 else None


@pytest.mark.parametrize("suffix", [".index", ".timeindex"])
@DAMAGES
def test_wrong_index_is_rebuilt_by_a_read(suffix: str, damages: int, tmp_path: Path) -> None:
    rng = random.Random(f"closed {suffix}")

    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path / "whole"), settings=SMALL)
        _fill(log)
        whole, end = _records(log), log.log_end_offset
        times = [log.offset_for_timestamp(NOW_MS + t, upper_bound=end) for t in range(0, 10 * BATCHES, 5)]
        await log.close()
        names = [path.name for path in sorted((tmp_path / "whole").glob(f"*{suffix}"))]
        for turn in range(damages):
            folder = tmp_path / f"t{turn}"
            shutil.copytree(tmp_path / "whole", folder)
            victim = folder / rng.choice(names[:-1])
            _flip(victim, rng.randrange(8 * victim.stat().st_size))
            log, _ = load(environment, str(folder), settings=SMALL, is_clean=True)
            assert [log.offset_for_timestamp(NOW_MS + t, upper_bound=end) for t in range(0, 10 * BATCHES, 5)] == times
            assert _records(log) == whole
            assert [bytes(log.read(o, bytes_max=1, upper_bound=end).data) for o in range(end)]
            assert not log.is_damaged
            await log.close()

    run(play)


def test_an_append_that_an_index_refuses_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(environment: Environment) -> None:
        settings = TopicSettings(index_interval_bytes=0)
        log, _ = load(environment, str(tmp_path), settings=settings)
        _fill(log, 3)
        whole = _records(log)
        active = log._segments.active  # the one that is written to
        monkeypatch.setattr(type(active.times), "maybe_append", _refuse)
        for _ in range(3):
            with pytest.raises(AssertionError, match="refused"):
                log.append_as_leader(batch(2), leader_epoch=0, now_ms=NOW_MS)
            assert (log.log_end_offset, log.size_bytes) == (6, len(whole))
        monkeypatch.undo()
        assert log.append_as_leader(batch(2), leader_epoch=0, now_ms=NOW_MS).base_offset == 6
        await log.close()
        again, loaded = load(environment, str(tmp_path), settings=settings)
        assert (again.log_end_offset, loaded.repairs) == (8, [])
        await again.close()

    run(play)


def _refuse(*_: object) -> None:
    raise AssertionError("refused")


# 18: what a compaction left


async def _half_swapped(environment: Environment, folder: Path, *, renamed: int) -> bytes:
    """Compacted files with their `.swap` names, and so many of the old segments renamed; what the log held before."""
    log, _ = load(environment, str(folder), settings=COMPACTED)
    for turn in range(BATCHES):
        log.append_as_leader(batch(2, timestamp_ms=NOW_MS + turn), leader_epoch=0, now_ms=NOW_MS)
    whole = _records(log)
    await log.close()
    _swap(folder, renamed=renamed)
    return whole


def _swap(folder: Path, *, renamed: int) -> None:
    old = sorted(path.name for path in folder.glob("*.log"))[:-1]
    for suffix in NEEDED_SUFFIXES:
        shutil.copy(folder / f"{0:020d}{suffix}", folder / f"{0:020d}{suffix}.swap")
    # Of this group the last batch of each segment stays in one segment, which ends where the old ones ended.
    data = (folder / old[-1]).read_bytes()
    (folder / f"{0:020d}.log.swap").write_bytes(data)
    for name in old[:renamed]:
        for suffix in NEEDED_SUFFIXES:
            path = folder / (name.removesuffix(".log") + suffix)
            path.rename(f"{path}.deleted")


@pytest.mark.parametrize("renamed", [0, 1, 99])
@pytest.mark.parametrize("kept", [0, 30, 0.5])
def test_a_torn_swap_gives_way_to_what_it_was_made_of(renamed: int, kept: float, tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        folder = tmp_path / "t-0"
        whole = await _half_swapped(environment, folder, renamed=renamed)
        swap = folder / f"{0:020d}.log.swap"
        data = swap.read_bytes()
        swap.write_bytes(data[: int(kept * len(data)) - 3 if kept == 0.5 else int(kept)])
        if renamed == 1:
            # Half of the group has its old names: what is live must not be taken for what was given up.
            assert len(list(folder.glob("*.log"))) > 1
        log, loaded = load(environment, str(folder), settings=COMPACTED)
        events = [repair.event for repair in loaded.repairs]
        assert events == ["compaction_undone"], loaded.repairs
        assert _records(log) == whole
        assert not list(folder.glob("*.swap"))
        await log.close()

    run(play)


def test_a_whole_swap_still_replaces_what_it_was_made_of(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        whole = await _half_swapped(environment, tmp_path / "t-0", renamed=1)
        log, loaded = load(environment, str(tmp_path / "t-0"), settings=COMPACTED)
        assert "compaction_undone" not in [repair.event for repair in loaded.repairs]
        assert whole.endswith(_records(log))
        assert len(_records(log)) < len(whole)
        await log.close()

    run(play)


def test_a_torn_swap_whose_segments_are_gone_costs_one_partition(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        node = tmp_path / "node"
        await _closed_node(environment, node)
        first = node / "t-0" / f"{0:020d}.log"
        first.with_suffix(".log.swap").write_bytes(first.read_bytes()[:100])
        first.unlink()
        before = {path.name: path.read_bytes() for path in (node / "t-0").glob("*.log*")}
        events = RecordedEvents()
        manager = _manager(environment, node, events)
        await manager.start()
        assert "log_not_loaded" in events.names()
        assert manager.get(TopicIdPartition(TOPIC_ID, 0)) is None
        with pytest.raises(KafkaError, match=r"log\.swap"):
            await manager.reopen(TopicIdPartition(TOPIC_ID, 0), topic="t", is_last=True)
        assert {path.name: path.read_bytes() for path in (node / "t-0").glob("*.log*")} == before, "nothing is lost"
        _append_to_neighbour(manager)
        await manager.stop()

    run(play)


# The class


def _torn(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _flipped(data: bytes, rng: random.Random) -> bytes:
    if not data:
        return b"\1"
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _zeroed(data: bytes, rng: random.Random) -> bytes:
    return bytes(len(data))


def _longer(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.randrange(1, 40))


def _garbage(data: bytes, rng: random.Random) -> bytes:
    return rng.choice(
        (rng.randbytes(60), b"9" * 6_000 + b"\n", b"0\n1\nt 0 " + b"9" * 30 + b"\n", b"0\n-1\n", b"\xff" * 8)
    )


REBUILT = (".index", ".timeindex", ".snapshot", "leader-epoch-checkpoint")
KINDS = (
    *REBUILT,
    "partition.metadata",
    "checkpoint-ceiling",
    ".log.cleaned",
    ".index.swap",
    ".timeindex.deleted",
    ".log.deleted",
    ".snapshot.tmp",
    "/recovery-point-offset-checkpoint",
    "/replication-offset-checkpoint",
    "/cleaner-offset-checkpoint",
    "/.kafka_cleanshutdown",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_clean", [True, False])
@DAMAGES
def test_no_damage_to_a_helper_file_costs_more_than_its_partition(
    kind: str, is_clean: bool, damages: int, tmp_path: Path
) -> None:
    rng = random.Random(f"helpers {kind} {is_clean}")

    async def play(environment: Environment) -> None:
        whole = await _closed_node(environment, tmp_path / "whole")
        if not is_clean:
            (tmp_path / "whole" / ".kafka_cleanshutdown").unlink()
        for turn in range(damages):
            node = tmp_path / f"n{turn}"
            shutil.copytree(tmp_path / "whole", node)
            damage = rng.choice((_torn, _flipped, _zeroed, _longer, _garbage))
            victim = _victim(node, kind, rng)
            was = victim.read_bytes() if victim.exists() else b""
            victim.write_bytes(damage(was, rng))
            events = RecordedEvents()
            manager = _manager(environment, node, events)
            await manager.start()
            _append_to_neighbour(manager)
            log = manager.get(TopicIdPartition(TOPIC_ID, 0))
            reported = victim, damage.__name__, events.seen
            if log is None:
                assert kind == "partition.metadata", reported
            else:
                assert _records(log) == whole, reported
                assert not log.is_damaged, reported
                _append_and_read(log, turn=BATCHES, whole=whole)
            await manager.stop()
            shutil.rmtree(node)

    run(play)


def _victim(node: Path, kind: str, rng: random.Random) -> Path:
    if kind.startswith("/"):
        return node / kind[1:]
    folder = node / "t-0"
    if kind in REBUILT or kind in ("partition.metadata", "checkpoint-ceiling"):
        found = sorted(folder.glob(f"*{kind}"))
        return rng.choice(found) if found else folder / kind
    return folder / f"{rng.choice(sorted(folder.glob('*.log'))).stem}{kind}"


def _append_to_neighbour(manager: LogManager) -> None:
    log = manager.get(TopicIdPartition(NEIGHBOUR, 0))
    assert log is not None
    assert log.log_end_offset == 2 * BATCHES
    log.append_as_leader(batch(2), leader_epoch=9, now_ms=NOW_MS)


def _append_and_read(log: PartitionLog, *, turn: int, whole: bytes) -> None:
    """The producer goes on where it was: what a snapshot or the batches say of it is believed."""
    data = batch(2, timestamp_ms=NOW_MS + 10 * turn, producer_id=4, producer_epoch=0, base_sequence=2 * turn)
    assert log.append_as_leader(data, leader_epoch=9, now_ms=NOW_MS).base_offset == 2 * turn
    assert _records(log)[: len(whole)] == whole


def _flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
