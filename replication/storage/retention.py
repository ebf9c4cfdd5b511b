"""Choice of the old segments that may be deleted (S1, S4). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from metadata.settings import TopicSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentFacts:
    base_offset: int
    next_offset: int
    """Base offset of the segment after it, or the log's end."""
    size_bytes: int
    largest_timestamp: int
    """Largest timestamp of its records; the time of its roll, if none has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    count: int
    """Segments to delete, from the oldest."""
    reason: str


def segments_to_delete(
    segments: Sequence[SegmentFacts],
    *,
    log_start_offset: int,
    high_watermark: int,
    now_ms: int,
    settings: TopicSettings,
) -> Deletion | None:
    """The rule that deletes the most of the oldest segments, if any applies.

    A segment is deleted only if it lies wholly below the high watermark and all before it are deleted as well. Its age
    is that of its largest record timestamp: one record from the future keeps its segment, and those after it.
    """
    rules = [Deletion(count=_below_start(segments, log_start_offset), reason="log_start_offset")]
    if "delete" in settings.cleanup_policy:
        rules.append(Deletion(count=_too_big(segments, settings.retention_bytes), reason="retention.bytes"))
        rules.append(Deletion(count=_too_old(segments, now_ms, settings.retention_ms), reason="retention.ms"))
    best = max(rules, key=lambda rule: rule.count)
    count = min(best.count, _wholly_below(segments, high_watermark))
    return Deletion(count=count, reason=best.reason) if count else None


def _wholly_below(segments: Sequence[SegmentFacts], high_watermark: int) -> int:
    """The last segment stays while it is empty: there has to be one."""
    count = sum(1 for segment in segments if segment.next_offset <= high_watermark)
    return count - 1 if count == len(segments) and not segments[-1].size_bytes else count


def _below_start(segments: Sequence[SegmentFacts], log_start_offset: int) -> int:
    """The active segment is not deleted for this: it may still be written to."""
    return sum(1 for segment in segments[:-1] if segment.next_offset <= log_start_offset)


def _too_big(segments: Sequence[SegmentFacts], retention_bytes: int) -> int:
    if retention_bytes < 0:
        return 0
    excess = sum(segment.size_bytes for segment in segments) - retention_bytes
    count = 0
    for segment in segments:
        excess -= segment.size_bytes
        if excess < 0:
            break
        count += 1
    return count


def _too_old(segments: Sequence[SegmentFacts], now_ms: int, retention_ms: int) -> int:
    if retention_ms < 0:
        return 0
    count = 0
    for segment in segments:
        if now_ms - segment.largest_timestamp <= retention_ms:
            break
        count += 1
    return count
