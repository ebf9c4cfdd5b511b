"""D1 to D9 on a real log, and what becomes of producers when it is truncated, rolled, closed, killed or damaged."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka.errors import CorruptRecordException

from kraft.protocol.batches.header import BatchHeader, whole_batches
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.errors import (
    InvalidProducerEpoch,
    InvalidRecord,
    KafkaError,
    KafkaStorageError,
    OutOfOrderSequenceNumber,
)
from kraft.runtime.files import DiskFiles
from metadata.environment import Environment, File
from metadata.producer_ids import RESERVED_PRODUCER_IDS_FROM
from metadata.settings import TopicSettings
from replication.partition.log import Appended
from replication.producers.comparison import holds_same_records
from replication.producers.state import Producer, ProducerLimits, ProducerStates
from replication.storage.partition_log import PartitionLog
from replication.storage.producer_files import TEMPORARY_SUFFIX
from replication.storage.producer_snapshot import CorruptSnapshot, decode_snapshot, encode_snapshot
from tests.unit.storage.world import LIMITS, NOW_MS, batch, load, run

DAY_MS = 86_400_000
MAX = 2**31 - 1
KEYED = RESERVED_PRODUCER_IDS_FROM + 5
SMALL = TopicSettings(segment_bytes=700, index_interval_bytes=150, file_delete_delay_ms=0)


def send(
    log: PartitionLog,
    producer_id: int,
    sequence: int,
    *,
    count: int = 1,
    epoch: int = 0,
    timestamp_ms: int = NOW_MS,
    value: bytes = b"value",
) -> Appended:
    data = batch(
        count,
        timestamp_ms=timestamp_ms,
        value=value,
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=sequence,
    )
    return log.append_as_leader(data, leader_epoch=0, now_ms=NOW_MS)


def attempt(log: PartitionLog, producer_id: int, sequence: int, *, count: int = 1, epoch: int = 0) -> str:
    """`+` and the offset of what was appended, `=` and the original's for a duplicate, or the error's code."""
    try:
        appended = send(log, producer_id, sequence, count=count, epoch=epoch)
    except KafkaError as error:
        return str(error.code)
    return f"{'=' if appended.is_duplicate else '+'}{appended.base_offset}"


def run_on_log(folder: Path, story: Callable[[PartitionLog], None], *, limits: ProducerLimits = LIMITS) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(folder), limits=limits)
        story(log)
        await log.close()

    run(play)


_FIVE = ["+0", "+1", "+2", "+3", "+4", "=0", "=4", "=2"]
_SIX = ["+0", "+1", "+2", "+3", "+4", "+5", "45", "=1"]
RULES: dict[str, tuple[list[tuple[int, int, int]], list[str]]] = {
    # (epoch, first sequence, records) -> what is answered
    "D1 the next sequence": ([(0, 0, 2), (0, 2, 1), (0, 3, 1)], ["+0", "+2", "+3"]),
    "D1 a gap": ([(0, 0, 2), (0, 3, 1)], ["+0", "45"]),
    "D1 after the largest int comes 0": ([(0, MAX - 1, 2), (0, 0, 1), (0, 1, 1)], ["+0", "+2", "+3"]),
    "D1 a batch goes over the largest int": ([(0, MAX, 3), (0, 2, 1), (0, MAX, 3)], ["+0", "+3", "=0"]),
    "D2 the last one again": ([(0, 0, 2), (0, 0, 2)], ["+0", "=0"]),
    "D2 any of the last five": (
        [(0, n, 1) for n in (0, 1, 2, 3, 4, 0, 4, 2)],
        _FIVE,
    ),
    "D3 the sixth last": (
        [(0, n, 1) for n in (0, 1, 2, 3, 4, 5, 0, 1)],
        _SIX,
    ),
    "D2 only an exact match": ([(0, 0, 2), (0, 2, 1), (0, 0, 1), (0, 0, 3)], ["+0", "+2", "45", "45"]),
    "D4 a new epoch begins at 0": ([(0, 0, 1), (1, 1, 1), (1, 0, 1), (1, 1, 1)], ["+0", "45", "+1", "+2"]),
    "D4 a lower epoch is fenced": ([(3, 0, 1), (2, 0, 1), (2, 1, 1)], ["+0", "47", "47"]),
    "D4 no duplicates of an earlier epoch": ([(0, 0, 1), (1, 0, 1), (0, 0, 1), (1, 0, 1)], ["+0", "+1", "47", "=1"]),
    "D5 an unknown producer begins anywhere": ([(7, 123, 2), (7, 125, 1), (7, 123, 2)], ["+0", "+2", "=0"]),
}


@pytest.mark.parametrize("rule", RULES)
def test_the_rules(rule: str, tmp_path: Path) -> None:
    sent, expected = RULES[rule]

    def story(log: PartitionLog) -> None:
        said = [attempt(log, 9, first, count=count, epoch=epoch) for epoch, first, count in sent]
        assert said == expected
        assert log.log_end_offset == sum(
            count for (_, _, count), answer in zip(sent, said, strict=True) if answer[0] == "+"
        )

    run_on_log(tmp_path / "t-0", story)


def test_the_messages_say_what_was_expected(tmp_path: Path) -> None:
    def story(log: PartitionLog) -> None:
        send(log, 9, 0, epoch=2)
        with pytest.raises(OutOfOrderSequenceNumber, match="sent sequences 5 to 5; the last one here is 0"):
            send(log, 9, 5, epoch=2)
        with pytest.raises(OutOfOrderSequenceNumber, match="a new epoch begins at 0"):
            send(log, 9, 5, epoch=3)
        with pytest.raises(InvalidProducerEpoch, match="has epoch 2 here; epoch 1 is fenced"):
            send(log, 9, 1, epoch=1)

    run_on_log(tmp_path / "t-0", story)


def test_d2_a_duplicate_has_the_originals_offsets_and_timestamp(tmp_path: Path) -> None:
    def story(log: PartitionLog) -> None:
        send(log, 8, 0)
        first = send(log, 9, 0, count=3, timestamp_ms=NOW_MS)
        again = send(log, 9, 0, count=3, timestamp_ms=NOW_MS + 50)
        assert (first.is_duplicate, again.is_duplicate) == (False, True)
        assert (again.base_offset, again.last_offset) == (first.base_offset, first.last_offset) == (1, 3)
        assert again.log_append_time_ms == again.max_timestamp == NOW_MS + 2

    run_on_log(tmp_path / "t-0", story)


def test_two_batches_with_a_producer_in_one_record_set_are_refused(tmp_path: Path) -> None:
    def story(log: PartitionLog) -> None:
        two = b"".join(batch(producer_id=9, producer_epoch=0, base_sequence=n) for n in (0, 1))
        with pytest.raises(InvalidRecord, match="send one at a time"):
            log.append_as_leader(two, leader_epoch=0, now_ms=NOW_MS)
        assert log.log_end_offset == 0

    run_on_log(tmp_path / "t-0", story)


def test_key_of_other_records_is_refused(tmp_path: Path) -> None:
    def story(log: PartitionLog) -> None:
        for producer_id in (KEYED, 9):
            send(log, producer_id, 0, count=2)
        with pytest.raises(OutOfOrderSequenceNumber, match="offset 0 was written with this Idempotency-Key"):
            send(log, KEYED, 0, count=2, value=b"other")
        assert send(log, 9, 0, count=2, value=b"other").base_offset == 2
        assert send(log, KEYED, 0, count=2, timestamp_ms=NOW_MS + 9).base_offset == 0, "times of arrival differ"
        with pytest.raises(OutOfOrderSequenceNumber):
            send(log, KEYED, 0, count=3)
        assert log.log_end_offset == 4
        log.maybe_increment_log_start(2)
        assert send(log, KEYED, 0, count=2, value=b"other").is_duplicate, "the original is gone and cannot be asked"

    run_on_log(tmp_path / "t-0", story)


def test_records_are_compared_up_to_the_first_that_differs_and_no_further() -> None:
    """A hundred thousand others would keep their leader from its loop for a second."""
    original = build_batch([NewRecord(None, value, [], NOW_MS) for value in (b"a", b"b")])
    other = bytearray(build_batch([NewRecord(None, value, [], NOW_MS) for value in (b"x", b"b")]))
    other[-1:] = b"\x7f"  # says that its last record has 63 headers, of which none follows: decoding that one fails
    assert not holds_same_records(original, other)
    same_first = bytearray(original)
    same_first[-1:] = b"\x7f"
    with pytest.raises(CorruptRecordException):
        holds_same_records(original, same_first)


def test_each_kind_of_id_has_its_limit_and_the_longest_silent_goes_first(tmp_path: Path) -> None:
    limits = ProducerLimits(expiration_ms=DAY_MS, allocated_max=2, reserved_max=3, aborted_max=100)

    def story(log: PartitionLog) -> None:
        for n in range(5):
            send(log, KEYED + n, 0)
            send(log, 100 + n, 0)
            send(log, 100, n + 1) if n < 4 else None
        assert [producer_id for producer_id, _ in log.producers.states.items()] == [
            100,
            104,
            *(KEYED + n for n in (2, 3, 4)),
        ]
        assert attempt(log, KEYED + 4, 0) == "=12"
        assert attempt(log, KEYED, 0).startswith("+"), "forgotten: D5"

    run_on_log(tmp_path / "t-0", story, limits=limits)


def test_d5_silent_for_the_expiration_is_forgotten(tmp_path: Path) -> None:
    def story(log: PartitionLog) -> None:
        old = NOW_MS - 10 * DAY_MS
        send(log, 1, 0)
        send(log, 2, 0, timestamp_ms=old)
        assert log.producers.remove_expired(now_ms=NOW_MS + DAY_MS - 1) == 0, "old records, but just sent"
        assert log.producers.remove_expired(now_ms=NOW_MS + DAY_MS) == 2
        assert attempt(log, 1, 55) == "+2"

    run_on_log(tmp_path / "t-0", story)


def test_d6_a_follower_learns_without_judging_and_then_leads(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        leader, _ = load(environment, str(tmp_path / "t-0"))
        follower, _ = load(environment, str(tmp_path / "t-1"))
        for n in range(7):
            send(leader, 9, n * 2, count=2)
        follower.append_as_follower(leader.read(0, bytes_max=10_000, upper_bound=14).data, now_ms=NOW_MS)
        assert follower.producers.states.items() == leader.producers.states.items()
        assert [attempt(follower, 9, n * 2, count=2) for n in (1, 2, 6, 7)] == ["45", "=4", "=12", "+14"]
        gap = batch(producer_id=9, producer_epoch=0, base_sequence=99, base_offset=16, leader_epoch=1)
        assert follower.append_as_follower(gap, now_ms=NOW_MS) is not None
        for log in (leader, follower):
            await log.close()

    run(play)


def test_truncation_takes_producers_back(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path / "t-0"), settings=SMALL)
        for n in range(20):
            send(log, 9, n)
            send(log, KEYED + n, 0)
            await log.save_producers()
        log.truncate_to(23)
        assert [attempt(log, 9, n) for n in (8, 11)] == ["=16", "=22"]
        assert attempt(log, KEYED + 10, 0) == "=21"
        assert attempt(log, KEYED + 11, 0) == "+23", "what was cut off is appended again"
        assert attempt(log, 9, 12) == "+24"
        log.truncate_fully_and_start_at(5)
        assert len(log.producers) == 0
        assert not list((tmp_path / "t-0").glob("*.snapshot"))
        assert attempt(log, 9, 12) == "+5"
        await log.close()

    run(play)


@pytest.mark.parametrize("is_clean", [True, False])
def test_producers_are_there_again_after_a_start(is_clean: bool, tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        folder = str(tmp_path / "t-0")
        log, _ = load(environment, folder, settings=SMALL)
        for n in range(12):
            send(log, 9, n)
            send(log, KEYED + n, 0)
        if is_clean:
            await log.close()
        else:
            await log.flush()
            await log.abandon()
        again, loaded = load(
            environment, folder, settings=SMALL, is_clean=is_clean, recovery_point=24 if is_clean else 0
        )
        assert not loaded.repairs
        assert [attempt(again, KEYED + n, 0) for n in range(12)] == [f"={2 * n + 1}" for n in range(12)]
        # A snapshot keeps the last batch only, as Kafka's; a replay of the log finds five.
        assert attempt(again, 9, 11) == "=22"
        assert attempt(again, 9, 10) == ("45" if is_clean else "=20")
        assert attempt(again, 9, 12) == "+24"
        await again.close()

    run(play)


def test_a_damaged_snapshot_is_dropped_and_the_log_reports(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        folder = tmp_path / "t-0"
        log, _ = load(environment, str(folder), settings=SMALL)
        for n in range(24):
            send(log, KEYED + n, 0)
            await log.save_producers()
        await log.close()
        snapshots = sorted(folder.glob("*.snapshot"))
        assert len(snapshots) > 2
        for path, data in zip(snapshots[-2:], (b"", b"\0\1garbage garbage"), strict=True):
            path.write_bytes(data)
        again, loaded = load(environment, str(folder), settings=SMALL, is_clean=True, recovery_point=24)
        assert [repair.event for repair in loaded.repairs] == ["producer_snapshot_dropped"] * 2
        assert [attempt(again, KEYED + n, 0) for n in range(24)] == [f"={n}" for n in range(24)]
        await again.close()

    run(play)


def test_lost_snapshot_is_written_at_clean_shutdown(tmp_path: Path) -> None:
    """A log that was closed cleanly and has none would count as one without producers."""

    async def play(environment: Environment) -> None:
        folder = tmp_path / "t-0"
        log, _ = load(environment, str(folder))
        send(log, 9, 0)
        await log.close()
        again, _ = load(environment, str(folder), is_clean=True, recovery_point=1)
        again.producers.segments_dropped()  # now it knows its snapshots
        (folder / f"{1:020d}.snapshot").unlink()
        await again.close()
        third, _ = load(environment, str(folder), is_clean=True, recovery_point=1)
        assert attempt(third, 9, 0) == "=0"
        await third.close()

    run(play)


def test_snapshots_go_with_their_segments(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        folder = tmp_path / "t-0"
        log, _ = load(environment, str(folder), settings=SMALL.model_copy(update={"retention_bytes": 1500}))
        for n in range(40):
            send(log, KEYED + n, 0)
            await log.save_producers()
        assert log.delete_old_segments(high_watermark=40, now_ms=NOW_MS)[0] > 0
        bases = {path.stem for path in folder.glob("*.log")}
        assert {path.stem for path in folder.glob("*.snapshot")} <= bases
        assert attempt(log, KEYED, 0) == "=0", "a producer outlives its records"
        await log.close()
        again, _ = load(environment, str(folder), settings=SMALL, is_clean=True, log_start_offset=log.log_start_offset)
        assert attempt(again, KEYED, 0) == "=0"
        await again.close()

    run(play)


def test_a_snapshot_above_the_recovery_point_is_not_believed_after_a_crash(tmp_path: Path) -> None:
    """Power went after a truncation: the removal of a snapshot was lost, and other records stand there now."""

    async def play(environment: Environment) -> None:
        folder = tmp_path / "t-0"
        log, _ = load(environment, str(folder))
        send(log, 9, 0)
        send(log, 9, 1)
        stale = encode_snapshot([(77, log.producers.states.items()[0][1])])
        (folder / f"{1:020d}.snapshot").write_bytes(stale)
        await log.abandon()
        again, _ = load(environment, str(folder), recovery_point=0)
        assert [producer_id for producer_id, _ in again.producers.states.items()] == [9]
        await again.close()

    run(play)


def test_a_log_that_closes_waits_for_the_snapshot_that_is_being_written(tmp_path: Path) -> None:
    """Its folder may be loaded again or removed then. Also when the caller of the write was cancelled."""
    begun, released = threading.Event(), threading.Event()

    class SlowFiles(DiskFiles):
        def open(self, path: str, *, create: bool = False, read_only: bool = False) -> File:
            if path.endswith(TEMPORARY_SUFFIX):
                begun.set()
                assert released.wait(10)
            return super().open(path, create=create, read_only=read_only)

    async def play(environment: Environment) -> None:
        folder = tmp_path / "t-0"
        log, _ = load(environment, str(folder), settings=SMALL)
        for n in range(12):
            send(log, 9, n)
        saving = asyncio.create_task(log.save_producers())
        await asyncio.get_running_loop().run_in_executor(None, begun.wait, 10)
        saving.cancel()
        closing = asyncio.create_task(log.abandon())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not closing.done()
        released.set()
        await closing
        assert not list(folder.glob(f"*{TEMPORARY_SUFFIX}"))
        log.take_offline("planted")
        before = sorted(folder.iterdir())
        log.producers.rolled(12)
        with pytest.raises(KafkaStorageError, match="planted"):
            await log.save_producers()
        assert sorted(folder.iterdir()) == before

    run(play, files=SlowFiles())


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 40))])
def test_the_state_is_a_function_of_the_log(seed: int, tmp_path: Path) -> None:
    """Random appends, retries, truncations and starts: the state is what a replay of all headers gives, as far as
    snapshots keep it; nothing is ever appended twice."""
    rng = random.Random(seed)

    async def play(environment: Environment) -> None:
        folder = str(tmp_path / "t-0")
        log, _ = load(environment, folder, settings=SMALL)
        model: list[tuple[int, int, int]] = []
        for _ in range(80):
            log = await _step(environment, folder, log, rng, model)
            rows = [(h.producer_id, h.base_sequence, h.base_offset) for h in _headers(log)]
            assert rows == model
            known = dict(log.producers.states.items())
            assert {pid: (p.last_sequence, p.last_offset) for pid, p in known.items()} == _last_of(model)
        await log.close()

    run(play)


async def _step(
    environment: Environment, folder: str, log: PartitionLog, rng: random.Random, model: list[tuple[int, int, int]]
) -> PartitionLog:
    chance = rng.random()
    if chance < 0.06:
        cut = rng.randint(0, log.log_end_offset)
        log.truncate_to(cut)
        model[:] = [each for each in model if each[2] < cut]
    elif chance < 0.10:
        is_clean = rng.random() < 0.5
        await (log.close() if is_clean else log.abandon())
        point = log.log_end_offset if is_clean else rng.choice([0, log.flushed_offset])
        log, _ = load(environment, folder, settings=SMALL, is_clean=is_clean, recovery_point=point)
    elif chance < 0.2:
        await log.save_producers()
    elif chance < 0.25:
        await log.flush()
    else:
        _append_somehow(log, rng, model)
    return log


def _append_somehow(log: PartitionLog, rng: random.Random, model: list[tuple[int, int, int]]) -> None:
    producer_id = rng.choice([1, 2, KEYED + rng.randrange(30)])
    last = _last_of(model).get(producer_id)
    keyed = producer_id >= KEYED
    sequence = 0 if keyed else rng.choice([-1, 0]) + (0 if last is None else last[0] + 1)
    sequence = max(sequence, 0)
    answer = attempt(log, producer_id, sequence)
    if answer[0] == "+":
        assert last is None or sequence == last[0] + 1, (producer_id, sequence, last)
        model.append((producer_id, sequence, int(answer[1:])))
    elif last is not None and sequence == last[0]:
        assert answer == f"={last[1]}"


def _last_of(model: list[tuple[int, int, int]]) -> dict[int, tuple[int, int]]:
    return {producer_id: (sequence, offset) for producer_id, sequence, offset in model}


def _headers(log: PartitionLog) -> list[BatchHeader]:
    data, offset = b"", log.log_start_offset
    while offset < log.log_end_offset:
        found = log.read(offset, bytes_max=100_000, upper_bound=log.log_end_offset)
        data, offset = data + bytes(found.data), found.next_offset
    return [header for _, header in whole_batches(data)]


def test_a_snapshot_comes_back_as_it_was() -> None:
    rng = random.Random(3)
    states = ProducerStates()
    assert decode_snapshot(encode_snapshot(states.items())) == []
    whole = [
        (
            rng.getrandbits(63),
            Producer(epoch=rng.getrandbits(15), batches=(), timestamp=rng.getrandbits(40), seen_ms=-1),
        )
        for _ in range(20)
    ]
    data = encode_snapshot(whole)
    assert decode_snapshot(data) == whole
    for bad in (b"", data[:-1], data + b"x", b"\0\2" + data[2:], data[:50] + b"?" + data[51:]):
        with pytest.raises(CorruptSnapshot):
            decode_snapshot(bad)
