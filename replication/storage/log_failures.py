"""Failures of logs and log directories: their reports, and the loading of failed logs.

It uses the log manager's own maps. A directory that fails takes its own logs offline, no others; a log that is only
full stays. Loading scans the part that was not flushed, so the end of the log may lie before the old one.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from kraft.protocol.errors import KafkaStorageError
from metadata.environment import Environment
from metadata.events import Events
from metadata.image import TopicIdPartition
from replication.storage.checkpoint_ceiling import UNLIMITED
from replication.storage.log_directory import LogDirectory
from replication.storage.names import partition_folder
from replication.storage.partition_log import PartitionLog
from replication.storage.recovery import UNREADABLE, LoadPlan
from replication.storage.text_files import MalformedFile

OnFailure: TypeAlias = Callable[[TopicIdPartition, str, bool], None]
"""(partition, reason, whether it can still be read)"""

_DISK_GONE = frozenset({errno.EIO, errno.EROFS, errno.ENODEV, errno.ENXIO})


class FailingLogs:
    def __init__(
        self,
        environment: Environment,
        *,
        events: Events,
        directories: Sequence[LogDirectory],
        logs: Mapping[TopicIdPartition, PartitionLog],
        directory_of: Mapping[TopicIdPartition, LogDirectory],
        plan: Callable[[LogDirectory, str, int], LoadPlan],
        load: Callable[[LogDirectory, str, LoadPlan, int], Awaitable[None]],
    ) -> None:
        self._environment = environment
        self._events = events
        self._directories = directories
        self._logs = logs
        self._directory_of = directory_of
        self._plan, self._load = plan, load
        self.on_failure: OnFailure = _nobody_watches
        self.can_do_without: Callable[[TopicIdPartition], bool] = lambda _key: False

    def log_damaged(self, log: PartitionLog, reason: str) -> None:
        """Take the log offline for a scan, a truncation and a new fetch, if other replicas have the lost records; if
        not, the intact part still serves."""
        if not log.is_damaged:
            self._events.emit("log_damaged", topic=log.topic, partition=log.partition, reason=reason)
        if self.can_do_without(TopicIdPartition(log.topic_id, log.partition)):
            log.take_offline(f"it is damaged: {reason}")

    def log_failed(self, log: PartitionLog, error: OSError | None) -> None:
        key = TopicIdPartition(log.topic_id, log.partition)
        if not log.is_offline:
            self.on_failure(key, f"nothing can be appended: {error}", True)
            return
        self._events.emit("log_offline", topic=log.topic, partition=log.partition, reason=log.offline_reason)
        self.on_failure(key, str(log.offline_reason), False)
        directory = self._directory_of.get(key)
        if error is not None and directory is not None and error.errno in _DISK_GONE:
            self.directory_failed(directory, error)

    def copy_failed(self, directory: LogDirectory, error: OSError) -> None:
        """Give up a copy in that directory; the directory's own logs may have the same problem."""
        if error.errno in _DISK_GONE:
            self.directory_failed(directory, error)

    def directory_failed(self, directory: LogDirectory, error: OSError) -> None:
        if error.errno not in _DISK_GONE:
            self._events.emit("checkpoint_failed", path=directory.path, reason=str(error))
            return
        if directory.is_offline:
            return
        directory.offline_reason = str(error)
        self._events.emit("log_directory_offline", path=directory.path, reason=str(error))
        for key, log in list(self._logs.items()):
            if self._directory_of[key] is directory:
                log.take_offline(f"log directory {directory.path} failed: {error}")

    # --- trying again

    async def check_room(self, partition: TopicIdPartition) -> None:
        directory = self._directory_of.get(partition)
        if directory is not None:
            await self._environment.workers.run(directory.check_room)

    async def reopen(self, partition: TopicIdPartition, *, topic: str, is_last: bool) -> None:
        """Load a log again: one that was open is scanned from its flushed offset, a damaged one from its start, unless
        it is the last one in sync, because records after the damage would be cut. One that never was open is loaded as
        at a start."""
        log = self._logs.get(partition)
        directory = self._directory_of.get(partition) or self._directory_with(topic, partition.partition)
        for failed in [directory] if directory is not None else self._directories:
            await self._revive(failed)
        if directory is None or (log is not None and not log.is_offline):
            return  # it works, or has to be created
        plan = self._plan(directory, topic, partition.partition)
        if log is not None:
            await log.abandon()
            recovery_point = 0 if log.is_damaged and not is_last else log.flushed_offset
            plan = replace(plan, is_clean=False, recovery_point=recovery_point, is_from_checkpoints=False)
            plan = replace(plan, log_start_offset=log.log_start_offset)
        try:
            await self._load(directory, topic, plan, partition.partition)
        except MalformedFile as error:
            if log is None and directory.set_aside_unfinished(topic, partition.partition):
                self._events.emit(
                    "unfinished_log_set_aside", topic=topic, partition=partition.partition, reason=str(error)
                )
                return  # it has to be created
            raise KafkaStorageError(f"{plan.folder} cannot be loaded: {error}") from error
        except UNREADABLE as error:
            raise KafkaStorageError(f"{plan.folder} cannot be loaded: {error}") from error
        if log is not None and log.ceiling.offset != UNLIMITED:
            self._logs[partition].ceiling.lower(log.ceiling.offset)

    async def _revive(self, directory: LogDirectory) -> None:
        await self._environment.workers.run(directory.check_room)
        if directory.is_offline:
            directory.offline_reason = None
            self._events.emit("log_directory_online", path=directory.path)

    def _directory_with(self, topic: str, partition: int) -> LogDirectory | None:
        for directory in self._directories:
            if self._environment.files.exists(f"{directory.path}/{partition_folder(topic, partition)}"):
                return directory
        return None


def _nobody_watches(partition: TopicIdPartition, reason: str, is_readable: bool, /) -> None:
    """Used until the replica manager watches; the event has reported the failure."""
