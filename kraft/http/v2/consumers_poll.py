"""One read of a REST consumer: ask its coordinator from where, read the partitions, tell it what was read, answer.

The records never pass through the coordinator. A batch is named by a token: asked for again with the same token it is
read again, wholly or not at all; the next token acknowledges it. Without a token, asking again acknowledges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from kraft.broker.gateway import Gateway
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.http.context import Context
from kraft.http.embedded_records import encode_json
from kraft.http.errors import BAD_REQUEST, HttpError
from kraft.http.media import Format
from kraft.http.records import on_records, take_records
from kraft.protocol.errors import (
    KafkaError,
    LeaderNotAvailable,
    NotLeaderOrFollower,
    OffsetOutOfRange,
    UnknownTopicOrPartition,
)
from kraft.protocol.primitives import Buffer, TopicPartition
from metadata.image import TopicIdPartition
from replication.requests import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, ReadOptions

_RESET = {"earliest": EARLIEST_TIMESTAMP, "latest": LATEST_TIMESTAMP}


@dataclass(slots=True)
class Part:
    """One partition of a read."""

    key: TopicPartition
    first: int
    next: int
    end: int = -1
    """Where a repetition stops."""
    epoch: int = -1
    """The newest leader epoch in which it was read, now or before."""
    pieces: list[Buffer] = field(default_factory=list)
    """The records as JSON, without the brackets around them."""

    @property
    def range(self) -> r.Range:
        return (*self.key, self.first, self.next)

    @property
    def is_cut_short(self) -> bool:
        """A repeated read that has not reached the end of the first batch yet."""
        return self.next < self.end


class Poll:
    def __init__(
        self, context: Context, plan: a.PollPlan, form: Format, *, bytes_max: int, hold: Callable[[int], None]
    ) -> None:
        """`hold` counts the bytes that are there for the answer."""
        self._context = context
        self._hold = hold
        self._gateway: Gateway = context.gateway
        self._plan = plan
        self._form = form
        self._bytes_max = bytes_max
        self._size = 0
        self._records_left = context.limits.read_records_max
        self._unread: KafkaError | None = None
        self.has_resolved = False
        """A position was found by auto.offset.reset: it has to be kept, or the next read would look elsewhere."""
        self.parts: list[Part] = []

    @property
    def ranges(self) -> tuple[r.Range, ...]:
        return tuple(part.range for part in self.parts)

    @property
    def epochs(self) -> tuple[r.Epoch, ...]:
        return tuple((*part.key, part.epoch) for part in self.parts if part.epoch >= 0)

    @property
    def has_moved(self) -> bool:
        """Over records, or over what is not for this reader: markers, and the records of aborted transactions."""
        return any(part.first < part.next for part in self.parts)

    async def run(self, *, wait_ms: int) -> None:
        """Raises KafkaError, HttpError."""
        self.parts = [await self._part(each) for each in self._rotated()]
        deadline_ms = self._context.clock.monotonic_ms() + wait_ms
        wanted = min(max(self._plan.config.fetch_bytes_min, 1), self._bytes_max)
        while True:
            await self._sweep()
            if self._unread is not None and not self._size:
                raise self._unread
            remaining_ms = deadline_ms - self._context.clock.monotonic_ms()
            if self._plan.is_repeat:
                waiting = [part for part in self.parts if part.is_cut_short]
                if waiting and remaining_ms <= 0:
                    raise _cannot_repeat(waiting[0], number=self._plan.number)
                if not waiting:
                    return
            elif self._size >= wanted or remaining_ms <= 0:
                return
            else:
                waiting = self.parts
            await self._wait(waiting, remaining_ms)

    def keep(self, ranges: tuple[r.Range, ...]) -> None:
        """Only these stay in the answer."""
        kept = {each[:2] for each in ranges}
        self.parts = [part for part in self.parts if part.key in kept]

    def encoded(self) -> bytes:
        return b"[" + b",".join(piece for part in self.parts for piece in part.pieces) + b"]"

    def _rotated(self) -> tuple[r.Range, ...]:
        """No partition is always the last, which a busy one before it would starve."""
        ranges = self._plan.ranges
        if self._plan.is_repeat:
            return ranges
        start = self._plan.number % len(ranges) if ranges else 0
        return ranges[start:] + ranges[:start]

    async def _part(self, found: r.Range) -> Part:
        topic, partition, first, end = found
        if first < 0:
            first = await self._reset((topic, partition))
        epoch = max((each[2] for each in self._plan.epochs if each[:2] == found[:2]), default=-1)
        return Part((topic, partition), first, first, end, epoch)

    async def _reset(self, key: TopicPartition) -> int:
        policy = self._plan.config.reset
        if policy not in _RESET:
            raise HttpError(
                BAD_REQUEST,
                f"there is no valid committed offset of {key[0]}-{key[1]}, and auto.offset.reset is none; seek first",
                extra={"kafka_code": OffsetOutOfRange.code},
            )
        self.has_resolved = True
        is_committed = self._plan.config.is_read_committed
        answer = await self._gateway.list_offset(self._where(key), _RESET[policy], is_read_committed=is_committed)
        return answer.offset

    async def _sweep(self) -> None:
        for part in self.parts:
            left = self._bytes_max - self._size
            if (left <= 0 or self._records_left <= 0) and not self._plan.is_repeat:
                return
            await self._context.clock.sleep(0)  # neither a read of a log that is here nor a small encoding suspends
            try:
                await self._read(part, left)
            except OffsetOutOfRange:
                if self._plan.is_repeat:
                    raise
                if self._is_behind(part):
                    self._unread = NotLeaderOrFollower(
                        f"the leader that this node knows of {part.key} is not the newest"
                    )
                    continue
                part.first = part.next = await self._reset(part.key)
            except KafkaError as error:
                # A partition without a leader must not keep the others' records back; alone, it is the answer.
                if not error.retriable or self._plan.is_repeat:
                    raise
                self._unread = error

    async def _read(self, part: Part, bytes_max: int) -> None:
        if part.end < 0:
            await self._read_piece(part, bytes_max, self._records_left)
            return
        limits, has_moved = self._context.limits, True
        while part.next < part.end and has_moved:
            has_moved = await self._read_piece(part, limits.read_bytes_max, limits.read_records_max)

    async def _read_piece(self, part: Part, bytes_max: int, records_max: int) -> bool:
        """Whether the read has moved the next offset."""
        where = self._where(part.key)
        options = ReadOptions(
            bytes_max=await self._context.room(bytes_max),
            bytes_min=1,
            is_read_committed=self._plan.config.is_read_committed,
        )
        found = await self._gateway.read(where, part.next, options)
        first, end, form = part.next, part.end, self._form

        def encode(inflated_max: int) -> tuple[int, int, int, Buffer]:
            records, next_offset, size = take_records(
                found.data,
                first,
                bytes_max=bytes_max,
                records_max=records_max,
                inflated_max=inflated_max,
                aborted=found.aborted,
            )
            if end >= 0:
                records = [record for record in records if record.offset < end]
                next_offset = min(next_offset, end)
            # At once, so that no record of a large answer outlives its batch.
            return next_offset, size, len(records), encode_json(records, form, topic=part.key[0], partition=part.key[1])

        next_offset, size, count, encoded = await on_records(self._context.record_workers, found.data, encode)
        if count:
            self._hold(len(encoded))
            part.pieces.append(memoryview(encoded)[1:-1])
            self._size += size
            self._records_left -= count
        part.epoch = max(part.epoch, found.leader_epoch)
        has_moved, part.next = next_offset > part.next, next_offset
        self._context.metrics.fetched_bytes.inc(len(found.data))
        return has_moved

    def _is_behind(self, part: Part) -> bool:
        """What a deposed leader lacks is not out of range (KIP-320)."""
        topic = self._gateway.image.topic(part.key[0])
        state = None if topic is None else topic.partitions.get(part.key[1])
        return state is not None and state.leader_epoch < part.epoch

    async def _wait(self, parts: list[Part], wait_ms: int) -> None:
        """Until one of the partitions has something new, or the time is over."""
        if not parts:
            await self._context.clock.sleep(wait_ms)
            return
        positions = {self._where(part.key): part.next for part in parts}
        config = self._plan.config
        any_byte = ReadOptions(bytes_max=1, wait_ms_max=wait_ms, is_read_committed=config.is_read_committed)
        await self._gateway.tail(positions, any_byte)

    def _where(self, key: TopicPartition) -> TopicIdPartition:
        topic = self._gateway.image.topic(key[0])
        if topic is None:
            raise UnknownTopicOrPartition(f"topic {key[0]!r} does not exist any more")
        return TopicIdPartition(topic.topic_id, key[1])


def _cannot_repeat(part: Part, *, number: int) -> KafkaError:
    """Its other partitions alone would pass for the batch, and the next token would acknowledge what was left out."""
    topic, partition = part.key
    return LeaderNotAvailable(
        f"batch {number} cannot be read again yet: it holds {topic}-{partition} up to offset {part.end - 1}, and the "
        f"leader lets {part.next - 1} be read; ask again, or go on with token {number + 1}"
    )
