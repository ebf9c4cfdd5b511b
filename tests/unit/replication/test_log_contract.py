"""What replication expects of a log, asked of the one on disk and of the one in memory that the harness uses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kraft.protocol.errors import CorruptMessage, OffsetOutOfRange
from metadata.settings import TopicSettings
from replication.partition.log import EpochEnd, ReplicaLog
from tests.unit.replication.harness import memory_log
from tests.unit.storage.world import NOW_MS, TOPIC_ID, idle_environment, load
from tests.unit.storage.world import batch as disk_batch

Make = Callable[[TopicSettings], ReplicaLog]


class Subject:
    def __init__(self, make: Make, data: Callable[[bytes], bytes]) -> None:
        self.make, self.data = make, data

    def log(self, **settings: int) -> ReplicaLog:
        return self.make(TopicSettings(**settings))

    def append(self, log: ReplicaLog, *payloads: bytes, epoch: int = 0) -> None:
        for payload in payloads:
            log.append_as_leader(self.data(payload), leader_epoch=epoch, now_ms=NOW_MS)


@pytest.fixture(params=["memory", "disk"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    if request.param == "memory":
        yield Subject(lambda settings: memory_log.MemoryLog(TOPIC_ID, settings), memory_log.batch)
        return
    with idle_environment() as environment:
        made = 0

        def make(settings: TopicSettings) -> ReplicaLog:
            nonlocal made
            made += 1
            folder = str(tmp_path / f"t-{made}")
            environment.files.make_directories(folder)
            return load(environment, folder, settings=settings)[0]

        yield Subject(make, lambda payload: disk_batch(value=payload))


def test_a_follower_takes_the_leaders_bytes_and_epochs_as_they_are(subject: Subject) -> None:
    leader, follower = subject.log(), subject.log()
    leader.assign_epoch_start(3, 0)
    subject.append(leader, b"a", b"b", epoch=3)
    subject.append(leader, b"c", epoch=4)
    data = leader.read(0, bytes_max=10_000, upper_bound=3).data
    appended = follower.append_as_follower(data, now_ms=NOW_MS)
    assert appended is not None
    assert (appended.base_offset, appended.last_offset) == (0, 2)
    assert follower.read(0, bytes_max=10_000, upper_bound=3).data == data
    assert follower.end_offset_for_epoch(3) == leader.end_offset_for_epoch(3) == EpochEnd(3, 2)


def test_a_step_back_is_corrupt_and_a_partial_batch_is_ignored(subject: Subject) -> None:
    leader, follower = subject.log(), subject.log()
    subject.append(leader, b"a", b"b")
    first = leader.read(0, bytes_max=1, upper_bound=2).data
    assert follower.append_as_follower(first[:-1], now_ms=NOW_MS) is None
    assert follower.log_end_offset == 0
    follower.append_as_follower(first, now_ms=NOW_MS)
    with pytest.raises(CorruptMessage):
        follower.append_as_follower(first, now_ms=NOW_MS)
    assert follower.log_end_offset == 1


def test_a_gap_that_compaction_left_is_followed(subject: Subject) -> None:
    leader, follower = subject.log(), subject.log()
    subject.append(leader, b"a", b"b")
    second = leader.read(1, bytes_max=10_000, upper_bound=2).data
    follower.append_as_follower(second, now_ms=NOW_MS)
    assert follower.log_end_offset == 2
    assert follower.read(0, bytes_max=10_000, upper_bound=2).data == second


def test_reads_stay_below_the_bound_and_give_one_batch_at_least(subject: Subject) -> None:
    log = subject.log()
    subject.append(log, b"a", b"b", b"c")
    assert log.read(0, bytes_max=10_000, upper_bound=2).next_offset == 2
    assert log.read(0, bytes_max=1, upper_bound=3).next_offset == 1
    assert log.read(0, bytes_max=1, upper_bound=3, at_least_one_batch=False).data == b""
    assert log.read(3, bytes_max=100, upper_bound=3).data == b""
    with pytest.raises(OffsetOutOfRange):
        log.read(4, bytes_max=100, upper_bound=4)


def test_r3_the_end_of_an_epoch(subject: Subject) -> None:
    log = subject.log()
    assert log.end_offset_for_epoch(0) is None
    subject.append(log, b"a", epoch=2)
    subject.append(log, b"b", epoch=5)
    asked = {epoch: log.end_offset_for_epoch(epoch) for epoch in (1, 2, 3, 5, 6)}
    assert asked == {1: EpochEnd(1, 0), 2: EpochEnd(2, 1), 3: EpochEnd(2, 1), 5: EpochEnd(5, 2), 6: None}


def test_l9_an_epoch_without_records_is_known_until_a_truncation_at_the_end(subject: Subject) -> None:
    log = subject.log()
    subject.append(log, b"a", epoch=1)
    log.assign_epoch_start(2, 1)
    log.assign_epoch_start(2, 1)
    assert (log.latest_epoch, log.end_offset_for_epoch(1)) == (2, EpochEnd(1, 1))
    log.truncate_to(1)
    assert (log.latest_epoch, log.log_end_offset) == (1, 1)


def test_r8_truncation_takes_the_epochs_along(subject: Subject) -> None:
    log = subject.log()
    subject.append(log, b"a", b"b", epoch=1)
    subject.append(log, b"c", epoch=2)
    log.truncate_to(1)
    assert (log.log_end_offset, log.latest_epoch) == (1, 1)
    subject.append(log, b"d", epoch=3)
    assert log.end_offset_for_epoch(1) == EpochEnd(1, 1)
    log.truncate_fully_and_start_at(7)
    assert (log.log_start_offset, log.log_end_offset, log.latest_epoch) == (7, 7, -1)


def test_s4_the_log_start_only_rises(subject: Subject) -> None:
    log = subject.log()
    subject.append(log, b"a", b"b", b"c")
    assert log.maybe_increment_log_start(2)
    assert not log.maybe_increment_log_start(1)
    assert log.log_start_offset == 2
    with pytest.raises(OffsetOutOfRange):
        log.read(1, bytes_max=100, upper_bound=3)


def test_flush_messages_1_asks_after_each_append(subject: Subject) -> None:
    log = subject.log(flush_messages=1)
    assert not log.needs_flush()
    subject.append(log, b"a")
    assert log.needs_flush()
    assert log.flushed_offset == 0
    log.truncate_to(0)
    assert log.flushed_offset == 0
    assert asyncio.iscoroutinefunction(log.flush)


def test_an_empty_log_takes_the_batch_in_which_its_start_lies(tmp_path: Path) -> None:
    """DeleteRecords may end within a batch. A follower without a record fetches from there, and gets that batch whole,
    as Kafka's does (Partition.appendRecordsToFollowerOrFutureReplica)."""
    with idle_environment() as environment:
        logs = []
        for name in ("leader", "follower"):
            environment.files.make_directories(str(tmp_path / name))
            logs.append(load(environment, str(tmp_path / name), settings=TopicSettings())[0])
        leader, follower = logs
        for _ in range(2):
            leader.append_as_leader(disk_batch(4), leader_epoch=2, now_ms=NOW_MS)
        leader.maybe_increment_log_start(6)
        follower.truncate_fully_and_start_at(6)
        data = leader.read(6, bytes_max=10_000, upper_bound=8).data
        damaged = bytearray(data)
        damaged[-1] ^= 1
        with pytest.raises(CorruptMessage):
            follower.append_as_follower(damaged, now_ms=NOW_MS)
        assert (follower.log_start_offset, follower.log_end_offset) == (6, 6)
        follower.append_as_follower(data, now_ms=NOW_MS)
        assert (follower.log_start_offset, follower.log_end_offset) == (4, 8)
        assert follower.maybe_increment_log_start(6)
        assert follower.read(6, bytes_max=10_000, upper_bound=8).data == data
        assert follower.epoch_entries == leader.epoch_entries == ((2, 6),)
        with pytest.raises(CorruptMessage):
            follower.append_as_follower(data, now_ms=NOW_MS)
