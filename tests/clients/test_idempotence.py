"""Idempotent producers while leaders are killed: nothing is lost, nothing is written twice, and the order stays."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import confluent_kafka
import kafka as kafka_python
import pytest
from aiokafka import AIOKafkaProducer

from tests.clients.conftest import Kafka

PARTITIONS = 3
KILLS = 4
BETWEEN_KILLS_S = 2.0
FLUSH_S = 120
PRODUCE_EVERY_S = 0.0005

Write = Callable[[str, str, threading.Event], int]
"""Writes numbers, number n to partition n % PARTITIONS, until it is told to stop; returns how many were acknowledged:
all, or the test fails."""


def with_confluent(servers: str, topic: str, stop: threading.Event) -> int:
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": servers, "enable.idempotence": True, "linger.ms": 2, "message.timeout.ms": 120_000}
    )
    failed: list[Any] = []
    count = 0
    while not stop.wait(PRODUCE_EVERY_S):
        producer.produce(
            topic,
            b"%d" % count,
            partition=count % PARTITIONS,
            on_delivery=lambda error, _: failed.append(error) if error else None,
        )
        producer.poll(0)
        count += 1
    assert producer.flush(FLUSH_S) == 0
    assert not failed, failed[:3]
    return count


def with_aiokafka(servers: str, topic: str, stop: threading.Event) -> int:
    async def write() -> int:
        producer = AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True, linger_ms=2)
        await producer.start()
        sent = []
        try:
            while not stop.is_set():
                sent.append(await producer.send(topic, b"%d" % len(sent), partition=len(sent) % PARTITIONS))
                await asyncio.sleep(PRODUCE_EVERY_S)
            await asyncio.wait_for(asyncio.gather(*sent), FLUSH_S)
        finally:
            await producer.stop()
        return len(sent)

    return asyncio.run(write())


def with_kafka_python(servers: str, topic: str, stop: threading.Event) -> int:
    producer = kafka_python.KafkaProducer(bootstrap_servers=servers.split(","), enable_idempotence=True, linger_ms=2)
    sent = []
    try:
        while not stop.wait(PRODUCE_EVERY_S):
            sent.append(producer.send(topic, b"%d" % len(sent), partition=len(sent) % PARTITIONS))
        until = time.monotonic() + FLUSH_S
        for each in sent:
            each.get(max(until - time.monotonic(), 0.001))
    finally:
        producer.close()
    return len(sent)


@contextmanager
def leaders_killed(kafka: Kafka, topic: str) -> Iterator[None]:
    """One after the other, each brought back before the next is killed."""

    def kill() -> None:
        for number in range(KILLS):
            time.sleep(BETWEEN_KILLS_S)
            leader = kafka.cluster.wait_for_leader(topic, number % PARTITIONS)
            kafka.cluster.kill(leader)
            kafka.cluster.wait_for_leader(topic, number % PARTITIONS, other_than=leader)
            kafka.cluster.restart(leader)

    killing = threading.Thread(target=kill)
    killing.start()
    try:
        yield
    finally:
        killing.join()


def read_back(servers: str, topic: str) -> dict[int, list[int]]:
    """What each partition holds, in its order."""
    found: dict[int, list[int]] = defaultdict(list)
    settings = {"bootstrap.servers": servers, "group.id": "unused", "enable.partition.eof": True, "check.crcs": True}
    with closing(confluent_kafka.Consumer(settings)) as consumer:
        consumer.assign([confluent_kafka.TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        ended: set[int] = set()
        while len(ended) < PARTITIONS:
            message = consumer.poll(FLUSH_S)
            assert message is not None, found
            error = message.error()
            if error is None:
                found[message.partition()].append(int(message.value()))
            else:
                assert error.code() == confluent_kafka.KafkaError._PARTITION_EOF, error
                ended.add(message.partition())
    return found


@pytest.mark.parametrize("write", [with_confluent, with_aiokafka, with_kafka_python])
def test_no_loss_and_no_duplicate_while_leaders_are_killed(kafka: Kafka, write: Write):
    topic = kafka.topic(partitions=PARTITIONS)
    stop, counts = threading.Event(), []
    writing = threading.Thread(target=lambda: counts.append(write(kafka.bootstrap_servers, topic, stop)))
    writing.start()
    try:
        with leaders_killed(kafka, topic):
            pass
    finally:
        stop.set()
        writing.join()
    (count,) = counts
    assert count > 500
    found = read_back(kafka.bootstrap_servers, topic)
    for partition in range(PARTITIONS):
        assert found[partition] == list(range(partition, count, PARTITIONS)), partition
