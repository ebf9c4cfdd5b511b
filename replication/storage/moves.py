"""Moves of logs from one log directory of this broker to another (KIP-113).

A copy grows in `<topic>-<partition>.<hex>-future` of the new directory, from the current log, as a follower's log from
its leader's. When both end at the same offset its folder gets the partition's name, and in the same turn of the loop it
becomes the log. The folder of the old one is removed only after the new name is durable.

An interrupted move continues at the next start: a `-future` folder is filled up; of two folders with a partition's name
the one with `moved-here` in it has replaced the other. A copy whose directory fails is given up, without an effect on
its log. A log that is being copied is not compacted: a tombstone could be removed before it was copied, and the records
that it deletes copied.
Source: org.apache.kafka.storage.internals.log.LogManager.replaceCurrentWithFutureLog, ReplicaAlterLogDirsThread.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from kraft.protocol.errors import KafkaError, KafkaStorageError, OutOfDescriptors
from kraft.values import value
from metadata.environment import Environment
from metadata.events import Events
from metadata.image import TopicIdPartition
from replication.storage.availability import DESCRIPTOR_RETRY_MS, OUT_OF_DESCRIPTORS
from replication.storage.checkpoint_ceiling import begin_ceiling
from replication.storage.leader_epochs import NO_EPOCH
from replication.storage.log_directory import LogDirectory
from replication.storage.names import MOVED_FILE, PARTITION_METADATA_FILE, partition_folder
from replication.storage.partition_log import PartitionLog
from replication.storage.recovery import UNREADABLE, LoadedLog, LoadPlan, load_log
from replication.storage.segments import sync_folder
from replication.storage.text_files import write_topic_id

MOVES_MAX = 10_000
"""Copies at the same time; one more is refused with KAFKA_STORAGE_ERROR. They are made one after the other."""
CHUNK_BYTES = 1 << 20
"""Bytes copied in one turn of the loop."""
FLUSH_BYTES = 64 << 20
"""Bytes copied before the next fsync, so that none takes long."""
CUTS_MAX = 100
"""Number of truncations of a copy, because its log was truncated; a copy that always differs is given up."""


# --- the next step: pure -------------------------------------------------------------------------------------------


@value()
class CopyFrom:
    offset: int


@value()
class CutTo:
    offset: int


@value()
class StartOverAt:
    offset: int


@value()
class TakeThePlace:
    """Both end at the same offset, and agree."""


Step: TypeAlias = CopyFrom | CutTo | StartOverAt | TakeThePlace


class Extent(Protocol):
    """The part of a log that is compared."""

    @property
    def log_start_offset(self) -> int: ...
    @property
    def log_end_offset(self) -> int: ...
    @property
    def epoch_entries(self) -> Sequence[tuple[int, int]]:
        """(epoch, start offset), ascending."""
        ...


def next_step(current: Extent, future: Extent) -> Step:
    """The next step to make the copy equal to its log, after any retention or truncation of the log."""
    start = max(current.log_start_offset, future.log_start_offset)
    if future.log_end_offset < current.log_start_offset:
        return StartOverAt(current.log_start_offset)
    agreed = agreed_end(current, future)
    if agreed < future.log_end_offset:
        return CutTo(agreed) if agreed > start else StartOverAt(current.log_start_offset)
    return CopyFrom(agreed) if agreed < current.log_end_offset else TakeThePlace()


def agreed_end(one: Extent, other: Extent) -> int:
    """The offset up to which both hold the same records: two logs of a partition with the same epoch at an offset are
    equal up to there (R2)."""
    end = min(one.log_end_offset, other.log_end_offset)
    start = max(one.log_start_offset, other.log_start_offset)
    while end > start:
        (epoch, begins), (other_epoch, other_begins) = _epoch_at(one, end - 1), _epoch_at(other, end - 1)
        if epoch == other_epoch:
            break
        end = max(start, begins, other_begins)  # from there on their epochs differ
    return end


def _epoch_at(log: Extent, offset: int) -> tuple[int, int]:
    at = bisect_right(log.epoch_entries, offset, key=lambda entry: entry[1])
    return log.epoch_entries[at - 1] if at else (NO_EPOCH, -1)


# --- the moves -----------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Move:
    key: TopicIdPartition
    topic: str
    directory: LogDirectory
    folder: str
    log: PartitionLog | None = None
    """None for a copy that an earlier process began, until it is loaded."""
    cuts: int = 0
    unflushed_bytes: int = 0
    is_durable: bool = False
    """Whether its folder is durable, with the files in it beside records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FutureLog:
    """A copy, for requests that describe the directories."""

    directory: LogDirectory
    log: PartitionLog


