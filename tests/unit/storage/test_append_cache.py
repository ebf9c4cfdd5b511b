"""What a log keeps of its end in memory: the same bytes as the file, within one budget for all logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from kraft.protocol.errors import CorruptMessage
from replication.storage.append_cache import RecentAppends, Tail
from replication.storage.partition_log import PartitionLog
from tests.unit.storage.world import NOW_MS, batch, idle_environment, load


def read(tail: Tail, offset: int, *, bytes_max: int = 100, bound: int = 1_000) -> tuple[bytes, int] | None:
    found = tail.read(offset, bytes_max=bytes_max, bound=bound)
    return None if found is None else (bytes(found.data), found.next_offset)


def tail_of(recent: RecentAppends, *datas: bytes) -> Tail:
    tail = Tail(recent, end_offset=0, position=0)
    for number, data in enumerate(datas):
        tail.keep(data, base_offset=10 * number, next_offset=10 * number + 10)
    return tail


def test_appends_that_follow_each_other_are_read_together_as_far_as_they_fit() -> None:
    tail = tail_of(RecentAppends(), b"aaa", b"bbb", b"ccc")
    assert read(tail, 0) == (b"aaabbbccc", 30)
    assert read(tail, 10, bytes_max=5) == (b"bbb", 20)
    assert read(tail, 0, bound=20) == (b"aaabbb", 20)


def test_append_cache_misses() -> None:
    tail = tail_of(RecentAppends(), b"aaa")
    assert read(tail, 5) is None
    assert read(tail, 0, bytes_max=2) is None
    assert read(tail, 0, bound=9) is None


def test_the_oldest_append_of_any_log_makes_room() -> None:
    recent = RecentAppends(bytes_max=7)
    first, second = tail_of(recent, b"aaa"), tail_of(recent, b"bbb")
    assert recent.size_bytes == 6
    second.keep(b"cc", base_offset=10, next_offset=20)
    assert recent.size_bytes == 5
    assert read(first, 0) is None
    assert read(second, 0) == (b"bbbcc", 20)


def test_a_reset_tail_gives_its_bytes_back() -> None:
    recent = RecentAppends()
    first, second = tail_of(recent, b"aaa", b"bbb"), tail_of(recent, b"cc")
    first.reset(end_offset=0, position=0)
    assert recent.size_bytes == 2
    assert read(first, 0) is None
    assert read(second, 0) == (b"cc", 10)


def all_bytes(log: PartitionLog) -> bytes:
    offset, found = 0, b""
    while offset < log.log_end_offset:
        answer = log.read(offset, bytes_max=1, upper_bound=log.log_end_offset)
        found, offset = found + bytes(answer.data), answer.next_offset
    return found


def test_memory_and_file_hold_the_same_bytes_whatever_their_owner_was(tmp_path: Path) -> None:
    mine = batch(3)
    with idle_environment() as environment:
        log, _ = load(environment, str(tmp_path))
        log.append_as_leader(mine, leader_epoch=4, now_ms=NOW_MS)
        log.append_as_leader(bytearray(mine), leader_epoch=5, now_ms=NOW_MS)
        assert mine == batch(3), "bytes of a caller were changed"
        from_memory = bytes(log.read(0, bytes_max=10_000, upper_bound=6).data)
        assert from_memory == all_bytes(log) == (tmp_path / "00000000000000000000.log").read_bytes()
        assert log.read(3, bytes_max=10_000, upper_bound=6).next_offset == 6


def test_nothing_that_was_cut_is_read_again(tmp_path: Path) -> None:
    with idle_environment() as environment:
        log, _ = load(environment, str(tmp_path))
        for value in (b"one", b"two"):
            log.append_as_leader(batch(1, value=value), leader_epoch=1, now_ms=NOW_MS)
        log.truncate_to(1)
        log.append_as_leader(batch(1, value=b"other"), leader_epoch=2, now_ms=NOW_MS)
        found = bytes(log.read(1, bytes_max=10_000, upper_bound=2).data)
        assert b"other" in found
        assert b"two" not in found


def test_a_refused_batch_is_not_kept(tmp_path: Path) -> None:
    broken = bytearray(batch(1))
    broken[-1] ^= 1
    with idle_environment() as environment:
        log, _ = load(environment, str(tmp_path))
        with pytest.raises(CorruptMessage):
            log.append_as_leader(broken, leader_epoch=1, now_ms=NOW_MS)
        assert not len(log.read(0, bytes_max=10_000, upper_bound=1).data)
