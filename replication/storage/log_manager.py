"""All logs of a node in its log directories: loaded at start, created, deleted, and maintained in the background.

Invariant: a (topic id, partition) has at most one log, in one directory; `<topic>-<partition>` names its folder.
A directory that fails takes its own partitions offline, no others. Implements the replica manager's `Logs`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

from kraft.protocol.errors import (
    InconsistentTopicId,
    KafkaError,
    KafkaStorageError,
    LogDirNotFound,
    OutOfDescriptors,
    ReplicaNotAvailable,
)
from metadata.environment import Environment
from metadata.events import Events
from metadata.image import TopicIdPartition
from metadata.settings import BrokerSettings, TopicSettings, topic_settings
from replication.producers.state import ProducerLimits
from replication.storage.append_cache import RecentAppends
from replication.storage.availability import DESCRIPTOR_RETRY_MS, OUT_OF_DESCRIPTORS
from replication.storage.background_tasks import BackgroundTasks
from replication.storage.checkpoint_ceiling import begin_ceiling
from replication.storage.checkpoints import Checkpoints
from replication.storage.log_directory import LogDirectory, StartupError
from replication.storage.log_failures import FailingLogs, OnFailure
from replication.storage.moves import Moves, OnMoved, settle_moves
from replication.storage.names import PARTITION_METADATA_FILE, future_partition_of, partition_folder
from replication.storage.partition_log import PartitionLog
from replication.storage.recovery import UNREADABLE, LoadedLog, LoadPlan, load_log
from replication.storage.segment import Segment
from replication.storage.text_files import MalformedFile, read_topic_id, write_topic_id


@dataclass(slots=True)
class Loading:
    """Progress of the start: logs whose folders were found, and logs that are finished."""

    found: int = 0
    done: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedLog:
    key: TopicIdPartition
    topic: str
    size_bytes: int
    log_end_offset: int
    copied_of: int | None = None
    """Log end of a copy that is to replace the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedDirectory:
    path: str
    offline_reason: str | None
    logs: tuple[DescribedLog, ...]


NO_TOPIC = UUID(int=0)
PREFERENCES_MAX = 10_000
"""Partitions for which a directory is remembered until they are created; beyond it the oldest is forgotten."""
LOAD_TRIES = 30
"""Tries to load a log for which there was no descriptor, while the node starts."""


