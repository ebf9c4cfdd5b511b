"""What clients write is what clients read: every codec, keys, headers, tombstones and timestamps, by each library."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from typing import Any, NamedTuple, Protocol

import confluent_kafka
import kafka as kafka_python
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.clients.conftest import Kafka

DEADLINE_S = 60
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
T0_MS = 1_700_000_000_000


class Message(NamedTuple):
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int


MESSAGES = [
    Message(b"k%d" % (n % 3), b"value %d " % n * (n % 7 + 1), (("n", b"%d" % n), ("n", b"again")), T0_MS + n)
    for n in range(200)
] + [
    Message(None, b"", (), T0_MS + 200),
    Message(b"gone", None, (), T0_MS + 201),
    Message(b"", b"\0\xff" * 20_000, (("empty", b""),), T0_MS + 202),
]


class Library(Protocol):
    def produce(self, servers: str, topic: str, messages: list[Message], *, codec: str) -> None: ...

    def read(self, servers: str, topic: str, *, count: int, offset: int = 0) -> list[Message]:
        """From partition 0."""
        ...

    def offset_at(self, servers: str, topic: str, timestamp_ms: int) -> int | None:
        """Of the first record of partition 0 with this timestamp or a later one."""
        ...


class Confluent:
    def produce(self, servers: str, topic: str, messages: list[Message], *, codec: str) -> None:
        producer = confluent_kafka.Producer(
            {"bootstrap.servers": servers, "compression.type": codec, "linger.ms": 20, "acks": "all"}
        )
        failed: list[Any] = []
        for message in messages:
            producer.produce(
                topic,
                key=message.key,
                value=message.value,
                headers=list(message.headers),
                timestamp=message.timestamp_ms,
                partition=0,
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )
        assert producer.flush(DEADLINE_S) == 0
        assert not failed

    def read(self, servers: str, topic: str, *, count: int, offset: int = 0) -> list[Message]:
        messages: list[Message] = []
        with closing(self._consumer(servers)) as consumer:
            consumer.assign([confluent_kafka.TopicPartition(topic, 0, offset)])
            while len(messages) < count and (each := consumer.poll(DEADLINE_S)) is not None:
                assert not each.error(), each.error()
                assert each.offset() == offset + len(messages)
                headers = tuple((name, value or b"") for name, value in each.headers() or ())
                messages.append(Message(each.key(), each.value(), headers, each.timestamp()[1]))
        return messages

    def offset_at(self, servers: str, topic: str, timestamp_ms: int) -> int | None:
        with closing(self._consumer(servers)) as consumer:
            (found,) = consumer.offsets_for_times(
                [confluent_kafka.TopicPartition(topic, 0, timestamp_ms)], timeout=DEADLINE_S
            )
        return found.offset if found.offset >= 0 else None

    def _consumer(self, servers: str) -> confluent_kafka.Consumer:
        return confluent_kafka.Consumer(
            {"bootstrap.servers": servers, "group.id": "unused", "enable.auto.commit": False, "check.crcs": True}
        )


class KafkaPython:
    def produce(self, servers: str, topic: str, messages: list[Message], *, codec: str) -> None:
        producer = kafka_python.KafkaProducer(
            bootstrap_servers=servers.split(","),
            compression_type=None if codec == "none" else codec,
            linger_ms=20,
            acks="all",
        )
        sent = [
            producer.send(
                topic,
                key=message.key,
                value=message.value,
                headers=list(message.headers),
                timestamp_ms=message.timestamp_ms,
                partition=0,
            )
            for message in messages
        ]
        try:
            for each in sent:
                each.get(DEADLINE_S)
        finally:
            producer.close()

    def read(self, servers: str, topic: str, *, count: int, offset: int = 0) -> list[Message]:
        partition = kafka_python.TopicPartition(topic, 0)
        messages: list[Message] = []
        with closing(self._consumer(servers)) as consumer:
            consumer.assign([partition])
            consumer.seek(partition, offset)
            while len(messages) < count and (came := consumer.poll(timeout_ms=DEADLINE_S * 1_000)):
                for each in came[partition]:
                    messages.append(Message(each.key, each.value, tuple(each.headers), each.timestamp))
        return messages

    def offset_at(self, servers: str, topic: str, timestamp_ms: int) -> int | None:
        partition = kafka_python.TopicPartition(topic, 0)
        with closing(self._consumer(servers)) as consumer:
            found = consumer.offsets_for_times({partition: timestamp_ms})[partition]
        return None if found is None else found.offset

    def _consumer(self, servers: str) -> Any:
        return kafka_python.KafkaConsumer(
            bootstrap_servers=servers.split(","), enable_auto_commit=False, check_crcs=True
        )


class Aiokafka:
    def produce(self, servers: str, topic: str, messages: list[Message], *, codec: str) -> None:
        async def produce() -> None:
            producer = AIOKafkaProducer(
                bootstrap_servers=servers, compression_type=None if codec == "none" else codec, linger_ms=20, acks="all"
            )
            await producer.start()
            try:
                sent = [
                    await producer.send(
                        topic,
                        key=message.key,
                        value=message.value,
                        headers=list(message.headers),
                        timestamp_ms=message.timestamp_ms,
                        partition=0,
                    )
                    for message in messages
                ]
                await asyncio.wait_for(asyncio.gather(*sent), DEADLINE_S)
            finally:
                await producer.stop()

        asyncio.run(produce())

    def read(self, servers: str, topic: str, *, count: int, offset: int = 0) -> list[Message]:
        async def read() -> list[Message]:
            consumer = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False, check_crcs=True)
            await consumer.start()
            try:
                partition = TopicPartition(topic, 0)
                consumer.assign([partition])
                consumer.seek(partition, offset)
                messages: list[Message] = []
                async with asyncio.timeout(DEADLINE_S):
                    while len(messages) < count:
                        for each in (await consumer.getmany(timeout_ms=DEADLINE_S * 1_000)).get(partition, ()):
                            messages.append(Message(each.key, each.value, tuple(each.headers), each.timestamp))
                return messages
            finally:
                await consumer.stop()

        return asyncio.run(read())

    def offset_at(self, servers: str, topic: str, timestamp_ms: int) -> int | None:
        async def offset_at() -> int | None:
            consumer = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False)
            await consumer.start()
            try:
                partition = TopicPartition(topic, 0)
                found = (await consumer.offsets_for_times({partition: timestamp_ms}))[partition]
                return None if found is None else found.offset
            finally:
                await consumer.stop()

        return asyncio.run(offset_at())


LIBRARIES: dict[str, Library] = {"confluent": Confluent(), "kafka-python": KafkaPython(), "aiokafka": Aiokafka()}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("library", LIBRARIES)
def test_every_library_reads_what_each_writes(kafka: Kafka, library: str, codec: str):
    topic = kafka.topic()
    LIBRARIES[library].produce(kafka.bootstrap_servers, topic, MESSAGES, codec=codec)
    for name, reader in LIBRARIES.items():
        assert reader.read(kafka.bootstrap_servers, topic, count=len(MESSAGES)) == MESSAGES, f"read by {name}"


@pytest.mark.parametrize("library", LIBRARIES)
def test_offsets_by_time_and_reading_from_the_middle(kafka: Kafka, library: str):
    topic = kafka.topic()
    client = LIBRARIES[library]
    client.produce(kafka.bootstrap_servers, topic, MESSAGES, codec="lz4")
    for wanted in (0, 57, len(MESSAGES) - 1):
        assert client.offset_at(kafka.bootstrap_servers, topic, T0_MS + wanted) == wanted
    assert client.offset_at(kafka.bootstrap_servers, topic, T0_MS - 1_000) == 0
    assert client.offset_at(kafka.bootstrap_servers, topic, T0_MS + len(MESSAGES)) is None
    assert client.read(kafka.bootstrap_servers, topic, count=len(MESSAGES) - 57, offset=57) == MESSAGES[57:]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_topic_that_was_deleted_and_created_again_is_another(kafka: Kafka, library: str):
    """Clients that know its old id or its old leader find the new one by themselves."""
    topic, client = kafka.topic(), LIBRARIES[library]
    client.produce(kafka.bootstrap_servers, topic, MESSAGES[:50], codec="none")
    assert kafka.cluster.call("DELETE", f"/topics/{topic}").status == 204
    kafka.topic(name=topic)
    client.produce(kafka.bootstrap_servers, topic, MESSAGES[50:60], codec="none")
    assert client.read(kafka.bootstrap_servers, topic, count=10) == MESSAGES[50:60]


def test_clients_survive_recreated_topic(kafka: Kafka):
    topic = kafka.topic()
    settings = {"bootstrap.servers": kafka.bootstrap_servers, "topic.metadata.refresh.interval.ms": 1_000}
    producer = confluent_kafka.Producer({**settings, "message.timeout.ms": DEADLINE_S * 1_000})
    for _ in range(3):
        producer.produce(topic, b"old", partition=0)
    assert producer.flush(DEADLINE_S) == 0
    consuming = {**settings, "group.id": "unused", "auto.offset.reset": "earliest", "enable.auto.commit": False}
    with closing(confluent_kafka.Consumer(consuming)) as consumer:
        consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
        assert [_first_value(consumer) for _ in range(3)] == [b"old"] * 3
        assert kafka.cluster.call("DELETE", f"/topics/{topic}").status == 204
        kafka.topic(name=topic)
        deadline = time.monotonic() + DEADLINE_S
        failed: list[Any] = [True]
        while failed and time.monotonic() < deadline:
            failed.clear()
            producer.produce(topic, b"new", partition=0, on_delivery=lambda e, _: failed.append(e) if e else None)
            producer.flush(DEADLINE_S)
        assert _first_value(consumer) == b"new"


def _first_value(consumer: confluent_kafka.Consumer) -> bytes | None:
    """Errors that go by are passed over."""
    while (message := consumer.poll(DEADLINE_S)) is not None:
        if message.error() is None:
            return message.value()
    return None
