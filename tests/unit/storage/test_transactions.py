"""Transactions in a real log: what is open, stable and aborted, and what becomes of that when the log is truncated,
rolled, closed, killed, damaged or compacted."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from kraft.protocol.batches.header import BatchHeader, header_at, whole_batches
from kraft.protocol.batches.markers import Marker, build_marker, marker_of
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches
from kraft.protocol.errors import InvalidRecord, KafkaError
from kraft.system_clock import SystemClock
from metadata.environment import Environment
from metadata.image import TopicIdPartition
from metadata.settings import BrokerSettings, TopicSettings
from replication.partition.log import AbortedTransaction, Appended, EpochEnd
from replication.producers.origin import COORDINATOR, Origin
from replication.producers.state import ProducerLimits
from replication.storage.cleaner_copy import ActiveProducers
from replication.storage.cleaner_log import CleanLimits
from replication.storage.dump import dump_folder
from replication.storage.log_manager import LogManager
from replication.storage.partition_log import PartitionLog
from replication.storage.transaction_index import Found, TransactionIndex
from tests.unit.storage.world import LIMITS, NOW_MS, TOPIC_ID, RecordedEvents, load, run

SMALL = TopicSettings(segment_bytes=700, index_interval_bytes=150, file_delete_delay_ms=0)
NO_SEQUENCE = -1
UNVERIFIED = Origin(is_transactional=True)


def write(
    log: PartitionLog,
    producer_id: int,
    *keys: bytes,
    epoch: int = 0,
    sequence: int = NO_SEQUENCE,
    is_transactional: bool = True,
) -> Appended:
    data = build_batch(
        [NewRecord(key, b"of %d" % producer_id, [], NOW_MS) for key in keys or (b"key",)],
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=sequence,
        is_transactional=is_transactional,
    )
    return log.append_as_leader(data, leader_epoch=0, now_ms=NOW_MS, origin=COORDINATOR)


def end(
    log: PartitionLog, producer_id: int, *, commits: bool = True, epoch: int = 0, coordinator_epoch: int = 3
) -> Appended:
    marker = Marker(is_commit=commits, coordinator_epoch=coordinator_epoch)
    data = build_marker(marker, producer_id=producer_id, producer_epoch=epoch, timestamp_ms=NOW_MS)
    return log.append_as_leader(data, leader_epoch=0, now_ms=NOW_MS, origin=COORDINATOR)


def refusal(attempt: object) -> int:
    assert callable(attempt)
    with pytest.raises(KafkaError) as raised:
        attempt()
    return raised.value.code


def plain(log: PartitionLog, count: int = 1) -> None:
    records = [NewRecord(b"plain-%d" % number, b"v", [], NOW_MS) for number in range(count)]
    log.append_as_leader(build_batch(records), leader_epoch=0, now_ms=NOW_MS)


def aborted(log: PartitionLog, start: int = 0, stop: int | None = None) -> list[tuple[int, int, int]]:
    """Producer, first offset and marker of each."""
    found = log.aborted_transactions(start, log.log_end_offset if stop is None else stop)
    return [(each.producer_id, each.first_offset, each.last_offset) for each in found]


def files_of(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern))


def headers(log: PartitionLog) -> list[tuple[BatchHeader, bytes]]:
    data, offset = b"", log.log_start_offset
    while offset < log.log_end_offset:
        found = log.read(offset, bytes_max=100_000, upper_bound=log.log_end_offset)
        data, offset = data + bytes(found.data), found.next_offset
    return [(header, data[position : position + header.size]) for position, header in whole_batches(data)]


# --- what a leader takes ------------------------------------------------------------------------------------------


def test_a_marker_has_kafkas_bytes() -> None:
    batch = build_marker(
        Marker(is_commit=True, coordinator_epoch=7), producer_id=12, producer_epoch=3, timestamp_ms=NOW_MS
    )
    header = header_at(batch)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (12, 3, -1)
    assert (header.attributes, header.record_count) == (0x30, 1)
    (record,) = read_batches(batch, with_control=True, checks_crc=True)
    assert (record.key, record.value) == (b"\0\0\0\1", b"\0\0\0\0\0\7")
    assert marker_of(batch, header) == Marker(is_commit=True, coordinator_epoch=7)
    of_abort = build_marker(Marker(False, 7), producer_id=12, producer_epoch=3, timestamp_ms=NOW_MS)
    assert marker_of(of_abort, header_at(of_abort)) == Marker(is_commit=False, coordinator_epoch=7)


@pytest.mark.parametrize("codec", ["producer", "zstd"])
def test_transactional_batches_come_with_an_id_and_markers_from_coordinators(codec: str, tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path), settings=TopicSettings(compression_type=codec))
        record = NewRecord(b"k", b"v", [], NOW_MS)
        of_client = build_batch([record], producer_id=1, producer_epoch=0, base_sequence=0, is_transactional=True)
        marker = build_marker(Marker(True, 0), producer_id=1, producer_epoch=0, timestamp_ms=NOW_MS)
        for data, message in ((of_client, "transactional.id"), (marker, "coordinators only")):
            with pytest.raises(InvalidRecord, match=message):
                log.append_as_leader(data, leader_epoch=0, now_ms=NOW_MS)
        assert log.log_end_offset == 0
        write(log, 1)
        end(log, 1)
        ((_, _), (header, batch)) = headers(log)
        assert header.codec == 0
        assert marker_of(batch, header) == Marker(is_commit=True, coordinator_epoch=3)
        nobodys = build_batch([record], is_transactional=True)
        with pytest.raises(InvalidRecord, match="both are 0 or more"):
            log.append_as_leader(nobodys, leader_epoch=0, now_ms=NOW_MS, origin=COORDINATOR)
        await log.close()

    run(play)


def test_who_is_fenced_and_who_is_in_the_wrong_state_changes_nothing(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path))
        write(log, 1, epoch=2)
        assert refusal(lambda: write(log, 1, epoch=2, is_transactional=False)) == 48
        assert refusal(lambda: write(log, 1, epoch=1, is_transactional=False)) == 47, "the epoch is asked first"
        assert refusal(lambda: end(log, 1, epoch=1)) == 47
        end(log, 1, epoch=3, coordinator_epoch=5)
        assert refusal(lambda: write(log, 1, epoch=2)) == 47
        assert refusal(lambda: end(log, 1, epoch=3, coordinator_epoch=4)) == 52
        assert log.log_end_offset == 2
        end(log, 1, epoch=3, coordinator_epoch=5)  # a marker that is written again does no harm
        write(log, 1, epoch=3, sequence=0)
        assert log.last_stable_offset == 0
        await log.close()

    run(play)


def test_marker_has_current_leader_epoch(
    tmp_path: Path,
) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path))

        def append(data: bytes, leader_epoch: int) -> int:
            return log.append_as_leader(data, leader_epoch=leader_epoch, now_ms=NOW_MS, origin=COORDINATOR).base_offset

        def marker(producer_id: int, coordinator_epoch: int) -> bytes:
            word = Marker(is_commit=False, coordinator_epoch=coordinator_epoch)
            return build_marker(word, producer_id=producer_id, producer_epoch=0, timestamp_ms=NOW_MS)

        for producer_id in (1, 2):
            append(
                build_batch(
                    [NewRecord(b"key", b"value", [], NOW_MS)],
                    producer_id=producer_id,
                    producer_epoch=0,
                    base_sequence=0,
                    is_transactional=True,
                ),
                leader_epoch=2,
            )
        assert append(marker(1, 99), leader_epoch=2) == 2
        assert append(marker(2, 7), leader_epoch=5) == 3
        assert [header.leader_epoch for header, _ in headers(log)] == [2, 2, 2, 5]
        assert log.epoch_entries == ((2, 0), (5, 3))
        ends = {epoch: log.end_offset_for_epoch(epoch) for epoch in (2, 4, 5)}
        assert ends == {2: EpochEnd(2, 3), 4: EpochEnd(2, 3), 5: EpochEnd(5, 4)}
        log.truncate_to(3)
        assert log.epoch_entries == ((2, 0),)
        assert log.end_offset_for_epoch(2) == EpochEnd(2, 3), "a follower that lacks the other marker is cut here"
        await log.close()

    run(play)


def test_sequences_after_markers(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path))
        write(log, 1, b"a", b"b", sequence=0)
        end(log, 1)
        assert write(log, 1, b"a", b"b", sequence=0).is_duplicate
        assert refusal(lambda: write(log, 1, sequence=3)) == 45
        write(log, 1, sequence=2)
        end(log, 1, epoch=1)
        assert refusal(lambda: write(log, 1, epoch=1, sequence=3)) == 45
        write(log, 1, epoch=1, sequence=0)
        await log.close()

    run(play)


def test_as_many_transactions_are_open_as_producers_are_kept(tmp_path: Path) -> None:
    limits = ProducerLimits(expiration_ms=1_000, allocated_max=3, reserved_max=3, aborted_max=100)

    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path), limits=limits)
        for producer_id in (1, 2, 3):
            write(log, producer_id)
        assert refusal(lambda: write(log, 4)) == 89
        write(log, 3)  # goes on with its own
        write(log, 5, sequence=0, is_transactional=False)
        assert log.producers.remove_expired(now_ms=NOW_MS + 100_000) == 0
        assert [producer_id for producer_id, _ in log.producers.states.items()] == [1, 2, 3]
        end(log, 2)
        write(log, 4)
        assert [producer_id for producer_id, _ in log.producers.states.items()] == [1, 3, 4]
        await log.close()

    run(play)


# --- a client's first batch (KIP-890) --------------------------------------------------------------------------------


def verify(log: PartitionLog, producer_id: int, *, epoch: int = 0, sequence: int = 0, version: int = 1) -> Origin:
    """What a client's append comes from once the coordinator has said yes."""
    guard = log.producer_states.begin_verification(
        producer_id,
        epoch=epoch,
        sequence=sequence,
        raises_epoch=version >= 2,
        limits=LIMITS,
        now_ms=NOW_MS,
    )
    return Origin(is_transactional=True, verification=guard)


