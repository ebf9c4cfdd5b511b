"""Nodes are killed under a transaction that is open: the leader of its data, the coordinator of the group whose offsets
it commits, and a leader without anybody who had kept up (an unclean election)."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterable
from contextlib import closing
from typing import Any

import confluent_kafka
import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import KafkaError, KafkaException

from kraft.coordinators.java import abs_hash
from tests.clients.conftest import Kafka
from tests.integration.support.waiting import wait_until

END_S = 90
READ_S = 60
STABLE_S = 15
OFFSETS = "__consumer_offsets"


def new_id() -> str:
    return f"id-{uuid.uuid4().hex[:8]}"


def confluent(kafka: Kafka, **settings: Any) -> confluent_kafka.Producer:
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "transactional.id": new_id(),
            "linger.ms": 1,
            "log_level": 0,
            **settings,
        }
    )
    producer.init_transactions(END_S)
    return producer


def write(producer: confluent_kafka.Producer, topic: str, values: Iterable[bytes]) -> None:
    for value in values:
        producer.produce(topic, value, partition=0)
    assert producer.flush(END_S) == 0


def read(kafka: Kafka, topic: str, isolation: str = "read_committed") -> list[bytes]:
    """All up to the end that a consumer is told."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": new_id(),
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    with closing(consumer):
        consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
        values: list[bytes] = []
        deadline = time.monotonic() + READ_S
        while True:
            assert time.monotonic() < deadline, values
            message = consumer.poll(0.5)
            if message is None:
                continue
            error = message.error()
            if error is None:
                values.append(message.value())
            elif error.code() == KafkaError._PARTITION_EOF:
                return values
            elif not error.retriable():
                raise KafkaException(error)


def until_read(kafka: Kafka, topic: str, expected: list[bytes]) -> None:
    """The marker comes after the answer to who ends a transaction."""
    wait_until(lambda: len(read(kafka, topic)) >= len(expected), what=f"{expected}", deadline_s=END_S)
    assert read(kafka, topic) == expected


# --- the leader of the data ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("commits", [True, False])
def test_confluent_goes_on_with_its_transaction_at_the_next_leader(kafka: Kafka, commits: bool) -> None:
    topic = kafka.topic()
    producer = confluent(kafka)
    producer.begin_transaction()
    write(producer, topic, [b"1", b"2"])
    leader = kafka.cluster.wait_for_leader(topic)
    kafka.cluster.kill(leader)
    write(producer, topic, [b"3", b"4"])
    assert read(kafka, topic) == []
    if commits:
        producer.commit_transaction(END_S)
        until_read(kafka, topic, [b"1", b"2", b"3", b"4"])
    else:
        producer.abort_transaction(END_S)
    kafka.cluster.restart(leader)
    producer.begin_transaction()
    write(producer, topic, [b"5"])
    producer.commit_transaction(END_S)
    until_read(kafka, topic, ([b"1", b"2", b"3", b"4"] if commits else []) + [b"5"])
    assert read(kafka, topic, "read_uncommitted") == [b"1", b"2", b"3", b"4", b"5"]


def test_aiokafka_goes_on_with_its_transaction_at_the_next_leader(kafka: Kafka) -> None:
    topic = kafka.topic()

    async def story() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.servers, transactional_id=new_id())
        await producer.start()
        try:
            await producer.begin_transaction()
            await producer.send_and_wait(topic, b"1", partition=0)
            leader = await asyncio.to_thread(kafka.cluster.wait_for_leader, topic)
            await asyncio.to_thread(kafka.cluster.kill, leader)
            await producer.send_and_wait(topic, b"2", partition=0)
            await producer.commit_transaction()
            await asyncio.to_thread(kafka.cluster.restart, leader)
            await producer.begin_transaction()
            await producer.send_and_wait(topic, b"dropped", partition=0)
            await producer.abort_transaction()
        finally:
            await producer.stop()

    asyncio.run(asyncio.wait_for(story(), 2 * END_S))
    until_read(kafka, topic, [b"1", b"2"])


