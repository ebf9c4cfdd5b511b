"""Compaction of one log: plans on the event loop, copies on a worker thread, swaps on the event loop.

Owns the end of the log's clean part. Invariant: a swap happens only if the copied segments are still in the log
unchanged; a truncation or deletion in between undoes the pass, never the reverse.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import pairwise

from metadata.environment import Environment
from metadata.settings import TopicSettings
from replication.partition.log import AbortedTransaction
from replication.storage.cleaner_copy import (
    ActiveProducers,
    CleanedTransactions,
    Copied,
    CopyRules,
    build_map,
    copy_group,
    remove_cleaned,
)
from replication.storage.cleaner_map import OffsetMap
from replication.storage.cleaner_plan import CleanableSegment, CleaningPlan, groups_to_clean, plan_cleaning
from replication.storage.header_scan import DamagedLog
from replication.storage.indexes import CorruptIndex
from replication.storage.segment import Segment
from replication.storage.segments import Segments


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanLimits:
    map_bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    from_offset: int
    to_offset: int
    bytes_before: int
    bytes_after: int


class LogCleaning:
    def __init__(self, environment: Environment, folder: str, segments: Segments) -> None:
        self._environment = environment
        self._folder = folder
        self._segments = segments
        self._cleaned_to = 0
        self._cuts = 0
        self._running: asyncio.Task[Cleaned | None] | None = None
        self.is_paused = False
        """The log is being copied and must not be compacted."""

    @property
    def cleaned_to(self) -> int:
        """No key has two records below it, except for those before the log's start."""
        return self._cleaned_to

    def restore(self, cleaned_to: int, *, log_end_offset: int) -> None:
        self._cleaned_to = min(cleaned_to, log_end_offset)

    def folder_renamed(self, folder: str) -> None:
        self._folder = folder

    def cut(self, end_offset: int) -> None:
        """The log was truncated: records that are written from there on are not clean."""
        self._cleaned_to = min(self._cleaned_to, end_offset)
        self._cuts += 1

    def plan(
        self, *, log_start_offset: int, last_stable_offset: int, now_ms: int, settings: TopicSettings
    ) -> CleaningPlan:
        return plan_cleaning(
            [_facts(segment, next_offset) for segment, next_offset in self._closed()],
            cleaned_to=self._cleaned_to,
            log_start_offset=log_start_offset,
            last_stable_offset=last_stable_offset,
            now_ms=now_ms,
            settings=settings,
        )

    async def run(
        self,
        plan: CleaningPlan,
        *,
        settings: TopicSettings,
        limits: CleanLimits,
        active: ActiveProducers,
    ) -> Cleaned | None:
        """One pass; None when the log changed during it. Raises OSError, DamagedLog."""
        assert self._running is None, self._folder
        rules = CopyRules(
            files=self._environment.files,
            folder=self._folder,
            settings=settings,
            active=active,
            transactions=CleanedTransactions(self._aborted(plan.end_offset)),
            now_ms=self._environment.clock.wall_ms(),
        )
        self._running = asyncio.create_task(self._run(plan, rules, limits))
        self._running.add_done_callback(self._ended)
        return await asyncio.shield(self._running)

    async def wait_idle(self) -> None:
        """Wait until no pass reads the files any more, whatever its result."""
        if self._running is not None:
            await asyncio.wait([self._running])

    async def stop(self) -> None:
        """Let a pass end after the group that it copies now, without swapping that one in."""
        self._cuts += 1
        await self.wait_idle()

    def _ended(self, task: asyncio.Task[Cleaned | None]) -> None:
        self._running = None
        if not task.cancelled():
            task.exception()

    async def _run(self, plan: CleaningPlan, rules: CopyRules, limits: CleanLimits) -> Cleaned | None:
        cuts, run = self._cuts, self._environment.workers.run
        allowed = [(segment, end) for segment, end in self._closed() if end <= plan.end_offset]
        segments = [segment for segment, _ in allowed]
        offsets = await run(
            build_map,
            segments,
            rules.transactions,
            start=plan.first_dirty_offset,
            end=plan.end_offset,
            bytes_max=limits.map_bytes_max,
        )
        copied: list[Copied] = []
        for group in _groups(allowed, offsets, rules.settings):
            copied.append(await run(copy_group, group, offsets, rules))
            if self._cuts != cuts or not self._segments.holds(group):
                await run(remove_cleaned, rules.files, self._folder)
                return None
            self._segments.replace(group, now_ms=rules.now_ms)
            await run(rules.files.sync_directory, self._folder)
        if self._cuts != cuts:
            return None
        self._cleaned_to = max(self._cleaned_to, offsets.end_offset)
        return Cleaned(
            from_offset=plan.first_dirty_offset,
            to_offset=offsets.end_offset,
            bytes_before=sum(each.bytes_before for each in copied),
            bytes_after=sum(each.bytes_after for each in copied),
        )

    def _aborted(self, end_offset: int) -> list[AbortedTransaction]:
        """Aborted transactions below the offset. Raises DamagedLog."""
        try:
            return [
                each
                for segment in self._segments
                for each in segment.transactions.overlapping(segment.base_offset, end_offset).aborted
            ]
        except CorruptIndex as error:
            raise DamagedLog(str(error)) from error

    def _closed(self) -> list[tuple[Segment, int]]:
        """All segments but the last one that holds records, each with the base offset of the next."""
        segments = list(self._segments)
        while segments and not segments[-1].size:
            segments.pop()
        return [(one, after.base_offset) for one, after in pairwise(segments)]


def _groups(allowed: list[tuple[Segment, int]], offsets: OffsetMap, settings: TopicSettings) -> list[list[Segment]]:
    by_base = {segment.base_offset: segment for segment, _ in allowed}
    facts = [_facts(segment, end) for segment, end in allowed]
    groups = groups_to_clean(facts, end_offset=offsets.end_offset, settings=settings)
    return [[by_base[each.base_offset] for each in group] for group in groups]


def _facts(segment: Segment, next_offset: int) -> CleanableSegment:
    return CleanableSegment(
        base_offset=segment.base_offset,
        next_offset=next_offset,
        size_bytes=segment.size,
        index_bytes=max(segment.offsets.file.size, segment.times.file.size),
        first_timestamp=segment.first_timestamp(),
        largest_timestamp=segment.max_timestamp,
    )
