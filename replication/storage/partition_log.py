"""One partition's log: segments in order, their epochs, and the offsets that bound them. Implements `ReplicaLog`.

Invariant: log start <= log end, flushed offset <= log end, every batch between start and end is in exactly one segment,
and the producers are those of the batches below the end. All writing uses `_append`. Owned by the event loop; only
`flush`, snapshots and removal of files use worker threads, on files that stay open until then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from uuid import UUID

from kraft.protocol.batches.batch_lookup import Looking
from kraft.protocol.batches.budget import Budget
from kraft.protocol.batches.header import (
    CONTROL,
    HEADER_BYTES,
    LOG_APPEND_TIME,
    LOG_OVERHEAD,
    NO_PRODUCER_ID,
    BatchHeader,
    stamped,
    stamped_with_append_time,
)
from kraft.protocol.errors import OffsetOutOfRange
from kraft.protocol.primitives import Buffer
from kraft.values import new
from metadata.environment import Environment
from metadata.settings import TopicSettings
from replication.log_validator import BatchRules, PreparedRecords, prepare_or_refuse, prepare_records
from replication.partition.log import AbortedTransaction, Appended, EpochEnd, LogRead, Prepare, TimestampedOffset
from replication.producers.origin import CLIENT, Origin
from replication.producers.state import ProducerLimits, ProducerStates
from replication.storage.append_cache import RecentAppends, Tail
from replication.storage.availability import Availability
from replication.storage.cleaner_log import LogCleaning
from replication.storage.flusher import Flusher
from replication.storage.follower_batches import check_leader_batches, joined, segment_groups
from replication.storage.header_scan import DamagedLog
from replication.storage.log_reader import LogReader
from replication.storage.names import EPOCHS_FILE
from replication.storage.producer_state_manager import ProducerStateManager
from replication.storage.recovery import LoadedLog
from replication.storage.segment import Segment
from replication.storage.segments import Segments

_max_timestamp = attrgetter("max_timestamp")


class PartitionLog:
    def __init__(
        self,
        environment: Environment,
        loaded: LoadedLog,
        *,
        topic: str,
        partition: int,
        topic_id: UUID,
        folder: str,
        settings: TopicSettings,
        flushed_offset: int,
        on_failure: Callable[[PartitionLog, OSError | None], None],
        on_damage: Callable[[PartitionLog, str], None],
        on_roll: Callable[[PartitionLog], None],
        on_index_rebuilt: Callable[[PartitionLog, Segment, str], None],
        recent: RecentAppends,
        producer_limits: Callable[[], ProducerLimits],
    ) -> None:
        self.topic, self.partition, self.folder = topic, partition, folder
        self._topic_id = topic_id
        self._environment = environment
        self._on_roll = on_roll
        self._availability = Availability(self, on_failure, on_damage)
        self._epochs = loaded.epochs
        # Both are read at each step of a fetch; only the methods here change them.
        self.log_start_offset, self.log_end_offset = loaded.log_start_offset, loaded.log_end_offset
        self._segments = Segments(
            environment,
            folder,
            loaded.segments,
            settings,
            lambda segment, reason: on_index_rebuilt(self, segment, reason),
        )
        self.ceiling = loaded.ceiling
        self._flusher = Flusher(environment.workers, min(flushed_offset, self.log_end_offset), loaded.ceiling)
        self._tail = Tail(recent, end_offset=self.log_end_offset, position=self._segments.active.size)
        self._reader = LogReader(self._segments, self._tail, self._epochs, self._availability)
        self.cleaning = LogCleaning(environment, folder, self._segments)
        self.producers = ProducerStateManager(environment, folder, self._segments, loaded.producers, producer_limits)
        self.high_watermark = self.log_start_offset
        """Set by the replica that owns this log, at each change."""
        self.is_governed = False
        """The topic's settings are known from the metadata. Until then the broker's defaults are used, and nothing may
        be deleted, compacted or forgotten because of them: a topic may keep its records for ever."""
        self._apply_settings(settings)

    # --- facts ------------------------------------------------------------------------------------------------

    @property
    def topic_id(self) -> UUID:
        return self._topic_id

    @property
    def flushed_offset(self) -> int:
        return self._flusher.flushed_offset

    @property
    def latest_epoch(self) -> int:
        return self._epochs.latest_epoch

    @property
    def epoch_entries(self) -> tuple[tuple[int, int], ...]:
        return self._epochs.entries

    @property
    def size_bytes(self) -> int:
        return self._segments.size_bytes

    @property
    def segment_count(self) -> int:
        return len(self._segments)

    @property
    def producer_states(self) -> ProducerStates:
        return self.producers.states

    @property
    def is_offline(self) -> bool:
        return self._availability.reason is not None

    @property
    def offline_reason(self) -> str | None:
        return self._availability.reason

    @property
    def is_damaged(self) -> bool:
        """The whole log must be scanned when it is opened again."""
        return self._availability.is_damaged

    @property
    def is_retired(self) -> bool:
        return self._availability.is_retired

    @property
    def settings(self) -> TopicSettings:
        return self._settings

    def update_settings(self, settings: TopicSettings) -> None:
        self.is_governed = True
        self._apply_settings(settings)
        self._segments.update_settings(settings)

    def _apply_settings(self, settings: TopicSettings) -> None:
        self._settings = settings
        self._rules = BatchRules.of(settings)
        self._flusher.messages_max = settings.flush_messages

    # --- appending --------------------------------------------------------------------------------------------

    def preparation(self) -> Prepare:
        return partial(prepare_records, rules=self._rules)

    def append_as_leader(
        self,
        data: Buffer | PreparedRecords,
        *,
        leader_epoch: int,
        now_ms: int,
        origin: Origin = CLIENT,
    ) -> Appended:
        self._availability.check()
        if not isinstance(data, PreparedRecords):
            prepared = self._prepared(data, now_ms=now_ms, origin=origin)
        elif (
            data.rules is not self._rules and data.rules != self._rules
        ):  # the topic's settings changed while a worker checked the records
            prepared = self._prepared(data.data, now_ms=now_ms, origin=data.origin)
        else:
            prepared = data
        owned, position = prepared.data, 0
        headers: list[BatchHeader] = []
        offset = self.log_end_offset
        for header in prepared.headers:
            if header.producer_id != NO_PRODUCER_ID:
                duplicate = self.producers.duplicate_of(
                    self, header, owned, batches=len(prepared.headers), origin=prepared.origin
                )
                if duplicate is not None:
                    return duplicate
            if self._rules.is_log_append_time:
                records = owned[position + HEADER_BYTES : position + header.size]
                header, front = stamped_with_append_time(
                    header, records, base_offset=offset, leader_epoch=leader_epoch, now_ms=now_ms
                )
            else:
                header, front = stamped(header, base_offset=offset, leader_epoch=leader_epoch)
            owned[position : position + len(front)] = front
            position += header.length + LOG_OVERHEAD
            headers.append(header)
            offset += header.last_offset_delta + 1
        appended = self._append(owned, headers, now_ms=now_ms)
        self._tail.keep(owned, base_offset=appended.base_offset, next_offset=offset)
        return appended

    def _prepared(self, data: Buffer, *, now_ms: int, origin: Origin) -> PreparedRecords:
        return prepare_or_refuse(data, rules=self._rules, now_ms=now_ms, budget=Budget(), origin=origin)

    def append_as_follower(self, data: Buffer, *, now_ms: int) -> Appended | None:
        """Append stamped batches; more than a segment holds is appended in several steps, each whole."""
        self._availability.check()
        view = memoryview(data)
        is_empty = self.log_start_offset == self.log_end_offset
        headers = check_leader_batches(view, log=self, log_end_offset=self.log_end_offset, is_empty=is_empty)
        if headers and headers[0].base_offset < self.log_end_offset:
            self.truncate_fully_and_start_at(headers[0].base_offset)
        size = sum([header.length for header in headers]) + LOG_OVERHEAD * len(headers)
        if headers and (len(headers) == 1 or size <= self._settings.segment_size):
            return self._append(view[:size], headers, now_ms=now_ms)
        appended: Appended | None = None
        position = 0
        for group in segment_groups(headers, self._settings.segment_size):
            size = sum(header.size for header in group)
            step = self._append(view[position : position + size], group, now_ms=now_ms)
            appended = step if appended is None else joined(appended, step)
            position += size
        return appended

    def _append(self, data: Buffer, headers: Sequence[BatchHeader], *, now_ms: int) -> Appended:
        """The only method by which the log grows, by whole batches: roll, write, update epochs, marks and the end."""
        base_offset, last = headers[0].base_offset, headers[-1]
        last_offset = last.base_offset + last.last_offset_delta
        assert base_offset >= self.log_end_offset, (base_offset, self.log_end_offset)  # compaction leaves gaps (S2)
        size = len(data)
        max_timestamp = max(map(_max_timestamp, headers))
        epochs_before: Sequence[tuple[int, int]] | None = None
        try:
            if self._flusher.has_unflushed_cut:
                self._flusher.sync_cut(self._segments.active)
            if self._segments.should_roll(
                more_bytes=size, last_offset=last_offset, max_timestamp=max_timestamp, now_ms=now_ms
            ):
                self._roll(now_ms, was_empty=not self._segments.active.size)
            for header in headers:
                if header.leader_epoch > self._epochs.latest_epoch:
                    epochs_before = self._epochs.entries if epochs_before is None else epochs_before
                    self._epochs.assign(header.leader_epoch, header.base_offset)
            position = self._segments.active.append((data,), headers)
        except (OSError, DamagedLog) as error:
            if epochs_before is not None:
                self._epochs.restore(epochs_before)
            raise self._availability.failed(error, "appending", changes_nothing=True) from error
        self.log_end_offset = last_offset + 1
        self._tell_producers(data, headers, now_ms=now_ms)
        self._tail.appended(next_offset=self.log_end_offset, position=position)
        made = new(Appended)
        Appended.__init__(
            made,
            base_offset=base_offset,
            last_offset=last_offset,
            max_timestamp=max_timestamp,
            size_bytes=size,
            log_append_time_ms=now_ms if headers[0].attributes & LOG_APPEND_TIME else -1,
        )
        return made

    def _tell_producers(self, data: Buffer, headers: Sequence[BatchHeader], *, now_ms: int) -> None:
        position = 0
        for header in headers:
            if header.producer_id == NO_PRODUCER_ID:
                pass
            elif header.attributes & CONTROL:
                marker = memoryview(data)[position : position + header.size]
                with self._availability.guard("writing the index of aborted transactions"):
                    self._flusher.folder_changed |= self.producers.marked(
                        header, marker, now_ms=now_ms, high_watermark=self.high_watermark
                    )
            else:
                self.producers.appended(header, now_ms=now_ms)
            position += header.length + LOG_OVERHEAD

    def _roll(self, now_ms: int, *, was_empty: bool) -> None:
        self._segments.roll(self.log_end_offset, now_ms=now_ms)
        self._flusher.folder_changed = True
        self._reset_tail()
        if not was_empty:
            self.producers.rolled(self.log_end_offset)
            self._on_roll(self)

    # --- reading ----------------------------------------------------------------------------------------------

    def read(self, offset: int, *, bytes_max: int, upper_bound: int, at_least_one_batch: bool = True) -> LogRead:
        self._availability.check()
        if not self.log_start_offset <= offset <= self.log_end_offset:
            raise OffsetOutOfRange(
                f"{self}: offset {offset} is not between {self.log_start_offset} and {self.log_end_offset}"
            )
        bound = min(upper_bound, self.log_end_offset)
        if offset >= bound:
            return LogRead(data=b"", next_offset=offset)
        return self._reader.read(
            offset,
            bytes_max=bytes_max,
            upper_bound=bound,
            log_end=self.log_end_offset,
            at_least_one_batch=at_least_one_batch,
        )

    @property
    def last_stable_offset(self) -> int:
        unstable = self.producers.states.first_unstable_offset(self.high_watermark)
        if unstable is None or unstable >= self.high_watermark:
            return self.high_watermark
        return max(unstable, self.log_start_offset)

    def aborted_transactions(self, start: int, stop: int) -> list[AbortedTransaction]:
        return self._reader.aborted_transactions(start, stop)

    def offset_for_timestamp(
        self, timestamp_ms: int, *, upper_bound: int, looking: Looking | None = None
    ) -> TimestampedOffset | None:
        bounds = range(self.log_start_offset, min(upper_bound, self.log_end_offset))
        return self._reader.offset_for_timestamp(timestamp_ms, bounds, looking or Looking())

    def max_timestamp(self, *, upper_bound: int, looking: Looking | None = None) -> TimestampedOffset | None:
        bounds = range(self.log_start_offset, min(upper_bound, self.log_end_offset))
        return self._reader.max_timestamp(bounds, looking or Looking())

    # --- epochs and truncation --------------------------------------------------------------------------------

    def assign_epoch_start(self, epoch: int, start_offset: int) -> None:
        self._availability.check()
        with self._availability.guard("recording a leader epoch", changes_nothing=True):
            self._epochs.assign(epoch, start_offset)

    def epoch_of(self, offset: int) -> int:
        return self._epochs.epoch_of(offset)

    def end_offset_for_epoch(self, epoch: int) -> EpochEnd | None:
        return self._epochs.end_offset_for(epoch, log_end_offset=self.log_end_offset)

    def truncate_to(self, offset: int) -> None:
        self._availability.check()
        if offset >= self.log_end_offset:
            self._forget_empty_epochs()
            return
        if offset < self.log_start_offset:
            self.truncate_fully_and_start_at(offset)
            return
        with self._availability.guard("truncating"):
            self.log_end_offset = max(self._segments.truncate_to(offset), self.log_start_offset)
            self._epochs.truncate_from_end(self.log_end_offset)
            self.producers.truncated(self.log_end_offset)
        self._cut(self.log_end_offset)

    def _forget_empty_epochs(self) -> None:
        """KIP-101: a leader without a record has begun its epoch nevertheless; its next leader may not know that
        epoch."""
        with self._availability.guard("truncating epochs"):
            self._epochs.truncate_from_end(self.log_end_offset)

    def truncate_fully_and_start_at(self, offset: int) -> None:
        self._availability.check()
        try:
            self._segments.start_over_at(offset)
            self._epochs.clear()
            self.producers.started_over()
        except OSError as error:
            self.take_offline(f"truncating fully failed: {error}")
            raise self._availability.failed(error, "truncating") from error
        self.log_start_offset = self.log_end_offset = offset
        self._cut(offset)

    def _cut(self, end_offset: int) -> None:
        self._flusher.cut(end_offset)
        self._reader.forget_ends()
        self.cleaning.cut(end_offset)
        self._flusher.folder_changed = True
        self._reset_tail()

    def maybe_increment_log_start(self, offset: int) -> bool:
        """Move the log start. Raises OffsetOutOfRange beyond the log end."""
        if offset <= self.log_start_offset:
            return False
        if offset > self.log_end_offset:
            raise OffsetOutOfRange(f"{self}: the log cannot start at {offset}, it ends at {self.log_end_offset}")
        with self._availability.guard("moving the log start"):
            self._epochs.truncate_from_start(offset)
        self.log_start_offset = offset
        return True

    def delete_old_segments(self, *, high_watermark: int, now_ms: int) -> tuple[int, str]:
        """Remove the segments that retention allows from the log; return their number, and the setting that decided."""
        self._availability.check()
        deletion = self._segments.deletable(
            log_start_offset=self.log_start_offset,
            high_watermark=high_watermark,
            log_end_offset=self.log_end_offset,
            now_ms=now_ms,
        )
        if deletion is None:
            return 0, ""
        with self._availability.guard("deleting old segments"):
            if deletion.count == len(self._segments):
                self._roll(now_ms, was_empty=False)
            self._segments.drop_oldest(deletion.count)
            self.producers.segments_dropped()
        self.maybe_increment_log_start(self._segments.first_base_offset)
        return deletion.count, deletion.reason

    @property
    def has_files_to_remove(self) -> bool:
        return self._segments.has_condemned

    async def remove_deleted_files(self, *, everything: bool = False) -> int:
        """Remove the files whose file.delete.delay.ms is over; return the number of segments."""
        due = self._segments.take_due(everything=everything)
        if due:
            self._reader.forget_ends()
            await self._flusher.wait_idle()
            await self.cleaning.wait_idle()
            await self._environment.workers.run(self._segments.remove, due)
        return len(due)

    def needs_flush(self) -> bool:
        return self._flusher.is_due(self.log_end_offset)

    async def flush(self) -> int:
        self._availability.check()
        with self._availability.guard("flushing", changes_nothing=True):
            return await self._flusher.flush(lambda: self.log_end_offset, self._segments, self._epochs)

    def sync_now(self) -> None:
        """Sync at once. Blocking: see `Flusher.sync_now`."""
        with self._availability.guard("flushing"):
            self._flusher.sync_now(self.log_end_offset, self._segments, self._epochs)

    def take_over(self, other: PartitionLog, *, folder: str) -> None:
        """Make this copy the log: it ends at the same offset, and its folder was renamed."""
        assert self.log_end_offset == other.log_end_offset, (self.log_end_offset, other.log_end_offset)
        self.folder = folder
        self._segments.folder_renamed(folder)
        self._epochs.file_renamed(f"{folder}/{EPOCHS_FILE}")
        self.ceiling.folder_renamed(folder)
        self.cleaning.folder_renamed(folder)
        self.producers.take_over(other.producers, folder=folder)
        self._flusher.folder_changed = True
        if self.epoch_entries != other.epoch_entries:
            self._epochs.restore(other.epoch_entries)
        self.log_start_offset = max(self.log_start_offset, other.log_start_offset)
        self.high_watermark = other.high_watermark
        self.cleaning.restore(other.cleaning.cleaned_to, log_end_offset=self.log_end_offset)
        if other.is_governed:
            self.update_settings(other.settings)

    async def close(self) -> None:
        """Flush, complete the time index, close. An offline log is only closed."""
        await self._settle()
        try:
            if not self.is_offline:
                self._segments.active.finish_time_index()
                await self.flush()
                with self._availability.guard("writing a snapshot of producers"):
                    await self.producers.close(self.log_end_offset)
        finally:
            self._segments.close()

    async def save_producers(self) -> None:
        """Write the snapshot that the last roll took; its name is durable with the next flush."""
        self._availability.check()
        with self._availability.guard("writing a snapshot of producers"):
            self._flusher.folder_changed |= await self.producers.write_pending()

    def retire(self, reason: str) -> None:
        self._availability.retire(reason)

    async def abandon(self) -> None:
        """Close the files unchanged, after their last use."""
        await self._settle()
        self._segments.close()

    async def _settle(self) -> None:
        self._reset_tail()
        await self.cleaning.stop()
        await self._flusher.wait_idle()
        await self.producers.wait_idle()

    def take_offline(self, reason: str) -> None:
        self._availability.take_offline(reason)

    def _reset_tail(self) -> None:
        self._tail.reset(end_offset=self.log_end_offset, position=self._segments.active.size)

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"