def of_client(
    log: PartitionLog, producer_id: int, sequence: int, origin: Origin = UNVERIFIED, *, epoch: int = 0
) -> Appended:
    data = build_batch(
        [NewRecord(b"key", b"value", [], NOW_MS)],
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=sequence,
        is_transactional=True,
    )
    return log.append_as_leader(data, leader_epoch=0, now_ms=NOW_MS, origin=origin)


def test_limit_of_aborted_transactions_of_a_log(tmp_path: Path) -> None:
    limits = ProducerLimits(expiration_ms=86_400_000, allocated_max=100, reserved_max=3, aborted_max=10)

    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path), settings=SMALL, limits=limits)
        for producer_id in range(9):
            of_client(log, producer_id, 0, verify(log, producer_id))
            end(log, producer_id, commits=False)
        of_client(log, 9, 0, verify(log, 9))
        end_offset = log.log_end_offset
        assert refusal(lambda: of_client(log, 10, 0, verify(log, 10))) == 89, "the open one may be aborted, too"
        assert log.log_end_offset == end_offset
        of_client(log, 9, 1)  # it goes on, and ends as it likes
        end(log, 9, commits=False)
        write(log, 11, sequence=0, is_transactional=False)
        for producer_id in range(12, 24):  # what coordinators write is compacted, and they have no answer to a refusal
            write(log, producer_id)
        for producer_id in range(12, 24):
            end(log, producer_id)
        await log.close()

        log, _ = load(environment, str(tmp_path), settings=SMALL, limits=limits, is_clean=True)
        assert refusal(lambda: of_client(log, 1, 1, verify(log, 1, sequence=1))) == 44
        second_segment = sorted(int(file.stem) for file in files_of(tmp_path, "*.log"))[1]
        assert log.maybe_increment_log_start(second_segment)
        log.delete_old_segments(high_watermark=log.log_end_offset, now_ms=NOW_MS)
        of_client(log, 1, 1, verify(log, 1, sequence=1))
        await log.close()

    run(play)


