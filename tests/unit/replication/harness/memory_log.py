"""A ReplicaLog in memory: a list of batches, as simple as can be, and the logs of one broker."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

from kraft.protocol.batches.batch_lookup import Looking
from kraft.protocol.batches.budget import Budget
from kraft.protocol.errors import CorruptMessage, OffsetOutOfRange
from kraft.protocol.primitives import Buffer
from metadata.image import TopicIdPartition
from metadata.settings import TopicSettings
from replication.log_validator import BatchRules, PreparedRecords
from replication.partition.log import (
    AbortedTransaction,
    Appended,
    EpochEnd,
    LogRead,
    Prepare,
    ReplicaLog,
    TimestampedOffset,
)
from replication.producers.origin import CLIENT, Origin
from replication.producers.state import ProducerStates

RULES = BatchRules.of(TopicSettings())
"""Its batches are none of Kafka's, and nothing is asked of them."""

_HEADER = struct.Struct(">qiiqi")
"""base offset, leader epoch, records, timestamp, payload bytes"""


ONCE = b"once:"
"""A payload that begins so is an idempotent producer's: sent again, it is not appended again (D2)."""


@dataclass(frozen=True)
class Batch:
    base_offset: int
    epoch: int
    count: int
    timestamp: int
    payload: bytes

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.count

    def encode(self) -> bytes:
        return _HEADER.pack(self.base_offset, self.epoch, self.count, self.timestamp, len(self.payload)) + self.payload


def batch(payload: bytes, *, count: int = 1, timestamp: int = 0) -> bytes:
    """What a producer sends."""
    return Batch(0, -1, count, timestamp, payload).encode()


def decode(data: Buffer) -> list[Batch]:
    batches, position = [], 0
    data = bytes(data)
    while position + _HEADER.size <= len(data):
        base, epoch, count, timestamp, size = _HEADER.unpack_from(data, position)
        start = position + _HEADER.size
        if start + size > len(data):
            break
        batches.append(Batch(base, epoch, count, timestamp, data[start : start + size]))
        position = start + size
    return batches


def _duplicate(known: Batch) -> Appended:
    return Appended(
        base_offset=known.base_offset,
        last_offset=known.next_offset - 1,
        max_timestamp=known.timestamp,
        size_bytes=len(known.payload),
        log_append_time_ms=known.timestamp,
        is_duplicate=True,
    )


class MemoryLog:
    def __init__(self, topic_id: UUID, settings: TopicSettings) -> None:
        self.topic_id = topic_id
        self.settings = settings
        self.batches: list[Batch] = []
        self.epochs: list[tuple[int, int]] = []
        self.log_start_offset = 0
        self.log_end_offset = 0
        self.flushed_offset = 0
        self.high_watermark = 0
        self.flushes = 0
        self.flush_ms = 0
        self.producer_states = ProducerStates()
        self.corrupt_appends = 0
        """How many of the next appends as a follower find a wrong CRC."""

    @property
    def latest_epoch(self) -> int:
        return self.epochs[-1][0] if self.epochs else -1

    @property
    def size_bytes(self) -> int:
        return sum(len(b.encode()) for b in self.batches)

    def preparation(self) -> Prepare:
        def prepare(data: Buffer, *, now_ms: int, budget: Budget, origin: Origin = CLIENT) -> PreparedRecords:
            budget.take(len(data), 1)
            return PreparedRecords(memoryview(data), (), RULES)

        return prepare

    @property
    def last_stable_offset(self) -> int:
        return self.high_watermark

    def aborted_transactions(self, start: int, stop: int) -> list[AbortedTransaction]:
        return []

    def append_as_leader(
        self,
        data: Buffer | PreparedRecords,
        *,
        leader_epoch: int,
        now_ms: int,
        origin: Origin = CLIENT,
    ) -> Appended:
        data = data.data if isinstance(data, PreparedRecords) else data
        base = self.log_end_offset
        for known in self.batches:
            if known.payload == decode(data)[0].payload and known.payload.startswith(ONCE):
                return _duplicate(known)
        size = 0
        for sent in decode(data):
            stamped = Batch(self.log_end_offset, leader_epoch, sent.count, sent.timestamp, sent.payload)
            self._append(stamped)
            size += len(stamped.encode())
        return Appended(
            base_offset=base,
            last_offset=self.log_end_offset - 1,
            max_timestamp=0,
            size_bytes=size,
            log_append_time_ms=-1,
        )

    def append_as_follower(self, data: Buffer, *, now_ms: int) -> Appended | None:
        if self.corrupt_appends:
            self.corrupt_appends -= 1
            raise CorruptMessage("a CRC is wrong")
        base, batches = self.log_end_offset, decode(data)
        if not batches:
            return None
        for one in batches:
            if one.base_offset < self.log_end_offset:
                raise CorruptMessage(f"batch at {one.base_offset}, log end is {self.log_end_offset}")
            self._append(one)
        return Appended(
            base_offset=base,
            last_offset=self.log_end_offset - 1,
            max_timestamp=0,
            size_bytes=len(data),
            log_append_time_ms=-1,
        )

    def _append(self, one: Batch) -> None:
        if one.epoch > self.latest_epoch:
            self.epochs.append((one.epoch, one.base_offset))
        self.batches.append(one)
        self.log_end_offset = one.next_offset

    def read(self, offset: int, *, bytes_max: int, upper_bound: int, at_least_one_batch: bool = True) -> LogRead:
        if not self.log_start_offset <= offset <= self.log_end_offset:
            raise OffsetOutOfRange(f"{offset} not in {self.log_start_offset}..{self.log_end_offset}")
        data, end = b"", offset
        for one in self.batches:
            if one.next_offset <= offset:
                continue
            encoded = one.encode()
            fits = len(data) + len(encoded) <= bytes_max or (at_least_one_batch and not data)
            if one.next_offset > upper_bound or not fits:
                break
            data, end = data + encoded, one.next_offset
        return LogRead(data=data, next_offset=end)

    def offset_for_timestamp(
        self, timestamp_ms: int, *, upper_bound: int, looking: Looking | None = None
    ) -> TimestampedOffset | None:
        for one in self.batches:
            if one.timestamp >= timestamp_ms and one.next_offset <= upper_bound:
                return TimestampedOffset(offset=one.base_offset, timestamp=one.timestamp, leader_epoch=one.epoch)
        return None

    def max_timestamp(self, *, upper_bound: int, looking: Looking | None = None) -> TimestampedOffset | None:
        below = [one for one in self.batches if one.next_offset <= upper_bound]
        if not below:
            return None
        one = max(below, key=lambda b: b.timestamp)
        return TimestampedOffset(offset=one.base_offset, timestamp=one.timestamp, leader_epoch=one.epoch)

    def assign_epoch_start(self, epoch: int, start_offset: int) -> None:
        if epoch > self.latest_epoch:
            self.epochs = [(e, s) for e, s in self.epochs if s < start_offset] + [(epoch, start_offset)]

    def epoch_of(self, offset: int) -> int:
        return max((epoch for epoch, start in self.epochs if start <= offset), default=-1)

    def end_offset_for_epoch(self, epoch: int) -> EpochEnd | None:
        if not self.epochs or epoch > self.latest_epoch:
            return None
        if epoch == self.latest_epoch:
            return EpochEnd(epoch, self.log_end_offset)
        if epoch < self.epochs[0][0]:
            return EpochEnd(epoch, self.epochs[0][1])
        index = max(i for i, (known, _start) in enumerate(self.epochs) if known <= epoch)
        return EpochEnd(self.epochs[index][0], self.epochs[index + 1][1])

    def truncate_to(self, offset: int) -> None:
        self.batches = [one for one in self.batches if one.next_offset <= offset]
        self.log_end_offset = min(self.log_end_offset, offset)
        self.flushed_offset = min(self.flushed_offset, self.log_end_offset)
        self.epochs = [(e, s) for e, s in self.epochs if s < offset]

    def truncate_fully_and_start_at(self, offset: int) -> None:
        self.batches, self.epochs = [], []
        self.log_start_offset = self.log_end_offset = self.flushed_offset = offset

    def maybe_increment_log_start(self, offset: int) -> bool:
        if offset <= self.log_start_offset:
            return False
        self.log_start_offset = offset
        self.batches = [one for one in self.batches if one.next_offset > offset]
        return True

    def needs_flush(self) -> bool:
        return self.log_end_offset - self.flushed_offset >= self.settings.flush_messages

    async def flush(self) -> int:
        end = self.log_end_offset
        if self.flush_ms:
            await asyncio.sleep(self.flush_ms / 1_000)
        self.flushes += 1
        self.flushed_offset = max(self.flushed_offset, min(end, self.log_end_offset))
        return self.flushed_offset


