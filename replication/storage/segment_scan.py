"""Check of a whole segment in recovery: each batch, their order, their leader epochs (S5). Blocking.

It also rebuilds the indexes of the segment and corrects the epochs of the log.
"""

from __future__ import annotations

from dataclasses import dataclass

from kraft.protocol.batches.header import BatchHeader
from metadata.environment import Files
from replication.storage.header_scan import DamagedLog, headers_from, whole_batch
from replication.storage.leader_epochs import LeaderEpochCache
from replication.storage.names import LOG_SUFFIX, segment_file
from replication.storage.segment import RELATIVE_OFFSET_MAX, Segment

EPOCH_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    position: int
    bytes_dropped: int
    reason: str


def scan(files: Files, segment: Segment, epochs: LeaderEpochCache, next_base: int | None) -> tuple[int, Problem | None]:
    """Check every batch of a segment, rebuild its indexes and learn its epochs. Returns the offset after the last good
    batch, and the problem of the next one.

    No CRC covers a base offset. Of two batches that overlap the first one has changed if there is a gap before it into
    which the second fits, else the second.
    """
    segment.start_over()
    end_offset, problem = _scan(files, segment, epochs, next_base)
    segment.finish_indexes()
    return end_offset, problem


def _scan(
    files: Files, segment: Segment, epochs: LeaderEpochCache, next_base: int | None
) -> tuple[int, Problem | None]:
    valid_bytes, next_offset = 0, segment.base_offset
    epoch_max = _first_epoch(files, segment.folder, next_base)
    begun: list[tuple[int, int, int]] = []  # leader epoch, position and offset of the first batch of each epoch
    gap: tuple[int, int] | None = None  # before the last checked batch: its position, and the expected offset
    try:
        for position, header in headers_from(segment.log, 0):
            if gap is not None and gap[1] <= header.base_offset < next_offset:
                valid_bytes, next_offset = gap
                raise DamagedLog(f"{segment.log.path}: the batch at position {valid_bytes} overlaps the one behind it")
            _check_batch(segment, position, header, next_offset, next_base)
            if header.leader_epoch > epoch_max or (begun and begun[-1][0] > header.leader_epoch):
                while begun and begun[-1][0] > header.leader_epoch:
                    _, valid_bytes, next_offset = begun.pop()
                raise DamagedLog(f"{segment.log.path}: at position {valid_bytes} the leader epoch is too large")
            if not begun or begun[-1][0] < header.leader_epoch:
                begun.append((header.leader_epoch, position, next_offset))
            segment.note(header, position)
            if epochs.epoch_of(header.base_offset) != header.leader_epoch:
                epochs.learn(header.leader_epoch, header.base_offset)
            gap = (position, next_offset) if header.base_offset > next_offset else None
            next_offset = header.next_offset
            valid_bytes += header.size
    except DamagedLog as error:
        dropped = segment.size - valid_bytes
        return next_offset, Problem(position=valid_bytes, bytes_dropped=dropped, reason=str(error))
    if next_base is None:
        return next_offset, None
    if next_offset < next_base:
        # Not even compaction leaves such a hole: a cleaned segment keeps its last batch. A power loss took the tail.
        return next_offset, Problem(
            position=valid_bytes, bytes_dropped=0, reason=f"it ends at {next_offset}, the next begins at {next_base}"
        )
    segment.finish_time_index()
    return next_base, None


def _first_epoch(files: Files, folder: str, base: int | None) -> int:
    """The leader epoch with which the segment begins, which no earlier batch exceeds; no CRC covers it."""
    if base is None:
        return EPOCH_MAX
    file = files.open(segment_file(folder, base, LOG_SUFFIX), read_only=True)
    try:
        _, header = next(headers_from(file, 0), (0, None))
        return EPOCH_MAX if header is None else header.leader_epoch
    except DamagedLog:  # reported when that segment is scanned
        return EPOCH_MAX
    finally:
        file.close()


def _check_batch(segment: Segment, position: int, header: BatchHeader, next_offset: int, next_base: int | None) -> None:
    """Check CRC, format and order. Raises DamagedLog."""
    whole_batch(segment.log, position, header)
    if header.base_offset < next_offset or header.last_offset_delta < 0:
        raise DamagedLog(f"{segment.log.path}: offset {header.base_offset} at position {position} is out of order")
    # The CRC does not cover the base offset: one flipped bit can move it beyond the range of the segment.
    limit = segment.base_offset + RELATIVE_OFFSET_MAX if next_base is None else next_base - 1
    if header.last_offset > limit:
        raise DamagedLog(
            f"{segment.log.path}: offset {header.last_offset} at position {position} is too large, the last is, {limit}"
        )