def test_a_clients_first_batch_is_verified_and_the_others_follow_it(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path))
        assert refusal(lambda: of_client(log, 1, 0)) == 48
        origin = verify(log, 1)
        assert refusal(lambda: of_client(log, 1, 0)) == 48, "somebody else asks"
        assert refusal(lambda: of_client(log, 2, 0, origin)) == 48
        of_client(log, 1, 0, origin)
        assert log.producer_states.verifications == 0
        assert verify(log, 1, sequence=1).verification is None, "it is open"
        of_client(log, 1, 1)
        assert of_client(log, 1, 0).is_duplicate
        assert refusal(lambda: of_client(log, 1, 3)) == 45
        await log.close()

    run(play)


def test_what_was_verified_before_a_marker_is_not_appended_after_it(tmp_path: Path) -> None:
    """The late batch of a transaction that has been aborted would hang, or belong to the next one (KIP-890)."""

    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path))
        first = verify(log, 1)
        end(log, 1, commits=False)
        assert refusal(lambda: of_client(log, 1, 0, first)) == 48
        second = verify(log, 1)
        assert refusal(lambda: of_client(log, 1, 0, first)) == 48
        of_client(log, 1, 0, second)
        end(log, 1, commits=False)
        assert refusal(lambda: of_client(log, 1, 1, second)) == 48
        assert of_client(log, 1, 0, second).is_duplicate, "it was written, and is aborted: nothing comes of it"
        assert log.log_end_offset == 3
        await log.close()

    run(play)


