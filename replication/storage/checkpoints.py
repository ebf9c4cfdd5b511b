"""The saving of log directories' checkpoints: recovery points, log starts, high watermarks, compaction (S5, R7).

Each file covers all partitions of its directory, by topic name. After both kinds were saved since a truncation of a
log, its `checkpoint-ceiling` is removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from metadata.environment import Environment
from metadata.image import TopicIdPartition
from replication.storage.checkpoint_ceiling import UNLIMITED, Checkpoint
from replication.storage.log_directory import LogDirectory, TopicPartition
from replication.storage.partition_log import PartitionLog


class Checkpoints:
    def __init__(
        self,
        environment: Environment,
        *,
        directories: Sequence[LogDirectory],
        logs: Mapping[TopicIdPartition, PartitionLog],
        directory_of: Mapping[TopicIdPartition, LogDirectory],
        on_error: Callable[[LogDirectory, OSError], None],
    ) -> None:
        self._environment = environment
        self._directories = directories
        self._logs = logs
        self._directory_of = directory_of
        self._on_error = on_error
        self._saving: dict[LogDirectory, asyncio.Task[None]] = {}
        self.high_watermarks: dict[TopicIdPartition, int] = {}
        """The last saved or found ones."""

    async def save_high_watermarks(self, high_watermarks: Mapping[TopicIdPartition, int]) -> None:
        self.high_watermarks.update({key: hw for key, hw in high_watermarks.items() if key in self._logs})
        cuts = {log: log.ceiling.cuts for key, log in self._cut_logs() if key in high_watermarks}
        for directory in self._directories:
            offsets = directory.kept_of(directory.high_watermarks)
            for key, name, _ in self._in(directory):
                offsets[name] = self.high_watermarks[key]
            if await self.write(directory, partial(directory.write_high_watermarks, offsets)):
                self._cover(directory, Checkpoint.HIGH_WATERMARKS, cuts)
            if any(self._directory_of[key] is directory for key, _ in self._cut_logs()):
                await self.save_recovery(directory)  # so that truncated or new logs have valid checkpoints soon

    async def save_recovery(self, directory: LogDirectory) -> None:
        """S5: save where a scan would begin, and where logs start. One save at a time for each directory."""
        while (running := self._saving.get(directory)) is not None and not running.done():
            await asyncio.wait([running])
        self._saving[directory] = saving = asyncio.create_task(self._save_recovery(directory))
        await asyncio.shield(saving)

    async def _save_recovery(self, directory: LogDirectory) -> None:
        points, starts = directory.kept_of(directory.recovery_points), directory.kept_of(directory.log_starts)
        for _, name, log in self._in(directory):
            points[name], starts[name] = log.flushed_offset, log.log_start_offset
        cuts = {log: log.ceiling.cuts for _, log in self._cut_logs()}
        if await self.write(directory, lambda: directory.write_recovery(points, starts)):
            self._cover(directory, Checkpoint.RECOVERY, cuts)

    async def save_cleaned(self, directory: LogDirectory) -> None:
        cleaned = {name: log.cleaning.cleaned_to for _, name, log in self._in(directory)}
        cleaned = {name: offset for name, offset in cleaned.items() if offset}
        await self.write(directory, lambda: directory.write_cleaned(cleaned))

    async def write(self, directory: LogDirectory, write: Callable[[], None]) -> bool:
        """Write a checkpoint; return whether it was written. A failed directory is reported."""
        if directory.is_offline:
            return False
        try:
            await self._environment.workers.run(write)
        except OSError as error:
            self._on_error(directory, error)
            return False
        return True

    def _cover(self, directory: LogDirectory, kind: Checkpoint, cuts: Mapping[PartitionLog, int]) -> None:
        if not cuts:
            return
        for _, _, log in self._in(directory):
            if log in cuts and not log.is_offline:
                try:
                    log.ceiling.covered(kind, cuts[log])
                except OSError as error:
                    self._on_error(directory, error)

    def _cut_logs(self) -> list[tuple[TopicIdPartition, PartitionLog]]:
        """Logs whose older checkpoints are not valid; a save does not change that for the others."""
        return [(key, log) for key, log in self._logs.items() if log.ceiling.offset != UNLIMITED]

    def _in(self, directory: LogDirectory) -> Iterator[tuple[TopicIdPartition, TopicPartition, PartitionLog]]:
        for key, log in self._logs.items():
            if self._directory_of[key] is directory:
                yield key, (log.topic, log.partition), log
