"""A partition's interface of its log. `replication.storage` implements it.

Offsets are those of records; `max_bytes` limits whole batches. Methods that only touch the page cache are plain
functions; those that wait for a device are coroutines and run on a worker thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias
from uuid import UUID

from kraft.protocol.batches.batch_lookup import Looking
from kraft.protocol.primitives import Buffer
from kraft.values import value
from metadata.settings import TopicSettings
from replication.log_validator import PreparedRecords
from replication.producers.origin import CLIENT, Origin
from replication.producers.state import ProducerStates


@value()
class EpochEnd:
    """An epoch and the offset after its last record (R3)."""

    epoch: int
    end_offset: int


@value(kw_only=True)
class Appended:
    base_offset: int
    last_offset: int
    max_timestamp: int
    size_bytes: int
    log_append_time_ms: int
    """-1 under CreateTime, except for a duplicate."""
    is_duplicate: bool = False
    """D2: these batches were in the log already; nothing was appended. Offsets and timestamp are the original's."""


@value(kw_only=True)
class LogRead:
    """Whole batches from the one that holds the requested offset."""

    data: Buffer
    next_offset: int
    """The offset after the last batch in `data`; the requested offset when it is empty."""


class AbortedTransaction(NamedTuple):
    """A transaction whose records in a partition no read_committed consumer sees."""

    producer_id: int
    first_offset: int
    last_offset: int = -1
    """Offset of its marker. An answer of Fetch leaves out this and the next field."""
    last_stable_offset: int = -1
    """Everything below it was decided when the marker was appended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimestampedOffset:
    offset: int
    timestamp: int
    leader_epoch: int


Prepare: TypeAlias = Callable[..., PreparedRecords]
"""`prepare_records` without its rules: takes the record set, `now_ms`, `budget` and `origin`."""


class ReplicaLog(Protocol):
    @property
    def topic_id(self) -> UUID: ...
    @property
    def log_start_offset(self) -> int: ...
    @property
    def log_end_offset(self) -> int:
        """The next offset to be written."""
        ...

    high_watermark: int
    """Set by the replica that owns this log."""

    @property
    def last_stable_offset(self) -> int:
        """T7: read_committed consumers read up to here. It is the high watermark, unless a transaction begins below it
        that is open, or whose marker is not below it."""
        ...

    @property
    def flushed_offset(self) -> int:
        """Everything below it has been fsynced."""
        ...

    @property
    def latest_epoch(self) -> int:
        """Epoch of the last entry of the leader epoch cache; -1 when empty."""
        ...

    @property
    def size_bytes(self) -> int: ...
    @property
    def settings(self) -> TopicSettings:
        """The current settings of the topic."""
        ...

    @property
    def producer_states(self) -> ProducerStates:
        """Producer states of the current log; another object after a truncation."""
        ...

    def preparation(self) -> Prepare:
        """The preparation of records before an append, by the current settings; may run on a worker."""
        ...

    def append_as_leader(
        self,
        data: Buffer | PreparedRecords,
        *,
        leader_epoch: int,
        now_ms: int,
        origin: Origin = CLIENT,
    ) -> Appended:
        """Validate each batch once (CRC, magic, counts, deltas, sizes, timestamps, producer sequence) unless that was
        done before, stamp base offset and leader epoch, append. Nothing is appended when one batch is refused, or was
        appended before (D2). Prepared records have their own origin.

        Raises CorruptMessage 2, MessageTooLarge 10, RecordListTooLarge 18, InvalidTimestamp 32, InvalidRecord 87,
        UnsupportedCompressionType 76, OutOfOrderSequenceNumber 45, InvalidProducerEpoch 47, InvalidTxnState 48,
        TransactionCoordinatorFenced 52, KafkaStorageError 56, ThrottlingQuotaExceeded 89, PolicyViolation 44.
        """
        ...

    def append_as_follower(self, data: Buffer, *, now_ms: int) -> Appended | None:
        """Append batches as the leader stamped them; a trailing partial batch is ignored (None: nothing whole). The
        first batch of an empty log may span the log end offset: the log then starts at its base offset.

        Raises CorruptMessage 2 when a CRC is wrong or the base offset lies before the log end offset.
        """
        ...

    def read(self, offset: int, *, bytes_max: int, upper_bound: int, at_least_one_batch: bool = True) -> LogRead:
        """Batches that start below `upper_bound` and end at or before it.

        Raises OffsetOutOfRange 1 for an offset < log start or > log end.
        """
        ...

    def aborted_transactions(self, start: int, stop: int) -> list[AbortedTransaction]:
        """Aborted transactions with offsets in the range, ascending by their first one. Raises CorruptMessage,
        KafkaStorageError."""
        ...

    def offset_for_timestamp(
        self, timestamp_ms: int, *, upper_bound: int, looking: Looking | None = None
    ) -> TimestampedOffset | None:
        """The first record with a timestamp >= the requested one, below the bound. Raises NeedsWorker for a batch that
        is too large to be searched here; the next call has the worker's result in `looking`."""
        ...

    def max_timestamp(self, *, upper_bound: int, looking: Looking | None = None) -> TimestampedOffset | None: ...
    def assign_epoch_start(self, epoch: int, start_offset: int) -> None:
        """L9: a new leader records its epoch even without a record; durable before it returns (R8)."""
        ...

    def epoch_of(self, offset: int) -> int:
        """Epoch of the record at the offset, or of the next one to be appended; -1 when it is not known."""
        ...

    def end_offset_for_epoch(self, epoch: int) -> EpochEnd | None:
        """R3. The largest known epoch <= the requested one with its end offset; None when undefined."""
        ...

    def truncate_to(self, offset: int) -> None:
        """Remove everything from `offset` on, also from the epoch cache (R8)."""
        ...

    def truncate_fully_and_start_at(self, offset: int) -> None: ...
    def maybe_increment_log_start(self, offset: int) -> bool:
        """Move the log start for DeleteRecords or to the leader's log start (R8). Whole segments below are deleted
        later."""
        ...

    def needs_flush(self) -> bool:
        """Whether flush.messages is reached (with 1: after each append), or something was truncated since the last
        flush: the truncation has to be durable before anything is written in its place. flush.ms is the log manager's
        timer."""
        ...

    async def flush(self) -> int:
        """fsync up to the current end; return the flushed offset. Concurrent calls share one fsync."""
        ...