def test_a_transaction_does_not_begin_with_the_sequences_of_an_ended_one(tmp_path: Path) -> None:
    """librdkafka gives sequences that it has sent to the records of the next transaction, after an abort that took them
    out of its queue. They were acknowledged as repetitions, and lost."""

    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path))
        of_client(log, 1, 0, verify(log, 1))
        of_client(log, 1, 1)
        end(log, 1, commits=False)
        assert of_client(log, 1, 1).is_duplicate, "a late repetition, which nobody has asked about"
        again = verify(log, 1, sequence=1)
        assert refusal(lambda: of_client(log, 1, 1, again)) == 48
        assert refusal(lambda: of_client(log, 1, 2, again)) == 45, "behind the one that was refused"
        assert log.log_end_offset == 3
        of_client(log, 1, 0, verify(log, 1, epoch=1), epoch=1)
        assert of_client(log, 1, 0, epoch=1).is_duplicate
        await log.close()

    run(play)


def test_a_later_batch_does_not_overtake_the_one_that_asked_before_it(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path))
        first, second = verify(log, 1, sequence=0), verify(log, 1, sequence=1)
        assert refusal(lambda: of_client(log, 1, 1, second)) == 45
        of_client(log, 1, 0, first)
        of_client(log, 1, 1, second)
        newer = verify(log, 2, epoch=0, sequence=7)
        assert verify(log, 2, epoch=1, sequence=3) == newer, "a new epoch counts anew"
        assert refusal(lambda: of_client(log, 2, 4, newer, epoch=1)) == 45
        of_client(log, 2, 3, newer, epoch=1)  # D5: an unknown producer begins where it likes
        of_transactions_2 = verify(log, 3, sequence=5, version=2)
        assert refusal(lambda: of_client(log, 3, 5, of_transactions_2)) == 45, (
            "an epoch of each transaction begins at 0"
        )
        await log.close()

    run(play)


def test_an_older_epoch_is_refused_before_anything_else(tmp_path: Path) -> None:
    """47 lets a producer that timed out abort and go on; 48 would end it (KAFKA-19690)."""

    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path))
        origin = verify(log, 1)
        end(log, 1, epoch=1, commits=False)
        assert refusal(lambda: of_client(log, 1, 0, origin)) == 47
        assert refusal(lambda: verify(log, 1)) == 47
        await log.close()

    run(play)


def test_as_many_are_verified_as_transactions_may_be_open_and_none_for_ever(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path))
        origins = [verify(log, producer_id) for producer_id in range(LIMITS.allocated_max + 1)]
        assert log.producer_states.verifications == LIMITS.allocated_max
        assert refusal(lambda: of_client(log, 0, 0, origins[0])) == 48, "the longest waiting has gone"
        of_client(log, 1, 0, origins[1])
        log.producers.remove_expired(now_ms=NOW_MS + LIMITS.expiration_ms)
        assert log.producer_states.verifications == 0
        await log.close()

    run(play)


def test_a_marker_of_transaction_version_2_ends_only_what_has_an_older_epoch(tmp_path: Path) -> None:
    """KIP-1228; the same marker once more is harmless (KAFKA-19999)."""

    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path))

        def mark(epoch: int) -> Appended:
            data = build_marker(Marker(True, 3), producer_id=1, producer_epoch=epoch, timestamp_ms=NOW_MS)
            origin = Origin(is_coordinator=True, marker_version=2)
            return log.append_as_leader(data, leader_epoch=0, now_ms=NOW_MS, origin=origin)

        write(log, 1, epoch=4)
        assert refusal(lambda: mark(3)) == 47
        assert refusal(lambda: mark(4)) == 47
        mark(5)
        mark(5)
        write(log, 1, epoch=5)
        assert refusal(lambda: mark(5)) == 47, "late: the next transaction has begun"
        assert log.producer_states.open_transactions == 1
        await log.close()

    run(play)


def test_a_marker_fits_where_no_record_does(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path))
        write(log, 1)
        log.update_settings(TopicSettings(max_message_bytes=10))
        assert refusal(lambda: write(log, 1)) == 10
        end(log, 1)
        assert log.producer_states.open_transactions == 0
        await log.close()

    run(play)