OnMoved: TypeAlias = Callable[[TopicIdPartition, PartitionLog], None]
"""(partition, the log that has replaced the old one)"""


class LogsMoved(Protocol):
    """The log manager's interface for its moves."""

    def get(self, partition: TopicIdPartition) -> PartitionLog | None: ...
    def directory_of(self, partition: TopicIdPartition) -> LogDirectory: ...
    def plan_future(self, directory: LogDirectory, log: PartitionLog, folder: str) -> LoadPlan: ...
    def open_future(self, loaded: LoadedLog, plan: LoadPlan, log: PartitionLog) -> PartitionLog: ...
    def took_the_place(self, key: TopicIdPartition, directory: LogDirectory, log: PartitionLog) -> None: ...
    def remove_later(self, log: PartitionLog, folder: str | None) -> None: ...
    async def checkpoint_moved(self, key: TopicIdPartition, source: LogDirectory) -> None: ...


class Moves:
    def __init__(self, environment: Environment, *, events: Events, logs: LogsMoved) -> None:
        self._environment = environment
        self._files = environment.files
        self._events = events
        self._logs = logs
        self._moves: dict[TopicIdPartition, Move] = {}
        self._running: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        """Task of a move whose copy has just become the log: only the end of the process interrupts it."""
        self._is_started = False
        self.on_moved: OnMoved = lambda _key, _log: None

    # --- requests

    def begin(self, key: TopicIdPartition, directory: LogDirectory) -> None:
        """Begin to move the log to that directory; a copy to another one is given up. Raises KafkaStorageError 56."""
        move, log = self._moves.get(key), self._logs.get(key)
        assert log is not None, key
        if move is not None and move.directory is directory:
            return
        if move is not None:
            self._give_up(move, f"it is to be in {directory.path} now")
        if self._logs.directory_of(key) is directory:
            return
        if len(self._moves) >= MOVES_MAX:
            raise KafkaStorageError(f"{len(self._moves)} replicas are being moved; no more than that at a time")
        folder = directory.future_path(log.topic, key.partition)
        try:
            self._moves[key] = Move(key, log.topic, directory, folder, self._create(directory, folder, log))
        except (*UNREADABLE, OSError) as error:
            with suppress(OSError):
                self._files.remove_tree(folder)
            kind = OutOfDescriptors if isinstance(error, OSError) and _lacks_descriptor(error) else KafkaStorageError
            raise kind(f"{folder} cannot be created: {error}") from error
        self._events.emit("replica_move_started", topic=log.topic, partition=key.partition, to=directory.path)
        self._go_on()

    def _create(self, directory: LogDirectory, folder: str, log: PartitionLog) -> PartitionLog:
        self._files.make_directories(folder)
        begin_ceiling(self._files, folder)
        self._files.open(f"{folder}/{MOVED_FILE}", create=True).close()
        write_topic_id(self._files, f"{folder}/{PARTITION_METADATA_FILE}", log.topic_id, sync=False)
        plan = self._logs.plan_future(directory, log, folder)
        future = self._logs.open_future(load_log(replace(plan, is_clean=True)), plan, log)
        if log.log_start_offset:
            future.truncate_fully_and_start_at(log.log_start_offset)
        return future

    def found(self, directory: LogDirectory, name: str, key: TopicIdPartition) -> None:
        """Continue a copy that an earlier process began; remove it if its log is not here any more, or lies there
        already."""
        folder, log = f"{directory.path}/{name}", self._logs.get(key)
        if log is None or self._logs.directory_of(key) is directory or key in self._moves:
            self._files.rename(folder, directory.doomed_path(name, key.partition))
            self._events.emit("replica_move_given_up", path=folder, reason="there is nothing to be copied")
            return
        self._moves[key] = Move(key, log.topic, directory, folder)

    def forget(self, key: TopicIdPartition) -> None:
        """Give up the move of a partition that is being deleted."""
        move = self._moves.get(key)
        if move is not None:
            self._give_up(move, "the partition has been deleted")

    def directory_of(self, log: PartitionLog) -> LogDirectory | None:
        """Directory of a copy; None for a log that is not a copy, or not any more."""
        move = self._moves.get(TopicIdPartition(log.topic_id, log.partition))
        return move.directory if move is not None and move.log is log else None

    def all(self) -> Mapping[TopicIdPartition, FutureLog]:
        return {
            key: FutureLog(directory=move.directory, log=move.log)
            for key, move in self._moves.items()
            if move.log is not None
        }

    # --- life

    def start(self) -> None:
        self._is_started = True
        for key in self._moves:
            self._keep_from_cleaning(key)
        self._go_on()

    def _go_on(self) -> None:
        if self._moves and self._is_started and (self._running is None or self._running.done()):
            self._running = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Finish a move whose copy has become the log; close the other copies, which continue at the next start."""
        self._is_started = False
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        if self._ending is not None:
            await asyncio.gather(self._ending, return_exceptions=True)
        for move in self._moves.values():
            if move.log is not None:
                with suppress(KafkaError, OSError):
                    await move.log.close()
        self._moves.clear()

    async def _run(self) -> None:
        while self._moves:
            have_moved = [await self._advance(move) for move in [*self._moves.values()]]
            if not any(have_moved):
                await self._environment.clock.sleep(DESCRIPTOR_RETRY_MS)

    async def _advance(self, move: Move) -> bool:
        """Advance a move as far as possible; False without progress."""
        try:
            await self._bring_over(move)
        except OutOfDescriptors:
            return False
        except (KafkaError, OSError, *UNREADABLE) as error:
            if isinstance(error, OSError) and _lacks_descriptor(error):
                return False
            log = self._logs.get(move.key)
            if log is not None and log.is_offline and not move.directory.is_offline:
                return False  # it is opened again when its disk works
            if self._is_current(move):
                self._give_up(move, str(error))
        return not self._is_current(move)

    def _is_current(self, move: Move) -> bool:
        return self._moves.get(move.key) is move

    # --- copying

    async def _bring_over(self, move: Move) -> None:
        """Copy. Raises KafkaError, OSError, and the errors in `UNREADABLE`: the copy is useless."""
        log = self._current(move)
        if log is None:
            return
        await log.cleaning.stop()
        if move.log is None:
            await self._load(move, log)
        while (current := self._current(move)) is not None:
            assert move.log is not None
            step = next_step(current, move.log)
            if isinstance(step, TakeThePlace) and move.is_durable and move.unflushed_bytes < CHUNK_BYTES:
                break
            await self._follow(move, move.log, current, step)
            await self._environment.clock.sleep(0)
        if current is not None:
            assert move.log is not None
            await self._take_the_place(move, move.log, current)

    async def _follow(self, move: Move, future: PartitionLog, current: PartitionLog, step: Step) -> None:
        match step:
            case CopyFrom(offset):
                move.unflushed_bytes += self._copy(current, future, offset)
                if move.unflushed_bytes >= FLUSH_BYTES:
                    await self._make_durable(move, future)
            case TakeThePlace():
                await self._make_durable(move, future)
            case _:
                self._cut(move, future, step)

    def _current(self, move: Move) -> PartitionLog | None:
        """The log that is copied; None while no log works, or when the move is over."""
        if not self._is_current(move):
            return None
        if move.directory.is_offline:
            raise KafkaStorageError(f"log directory {move.directory.path} is offline: {move.directory.offline_reason}")
        log = self._logs.get(move.key)
        if log is None or log.is_offline:
            return None
        self._keep_from_cleaning(move.key)
        return log

    def _keep_from_cleaning(self, key: TopicIdPartition) -> None:
        log = self._logs.get(key)
        if log is not None:
            log.cleaning.is_paused = True

    async def _load(self, move: Move, log: PartitionLog) -> None:
        """Load a copy and scan all of it: it has no checkpoint."""
        plan = self._logs.plan_future(move.directory, log, move.folder)
        loaded = await self._environment.workers.run(load_log, plan)
        future = self._logs.open_future(loaded, plan, log)
        if self._is_current(move):
            move.log = future
        else:
            await future.abandon()

    def _copy(self, current: PartitionLog, future: PartitionLog, offset: int) -> int:
        read = current.read(offset, bytes_max=CHUNK_BYTES, upper_bound=current.log_end_offset)
        future.high_watermark = min(current.high_watermark, offset)
        if future.append_as_follower(read.data, now_ms=self._environment.clock.wall_ms()) is None:
            raise KafkaStorageError(f"{current}: there is nothing at offset {offset} before its end")
        future.maybe_increment_log_start(min(current.log_start_offset, future.log_end_offset))
        return len(read.data)

    def _cut(self, move: Move, future: PartitionLog, step: CutTo | StartOverAt) -> None:
        move.cuts += 1
        if move.cuts > CUTS_MAX:
            raise KafkaStorageError(f"{future} was cut {CUTS_MAX} times and is not like its log")
        if isinstance(step, CutTo):
            future.truncate_to(step.offset)
        else:
            future.truncate_fully_and_start_at(step.offset)

    async def _make_durable(self, move: Move, future: PartitionLog) -> None:
        await future.flush()
        move.unflushed_bytes = 0
        if not move.is_durable:
            await self._environment.workers.run(sync_folder, self._files, move.folder)
            move.is_durable = True

    # --- the end of a move

    async def _take_the_place(self, move: Move, future: PartitionLog, current: PartitionLog) -> None:
        """Replace the log. Nothing is appended in between: all of it is one turn of the loop."""
        key, source = move.key, self._logs.directory_of(move.key)
        folder = f"{move.directory.path}/{partition_folder(current.topic, key.partition)}"
        counts_only_synced = current.settings.flush_messages == 1
        if counts_only_synced:
            future.sync_now()
        self._files.rename(move.folder, folder)
        if counts_only_synced:
            self._files.sync_directory(move.directory.path)
        del self._moves[key]
        future.take_over(current, folder=folder)
        self._logs.took_the_place(key, move.directory, future)
        self.on_moved(key, future)
        current.retire(f"it has moved to {folder}")
        current.cleaning.is_paused = False
        self._events.emit(
            "replica_moved",
            topic=current.topic,
            partition=key.partition,
            source=source.path,
            to=move.directory.path,
            log_end_offset=future.log_end_offset,
        )
        self._ending = asyncio.get_running_loop().create_task(self._end(move, current, source, folder))
        await asyncio.shield(self._ending)

    async def _end(self, move: Move, old: PartitionLog, source: LogDirectory, folder: str) -> None:
        """Finish a move. Steps that fail are repeated at the next start."""
        run, doomed = self._environment.workers.run, None
        try:
            await run(self._files.sync_directory, move.directory.path)
            doomed_path = source.doomed_path(old.topic, old.partition)
            self._files.rename(old.folder, doomed_path)
            doomed = doomed_path
            await run(self._files.sync_directory, source.path)
            await run(self._files.remove, f"{folder}/{MOVED_FILE}")
        except OSError as error:
            self._events.emit("replica_move_not_tidied", topic=old.topic, partition=old.partition, reason=str(error))
        self._logs.remove_later(old, doomed)
        await self._logs.checkpoint_moved(move.key, source)

    def _give_up(self, move: Move, reason: str) -> None:
        del self._moves[move.key]
        log = self._logs.get(move.key)
        if log is not None:
            log.cleaning.is_paused = False
        self._events.emit(
            "replica_move_given_up", topic=move.topic, partition=move.key.partition, path=move.folder, reason=reason
        )
        doomed: str | None = None
        with suppress(OSError):  # then it continues, or is removed, at the next start
            path = move.directory.doomed_path(move.topic, move.key.partition)
            self._files.rename(move.folder, path)
            doomed = path
        if move.log is not None:
            move.log.retire(f"it is not copied any more: {reason}")
            self._logs.remove_later(move.log, doomed)


def _lacks_descriptor(error: OSError) -> bool:
    return error.errno in OUT_OF_DESCRIPTORS


# --- at a start ----------------------------------------------------------------------------------------------------


def settle_moves(environment: Environment, directories: Sequence[LogDirectory], events: Events) -> None:
    """Keep the one of two folders of a partition that was moved here. Without a mark neither is known to be newer: none
    is loaded. Blocking. Raises OSError."""
    files = environment.files
    lying: defaultdict[tuple[str, int], list[LogDirectory]] = defaultdict(list)
    for directory in directories:
        for each in directory.partitions():
            lying[each].append(directory)
    for (topic, partition), found in lying.items():
        name = partition_folder(topic, partition)
        moved = [directory for directory in found if files.exists(f"{directory.path}/{name}/{MOVED_FILE}")]
        if len(found) > 1 and len(moved) != 1:
            paths = " and ".join(f"{directory.path}/{name}" for directory in found)
            reason = f"there are {paths}, and none is marked as the newer one: move all but that away"
            events.emit("log_not_loaded", topic=topic, partition=partition, reason=reason)
            for directory in found:
                directory.not_loaded.add((topic, partition))
        elif moved:
            for directory in found:
                if directory is not moved[0]:
                    files.sync_directory(moved[0].path)
                    files.rename(f"{directory.path}/{name}", directory.doomed_path(topic, partition))
                    files.sync_directory(directory.path)
            files.remove(f"{moved[0].path}/{name}/{MOVED_FILE}")
