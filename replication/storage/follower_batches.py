"""Batches before their append by leader or follower: checks, groups that fit segments, copies of buffers. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from kraft.protocol.batches.header import LOG_OVERHEAD, MAGIC, BatchHeader, computed_crc, whole_batches
from kraft.protocol.errors import CorruptMessage
from replication.partition.log import Appended


def check_leader_batches(
    view: memoryview, *, log: object, log_end_offset: int, is_empty: bool = False
) -> list[BatchHeader]:
    """Headers of the whole batches; compaction may have left gaps between them. The first of an empty log may begin
    before its end: the log start of the leader lies within it, since DeleteRecords names any offset.

    Raises CorruptMessage (R11).
    """
    headers: list[BatchHeader] = []
    expected = log_end_offset
    for position, header in whole_batches(view):
        if header.magic != MAGIC or computed_crc(view, position, header.length + LOG_OVERHEAD) != header.crc:
            raise CorruptMessage(f"{log}: the leader's batch for offset {expected} has a wrong CRC or format")
        spans_start = is_empty and not headers and header.last_offset >= expected
        if (header.base_offset < expected and not spans_start) or header.last_offset_delta < 0:
            raise CorruptMessage(f"{log}: the leader sent offset {header.base_offset}, the log ends at {expected}")
        headers.append(header)
        expected = header.base_offset + header.last_offset_delta + 1
    return headers


def segment_groups(headers: Sequence[BatchHeader], bytes_max: int) -> list[list[BatchHeader]]:
    """Runs of batches that fit a segment together; one that is too large alone is a run of its own."""
    groups: list[list[BatchHeader]] = []
    size = 0
    for header in headers:
        if not groups or size + header.size > bytes_max:
            groups.append([])
            size = 0
        groups[-1].append(header)
        size += header.size
    return groups


def joined(first: Appended, second: Appended) -> Appended:
    return Appended(
        base_offset=first.base_offset,
        last_offset=second.last_offset,
        max_timestamp=max(first.max_timestamp, second.max_timestamp),
        size_bytes=first.size_bytes + second.size_bytes,
        log_append_time_ms=second.log_append_time_ms,
    )
