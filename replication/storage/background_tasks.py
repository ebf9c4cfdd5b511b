"""Background work for all logs: retention, compaction, flush.ms, recovery points, removal of files.

Each loop looks at all logs on its own interval; a failure becomes an event and is tried again at the next turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from kraft.protocol.errors import KafkaError
from kraft.protocol.primitives import INT64_MAX
from metadata.environment import Environment
from metadata.events import Events
from metadata.image import TopicIdPartition
from metadata.settings import BrokerSettings
from replication.storage.cleaner import Cleaner
from replication.storage.log_directory import LogDirectory
from replication.storage.partition_log import PartitionLog

REMOVAL_INTERVAL_MS = 1_000
"""Interval between two searches for files and folders whose delay is over."""


class ManagedLogs(Protocol):
    def online_logs(self) -> list[tuple[TopicIdPartition, PartitionLog]]: ...
    def governed_logs(self) -> list[tuple[TopicIdPartition, PartitionLog]]: ...
    def directories(self) -> Sequence[LogDirectory]: ...
    def high_watermark(self, partition: TopicIdPartition) -> int: ...
    async def checkpoint_recovery(self, directory: LogDirectory) -> None: ...
    async def checkpoint_cleaned(self, directory: LogDirectory) -> None: ...


@dataclass(frozen=True, slots=True)
class _DoomedFolder:
    due_ms: int
    log: PartitionLog
    path: str | None
    """None: only its files are closed."""


class BackgroundTasks:
    def __init__(
        self, environment: Environment, *, events: Events, settings: Callable[[], BrokerSettings], manager: ManagedLogs
    ) -> None:
        self._environment = environment
        self._events = events
        self._settings = settings
        self._manager = manager
        self.cleaner = Cleaner(environment, events=events, settings=settings, manager=manager)
        self._tasks: list[asyncio.Task[None]] = []
        self._doomed: list[_DoomedFolder] = []
        self._rolled: dict[PartitionLog, None] = {}
        self._has_rolled = asyncio.Event()
        self._unflushed_since_ms: dict[PartitionLog, int] = {}

    def start(self) -> None:
        settings = self._settings
        self._tasks = [
            asyncio.create_task(self._every(lambda: settings().log_retention_check_interval_ms, self.apply_retention)),
            asyncio.create_task(self._every(lambda: settings().log_flush_scheduler_interval_ms, self.flush_due)),
            asyncio.create_task(
                self._every(lambda: settings().log_flush_offset_checkpoint_interval_ms, self.checkpoint)
            ),
            asyncio.create_task(self._every(lambda: REMOVAL_INTERVAL_MS, self.remove_due)),
            asyncio.create_task(self._every(lambda: settings().log_cleaner_backoff_ms, self.cleaner.clean_all)),
            asyncio.create_task(
                self._every(lambda: settings().producer_id_expiration_check_interval_ms, self.expire_producers)
            ),
            asyncio.create_task(self._flush_rolled()),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        for doomed in self._doomed:
            await doomed.log.abandon()

    async def _every(self, interval_ms: Callable[[], int], act: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._environment.clock.sleep(max(1, interval_ms()))
            try:
                await act()
            except (KafkaError, OSError) as error:
                self._events.emit("log_upkeep_failed", reason=str(error))

    # --- retention --------------------------------------------------------------------------------------------

    async def apply_retention(self) -> None:
        """S1, S4. The high watermark is the one of the last checkpoint: older, hence safe."""
        now_ms = self._environment.clock.wall_ms()
        for key, log in self._manager.governed_logs():
            high_watermark = min(max(self._manager.high_watermark(key), log.log_start_offset), log.log_end_offset)
            try:
                count, reason = log.delete_old_segments(high_watermark=high_watermark, now_ms=now_ms)
            except KafkaError as error:
                self._events.emit("retention_failed", topic=log.topic, partition=log.partition, reason=str(error))
                continue
            if count:
                self._events.emit(
                    "segments_deleted",
                    topic=log.topic,
                    partition=log.partition,
                    segments=count,
                    because=reason,
                    log_start_offset=log.log_start_offset,
                )

    async def expire_producers(self) -> None:
        """D5: forget producers that were silent for producer.id.expiration.ms."""
        now_ms = self._environment.clock.wall_ms()
        for _, log in self._manager.governed_logs():
            log.producers.remove_expired(now_ms=now_ms)

    # --- flushing ---------------------------------------------------------------------------------------------

    def flush_soon(self, log: PartitionLog) -> None:
        """Write a rolled segment to the disk, because it gets no more records."""
        self._rolled[log] = None
        self._has_rolled.set()

    async def _flush_rolled(self) -> None:
        while True:
            await self._has_rolled.wait()
            self._has_rolled.clear()
            while self._rolled:
                log = next(iter(self._rolled))
                del self._rolled[log]
                await self._flush(log)
                await self._save_producers(log)

    async def _save_producers(self, log: PartitionLog) -> None:
        try:
            await log.save_producers()
        except KafkaError as error:
            if not log.is_retired:
                self._events.emit(
                    "producer_snapshot_failed", topic=log.topic, partition=log.partition, reason=str(error)
                )

    async def flush_due(self) -> None:
        """Flush logs that were unflushed for longer than flush.ms."""
        now_ms = self._environment.clock.monotonic_ms()
        waiting: dict[PartitionLog, int] = {}
        for _, log in self._manager.online_logs():
            if log.settings.flush_ms == INT64_MAX or log.flushed_offset >= log.log_end_offset:
                continue
            since_ms = self._unflushed_since_ms.get(log, now_ms)
            if now_ms - since_ms >= log.settings.flush_ms:
                await self._flush(log)
            else:
                waiting[log] = since_ms
        self._unflushed_since_ms = waiting

    async def _flush(self, log: PartitionLog) -> None:
        try:
            await log.flush()
        except KafkaError as error:
            if not log.is_retired:
                self._events.emit("flush_failed", topic=log.topic, partition=log.partition, reason=str(error))

    async def checkpoint(self) -> None:
        for directory in self._manager.directories():
            await self._manager.checkpoint_recovery(directory)

    # --- removal ----------------------------------------------------------------------------------------------

    def remove_later(self, log: PartitionLog, folder: str | None) -> None:
        due_ms = self._environment.clock.monotonic_ms() + log.settings.file_delete_delay_ms
        self._doomed.append(_DoomedFolder(due_ms, log, folder))

    async def remove_due(self) -> None:
        for _, log in self._manager.online_logs():
            if log.has_files_to_remove:
                await log.remove_deleted_files()
        now_ms = self._environment.clock.monotonic_ms()
        due = [each for each in self._doomed if each.due_ms <= now_ms]
        self._doomed = [each for each in self._doomed if each.due_ms > now_ms]
        for each in due:
            await each.log.abandon()
            if each.path is not None:
                await self._environment.workers.run(self._environment.files.remove_tree, each.path)
