"""Reads that are kept for the next receive, while there is room."""

from __future__ import annotations

from kraft.coordinators.shares.kept_reads import KeptReads, Read
from kraft.protocol.batches.header import whole_batches
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches


def read_of(*sizes: int, base_offset: int = 0) -> Read:
    batches = []
    for size in sizes:
        batches.append(build_batch([NewRecord(None, b"v", [], 1)] * size, base_offset=base_offset))
        base_offset += size
    data = b"".join(batches)
    return Read(data, [(position, header, True) for position, header in whole_batches(data)])


def offsets(data: object) -> list[int]:
    return [each.offset for each in read_batches(memoryview(data), checks_crc=True)]  # type: ignore[arg-type]


def test_records_are_cut_where_batches_are_not_whole():
    read = read_of(3, 4, 5)
    assert offsets(read.cut(2, 8)) == [2, 3, 4, 5, 6, 7, 8]
    assert offsets(read.cut(4, 5)) == [4, 5]
    assert offsets(read.cut(3, 6)) == [3, 4, 5, 6]
    assert offsets(read.whole(4, 8)) == list(range(3, 12))
    assert [header.base_offset for _, header, _ in read.since(6)] == [3, 7]


def test_one_read_of_each_is_kept_and_found_by_its_offsets():
    kept, read = KeptReads(), read_of(3, base_offset=10)
    kept.keep("a", read_of(3))
    kept.keep("a", read)
    assert kept.of("a", 12) is read
    assert kept.of("a", 9) is kept.of("a", 13) is kept.of("b", 12) is None
    kept.drop("a")
    assert kept.of("a", 12) is None


def test_what_was_used_the_longest_time_ago_makes_room():
    one = read_of(3)
    kept = KeptReads(bytes_max=2 * one.size)
    for key in ("a", "b"):
        kept.keep(key, read_of(3))
    assert kept.of("a", 0) is not None
    kept.keep("c", one)
    assert [kept.of(key, 0) is not None for key in ("a", "b", "c")] == [True, False, True]
    kept.keep("a", read_of(30))
    assert kept.of("a", 0) is None, "it is larger than all that may be kept"
    assert kept.of("c", 0) is one