def test_the_age_of_the_oldest_open_transaction_is_known_also_after_a_restart(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path))

        def begin(producer_id: int, now_ms: int) -> None:
            data = build_batch(
                [NewRecord(b"key", b"value", [], NOW_MS + producer_id)],
                producer_id=producer_id,
                producer_epoch=0,
                is_transactional=True,
            )
            log.append_as_leader(data, leader_epoch=0, now_ms=now_ms, origin=COORDINATOR)

        assert not log.producer_states.has_unstable
        for producer_id, now_ms in ((1, NOW_MS + 100), (2, NOW_MS + 200), (1, NOW_MS + 900)):
            begin(producer_id, now_ms)
        assert log.producer_states.open_since_ms == NOW_MS + 100
        log.truncate_to(2)
        assert log.producer_states.open_since_ms == NOW_MS + 100, "a truncation does not make it younger"
        end(log, 1)
        assert log.producer_states.open_since_ms == NOW_MS + 200
        await log.close()
        again, _ = load(environment, str(tmp_path))
        assert again.producer_states.open_since_ms == NOW_MS + 2, "what its batch says"
        end(again, 2)
        assert again.producer_states.open_since_ms is None
        await again.close()

    run(play)


# --- the last stable offset -----------------------------------------------------------------------------------------


def test_what_is_stable_ends_where_the_oldest_undecided_transaction_begins(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path))

        def stable(high_watermark: int) -> int:
            log.high_watermark = high_watermark
            return log.last_stable_offset

        plain(log, 2)
        write(log, 1)  # 2
        write(log, 2, b"a", b"b")  # 3
        plain(log)  # 5
        assert [stable(0), stable(2), stable(6)] == [0, 2, 2]
        end(log, 1)  # 6
        assert stable(6) == 2, "its marker is not below the high watermark"
        assert stable(7) == 3
        end(log, 2, commits=False)  # 7
        write(log, 1)  # 8
        assert stable(7) == 3
        assert stable(8) == 8
        assert stable(9) == 8
        end(log, 1)
        assert [stable(9), stable(10)] == [8, 10]
        await log.close()

    run(play)


def test_an_older_transaction_that_ends_later_bounds_for_longer(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path))
        write(log, 1)
        write(log, 2)
        end(log, 2)  # 2
        end(log, 1)  # 3
        write(log, 3)  # 4
        end(log, 3)  # 5
        for high_watermark, stable in ((2, 0), (3, 0), (4, 4), (5, 4), (6, 6)):
            log.high_watermark = high_watermark
            assert log.last_stable_offset == stable, high_watermark
        await log.close()

    run(play)


def test_last_stable_offset_with_later_log_start(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path))
        write(log, 1)
        plain(log, 4)
        log.high_watermark = 5
        log.maybe_increment_log_start(3)
        assert log.last_stable_offset == 3
        log.truncate_fully_and_start_at(9)
        log.high_watermark = 9
        plain(log)
        log.high_watermark = 10
        assert log.last_stable_offset == 10
        await log.close()

    run(play)


# --- against all that the headers say -------------------------------------------------------------------------------


@dataclass
class Told:
    """All transactions of a log, by a walk over its batches."""

    open: dict[int, int] = field(default_factory=dict)
    ended: list[tuple[int, int, int, bool]] = field(default_factory=list)
    """Producer, first offset, marker, aborted."""

    @classmethod
    def by(cls, log: PartitionLog) -> Told:
        reported = cls()
        for header, batch in headers(log):
            marker = marker_of(batch, header) if header.is_control else None
            if marker is not None and header.producer_id in reported.open:
                first = reported.open.pop(header.producer_id)
                reported.ended.append((header.producer_id, first, header.last_offset, not marker.is_commit))
            elif header.is_transactional and not header.is_control:
                reported.open.setdefault(header.producer_id, header.base_offset)
        return reported

    def aborted(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        found = [each[:3] for each in self.ended if each[3] and each[1] < stop and each[2] >= start]
        return sorted(found, key=lambda each: each[1])

    def stable(self, high_watermark: int) -> int:
        ended = [first for _, first, marker, _ in self.ended if marker >= high_watermark]
        return min([high_watermark, *self.open.values(), *ended])


@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 60))])
def test_open_stable_and_aborted_are_functions_of_the_log(seed: int, tmp_path: Path) -> None:
    """Random transactions, truncations, starts in order and after a kill: what the log says is what its batches say."""
    rng = random.Random(seed)

    async def play(environment: Environment) -> None:
        folder = str(tmp_path / "t-0")
        log, _ = load(environment, folder, settings=SMALL)
        for _ in range(90):
            log = await _step(environment, folder, log, rng)
            reported = Told.by(log)
            known = {pid: each.current_txn_first_offset for pid, each in log.producers.states.items()}
            assert {pid: first for pid, first in known.items() if first >= 0} == reported.open
            assert aborted(log) == reported.aborted(0, log.log_end_offset)
            start = rng.randint(0, log.log_end_offset)
            stop = rng.randint(start, log.log_end_offset)
            assert aborted(log, start, stop) == reported.aborted(start, stop)
            log.high_watermark = max(log.high_watermark, stop)
            # After a start it may have forgotten a transaction whose marker is not below the high watermark, as Kafka.
            assert reported.stable(log.high_watermark) <= log.last_stable_offset
            assert log.last_stable_offset <= min([log.high_watermark, *reported.open.values()])
        await log.close()

    run(play)


