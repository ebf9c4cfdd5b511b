"""Reads of one partition's log: whole batches from an offset, lookups by timestamp, aborted transactions.

A read is served from the tail in memory, by one read of the file, or by a search. A sequential reader needs one search:
the end of each read is remembered. Nothing here changes the log. `replication.manager.partition_reader` adds the rules
of a fetch (epochs, bounds, progress of a follower).

Invariant: bytes of a file are returned only if they are the bytes that were appended (CRC, magic, offsets in sequence,
the leader epochs of the log). Damage is reported to the availability of the log.
Source: org.apache.kafka.storage.internals.log.LocalLog.read, UnifiedLog.fetchOffsetByTimestamp and
collectAbortedTransactions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

from kraft.protocol.batches.batch_check import DamagedBatch, check_batches
from kraft.protocol.batches.batch_lookup import Looking
from kraft.protocol.batches.header import HEADER_BYTES, NO_TIMESTAMP, end_within, extent_at
from kraft.protocol.batches.records import first_record_at_or_after, latest_record
from kraft.protocol.errors import KafkaError
from kraft.protocol.primitives import Buffer
from kraft.values import value
from replication.partition.log import AbortedTransaction, LogRead, TimestampedOffset
from replication.storage.append_cache import Tail
from replication.storage.availability import Availability
from replication.storage.header_scan import DamagedLog, headers_from, whole_batch
from replication.storage.indexes import CorruptIndex
from replication.storage.leader_epochs import LeaderEpochCache
from replication.storage.segment import Segment
from replication.storage.segments import Segments

T = TypeVar("T")


ENDS_MAX = 32
"""Remembered ends of reads in one log: so many sequential readers continue without a search."""


class LogReader:
    def __init__(
        self, segments: Segments, tail: Tail, epochs: LeaderEpochCache, availability: Availability[Any]
    ) -> None:
        self._segments = segments
        self._tail = tail
        self._epochs = epochs
        self._availability = availability
        self._ends: dict[int, tuple[Segment, int]] | None = None
        """Offset -> segment and position at which a read ended whose reader may continue there."""

    def forget_ends(self) -> None:
        """Forget all ends after a truncation: other batches may be written at these positions."""
        self._ends = None

    def read(self, offset: int, *, bytes_max: int, upper_bound: int, log_end: int, at_least_one_batch: bool) -> LogRead:
        """Read from memory, by one read of the file, or by a search; the caller has checked that the log is usable.
        Raises CorruptMessage or KafkaStorageError."""
        found = self._tail.read(offset, bytes_max=bytes_max, bound=upper_bound)
        if found is not None:
            return found
        try:
            start, size = self._tail.extent(offset, upper_bound)
            if start is not None and 0 < size <= bytes_max:
                return self._read_piece(start, size, offset=offset, upper_bound=upper_bound, log_end=log_end)
            wanted = _Wanted(
                offset=offset,
                bytes_max=bytes_max,
                upper_bound=upper_bound,
                log_end=log_end,
                at_least_one_batch=at_least_one_batch,
                epoch_of=self._epochs.epoch_of,
                on_bad_index=self._availability.met_damage,
            )
            segments = self._segments.from_offset(offset)
            read = self._read_on(segments, wanted) or _read(segments, wanted, start=start)
            if read.end is not None:
                self._remember(read.next_offset, read.end)
            return LogRead(data=read.data, next_offset=read.next_offset)
        except (DamagedLog, OSError) as error:
            raise self._met(error, "reading") from error

    def _read_on(self, segments: Sequence[Segment], wanted: _Wanted) -> _Found | None:
        """Continue at the end of an earlier read, without a search. None when that end is not known or not valid any
        more, or when not even one batch fits."""
        segment, position = (self._ends or _NO_ENDS).get(wanted.offset, _NO_END)
        if segment is not segments[0]:
            return None
        data: Buffer = segment.log.pread(position, wanted.bytes_max)
        if len(data) < HEADER_BYTES or extent_at(data, 0)[0] != wanted.offset:
            return None
        size, next_offset = end_within(data, upper_bound=wanted.upper_bound)
        if next_offset < 0:
            return None
        limit = segments[1].base_offset if len(segments) > 1 else wanted.log_end
        data = data if size == len(data) else memoryview(data)[:size]
        _check(segment, data, position=position, expected=wanted.offset, limit=limit, epoch_of=wanted.epoch_of)
        return _Found(data, next_offset, (segment, position + size))

    def _remember(self, offset: int, end: tuple[Segment, int]) -> None:
        if self._ends is None:
            self._ends = {}
        elif len(self._ends) >= ENDS_MAX:
            del self._ends[next(iter(self._ends))]
        self._ends[offset] = end

    def _read_piece(self, start: int, size: int, *, offset: int, upper_bound: int, log_end: int) -> LogRead:
        """Whole batches of the active segment, whose position is known."""
        active = self._segments.active
        data = active.log.pread(start, size)
        _check(active, data, position=start, expected=offset, limit=log_end, epoch_of=self._epochs.epoch_of)
        return LogRead(data=data, next_offset=upper_bound)

    def offset_for_timestamp(self, timestamp_ms: int, bounds: range, looking: Looking) -> TimestampedOffset | None:
        return self._try(
            lambda: _offset_for_timestamp(self._segments, timestamp_ms, bounds, looking),
            "looking up a timestamp",
        )

    def max_timestamp(self, bounds: range, looking: Looking) -> TimestampedOffset | None:
        return self._try(lambda: _max_timestamp(self._segments, bounds, looking), "looking up a timestamp")

    def aborted_transactions(self, start: int, stop: int) -> list[AbortedTransaction]:
        """Aborted transactions with offsets in the range, ascending by their first one. It reads the segment of `start`
        and the following ones, until no transaction that ends later can have begun before `stop`."""

        def search() -> list[AbortedTransaction]:
            found: list[AbortedTransaction] = []
            try:
                for segment in self._segments.from_offset(start):
                    overlapping = segment.transactions.overlapping(start, stop)
                    found += overlapping.aborted
                    if overlapping.is_complete:
                        break
            except CorruptIndex as error:
                raise DamagedLog(str(error)) from error
            return sorted(found, key=lambda each: each.first_offset)

        return self._try(search, "looking for aborted transactions")

    def _try(self, search: Callable[[], T], doing: str) -> T:
        self._availability.check()
        try:
            return search()
        except (DamagedLog, OSError) as error:
            raise self._met(error, doing) from error

    def _met(self, error: DamagedLog | OSError, doing: str) -> KafkaError:
        if isinstance(error, DamagedLog):
            return self._availability.damaged(error)
        return self._availability.failed(error, doing, changes_nothing=True)


@value(kw_only=True)
class _Wanted:
    """The parameters of a read, and the state of the log."""

    offset: int
    bytes_max: int
    upper_bound: int
    log_end: int
    at_least_one_batch: bool
    epoch_of: Callable[[int], int]
    on_bad_index: Callable[[str], None]
    """Called with an index that leads to no batch; the read continues without it."""


@value()
class _Found:
    data: Buffer
    next_offset: int
    end: tuple[Segment, int] | None = None
    """End of the read; None when nothing was read."""


_NO_END: tuple[Segment | None, int] = (None, 0)
_NO_ENDS: Mapping[int, tuple[Segment | None, int]] = MappingProxyType({})


def _read(segments: Sequence[Segment], wanted: _Wanted, *, start: int | None) -> _Found:
    """Read from the first of `segments` that has a batch at or after the offset; never across two. `start` is the
    position of that batch in the first of them, if it is known. Raises DamagedLog.
    """
    for number, segment in enumerate(segments):
        limit = segments[number + 1].base_offset if number + 1 < len(segments) else wanted.log_end
        found = segment.find(wanted.offset, start=None if number else start, limit=limit)
        if found is None:
            continue
        if found.has_bad_index:
            wanted.on_bad_index(f"{segment.offsets.file.path}: it leads to no batch, and cannot be rebuilt")
        position, header = found.position, found.header
        if header.next_offset > limit:
            raise _too_far(segment, position, header.next_offset, limit)
        is_too_large = header.size > wanted.bytes_max and not wanted.at_least_one_batch
        if is_too_large or header.next_offset > wanted.upper_bound:
            break
        data: Buffer = segment.log.pread(position, max(wanted.bytes_max, header.size))
        size, next_offset = end_within(data, upper_bound=wanted.upper_bound)
        if next_offset < 0:
            raise DamagedLog(f"{segment.log.path}: the batch at position {position} changed while it was read")
        data = data if size == len(data) else memoryview(data)[:size]
        _check(segment, data, position=position, expected=found.expected, limit=limit, epoch_of=wanted.epoch_of)
        return _Found(data, next_offset, (segment, position + size))
    return _Found(b"", wanted.offset)


def _check(
    segment: Segment, data: Buffer, *, position: int, expected: int, limit: int, epoch_of: Callable[[int], int]
) -> None:
    """Check whether this piece of the segment may be returned. Raises DamagedLog."""
    try:
        next_offset, has_gap = check_batches(data, expected=expected, epoch_of=epoch_of)
    except DamagedBatch as error:
        raise DamagedLog(f"{segment.log.path}: from position {position} on: {error}") from error
    if has_gap:  # from a compaction; or its base offset has changed, which its next neighbour shows
        _, neighbour = next(headers_from(segment.log, position + len(data)), (0, None))
        limit = limit if neighbour is None else neighbour.base_offset
    if next_offset > limit:
        raise _too_far(segment, position, next_offset, limit)


def _too_far(segment: Segment, position: int, next_offset: int, limit: int) -> DamagedLog:
    return DamagedLog(
        f"{segment.log.path}: the batch at position {position} ends at offset {next_offset} by its header; "
        f"the log ends, or continues, at {limit}"
    )


def _offset_for_timestamp(
    segments: Iterable[Segment], timestamp_ms: int, bounds: range, looking: Looking
) -> TimestampedOffset | None:
    """The first record in the bounds that is not earlier than the timestamp. Raises NeedsWorker."""
    first = partial(first_record_at_or_after, timestamp_ms=timestamp_ms, from_offset=bounds.start)
    for segment in segments:
        if segment.max_timestamp < timestamp_ms:
            continue
        for position, header in segment.headers_since(timestamp_ms):
            if header.base_offset >= bounds.stop:
                return None
            if header.max_timestamp < timestamp_ms or header.last_offset < bounds.start:
                continue
            batch = whole_batch(segment.log, position, header)
            found = looking.into(batch, first)
            if found is not None and found[0] < bounds.stop:
                return TimestampedOffset(offset=found[0], timestamp=found[1], leader_epoch=header.leader_epoch)
    return None


def _max_timestamp(segments: Iterable[Segment], bounds: range, looking: Looking) -> TimestampedOffset | None:
    """The first record that has the largest timestamp of the batches in the bounds. Raises NeedsWorker."""
    best: tuple[int, Segment, int] | None = None
    for segment in segments:
        candidate = _latest_batch(segment, bounds)
        if candidate is not None and (best is None or candidate[0] > best[0]):
            best = candidate[0], segment, candidate[1]
    if best is None:
        return None
    _, segment, offset = best
    found = segment.find(offset)
    if found is None:
        raise DamagedLog(f"{segment.times.file.path}: its last entry has offset {offset}, which does not exist")
    latest = looking.into(whole_batch(segment.log, found.position, found.header), latest_record)
    assert latest is not None, found
    return TimestampedOffset(offset=latest[0], timestamp=latest[1], leader_epoch=found.header.leader_epoch)


def _latest_batch(segment: Segment, bounds: range) -> tuple[int, int] | None:
    """(timestamp, last offset) of the batch with the largest timestamp; None when the segment has none in bounds.

    The time index is complete up to the last entry of the offset index; only later batches have to be read.
    """
    if segment.base_offset >= bounds.stop or segment.max_timestamp < 0:
        return None
    if segment.max_timestamp_offset in bounds:
        return segment.max_timestamp, segment.max_timestamp_offset
    return _walk_for_latest(segment, bounds)


def _walk_for_latest(segment: Segment, bounds: range) -> tuple[int, int] | None:
    best_timestamp, best_offset = NO_TIMESTAMP, -1
    indexed = segment.latest_up_to(bounds.stop - 1)
    if indexed is not None and indexed[1] in bounds:
        best_timestamp, best_offset = indexed
    for _, header in segment.headers_near(max(best_offset, segment.base_offset)):
        if header.base_offset >= bounds.stop:
            break
        if header.last_offset in bounds and header.max_timestamp > best_timestamp:
            best_timestamp, best_offset = header.max_timestamp, header.last_offset
    return None if best_offset < 0 else (best_timestamp, best_offset)
