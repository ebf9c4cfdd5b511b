"""Reading a log: whole batches from an offset, and the two lookups by timestamp. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from kraft.protocol.batches.checking import DamagedBatch, check_batches
from kraft.protocol.batches.header import NO_TIMESTAMP, end_within
from kraft.protocol.batches.looking import Looking
from kraft.protocol.batches.records import first_record_at_or_after, latest_record
from kraft.protocol.primitives import Buffer
from kraft.values import value
from replication.partition.log import LogRead, TimestampedOffset
from replication.storage.scanning import DamagedLog, headers_from, whole_batch
from replication.storage.segment import Segment


@value(kw_only=True)
class Wanted:
    """What a read asks for, and what the log knows that it reads from."""

    offset: int
    bytes_max: int
    upper_bound: int
    log_end: int
    at_least_one_batch: bool
    epoch_of: Callable[[int], int]
    on_bad_index: Callable[[str], None]
    """Told of an index that leads nowhere; the read goes on without it."""


def read(segments: Sequence[Segment], wanted: Wanted, *, start: int | None) -> LogRead:
    """From the first of `segments` that has a batch at or after the offset; never across two. `start` is where in the
    first of them the batch of the offset begins, if that is known. Raises DamagedLog.
    """
    for number, segment in enumerate(segments):
        limit = segments[number + 1].base_offset if number + 1 < len(segments) else wanted.log_end
        found = segment.find(wanted.offset, start=None if number else start, limit=limit)
        if found is None:
            continue
        if found.has_bad_index:
            wanted.on_bad_index(f"{segment.offsets.file.path}: it leads nowhere, and cannot be made anew")
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
        check(segment, data, position=position, expected=found.expected, limit=limit, epoch_of=wanted.epoch_of)
        return LogRead(data=data, next_offset=next_offset)
    return LogRead(data=b"", next_offset=wanted.offset)


def check(
    segment: Segment, data: Buffer, *, position: int, expected: int, limit: int, epoch_of: Callable[[int], int]
) -> None:
    """May this piece of the segment be handed out? Raises DamagedLog."""
    try:
        next_offset, has_gap = check_batches(data, expected=expected, epoch_of=epoch_of)
    except DamagedBatch as error:
        raise DamagedLog(f"{segment.log.path}: from position {position} on: {error}") from error
    if has_gap:  # after a compaction; or its base offset has changed, which its next neighbour tells
        _, neighbour = next(headers_from(segment.log, position + len(data)), (0, None))
        limit = limit if neighbour is None else neighbour.base_offset
    if next_offset > limit:
        raise _too_far(segment, position, next_offset, limit)


def _too_far(segment: Segment, position: int, next_offset: int, limit: int) -> DamagedLog:
    return DamagedLog(
        f"{segment.log.path}: the batch at position {position} says that it ends at offset {next_offset}; "
        f"the log ends, or goes on, at {limit}"
    )


def offset_for_timestamp(
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


def max_timestamp(segments: Iterable[Segment], bounds: range, looking: Looking) -> TimestampedOffset | None:
    """The first record that carries the largest timestamp of the batches in the bounds. Raises NeedsWorker."""
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
        raise DamagedLog(f"{segment.times.file.path}: its last entry is of offset {offset}, which is not there")
    latest = looking.into(whole_batch(segment.log, found.position, found.header), latest_record)
    assert latest is not None, found
    return TimestampedOffset(offset=latest[0], timestamp=latest[1], leader_epoch=found.header.leader_epoch)


def _latest_batch(segment: Segment, bounds: range) -> tuple[int, int] | None:
    """(timestamp, last offset) of the batch with the largest timestamp; None when the segment has none in bounds.

    The time index knows it up to the last entry of the offset index; only what follows has to be walked.
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
