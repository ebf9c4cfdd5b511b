"""The part of a log that is certainly on the disk, and one fsync for all callers that wait for it (P11).

Invariant: everything below `flushed_offset` survives a power loss, and if it is above 0 the topic id, too; so a moved
log start does not raise it, unlike Kafka's recovery point. A caller during an fsync waits for the next one, which then
covers all of them. A truncation during an fsync lowers its result.

A truncation is itself flushed before anything is written in place of the removed batches: else a power loss may leave
old batches before newer ones, each whole, which no check of single batches can find.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from metadata.environment import Workers
from replication.storage.checkpoint_ceiling import CheckpointCeiling
from replication.storage.leader_epochs import LeaderEpochCache
from replication.storage.segment import Segment
from replication.storage.segments import Segments


class Flusher:
    def __init__(self, workers: Workers, flushed_offset: int, ceiling: CheckpointCeiling) -> None:
        self._workers = workers
        self._ceiling_file = ceiling
        self._flushed_offset = flushed_offset
        self._ceiling = flushed_offset
        self._running: asyncio.Task[None] | None = None
        self._cuts = self._cuts_flushed = 0
        self.messages_max = 2**63 - 1
        self.folder_changed = True
        """Files were added or removed since the folder was last synced."""

    @property
    def flushed_offset(self) -> int:
        return self._flushed_offset

    def is_due(self, end_offset: int) -> bool:
        return self._cuts > self._cuts_flushed or end_offset - self._flushed_offset >= self.messages_max

    @property
    def has_unflushed_cut(self) -> bool:
        return self._cuts > self._cuts_flushed

    def sync_cut(self, active: Segment) -> None:
        """Sync a truncation. Blocking, and rare: a follower flushes after a truncation, so only a new leader needs
        this."""
        self._ceiling_file.save()
        active.sync()
        self._cuts_flushed = self._cuts

    def cut(self, end_offset: int) -> None:
        self._cuts += 1
        self._ceiling_file.lower(end_offset)
        self._flushed_offset = min(self._flushed_offset, end_offset)
        self._ceiling = min(self._ceiling, end_offset)

    async def flush(self, end_offset: Callable[[], int], segments: Segments, epochs: LeaderEpochCache) -> int:
        target = end_offset()
        while self.has_unflushed_cut or self._flushed_offset < min(target, end_offset()):
            if self._running is None or self._running.done():
                self._running = asyncio.create_task(self._flush_once(end_offset(), segments, epochs))
            await asyncio.shield(self._running)
        return self._flushed_offset

    def sync_now(self, end_offset: int, segments: Segments, epochs: LeaderEpochCache) -> None:
        """Sync the last few records of a log that replaces one whose records were synced. Blocking, and rare. No fsync
        runs. Raises OSError."""
        epochs.take_unsynced()
        _sync(self._ceiling_file, segments.from_offset(self._flushed_offset), segments, epochs)
        self._flushed_offset, self._cuts_flushed = end_offset, self._cuts

    async def wait_idle(self) -> None:
        """Wait until no fsync runs any more, whatever its result."""
        if self._running is not None and not self._running.done():
            await asyncio.wait([self._running])

    async def _flush_once(self, end_offset: int, segments: Segments, epochs: LeaderEpochCache) -> None:
        self._ceiling = end_offset
        cuts = self._cuts
        unflushed = segments.from_offset(self._flushed_offset)
        folder_changed, self.folder_changed = self.folder_changed, False
        sync_epochs = epochs.take_unsynced()
        try:
            await self._workers.run(
                _sync,
                self._ceiling_file,
                unflushed,
                segments if folder_changed else None,
                epochs if sync_epochs else None,
            )
        except OSError:
            self.folder_changed |= folder_changed
            epochs.is_synced &= not sync_epochs
            raise
        self._flushed_offset = max(self._flushed_offset, self._ceiling)
        self._cuts_flushed = max(self._cuts_flushed, cuts)


def _sync(
    ceiling: CheckpointCeiling, unflushed: list[Segment], folder: Segments | None, epochs: LeaderEpochCache | None
) -> None:
    ceiling.save()
    for segment in unflushed:
        segment.sync()
    if epochs is not None:
        epochs.sync()
    if folder is not None:
        folder.sync_folder()