async def _step(environment: Environment, folder: str, log: PartitionLog, rng: random.Random) -> PartitionLog:
    chance = rng.random()
    if chance < 0.06:
        log.truncate_to(rng.randint(0, log.log_end_offset))
        log.high_watermark = 0
    elif chance < 0.11:
        is_clean = rng.random() < 0.5
        await (log.close() if is_clean else log.abandon())
        point = log.log_end_offset if is_clean else rng.choice([0, log.flushed_offset])
        log, _ = load(environment, folder, settings=SMALL, is_clean=is_clean, recovery_point=point)
    elif chance < 0.2:
        await log.save_producers()
    elif chance < 0.25:
        await log.flush()
    elif chance < 0.35:
        plain(log, rng.randint(1, 3))
    elif chance < 0.7:
        write(log, rng.randrange(5))
    else:
        end(log, rng.randrange(5), commits=rng.random() < 0.4)
    return log


def test_a_read_finds_what_was_aborted_in_segments_behind_it(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path), settings=SMALL)
        write(log, 1)
        write(log, 2)
        while log.segment_count < 4:
            plain(log, 3)
        end(log, 1, commits=False)
        end(log, 2, commits=True)
        marker = log.log_end_offset - 2
        assert aborted(log, 0, 1) == [(1, 0, marker)]
        assert aborted(log, 2, 3) == [(1, 0, marker)]
        assert aborted(log, marker + 1, marker + 2) == []
        (found,) = log.aborted_transactions(0, 1)
        assert found == AbortedTransaction(1, 0, marker, 1), "the other one was open from offset 1 on"
        (path,) = files_of(tmp_path, "*.txnindex")
        assert path.read_bytes() == b"\0\0" + b"".join(each.to_bytes(8, "big") for each in (1, 0, marker, 1))
        assert len(files_of(tmp_path, "*.txnindex")) == 1
        await log.close()

    run(play)


def test_a_read_asks_no_segment_behind_the_one_that_reports_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    overlapping = TransactionIndex.overlapping

    def noted(index: TransactionIndex, start: int, stop: int) -> Found:
        asked.append(index.path)
        return overlapping(index, start, stop)

    monkeypatch.setattr(TransactionIndex, "overlapping", noted)

    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path), settings=SMALL)
        while log.segment_count < 9:
            write(log, 1)
            end(log, 1, commits=False)
        for offset in (0, 2, 4):
            asked.clear()
            assert aborted(log, offset, offset + 1) == [(1, offset, offset + 1)]
            assert 1 <= len(asked) <= 2, asked
        await log.close()

    run(play)


def test_the_index_goes_with_its_segment_and_a_full_one_makes_a_roll(tmp_path: Path) -> None:
    settings = TopicSettings(
        segment_bytes=100_000, segment_index_bytes=12 * 10, retention_bytes=1, file_delete_delay_ms=0
    )

    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path), settings=settings)
        for turn in range(7):
            write(log, turn)
            end(log, turn, commits=False)
        assert [len(files_of(tmp_path, f"*{suffix}")) for suffix in (".log", ".txnindex")] == [3, 3]
        log.delete_old_segments(high_watermark=log.log_end_offset, now_ms=NOW_MS)
        await log.remove_deleted_files()
        assert log.log_start_offset == 12
        assert [path.name for path in files_of(tmp_path, "*.txnindex*")] == [f"{12:020}.txnindex"]
        assert aborted(log, 0) == [(6, 12, 13)]
        await log.close()

    run(play)


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_clean", [True, False])
@pytest.mark.parametrize("damage", ["cut", "version", "first", "order", "stable", "gone"])
def test_a_damaged_index_is_made_again_at_the_start(damage: str, is_clean: bool, tmp_path: Path) -> None:
    if damage == "gone" and is_clean:
        pytest.skip(
            "a segment without an index had nothing aborted: that is believed after an orderly stop, as in Kafka"
        )

    async def play(environment: Environment) -> None:
        folder = str(tmp_path)
        log, _ = load(environment, folder)
        write(log, 1)
        write(log, 2)
        end(log, 1, commits=False)
        end(log, 2, commits=False)
        reported = log.aborted_transactions(0, 9)
        assert len(reported) == 2
        await log.close()
        (path,) = files_of(tmp_path, "*.txnindex")
        data = bytearray(path.read_bytes())
        match damage:
            case "cut":
                del data[-3:]
            case "version":
                data[1] = 9
            case "first":
                data[10] = 0x7F  # behind its marker
            case "order":
                data = data[34:] + data[:34]
            case "stable":
                data[33] = 3  # the second one begins below it
        path.write_bytes(data)
        if damage == "gone":
            path.unlink()
        point = log.log_end_offset if is_clean else 0
        log, loaded = load(environment, folder, is_clean=is_clean, recovery_point=point)
        assert log.aborted_transactions(0, 9) == reported
        reasons = [str(each.fields["reason"]) for each in loaded.repairs if each.event == "producer_snapshot_dropped"]
        assert damage == "gone" or any(".txnindex" in reason for reason in reasons), reasons
        await log.close()

    run(play)


