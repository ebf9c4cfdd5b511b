"""The plan of a compaction pass: its segments, whether it is worth it, and which segments become one (S2). Pure.

It has only whole segments below the last stable offset, never the last one that holds records, none younger than
min.compaction.lag.ms. Source: org.apache.kafka.storage.internals.log.LogCleanerManager, Cleaner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from metadata.settings import TopicSettings

RELATIVE_OFFSET_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanableSegment:
    base_offset: int
    next_offset: int
    """Base offset of the segment after it."""
    size_bytes: int
    index_bytes: int
    first_timestamp: int
    largest_timestamp: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CleaningPlan:
    first_dirty_offset: int
    end_offset: int
    """Nothing from here on may be changed."""
    clean_bytes: int
    dirty_bytes: int
    is_overdue: bool
    """A dirty record is older than max.compaction.lag.ms."""

    @property
    def dirty_ratio(self) -> float:
        return self.dirty_bytes / max(self.clean_bytes + self.dirty_bytes, 1)

    def is_worth_it(self, settings: TopicSettings) -> bool:
        return self.dirty_bytes > 0 and (self.is_overdue or self.dirty_ratio > settings.min_cleanable_dirty_ratio)


def plan_cleaning(
    segments: Sequence[CleanableSegment],
    *,
    cleaned_to: int,
    log_start_offset: int,
    last_stable_offset: int,
    now_ms: int,
    settings: TopicSettings,
) -> CleaningPlan:
    """`segments` are all of the log but the active one."""
    allowed = _allowed(segments, last_stable_offset=last_stable_offset, now_ms=now_ms, settings=settings)
    first_dirty = max(cleaned_to, log_start_offset)
    dirty = [segment for segment in allowed if segment.next_offset > first_dirty]
    clean = [segment for segment in allowed if segment.next_offset <= first_dirty]
    ages = [now_ms - segment.first_timestamp for segment in dirty if segment.first_timestamp >= 0]
    return CleaningPlan(
        first_dirty_offset=first_dirty,
        end_offset=allowed[-1].next_offset if allowed else first_dirty,
        clean_bytes=sum(segment.size_bytes for segment in clean),
        dirty_bytes=sum(segment.size_bytes for segment in dirty),
        is_overdue=max(ages, default=0) > settings.max_compaction_lag_ms,
    )


def _allowed(
    segments: Sequence[CleanableSegment], *, last_stable_offset: int, now_ms: int, settings: TopicSettings
) -> list[CleanableSegment]:
    allowed: list[CleanableSegment] = []
    youngest_ms = now_ms - settings.min_compaction_lag_ms
    for segment in segments:
        is_young = settings.min_compaction_lag_ms > 0 and segment.largest_timestamp > youngest_ms
        if segment.next_offset > last_stable_offset or is_young:
            break
        allowed.append(segment)
    return allowed


def groups_to_clean(
    segments: Sequence[CleanableSegment], *, end_offset: int, settings: TopicSettings
) -> list[list[CleanableSegment]]:
    """Neighbours that fit one segment together, by their sizes before the pass; each group becomes one segment."""
    groups: list[list[CleanableSegment]] = []
    for segment in segments:
        if segment.base_offset >= end_offset:
            break
        if not groups or not _fits(groups[-1], segment, settings):
            groups.append([])
        groups[-1].append(segment)
    return groups


def _fits(group: Sequence[CleanableSegment], segment: CleanableSegment, settings: TopicSettings) -> bool:
    return (
        sum(each.size_bytes for each in group) + segment.size_bytes <= settings.segment_size
        and sum(each.index_bytes for each in group) + segment.index_bytes <= settings.segment_index_bytes
        and segment.next_offset - group[0].base_offset <= RELATIVE_OFFSET_MAX
    )
