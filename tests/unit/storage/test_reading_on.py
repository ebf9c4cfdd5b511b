"""Who reads on where an earlier read has ended: one read of the file, without a search."""

from __future__ import annotations

from pathlib import Path

import pytest

from replication.storage import append_cache
from replication.storage.partition_log import PartitionLog
from tests.unit.storage.world import NOW_MS, batch, idle_environment, load

BATCHES = 400
READ_BYTES = 2_000


@pytest.fixture(autouse=True)
def _nothing_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(append_cache.RecentAppends.__init__, "__kwdefaults__", {"bytes_max": 0})
    monkeypatch.setattr(append_cache, "MARKS_MAX", 1)


def filled(log: PartitionLog, *, value: bytes = b"value") -> int:
    for _ in range(BATCHES):
        log.append_as_leader(batch(2, value=value), leader_epoch=1, now_ms=NOW_MS)
    return log.log_end_offset


def read_all(log: PartitionLog, offset: int = 0, *, upper_bound: int | None = None) -> bytes:
    data = b""
    bound = log.log_end_offset if upper_bound is None else upper_bound
    while offset < bound:
        found = log.read(offset, bytes_max=READ_BYTES, upper_bound=bound)
        data += found.data
        if found.next_offset == offset:
            break
        offset = found.next_offset
    return data


def count_reads(log: PartitionLog, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    sizes: list[int] = []
    file = log._segments.active.log
    real = type(file).pread

    def counted(self: object, offset: int, size: int) -> bytes:
        if self is file:
            sizes.append(size)
        return real(file, offset, size)

    monkeypatch.setattr(type(file), "pread", counted)
    return sizes


def test_each_read_after_the_first_asks_the_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with idle_environment() as environment:
        log, _ = load(environment, str(tmp_path))
        end = filled(log)
        sizes = count_reads(log, monkeypatch)
        offset, reads = log.read(0, bytes_max=READ_BYTES, upper_bound=end).next_offset, 0
        sizes.clear()
        while offset < end:
            offset, reads = log.read(offset, bytes_max=READ_BYTES, upper_bound=end).next_offset, reads + 1
        assert reads > 10
        assert sizes == [READ_BYTES] * reads


def test_what_stands_there_after_a_cut_is_found(tmp_path: Path) -> None:
    with idle_environment() as environment:
        log, _ = load(environment, str(tmp_path))
        filled(log)
        read_all(log)
        log.truncate_to(10)
        filled(log, value=b"another value")
        data = read_all(log)
        assert data == Path(log._segments.active.log.path).read_bytes()
        for offset in range(0, log.log_end_offset, 2):
            assert read_all(log, offset) == data[-len(read_all(log, offset)) :]


def test_a_reader_that_may_not_read_all_goes_on_at_its_bound(tmp_path: Path) -> None:
    with idle_environment() as environment:
        log, _ = load(environment, str(tmp_path))
        end = filled(log)
        first = read_all(log, upper_bound=31)  # in the middle of a batch
        assert first + read_all(log, 30) == read_all(log)
        assert log.read(30, bytes_max=READ_BYTES, upper_bound=31).data == b""
        assert log.read(30, bytes_max=10, upper_bound=end).next_offset == 32
        assert log.read(30, bytes_max=10, upper_bound=end, at_least_one_batch=False).data == b""


def test_reading_on_goes_from_segment_to_segment(tmp_path: Path) -> None:
    with idle_environment() as environment:
        log, _ = load(environment, str(tmp_path))
        filled(log)
        log._roll(NOW_MS, was_empty=False)
        filled(log)
        read_all(log)
        segments = [Path(segment.log.path).read_bytes() for segment in log._segments]
        assert len(segments) == 2
        assert read_all(log) == b"".join(segments)


def test_many_readers_keep_few_places(tmp_path: Path) -> None:
    with idle_environment() as environment:
        log, _ = load(environment, str(tmp_path))
        end = filled(log)
        for offset in range(0, end - 20, 2):
            log.read(offset, bytes_max=READ_BYTES, upper_bound=offset + 10)
        assert log._reader._ends is not None
        assert len(log._reader._ends) <= 32