def test_an_index_that_was_written_and_not_its_batch_is_cut_after_a_kill(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path))
        write(log, 1)
        end(log, 1, commits=False)
        write(log, 2)
        await log.flush()
        end(log, 2, commits=False)
        await log.abandon()
        segment = tmp_path / f"{0:020}.log"
        with segment.open("r+b") as file:
            file.truncate(segment.stat().st_size - 5)
        log, _ = load(environment, str(tmp_path), recovery_point=log.flushed_offset)
        assert aborted(log) == [(1, 0, 1)]
        assert log.producers.states.open_transactions == 1
        await log.close()

    run(play)


# --- compaction ------------------------------------------------------------------------------------------------------

COMPACTED = TopicSettings(
    cleanup_policy="compact",
    segment_bytes=400,
    index_interval_bytes=100,
    min_cleanable_dirty_ratio=0.0,
    delete_retention_ms=1_000,
    file_delete_delay_ms=0,
)


async def clean(log: PartitionLog, *, remembers: bool = True) -> None:
    log.high_watermark = log.log_end_offset
    states = log.producers.states
    active = ActiveProducers(last_offsets=states.last_offsets(), marked_epochs=states.last_epochs())
    plan = log.cleaning.plan(
        log_start_offset=0, last_stable_offset=log.last_stable_offset, now_ms=NOW_MS, settings=log.settings
    )
    await log.cleaning.run(
        plan,
        settings=log.settings,
        limits=CleanLimits(map_bytes_max=1 << 20),
        active=active if remembers else ActiveProducers(),
    )


def committed(log: PartitionLog) -> dict[bytes, tuple[int, bytes]]:
    """As a read_committed consumer ends up with it: key -> offset and value."""
    reported = [
        (each.producer_id, each.first_offset, each.last_offset) for each in log.aborted_transactions(0, 1 << 40)
    ]
    state: dict[bytes, tuple[int, bytes]] = {}
    for header, batch in headers(log):
        is_out = any(pid == header.producer_id and first <= header.base_offset < last for pid, first, last in reported)
        if not header.is_control and not is_out:
            for record in read_batches(batch):
                assert record.key is not None
                assert record.value is not None
                state[record.key] = record.offset, record.value
    return state


def test_what_was_aborted_shadows_nothing_and_goes(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path), settings=COMPACTED)
        write(log, 1, b"a", b"b")
        end(log, 1)
        write(log, 2, b"a")
        end(log, 2, commits=False)
        write(log, 2, b"b")
        end(log, 2)
        for _ in range(12):
            plain(log)
        before = committed(log)
        assert before[b"a"] == (0, b"of 1")
        assert before[b"b"] == (5, b"of 2")
        await clean(log, remembers=False)
        assert committed(log) == before
        keys = [record.key for _, batch in headers(log) for record in read_batches(batch)]
        assert keys.count(b"a") == 1
        assert keys.count(b"b") == 1
        await log.close()

    run(play)


def test_nothing_undecided_is_compacted(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path), settings=COMPACTED)
        write(log, 1, b"a")
        end(log, 1)
        write(log, 2, b"a")
        while log.segment_count < 4:
            plain(log)
        before = len(headers(log))
        await clean(log, remembers=False)
        assert len(headers(log)) == before
        end(log, 2, commits=False)
        while log.segment_count < 8:
            plain(log)
        await clean(log, remembers=False)
        assert len(headers(log)) < before
        assert committed(log)[b"a"] == (0, b"of 1")
        await log.close()

    run(play)


