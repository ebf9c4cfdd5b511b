"""Reading a log: whole batches from an offset, and the two lookups by timestamp. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from replication.batches.header import NO_TIMESTAMP, end_within
from replication.batches.records import first_record_at_or_after, latest_record
from replication.partition.log import LogRead, TimestampedOffset
from replication.storage.scanning import DamagedLog, headers_from
from replication.storage.segment import Segment


def read(
    segments: Sequence[Segment],
    offset: int,
    *,
    start: int | None,
    bytes_max: int,
    upper_bound: int,
    log_end: int,
    at_least_one_batch: bool,
) -> LogRead:
    """From the first of `segments` that has a batch at or after the offset; never across two. Raises DamagedLog."""
    for number, segment in enumerate(segments):
        found = segment.find(offset, start=None if number else start)
        if found is None:
            continue
        position, header = found
        if header.next_offset > log_end:
            raise DamagedLog(
                f"{segment.log.path}: the batch at position {position} says that it ends at offset "
                f"{header.next_offset}; the log ends at {log_end}"
            )
        is_too_large = header.size > bytes_max and not at_least_one_batch
        if is_too_large or header.next_offset > upper_bound:
            break
        data = segment.log.pread(position, max(bytes_max, header.size))
        size, next_offset = end_within(data, upper_bound=upper_bound)
        if next_offset < 0:
            raise DamagedLog(f"{segment.log.path}: the batch at position {position} changed while it was read")
        return LogRead(data=data if size == len(data) else data[:size], next_offset=next_offset)
    return LogRead(data=b"", next_offset=offset)


def offset_for_timestamp(segments: Iterable[Segment], timestamp_ms: int, bounds: range) -> TimestampedOffset | None:
    """The first record in the bounds that is not earlier than the timestamp."""
    for segment in segments:
        if segment.max_timestamp < timestamp_ms:
            continue
        start = segment.position_hint(segment.base_offset + segment.times.lookup(timestamp_ms - 1))
        for position, header in headers_from(segment.log, start):
            if header.base_offset >= bounds.stop:
                return None
            if header.max_timestamp < timestamp_ms or header.last_offset < bounds.start:
                continue
            batch = segment.log.pread(position, header.size)
            found = first_record_at_or_after(batch, timestamp_ms=timestamp_ms, from_offset=bounds.start)
            if found is not None and found[0] < bounds.stop:
                return TimestampedOffset(offset=found[0], timestamp=found[1], leader_epoch=header.leader_epoch)
    return None


def max_timestamp(segments: Iterable[Segment], bounds: range) -> TimestampedOffset | None:
    """The first record that carries the largest timestamp of the batches in the bounds."""
    best: tuple[int, Segment, int] | None = None
    for segment in segments:
        candidate = _latest_batch(segment, bounds)
        if candidate is not None and (best is None or candidate[0] > best[0]):
            best = candidate[0], segment, candidate[1]
    if best is None:
        return None
    _, segment, offset = best
    found = segment.find(offset)
    assert found is not None, (segment.base_offset, offset)
    position, header = found
    offset, timestamp = latest_record(segment.log.pread(position, header.size))
    return TimestampedOffset(offset=offset, timestamp=timestamp, leader_epoch=header.leader_epoch)


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
    indexed = segment.times.last_up_to_offset(bounds.stop - 1 - segment.base_offset)
    start = 0
    if indexed is not None and segment.base_offset + indexed[1] in bounds:
        best_timestamp, best_offset = indexed[0], segment.base_offset + indexed[1]
        start = segment.position_hint(best_offset)
    for _, header in headers_from(segment.log, start):
        if header.base_offset >= bounds.stop:
            break
        if header.last_offset in bounds and header.max_timestamp > best_timestamp:
            best_timestamp, best_offset = header.max_timestamp, header.last_offset
    return None if best_offset < 0 else (best_timestamp, best_offset)
