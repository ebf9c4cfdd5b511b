"""The producer: takes records, gives each exactly one result, and holds buffer.memory of them at most.

`send` returns as soon as the record has room; await what it returns for the result. Records of one partition are
written in the order of their `send`. When the buffer is full `send` waits, for max.block.ms at most.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Final

from kraft.client.attempts import TOO_LARGE
from kraft.client.buffer import BATCH_HEADER_BYTES
from kraft.client.connection import Connection
from kraft.client.errors import BufferExhausted, ClientClosed, KraftError, RecordRefused, ServerError
from kraft.client.lanes import Lane
from kraft.client.partitioning import Partitioner
from kraft.client.posting import Counts, Poster
from kraft.client.records import Data, Delivery, Headers, Sent, size_of, to_bytes, to_headers
from kraft.client.room import Room
from kraft.client.settings import ProducerSettings
from kraft.client.view import TopicView
from kraft.protocol.errors import UnknownTopicOrPartition

UNKNOWN_TOPIC_WAIT_MS: Final = 3_000
"""A topic that was created a moment ago may not be known to every node yet."""
YIELD_EVERY_BYTES: Final = 16_384
"""A caller that never waits lets the lanes run after so many bytes."""


class AsyncProducer:
    """From `AsyncClient.producer`. An async context manager: leaving it flushes, and after an error closes at once."""

    def __init__(self, connection: Connection, settings: ProducerSettings) -> None:
        self.settings = settings
        self._connection = connection
        self._clock = connection.world.clock
        self._poster = Poster(connection, settings)
        self._partitioner = Partitioner(rng=connection.world.rng, batch_size=settings.batch_size)
        self._room = Room(settings, self._clock)
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._is_closed = False
        self._unyielded = 0

    @property
    def counts(self) -> Counts:
        """Results so far."""
        return self._poster.counts

    @property
    def buffered_bytes(self) -> int:
        """Of buffer.memory, by records that have no result yet."""
        return self._room.used

    async def send(
        self,
        topic: str,
        value: Data,
        *,
        key: Data = None,
        partition: int | None = None,
        headers: Headers = (),
        timestamp: int | None = None,
    ) -> Sent:
        """Take a record; await the answer for its Delivery. `timestamp` is in ms, now if None.

        Raises BufferExhausted after max.block.ms, ServerError (404) for an unknown topic, KraftError for an unknown
        partition, ClientClosed: the record was not taken then, and has no other result.
        """
        if self._is_closed:
            raise ClientClosed("the producer is closed; make another")
        key, value = to_bytes(key), to_bytes(value)
        named = to_headers(headers) if headers else []
        view = self._connection.known_topic(topic) or await self._wait_for_topic(topic)
        if partition is not None and partition >= view.partitions:
            view = await self._grown(view, partition)
        size = size_of(key, value, named)
        number = self._place(view, key, partition, size)
        record = Sent(
            topic, number, key, value, named,
            self._clock.wall_ms() if timestamp is None else timestamp, self._clock.monotonic_ms(),
        )  # fmt: skip
        if size > self.settings.max_request_size - BATCH_HEADER_BYTES:
            self._poster.fail([record], self._too_large(size))
            return record
        if not self._room.take_now(size):
            await self._room.take(size)
        self._lane(topic, number).append(record)
        await self._let_others_run(size)
        return record

    async def send_and_wait(
        self,
        topic: str,
        value: Data,
        *,
        key: Data = None,
        partition: int | None = None,
        headers: Headers = (),
        timestamp: int | None = None,
    ) -> Delivery:
        """`send` and its result. Raises RecordRefused, RecordUnknown, and what `send` raises."""
        sent = await self.send(topic, value, key=key, partition=partition, headers=headers, timestamp=timestamp)
        return await sent

    async def flush(self) -> Counts:
        """Send what waits, now, and wait until every record that was taken before has its result."""
        await asyncio.gather(*(lane.flush() for lane in self._lanes.values()))
        self._raise_broken()
        return self.counts

    async def close(self, *, timeout_ms: int | None = None) -> Counts:
        """Flush, for `timeout_ms` at most (None: as long as delivery.timeout.ms allows), and end.

        Records without a result by then are refused if they never left, else unknown; 0: nothing more is sent.
        """
        if self._is_closed:
            return self.counts
        self._is_closed = True
        self._room.close()
        try:
            if timeout_ms != 0:  # else a flush would begin, and what it had sent by then would be unknown
                await self._flush_within(self.settings.delivery_timeout_ms if timeout_ms is None else timeout_ms)
        finally:
            await asyncio.gather(*(lane.close() for lane in self._lanes.values()))
        self._raise_broken()
        return self.counts

    async def _flush_within(self, timeout_ms: int) -> None:
        """What has no result by then gets one when its lane is closed."""
        with contextlib.suppress(TimeoutError):
            async with self._clock.timeout(timeout_ms):
                await asyncio.gather(*(lane.flush() for lane in self._lanes.values()))

    async def __aenter__(self) -> AsyncProducer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close(timeout_ms=None if error is None else 0)

    # --- where to ---------------------------------------------------------------------------------------------------

    async def _wait_for_topic(self, topic: str) -> TopicView:
        """Raises BufferExhausted when no node answers within max.block.ms, ServerError (404) for an unknown topic."""
        settings = self.settings
        give_up_ms = self._clock.monotonic_ms() + min(UNKNOWN_TOPIC_WAIT_MS, settings.max_block_ms)
        try:
            async with self._clock.timeout(settings.max_block_ms):
                while True:
                    try:
                        return await self._connection.topic(topic)
                    except ServerError as error:
                        is_unknown = error.code == UnknownTopicOrPartition.code
                        if not is_unknown or self._clock.monotonic_ms() >= give_up_ms:
                            raise
                    await self._clock.sleep(settings.retry_backoff_ms)
        except TimeoutError:
            limit = f"max.block.ms={settings.max_block_ms}"
            raise BufferExhausted(f"no node told of topic {topic!r} within {limit}") from None

    async def _grown(self, view: TopicView, partition: int) -> TopicView:
        """The topic may have grown a moment ago, and not every node know it."""
        give_up_ms = self._clock.monotonic_ms() + min(UNKNOWN_TOPIC_WAIT_MS, self.settings.max_block_ms)
        while partition >= view.partitions and self._clock.monotonic_ms() < give_up_ms:
            self._connection.doubt(topic=view.name)
            await self._clock.sleep(self.settings.retry_backoff_ms)
            view = await self._wait_for_topic(view.name)
        return view

    def _place(self, view: TopicView, key: bytes | None, partition: int | None, size: int) -> int:
        if partition is None:
            return self._partitioner.choose(view, key, size=size)
        if not 0 <= partition < view.partitions:
            self._connection.doubt(topic=view.name)
            raise KraftError(
                f"topic {view.name!r} has no partition {partition}; it has {view.partitions}, from 0",
                code=UnknownTopicOrPartition.code,
            )
        return partition

    def _lane(self, topic: str, partition: int) -> Lane:
        lane = self._lanes.get((topic, partition))
        if lane is None:
            lane = self._lanes[topic, partition] = Lane(
                f"{topic}-{partition}",
                poster=self._poster,
                settings=self.settings,
                clock=self._clock,
                release=self._room.release,
            )
        assert lane.failure is None, f"the lane of {topic}-{partition} broke: {lane.failure!r}"
        return lane

    async def _let_others_run(self, size: int) -> None:
        self._unyielded += size
        if self._unyielded >= YIELD_EVERY_BYTES:
            self._unyielded = 0
            await asyncio.sleep(0)

    # --- failures ---------------------------------------------------------------------------------------------------

    def _too_large(self, size: int) -> RecordRefused:
        limit = self.settings.max_request_size
        return RecordRefused(f"surely not written: it has {size} bytes, max.request.size={limit}", code=TOO_LARGE[0])

    def _raise_broken(self) -> None:
        for (topic, partition), lane in self._lanes.items():
            if lane.failure is not None:
                raise AssertionError(f"the lane of {topic}-{partition} broke") from lane.failure
