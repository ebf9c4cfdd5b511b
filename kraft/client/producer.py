"""The producer: takes records, gives each exactly one result, and holds buffer.memory of them at most.

`send` returns as soon as the record has room; await what it returns for the result. Records of one partition are
written in the order of their `send`. When the buffer is full `send` waits, for max.block.ms at most.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final, Unpack

from kraft.client.buffer_pool import BufferPool
from kraft.client.connection import Connection
from kraft.client.errors import BufferExhausted, ClientClosed, KraftError, RecordRefused, ServerError
from kraft.client.metadata import TopicMetadata
from kraft.client.partition_queue import PartitionQueue
from kraft.client.partitioner import Partitioner
from kraft.client.records import Data, Delivery, Outgoing, RecordOptions, Sent, outgoing
from kraft.client.response import TOO_LARGE
from kraft.client.sender import Counts, Sender
from kraft.client.settings import ProducerSettings
from kraft.protocol.batches.header import HEADER_BYTES
from kraft.protocol.errors import UnknownTopicOrPartition

UNKNOWN_TOPIC_WAIT_MS: Final = 3_000
"""A topic that was created a moment ago may not be known to every node yet."""
YIELD_EVERY_BYTES: Final = 16_384
"""A caller that never waits lets the queues run after so many bytes."""


class AsyncProducer:
    """From `AsyncClient.producer`. An async context manager: leaving it flushes, and after an error closes at once."""

    def __init__(self, connection: Connection, settings: ProducerSettings) -> None:
        self.settings = settings
        self._connection = connection
        self._clock = connection.world.clock
        self._sender = Sender(connection, settings)
        self._partitioner = Partitioner(rng=connection.world.rng, batch_size=settings.batch_size)
        self._pool = BufferPool(settings, self._clock)
        self._queues: dict[tuple[str, int], PartitionQueue] = {}
        self._is_closed = False
        self._unyielded = 0

    @property
    def counts(self) -> Counts:
        """Results so far."""
        return self._sender.counts

    @property
    def buffered_bytes(self) -> int:
        """Bytes of buffer.memory that records without a result hold."""
        return self._pool.used

    def send(self, topic: str, value: Data, **options: Unpack[RecordOptions]) -> Coroutine[Any, Any, Sent]:
        """Take a record; await the answer for its Delivery. Options: `key`, `partition`, `headers`, `timestamp` (in ms;
        now if None).

        Raises BufferExhausted after max.block.ms, ServerError (404) for an unknown topic, KraftError for an unknown
        partition, ClientClosed: the record was not taken then, and has no other result.
        """
        return self.take(topic, outgoing(value, **options))

    async def send_and_wait(self, topic: str, value: Data, **options: Unpack[RecordOptions]) -> Delivery:
        """`send` and its result. Raises RecordRefused, RecordUnknown, and what `send` raises."""
        return await (await self.send(topic, value, **options))

    async def take(self, topic: str, given: Outgoing) -> Sent:
        """Take a record that `outgoing` has made; raises what `send` raises."""
        if self._is_closed:
            raise ClientClosed("the producer is closed; make another")
        partition, size = given.partition, given.size
        known = self._connection.known_topic(topic) or await self._wait_for_topic(topic)
        if partition is not None and partition >= known.partitions:
            known = await self._grown(known, partition)
        number = self._place(known, given.key, partition, size)
        timestamp_ms = self._clock.wall_ms() if given.timestamp_ms is None else given.timestamp_ms
        record = Sent(topic, number, given, timestamp_ms=timestamp_ms, created_ms=self._clock.monotonic_ms())
        if size > self.settings.max_request_size - HEADER_BYTES:
            self._sender.fail([record], self._too_large(size))
            return record
        if not self._pool.take_now(size):
            await self._pool.take(size)
        self._queue(topic, number).append(record)
        await self._let_others_run(size)
        return record

    async def flush(self) -> Counts:
        """Send what waits, now, and wait until every record that was taken before has its result."""
        await asyncio.gather(*(queue.flush() for queue in self._queues.values()))
        self._raise_broken()
        return self.counts

    async def close(self, *, timeout_ms: int | None = None) -> Counts:
        """Flush, for `timeout_ms` at most (None: as long as delivery.timeout.ms allows), and end.

        Records without a result by then are refused if they never left, else unknown; 0: nothing more is sent.
        """
        if self._is_closed:
            return self.counts
        self._is_closed = True
        self._pool.close()
        try:
            if timeout_ms != 0:  # else a flush would begin, and what it had sent by then would be unknown
                await self._flush_within(self.settings.delivery_timeout_ms if timeout_ms is None else timeout_ms)
        finally:
            await asyncio.gather(*(queue.close() for queue in self._queues.values()))
        self._raise_broken()
        return self.counts

    async def _flush_within(self, timeout_ms: int) -> None:
        """What has no result by then gets one when its queue is closed."""
        with contextlib.suppress(TimeoutError):
            async with self._clock.timeout(timeout_ms):
                await asyncio.gather(*(queue.flush() for queue in self._queues.values()))

    async def __aenter__(self) -> AsyncProducer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close(timeout_ms=None if error is None else 0)

    # --- where to ---------------------------------------------------------------------------------------------------

    async def _wait_for_topic(self, topic: str) -> TopicMetadata:
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
            raise BufferExhausted(f"no node returned metadata of topic {topic!r} within {limit}") from None

    async def _grown(self, known: TopicMetadata, partition: int) -> TopicMetadata:
        """The topic may have grown a moment ago, and not every node know it."""
        give_up_ms = self._clock.monotonic_ms() + min(UNKNOWN_TOPIC_WAIT_MS, self.settings.max_block_ms)
        while partition >= known.partitions and self._clock.monotonic_ms() < give_up_ms:
            self._connection.doubt(topic=known.name)
            await self._clock.sleep(self.settings.retry_backoff_ms)
            known = await self._wait_for_topic(known.name)
        return known

    def _place(self, known: TopicMetadata, key: bytes | None, partition: int | None, size: int) -> int:
        try:
            return self._partitioner.choose(known, key, size=size, named=partition)
        except KraftError:
            self._connection.doubt(topic=known.name)
            raise

    def _queue(self, topic: str, partition: int) -> PartitionQueue:
        queue = self._queues.get((topic, partition))
        if queue is None:
            queue = self._queues[topic, partition] = PartitionQueue(
                f"{topic}-{partition}",
                sender=self._sender,
                settings=self.settings,
                clock=self._clock,
                release=self._pool.release,
            )
        assert queue.failure is None, f"the queue of {topic}-{partition} broke: {queue.failure!r}"
        return queue

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
        for (topic, partition), queue in self._queues.items():
            if queue.failure is not None:
                raise AssertionError(f"the queue of {topic}-{partition} broke") from queue.failure