class LogManager:
    def __init__(
        self,
        environment: Environment,
        *,
        directories: Sequence[str],
        cluster_id: str,
        node_id: int,
        events: Events,
        settings: Callable[[], BrokerSettings],
        topic_settings_of: Callable[[str], TopicSettings] | None = None,
    ) -> None:
        """`topic_settings_of` is called at start, before the first `update_settings`; the default: broker defaults."""
        assert directories, "a broker needs a log directory"
        self._environment, self._events = environment, events
        self._settings = settings
        self._topic_settings_of = topic_settings_of or self._broker_defaults
        self._defaults: tuple[BrokerSettings, TopicSettings] | None = None
        self._directories = [
            LogDirectory(environment, path, cluster_id=cluster_id, node_id=node_id, events=events)
            for path in directories
        ]
        self.loading = Loading()
        self._recent = RecentAppends()
        self._producer_limits: Callable[[], ProducerLimits] = lambda: ProducerLimits.of(settings())
        self._logs: dict[TopicIdPartition, PartitionLog] = {}
        self._holders: dict[tuple[str, int], TopicIdPartition] = {}
        """The same logs by (topic, partition), the name of their folder."""
        self._directory_of: dict[TopicIdPartition, LogDirectory] = {}
        self._log_counts: Counter[LogDirectory] = Counter()
        self._preferred: OrderedDict[tuple[str, int], LogDirectory] = OrderedDict()
        """Directory in which a log will be created that is not here yet (KIP-113)."""
        self._failing = FailingLogs(
            environment,
            events=events,
            directories=self._directories,
            logs=self._logs,
            directory_of=self._directory_of,
            plan=self._plan,
            load=self._load_now,
        )
        self._checkpoints = Checkpoints(
            environment,
            directories=self._directories,
            logs=self._logs,
            directory_of=self._directory_of,
            on_error=self._failing.directory_failed,
        )
        self._high_watermarks = self._checkpoints.high_watermarks
        self.background_tasks = BackgroundTasks(environment, events=events, settings=settings, manager=self)
        self.moves = Moves(environment, events=events, logs=self)

    # --- start and stop ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Lock, check and load everything, then begin the background work. Raises StartupError."""
        opened: list[LogDirectory] = []
        try:
            for directory in self._directories:
                await self._environment.workers.run(directory.open)
                opened.append(directory)
        except StartupError:
            for directory in opened:
                directory.close()
            raise
        try:
            await self._environment.workers.run(settle_moves, self._environment, self._directories, self._events)
        except OSError as error:
            for directory in opened:
                directory.close()
            raise StartupError(f"a log that was moved to another directory cannot be repaired: {error}") from error
        await asyncio.gather(*(self._load_directory(directory) for directory in self._directories))
        for directory in self._directories:
            await self._find_moves(directory)
        self.background_tasks.start()
        self.moves.start()

    async def _load_directory(self, directory: LogDirectory) -> None:
        removed = await self._environment.workers.run(directory.remove_deleted_folders)
        partitions = directory.partitions()
        self.loading.found += len(partitions)
        await asyncio.gather(*(self._load(directory, topic, number) for topic, number in partitions))
        self._events.emit(
            "log_directory_opened",
            path=directory.path,
            partitions=len(partitions),
            was_clean=directory.was_clean,
            removed_folders=removed,
        )

    async def _find_moves(self, directory: LogDirectory) -> None:
        """Find the copies that were incomplete when the last process ended."""
        for name in await self._environment.workers.run(directory.futures):
            topic, partition = future_partition_of(name) or ("", -1)
            if any((topic, partition) in each.not_loaded for each in self._directories):
                continue  # it may be the only copy
            try:
                topic_id = read_topic_id(self._environment.files, f"{directory.path}/{name}/{PARTITION_METADATA_FILE}")
            except (MalformedFile, OSError):
                topic_id = None  # nothing of it was durable
            try:
                self.moves.found(directory, name, TopicIdPartition(topic_id or NO_TOPIC, partition))
            except OSError as error:
                self._events.emit("replica_move_not_tidied", path=f"{directory.path}/{name}", reason=str(error))

    async def _load(self, directory: LogDirectory, topic: str, partition: int) -> None:
        """Load a log. Unreadable files affect this partition, not the node."""
        try:
            await self._load_with_descriptors(directory, topic, partition)
        except (*UNREADABLE, OSError) as error:
            self._events.emit("log_not_loaded", topic=topic, partition=partition, reason=str(error))
            directory.not_loaded.add((topic, partition))
        self.loading.done += 1

    async def _load_with_descriptors(self, directory: LogDirectory, topic: str, partition: int) -> None:
        """Load a log; wait for some time if there is no descriptor."""
        for _ in range(LOAD_TRIES):
            try:
                await self._load_unless_unfinished(directory, topic, partition)
            except OSError as error:
                if error.errno not in OUT_OF_DESCRIPTORS:
                    raise
                self._events.emit("log_waits_for_descriptors", topic=topic, partition=partition, reason=str(error))
                await self._environment.clock.sleep(DESCRIPTOR_RETRY_MS)
            else:
                return
        await self._load_unless_unfinished(directory, topic, partition)

    async def _load_unless_unfinished(self, directory: LogDirectory, topic: str, partition: int) -> None:
        try:
            await self._load_now(directory, topic, self._plan(directory, topic, partition), partition)
        except MalformedFile as error:
            if not directory.set_aside_unfinished(topic, partition):
                raise
            self._events.emit("unfinished_log_set_aside", topic=topic, partition=partition, reason=str(error))

    async def _load_now(self, directory: LogDirectory, topic: str, plan: LoadPlan, partition: int) -> None:
        """Load a log. Raises OSError, and the errors in `UNREADABLE`."""
        topic_id, loaded = await self._environment.workers.run(_loaded, plan)
        for repair in loaded.repairs:
            self._events.emit(repair.event, topic=topic, partition=partition, **repair.fields)
        key = TopicIdPartition(topic_id, partition)
        flushed = loaded.log_end_offset  # recovery syncs the batches that it finds
        self._adopt(key, directory, self._open_log(loaded, plan, topic, key, flushed_offset=flushed))
        high_watermark = min(directory.high_watermarks.get((topic, partition), 0), loaded.ceiling.offset)
        self._high_watermarks.setdefault(key, high_watermark)
        cleaned_to = directory.cleaned.get((topic, partition), 0)
        self._logs[key].cleaning.restore(cleaned_to, log_end_offset=loaded.log_end_offset)

    def _plan(self, directory: LogDirectory, topic: str, partition: int) -> LoadPlan:
        return LoadPlan(
            files=self._environment.files,
            folder=f"{directory.path}/{partition_folder(topic, partition)}",
            settings=self._topic_settings_of(topic),
            recovery_point=directory.recovery_points.get((topic, partition), 0),
            log_start_offset=directory.log_starts.get((topic, partition), 0),
            is_clean=directory.was_clean,
            now_ms=self._environment.clock.wall_ms(),
            producer_limits=self._producer_limits(),
        )

    def _broker_defaults(self, topic: str) -> TopicSettings:
        """Default settings, made once for all topics: a node that starts has thousands."""
        broker = self._settings()
        if self._defaults is None or self._defaults[0] is not broker:
            self._defaults = broker, topic_settings(broker, {})
        return self._defaults[1]

    def _open_log(
        self, loaded: LoadedLog, plan: LoadPlan, topic: str, key: TopicIdPartition, *, flushed_offset: int
    ) -> PartitionLog:
        return PartitionLog(
            self._environment,
            loaded,
            topic=topic,
            partition=key.partition,
            topic_id=key.topic_id,
            folder=plan.folder,
            settings=plan.settings,
            flushed_offset=flushed_offset,
            on_failure=self._log_failed,
            on_damage=self._log_damaged,
            on_roll=self._log_rolled,
            on_index_rebuilt=self._index_rebuilt,
            recent=self._recent,
            producer_limits=self._producer_limits,
        )

    def _log_failed(self, log: PartitionLog, error: OSError | None) -> None:
        if self._is_copy(log):
            directory = self.moves.directory_of(log)
            if directory is not None and error is not None:
                self._failing.copy_failed(directory, error)
        else:
            self._failing.log_failed(log, error)

    def _log_damaged(self, log: PartitionLog, reason: str) -> None:
        if not self._is_copy(log):
            self._failing.log_damaged(log, reason)

    def _log_rolled(self, log: PartitionLog) -> None:
        if not self._is_copy(log):
            self.background_tasks.flush_soon(log)

    def _is_copy(self, log: PartitionLog) -> bool:
        """True for a copy that is not yet the log of its partition."""
        known = self._logs.get(TopicIdPartition(log.topic_id, log.partition))
        return known is not None and known is not log

    def _index_rebuilt(self, log: PartitionLog, segment: Segment, reason: str) -> None:
        self._events.emit(
            "index_rebuilt", topic=log.topic, partition=log.partition, base_offset=segment.base_offset, reason=reason
        )

    def _adopt(self, key: TopicIdPartition, directory: LogDirectory, log: PartitionLog) -> None:
        self._logs[key] = log
        self._holders[log.topic, log.partition] = key
        before = self._directory_of.get(key)
        if before is not directory:
            if before is not None:
                self._log_counts[before] -= 1
            self._directory_of[key] = directory
            self._log_counts[directory] += 1

    async def stop(self, *, clean: bool = True, broker_epoch: int = -1) -> None:
        """Flush and close everything; with `clean` write checkpoints and the marker, so that the next start scans
        nothing."""
        await self.moves.stop()
        await self.background_tasks.stop()
        results = await asyncio.gather(*(log.close() for log in self._logs.values()), return_exceptions=True)
        failed = {self._directory_of[key] for key, result in zip(self._logs, results, strict=True) if result}
        failed |= {self._directory_of[key] for key, log in self._logs.items() if log.is_offline}
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, (KafkaError, OSError)):
                raise result
        for directory in self._directories:
            if clean and directory.is_open and not directory.is_offline:  # another node's was refused and closed
                await self.checkpoint_recovery(directory)
                if directory not in failed and not directory.not_loaded:
                    await self._checkpoints.write(directory, partial(directory.write_marker, broker_epoch))
            directory.close()

    # --- the replica manager's interface ----------------------------------------------------------------------

    @property
    def count(self) -> int:
        return len(self._logs)

    def get(self, partition: TopicIdPartition) -> PartitionLog | None:
        return self._logs.get(partition)

    def get_or_create(self, *, topic: str, topic_id: UUID, partition: int, settings: TopicSettings) -> PartitionLog:
        key = TopicIdPartition(topic_id, partition)
        log = self._logs.get(key)
        if log is None:
            log = self._create(topic, key, settings)
        elif log.is_offline:
            raise KafkaStorageError(f"{log} is offline: {log.offline_reason}")
        else:
            log.update_settings(settings)
        return log

    def _create(self, topic: str, key: TopicIdPartition, settings: TopicSettings) -> PartitionLog:
        self._refuse_taken_folder(topic, key)
        directory = self._directory_for(topic, key.partition)
        folder = f"{directory.path}/{partition_folder(topic, key.partition)}"
        plan = self._plan(directory, topic, key.partition)
        plan = replace(plan, settings=settings, recovery_point=0, log_start_offset=0, is_clean=True)
        try:
            self._environment.files.make_directories(folder)
            begin_ceiling(self._environment.files, folder)
            write_topic_id(self._environment.files, f"{folder}/{PARTITION_METADATA_FILE}", key.topic_id, sync=False)
            loaded = load_log(plan)
        except (*UNREADABLE, OSError) as error:
            if isinstance(error, OSError) and error.errno in OUT_OF_DESCRIPTORS:
                with suppress(OSError):  # the log is empty; its files are set aside when it is loaded
                    self._environment.files.remove_tree(folder)
                raise OutOfDescriptors(f"{folder} cannot be created: {error}") from error
            raise KafkaStorageError(f"{folder} cannot be created: {error}") from error
        log = self._open_log(loaded, plan, topic, key, flushed_offset=0)
        log.is_governed = True
        self._adopt(key, directory, log)
        self._high_watermarks[key] = 0
        return log

    def _refuse_taken_folder(self, topic: str, key: TopicIdPartition) -> None:
        other = self._holders.get((topic, key.partition))
        if other is not None:
            folder = self._logs[other].folder
            raise InconsistentTopicId(f"{folder} holds topic id {other.topic_id}, not {key.topic_id}")
        for directory in self._directories:
            folder = f"{directory.path}/{partition_folder(topic, key.partition)}"
            if not directory.is_offline and self._environment.files.exists(folder):
                raise KafkaStorageError(f"{folder} exists and could not be loaded; repair it or move it away")

    def _directory_for(self, topic: str, partition: int) -> LogDirectory:
        preferred = self._preferred.pop((topic, partition), None)
        return self._emptiest_directory() if preferred is None or preferred.is_offline else preferred

    def _emptiest_directory(self) -> LogDirectory:
        usable = [directory for directory in self._directories if not directory.is_offline]
        if not usable:
            raise KafkaStorageError("all log directories of this broker have failed")
        coming = Counter(copy.directory for copy in self.moves.all().values())
        return min(usable, key=lambda directory: self._log_counts[directory] + coming[directory])

    def delete(self, partition: TopicIdPartition) -> None:
        self.moves.forget(partition)
        log = self._logs.pop(partition, None)
        if log is None:
            return
        del self._holders[log.topic, log.partition]
        directory = self._directory_of.pop(partition)
        self._log_counts[directory] -= 1
        self._high_watermarks.pop(partition, None)
        log.retire("it has been deleted")
        doomed = directory.doomed_path(log.topic, log.partition)
        try:
            self._environment.files.rename(log.folder, doomed)
        except OSError as error:
            self._events.emit("log_not_deleted", topic=log.topic, partition=log.partition, reason=str(error))
            return
        self.background_tasks.remove_later(log, doomed)

    def update_settings(self, topic_id: UUID, settings: TopicSettings) -> None:
        for key, log in self._logs.items():
            if key.topic_id == topic_id:
                log.update_settings(settings)  # a copy gets them when it replaces the log

    def all_partitions(self) -> Mapping[TopicIdPartition, str]:
        return {key: log.topic for key, log in self._logs.items()}

    def holder(self, topic: str, partition: int) -> TopicIdPartition | None:
        return self._holders.get((topic, partition))

    def high_watermark(self, partition: TopicIdPartition) -> int:
        return self._high_watermarks.get(partition, 0)

    def high_watermarks(self) -> Mapping[TopicIdPartition, int]:
        return dict(self._high_watermarks)

    async def checkpoint_high_watermarks(self, high_watermarks: Mapping[TopicIdPartition, int]) -> None:
        await self._checkpoints.save_high_watermarks(high_watermarks)

    # --- directories ------------------------------------------------------------------------------------------

    def failed_directories(self) -> dict[str, str]:
        """The path of each directory that does not work, and its error."""
        return {each.path: each.offline_reason for each in self._directories if each.offline_reason is not None}

    def described(self) -> list[DescribedDirectory]:
        logs: dict[LogDirectory, list[DescribedLog]] = {directory: [] for directory in self._directories}
        for key, log in self._logs.items():
            described = DescribedLog(
                key=key, topic=log.topic, size_bytes=log.size_bytes, log_end_offset=log.log_end_offset
            )
            logs[self._directory_of[key]].append(described)
        for key, copy in self.moves.all().items():
            described = DescribedLog(
                key=key,
                topic=copy.log.topic,
                size_bytes=copy.log.size_bytes,
                log_end_offset=copy.log.log_end_offset,
                copied_of=self._logs[key].log_end_offset,
            )
            logs[copy.directory].append(described)
        return [
            DescribedDirectory(path=directory.path, offline_reason=directory.offline_reason, logs=tuple(found))
            for directory, found in logs.items()
        ]

    def place(self, topic: str, partition: int, *, path: str) -> None:
        """Assign a directory to this replica (KIP-113): one that lies elsewhere begins to move, a later one will be
        created there.

        Raises LogDirNotFound 57, KafkaStorageError 56 for a directory or a log that is offline, ReplicaNotAvailable 9
        when there is no such replica yet.
        """
        directory = next((each for each in self._directories if each.path == path), None)
        if directory is None:
            known = ", ".join(each.path for each in self._directories)
            raise LogDirNotFound(f"{path} is no log directory of this broker; it has {known}")
        if directory.is_offline:
            raise KafkaStorageError(f"log directory {path} is offline: {directory.offline_reason}")
        key = self._holders.get((topic, partition))
        if key is None:
            self._prefer(topic, partition, directory)
            raise ReplicaNotAvailable(f"{topic}-{partition} is not here; it will be created in {path}")
        if self._logs[key].is_offline:
            raise KafkaStorageError(f"{self._logs[key]} is offline: {self._logs[key].offline_reason}")
        self.moves.begin(key, directory)

    def _prefer(self, topic: str, partition: int, directory: LogDirectory) -> None:
        self._preferred.pop((topic, partition), None)
        self._preferred[topic, partition] = directory
        while len(self._preferred) > PREFERENCES_MAX:
            self._preferred.popitem(last=False)  # `next(iter(...))` of a dict would walk over all removed entries

    # --- for the moves ----------------------------------------------------------------------------------------

    def watch_moves(self, on_moved: OnMoved) -> None:
        self.moves.on_moved = on_moved

    def directory_of(self, partition: TopicIdPartition) -> LogDirectory:
        return self._directory_of[partition]

    def plan_future(self, directory: LogDirectory, log: PartitionLog, folder: str) -> LoadPlan:
        plan = self._plan(directory, log.topic, log.partition)
        plan = replace(plan, folder=folder, settings=log.settings, is_clean=False)
        return replace(plan, recovery_point=0, log_start_offset=0)

    def open_future(self, loaded: LoadedLog, plan: LoadPlan, log: PartitionLog) -> PartitionLog:
        key = TopicIdPartition(log.topic_id, log.partition)
        return self._open_log(loaded, plan, log.topic, key, flushed_offset=0)

    def took_the_place(self, key: TopicIdPartition, directory: LogDirectory, log: PartitionLog) -> None:
        self._adopt(key, directory, log)
        self.background_tasks.flush_soon(log)

    def remove_later(self, log: PartitionLog, folder: str | None) -> None:
        self.background_tasks.remove_later(log, folder)

    async def checkpoint_moved(self, key: TopicIdPartition, source: LogDirectory) -> None:
        """Save checkpoints, so that the directories' entries of the moved log are valid from now on."""
        log = self._logs.get(key)
        if log is not None:
            await self._checkpoints.save_high_watermarks({key: log.high_watermark})
        for directory in {source, self._directory_of.get(key, source)}:
            await self.checkpoint_recovery(directory)
            await self.checkpoint_cleaned(directory)

    # --- logs that have failed --------------------------------------------------------------------------------

    def watch_failures(self, on_failure: OnFailure, can_do_without: Callable[[TopicIdPartition], bool]) -> None:
        self._failing.on_failure, self._failing.can_do_without = on_failure, can_do_without

    async def check_room(self, partition: TopicIdPartition) -> None:
        await self._failing.check_room(partition)

    async def reopen(self, partition: TopicIdPartition, *, topic: str, is_last: bool) -> None:
        await self._failing.reopen(partition, topic=topic, is_last=is_last)

    # --- for the background tasks -----------------------------------------------------------------------------

    def online_logs(self) -> list[tuple[TopicIdPartition, PartitionLog]]:
        return [(key, log) for key, log in self._logs.items() if not log.is_offline]

    def governed_logs(self) -> list[tuple[TopicIdPartition, PartitionLog]]:
        return [(key, log) for key, log in self.online_logs() if log.is_governed]

    def directories(self) -> Sequence[LogDirectory]:
        return self._directories

    async def checkpoint_recovery(self, directory: LogDirectory) -> None:
        await self._checkpoints.save_recovery(directory)

    async def checkpoint_cleaned(self, directory: LogDirectory) -> None:
        await self._checkpoints.save_cleaned(directory)


def _loaded(plan: LoadPlan) -> tuple[UUID, LoadedLog]:
    """Load a log's files. Blocking. Raises OSError, and the errors in `UNREADABLE`."""
    path = f"{plan.folder}/{PARTITION_METADATA_FILE}"
    topic_id = read_topic_id(plan.files, path)
    if topic_id is None:
        raise MalformedFile(f"{path} is missing")
    return topic_id, load_log(plan)
