"""A client made of aiokafka's producer and consumers: it finds leaders and retries as any Kafka client does.

An operation is one batch that the library sends. The number of attempts is known, but not their brokers: in the
history, attempts before the last one are unknown, at the node that the client chose first. A batch that the library
gives up may have been written by an earlier attempt, so it is `fail` only if every attempt was refused for the same
reason. The client reaches each broker through its own link, instead of the address in the metadata: faults break links
of this client as of one that speaks HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, KafkaTimeoutError, OffsetOutOfRangeError

from kraft.chaos.workload.client import Batch, FetchResult, Position, ProduceResult
from kraft.chaos.workload.requests import value_of
from kraft.client.outcome import Outcome
from kraft.protocol.errors import (
    InvalidRecord,
    InvalidRequiredAcks,
    InvalidTopicException,
    MessageTooLarge,
    OffsetOutOfRange,
    RecordListTooLarge,
    UnsupportedCompressionType,
)

BATCH_BYTES_MAX: Final = 1_048_576
RETRY_BACKOFF_MS: Final = 100
METADATA_AGE_MS: Final = 5_000
"""Partitions and leaders may change during a story."""
REFUSED_BY_ITSELF: Final = frozenset(
    error.code
    for error in (
        InvalidRecord,
        InvalidRequiredAcks,
        InvalidTopicException,
        MessageTooLarge,
        RecordListTooLarge,
        UnsupportedCompressionType,
    )
)
"""Codes that depend on the request only: no attempt was written."""
ACKS: Final[Mapping[str, int | str]] = {"0": 0, "1": 1, "all": "all"}

logging.getLogger("aiokafka").addHandler(logging.NullHandler())  # the history has what it would say
Address = Callable[[str, int], Awaitable[str]]
NO_LOGIN: Final[Mapping[str, Any]] = {}


class KafkaClient:
    """Implements `Client`."""

    def __init__(
        self, name: str, address: Address, *, brokers: Sequence[int], login: Mapping[str, Any] = NO_LOGIN
    ) -> None:
        """`address`: `host:port` of this client's link to the Kafka port of a broker. Any broker may become the leader,
        so there are links to all. `login`: arguments of aiokafka with which the client logs in."""
        self._login = login
        self._name = name
        self._address = address
        self._brokers = brokers
        self._addresses: dict[int, str] = {}
        self._producers: dict[tuple[str, bool], AIOKafkaProducer] = {}
        self._consumers: dict[tuple[str, int], AIOKafkaConsumer] = {}
        self._starting = asyncio.Lock()
        self._turns: dict[TopicPartition, asyncio.Lock] = {}

    async def open(self, nodes: Sequence[int]) -> None:
        for node in sorted({*self._brokers, *nodes}):
            self._addresses[node] = await self._address(self._name, node)

    # --- producing ----------------------------------------------------------------------------------------------

    async def produce(self, node: int, batch: Batch) -> ProduceResult:
        try:
            producer = await self._producer(node, batch)
            return await self._send(producer, batch)
        except (KafkaError, OSError) as error:
            code = getattr(error, "errno", None)
            outcome: Outcome = "fail" if code in REFUSED_BY_ITSELF else "info"
            return ProduceResult(outcome=outcome, kafka_code=code, error=f"{type(error).__name__}: {error}")

    async def _send(self, producer: AIOKafkaProducer, batch: Batch) -> ProduceResult:
        built = producer.create_batch()
        for key, value in batch.records:
            text = value.ljust(batch.value_bytes)
            added = built.append(key=None if key is None else key.encode(), value=text.encode(), timestamp=None)
            assert added is not None, f"{len(batch.records)} records are more than {BATCH_BYTES_MAX} bytes"
        partition = TopicPartition(batch.topic, batch.partition)
        async with self._turns.setdefault(partition, asyncio.Lock()):  # of several that wait, aiokafka gives up early
            try:
                await _learn(producer, partition, timeout_ms=batch.timeout_ms)
                sent = await producer.send_batch(built, batch.topic, partition=batch.partition)
            except AssertionError as error:  # a partition of which its picture of the cluster does not know yet
                return ProduceResult(outcome="fail", error=f"was not sent: {error}", may_try_again=True)
            except KafkaTimeoutError as error:  # while the batch before it waits for its answer
                return ProduceResult(outcome="fail", error=f"was not sent: {error}", may_try_again=True)
            waiting = producer._message_accumulator._batches[partition][-1]  # which counts how often it is sent
        metadata = await sent
        repeats = max(waiting.retry_count - 1, 0)
        if metadata is None or metadata.offset < 0:
            return ProduceResult(outcome="ok", kafka_code=0, repeats=repeats)
        offsets = tuple(range(metadata.offset, metadata.offset + len(batch.records)))
        return ProduceResult(outcome="ok", kafka_code=0, offsets=offsets, repeats=repeats)

    async def _producer(self, node: int, batch: Batch) -> AIOKafkaProducer:
        is_idempotent = bool(batch.idempotency_key)
        async with self._starting:
            found = self._producers.get((batch.acks, is_idempotent))
            if found is None:
                found = AIOKafkaProducer(
                    bootstrap_servers=self._bootstrap(node),
                    client_id=self._name,
                    acks=ACKS[batch.acks],
                    enable_idempotence=is_idempotent,
                    request_timeout_ms=batch.timeout_ms,
                    retry_backoff_ms=RETRY_BACKOFF_MS,
                    metadata_max_age_ms=METADATA_AGE_MS,
                    **self._login,
                    max_batch_size=BATCH_BYTES_MAX,
                    max_request_size=2 * BATCH_BYTES_MAX,
                )
                self._lead_through_links(found.client)
                await started(found)
                self._producers[batch.acks, is_idempotent] = found
        return found

    # --- reading ------------------------------------------------------------------------------------------------

    async def read(self, node: int, position: Position) -> FetchResult:
        """The result has no high watermark: the consumer fetches ahead, so its high watermark is old."""
        partition = TopicPartition(position.topic, position.partition)
        try:
            consumer = await self._consumer(node, position, partition)
            found = await consumer.getmany(partition, timeout_ms=position.wait_ms)
            next_offset = await consumer.position(partition)
        except OffsetOutOfRangeError as error:
            return FetchResult(outcome="fail", kafka_code=OffsetOutOfRange.code, error=str(error))
        except (KafkaError, OSError, TimeoutError) as error:
            return FetchResult(outcome="info", error=f"{type(error).__name__}: {error}")
        records = [each for batch in found.values() for each in batch]
        return FetchResult(
            outcome="ok",
            kafka_code=0,
            next_offset=next_offset,
            records=tuple([(each.offset, value_of((each.value or b"").decode())) for each in records]),
        )

    async def _consumer(self, node: int, position: Position, partition: TopicPartition) -> AIOKafkaConsumer:
        async with self._starting:
            consumer = self._consumers.get(partition)
            if consumer is None:
                consumer = AIOKafkaConsumer(
                    bootstrap_servers=self._bootstrap(node),
                    client_id=self._name,
                    auto_offset_reset="none",
                    isolation_level="read_committed" if position.is_read_committed else "read_uncommitted",
                    enable_auto_commit=False,
                    fetch_max_wait_ms=position.wait_ms,
                    request_timeout_ms=position.timeout_ms,
                    retry_backoff_ms=RETRY_BACKOFF_MS,
                    metadata_max_age_ms=METADATA_AGE_MS,
                    **self._login,
                )
                self._lead_through_links(consumer._client)
                await started(consumer)
                consumer.assign([partition])
                self._consumers[partition] = consumer
                consumer.seek(partition, 0)
        async with asyncio.timeout(position.timeout_ms / 1000):
            if not isinstance(position.offset, int):
                await consumer.seek_to_end(partition)
            elif await consumer.position(partition) != position.offset:
                consumer.seek(partition, position.offset)
        return consumer

    # --- connections --------------------------------------------------------------------------------------------

    async def close(self) -> None:
        clients = [*self._producers.values(), *self._consumers.values()]
        await asyncio.gather(*(client.stop() for client in clients), return_exceptions=True)

    def _bootstrap(self, node: int) -> list[str]:
        """The addresses of the chosen node, then of the others."""
        return [self._addresses[node], *[where for each, where in self._addresses.items() if each != node]]

    def _lead_through_links(self, client: Any) -> None:
        lead_through(client, self._addresses)


async def _learn(producer: AIOKafkaProducer, partition: TopicPartition, *, timeout_ms: int) -> None:
    """Request metadata until it contains the new partition of a topic, as the Java producer does (`max.block.ms`)."""
    cluster = producer.client.cluster
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_ms / 1000):
            while (known := cluster.partitions_for_topic(partition.topic)) and partition.partition not in known:
                await producer.client.force_metadata_update()
                await asyncio.sleep(RETRY_BACKOFF_MS / 1000)


def lead_through(client: Any, addresses: Mapping[int, str]) -> None:
    """aiokafka looks up the address of a broker in its metadata for each connection: it gets the address of the link
    (`host:port`, by broker)."""
    reported_by_cluster = client.cluster.broker_metadata

    def broker_metadata(broker_id: int) -> Any:
        broker = reported_by_cluster(broker_id)
        if broker is None or broker_id not in addresses:
            return broker
        host, _, port = addresses[broker_id].rpartition(":")
        return broker._replace(host=host, port=int(port))

    client.cluster.broker_metadata = broker_metadata


async def started(client: AIOKafkaProducer | AIOKafkaConsumer) -> None:
    """Start the client. Raises KafkaError, and then nothing is left."""
    try:
        await client.start()
    except BaseException:
        await client.stop()
        raise