def test_the_cleaner_keeps_to_the_last_stable_offset(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        manager = LogManager(
            environment,
            directories=[str(tmp_path)],
            cluster_id="c",
            node_id=1,
            settings=BrokerSettings,
            events=RecordedEvents(),
        )
        await manager.start()
        log = manager.get_or_create(topic="t", topic_id=TOPIC_ID, partition=0, settings=COMPACTED)
        for _ in range(12):
            plain(log)
        write(log, 1)
        begun = log.log_end_offset - 1
        for _ in range(12):
            plain(log)
        await manager.checkpoint_high_watermarks({TopicIdPartition(TOPIC_ID, 0): log.log_end_offset})
        await manager.background_tasks.cleaner.clean_all()
        assert 0 < log.cleaning.cleaned_to <= begun
        end(log, 1)
        for _ in range(12):
            plain(log)
        await manager.checkpoint_high_watermarks({TopicIdPartition(TOPIC_ID, 0): log.log_end_offset})
        await manager.background_tasks.cleaner.clean_all()
        assert log.cleaning.cleaned_to > begun
        await manager.stop()

    run(play)


@pytest.mark.parametrize("commits", [True, False])
def test_a_marker_goes_when_nothing_needs_it_any_more(commits: bool, tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path), settings=COMPACTED)

        def markers() -> int:
            return sum(header.is_control and header.record_count > 0 for header, _ in headers(log))

        async def next_pass(*, remembers: bool = False) -> int:
            segments = log.segment_count
            while log.segment_count < segments + 2:
                plain(log)
            await clean(log, remembers=remembers)
            return markers()

        write(log, 1, b"plain-0")
        end(log, 1, commits=commits, epoch=1)
        assert await next_pass() == 1, "batches of its transaction came by in this pass"
        assert await next_pass() == 1, "it has a delete horizon now"
        log.cleaning._environment = _an_hour_later(environment)
        assert await next_pass(remembers=True) == 1, "it is all that tells the producer's epoch"
        assert await next_pass() == 0
        assert aborted(log) == []
        await log.close()

    run(play)


def _an_hour_later(environment: Environment) -> Environment:
    class Clock(SystemClock):
        def wall_ms(self) -> int:
            return environment.clock.wall_ms() + 3_600_000

    return replace(environment, clock=Clock(asyncio.get_running_loop()))


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 40))])
def test_compaction_never_changes_what_is_committed(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)

    async def play(environment: Environment) -> None:
        folder = str(tmp_path)
        log, _ = load(environment, folder, settings=COMPACTED)
        for turn in range(60):
            producer_id = rng.randrange(4)
            match rng.randrange(6):
                case 0 | 1:
                    end(log, producer_id, commits=rng.random() < 0.5)
                case 2:
                    plain(log)
                case _:
                    write(log, producer_id, *{b"k%d" % rng.randrange(5) for _ in range(2)})
            if turn % 9 == 8:
                before, open_before = committed(log), log.producers.states.open_transactions
                await clean(log, remembers=rng.random() < 0.5)
                assert committed(log) == before
                await (log.close() if rng.random() < 0.5 else log.abandon())
                for path in files_of(tmp_path, "*.snapshot"):
                    path.unlink()
                log, _ = load(environment, folder, settings=COMPACTED)
                assert committed(log) == before
                assert log.producers.states.open_transactions == open_before
        await log.close()

    run(play)


# --- for people ------------------------------------------------------------------------------------------------------


def test_a_dump_shows_markers_open_transactions_and_what_was_aborted(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path))
        write(log, 1)
        write(log, 2)
        end(log, 1, commits=False)
        end(log, 3, commits=True, coordinator_epoch=8)
        await log.close()
        rows = list(dump_folder(environment.files, str(tmp_path)))
        assert not [row for row in rows if row["kind"] == "error"]
        assert [(r["marker"], r["coordinator_epoch"]) for r in rows if r.get("is_control")] == [
            ("ABORT", 3),
            ("COMMIT", 8),
        ]
        (entry,) = [row for row in rows if row["kind"] == "aborted_transaction"]
        assert entry | {"file": ""} == {
            "kind": "aborted_transaction",
            "file": "",
            "producer_id": 1,
            "first_offset": 0,
            "last_offset": 2,
            "last_stable_offset": 1,
        }
        opened = {row["producer_id"]: row["open_transaction"] for row in rows if row["kind"] == "producer"}
        assert opened == {1: -1, 2: 1, 3: -1}
        (path,) = files_of(tmp_path, "*.txnindex")
        path.write_bytes(path.read_bytes()[:-1])
        errors = [row for row in dump_folder(environment.files, str(tmp_path)) if row["kind"] == "error"]
        assert [str(row["file"]).endswith(".txnindex") for row in errors] == [True]

    run(play)