# --- the coordinator of the group ------------------------------------------------------------------------------------


@pytest.mark.parametrize("commits", [True, False])
def test_the_group_coordinator_is_killed_between_the_commit_and_its_marker(kafka: Kafka, commits: bool) -> None:
    topic, group = kafka.topic(), new_id()
    producer = confluent(kafka)
    producer.begin_transaction()
    write(producer, topic, [b"%d" % number for number in range(10)])
    producer.commit_transaction(END_S)
    until_read(kafka, topic, [b"%d" % number for number in range(10)])
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": group,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    with closing(consumer):
        consumer.subscribe([topic])
        assert consumer.poll(READ_S).value() == b"0"
        consumer.commit(offsets=[confluent_kafka.TopicPartition(topic, 0, 1)], asynchronous=False)
        producer.begin_transaction()
        position = [confluent_kafka.TopicPartition(topic, 0, 7)]
        producer.send_offsets_to_transaction(position, consumer.consumer_group_metadata(), END_S)
        owner = kafka.cluster.leader_of(OFFSETS, abs_hash(group) % 50)
        kafka.cluster.kill(owner)
        assert stable_offset(kafka, topic, group) is None, "the next coordinator knows that it is not decided"
        if commits:
            producer.commit_transaction(END_S)
        else:
            producer.abort_transaction(END_S)
        expected = 7 if commits else 1
        wait_until(
            lambda: stable_offset(kafka, topic, group) == expected, what=f"the offset {expected}", deadline_s=END_S
        )
        kafka.cluster.restart(owner)
    assert stable_offset(kafka, topic, group) == expected


def stable_offset(kafka: Kafka, topic: str, group: str) -> int | None:
    """What librdkafka is told, which requires stable offsets of who reads committed records (KIP-447); None while there
    is none: it asks again until its time is over."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": group,
            "isolation.level": "read_committed",
            "log_level": 0,
        }
    )
    with closing(consumer):
        try:
            (found,) = consumer.committed([confluent_kafka.TopicPartition(topic, 0)], timeout=STABLE_S)
        except KafkaException as late:
            if late.args[0].code() not in (KafkaError._TIMED_OUT, KafkaError.UNSTABLE_OFFSET_COMMIT):
                raise
            return None
    assert found.error is None or found.error.code() == KafkaError.UNSTABLE_OFFSET_COMMIT, found.error
    return None if found.error else found.offset


# --- unclean election ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("commits", [True, False])
def test_unclean_election_with_open_transaction(kafka: Kafka, commits: bool) -> None:
    """What the next leader lacks is lost, of a committed transaction, too: that is what the setting allows. What it has
    of the transaction is decided by the marker, and nobody's log keeps a transaction open."""
    cluster, topic = kafka.cluster, f"topic-{uuid.uuid4().hex[:12]}"
    first, second = cluster.ids[:2]
    settings = {"min_insync_replicas": "1", "unclean_leader_election_enable": "true"}
    cluster.create_assigned(topic, [first, second], **settings)
    producer = confluent(kafka)
    producer.begin_transaction()
    write(producer, topic, [b"1", b"2"])
    cluster.kill(second)
    write(producer, topic, [b"3", b"4"])
    cluster.kill(first)
    cluster.restart_unready(second)
    assert cluster.wait_for_leader(topic, other_than=first, deadline_s=END_S) == second
    if commits:
        producer.commit_transaction(END_S)
        until_read(kafka, topic, [b"1", b"2"])
    else:
        producer.abort_transaction(END_S)
    cluster.restart(first)
    cluster.wait_for_isr(topic, 0, [first, second], deadline_s=END_S)
    producer = confluent(kafka)
    producer.begin_transaction()
    write(producer, topic, [b"5"])
    producer.commit_transaction(END_S)
    until_read(kafka, topic, [*([b"1", b"2"] if commits else []), b"5"])
    assert read(kafka, topic, "read_uncommitted") == [b"1", b"2", b"5"]
    wait_until(lambda: cluster.log_bytes(first, topic) == cluster.log_bytes(second, topic), what="equal logs")