class MemoryLogs:
    def __init__(self) -> None:
        self.logs: dict[TopicIdPartition, MemoryLog] = {}
        self.names: dict[TopicIdPartition, str] = {}
        self.checkpoint: dict[TopicIdPartition, int] = {}
        self.reopened: list[TopicIdPartition] = []
        self.failure: OSError | None = None
        """What a failed log still says when it is tried again."""

    def get_or_create(self, *, topic: str, topic_id: UUID, partition: int, settings: TopicSettings) -> MemoryLog:
        key = TopicIdPartition(topic_id, partition)
        assert all(k == key or (n, k.partition) != (topic, partition) for k, n in self.names.items()), "folder is taken"
        if key not in self.logs:
            self.logs[key] = MemoryLog(topic_id, settings)
            self.names[key] = topic
        return self.logs[key]

    def watch_failures(
        self,
        on_failure: Callable[[TopicIdPartition, str, bool], None],
        can_do_without: Callable[[TopicIdPartition], bool],
    ) -> None:
        self.on_failure = on_failure

    def watch_moves(self, on_moved: Callable[[TopicIdPartition, ReplicaLog], None]) -> None:
        """None of these moves."""

    async def reopen(self, partition: TopicIdPartition, *, topic: str, is_last: bool) -> None:
        self.reopened.append(partition)
        if self.failure is not None:
            raise self.failure

    async def check_room(self, partition: TopicIdPartition) -> None:
        if self.failure is not None:
            raise self.failure

    def delete(self, partition: TopicIdPartition) -> None:
        self.logs.pop(partition, None)
        self.names.pop(partition, None)

    def update_settings(self, topic_id: UUID, settings: TopicSettings) -> None:
        for key, log in self.logs.items():
            if key.topic_id == topic_id:
                log.settings = settings

    def holder(self, topic: str, partition: int) -> TopicIdPartition | None:
        found = (key for key, name in self.all_partitions().items() if (name, key.partition) == (topic, partition))
        return next(found, None)

    def all_partitions(self) -> Mapping[TopicIdPartition, str]:
        return dict(self.names)

    def high_watermark(self, partition: TopicIdPartition) -> int:
        return self.checkpoint.get(partition, 0)

    async def checkpoint_high_watermarks(self, high_watermarks: Mapping[TopicIdPartition, int]) -> None:
        self.checkpoint.update(high_watermarks)
