"""Share groups (KIP-932) with librdkafka's ShareConsumer: records are shared, released, rejected, and never lost."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import AcknowledgeType, Producer, ShareConsumer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from kraft.testing import FaultCluster
from tests.clients.conftest import Kafka

DEADLINE_S = 60
RECORDS = 500


def new_group(kafka: Kafka | FaultCluster) -> str:
    """A group that begins at the start of the log."""
    name = f"share-{uuid.uuid4().hex[:8]}"
    entry = ConfigEntry("share.auto.offset.reset", "earliest", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.GROUP, name, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(timeout=DEADLINE_S)
    return name


def produce(kafka: Kafka, topic: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "acks": "all"})
    for number in range(count):
        producer.produce(topic, value=str(number))
    assert producer.flush(DEADLINE_S) == 0


@contextmanager
def member(kafka: Kafka, group: str, topic: str, *, mode: str = "explicit") -> Iterator[Any]:
    consumer = ShareConsumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": group, "share.acknowledgement.mode": mode}
    )
    consumer.subscribe([topic])
    try:
        yield consumer
    finally:
        consumer.close()


def test_two_members_share_a_partition_and_each_record_is_accepted_once(kafka: Kafka):
    topic, group = kafka.topic(), new_group(kafka)
    produce(kafka, topic, RECORDS)
    seen: Counter[str] = Counter()
    with member(kafka, group, topic) as first, member(kafka, group, topic) as second:
        end = time.monotonic() + DEADLINE_S
        while len(seen) < RECORDS and time.monotonic() < end:
            for each in (first, second):
                for message in each.poll(0.5):
                    assert message.error() is None, message.error()
                    seen[message.value().decode()] += 1
                    each.acknowledge(message, AcknowledgeType.ACCEPT)
                each.commit_sync()
    assert len(seen) == RECORDS
    assert set(seen.values()) == {1}


def test_what_is_released_comes_again_and_what_is_rejected_does_not(kafka: Kafka):
    topic, group = kafka.topic(), new_group(kafka)
    produce(kafka, topic, 10)
    counts: Counter[str] = Counter()
    with member(kafka, group, topic) as consumer:
        end = time.monotonic() + DEADLINE_S
        while counts["3"] < 2 and time.monotonic() < end:
            for message in consumer.poll(0.5):
                value = message.value().decode()
                counts[value] += 1
                assert message.delivery_count() == counts[value]
                is_first = counts[value] == 1
                kind = {"3": AcknowledgeType.RELEASE, "4": AcknowledgeType.REJECT}.get(value, AcknowledgeType.ACCEPT)
                consumer.acknowledge(message, kind if is_first else AcknowledgeType.ACCEPT)
            consumer.commit_sync()
        assert not consumer.poll(1)
    assert counts == {**{str(number): 1 for number in range(10)}, "3": 2}


def test_nothing_is_lost_when_the_leader_and_then_each_coordinator_is_killed(kafka: Kafka):
    """At least once: what was accepted before an answer came may come again, and nothing is left out."""
    topic, group = kafka.topic(), new_group(kafka)
    produce(kafka, topic, RECORDS)
    accepted: Counter[str] = Counter()
    victims = [1, 2, 3]
    with member(kafka, group, topic) as consumer:
        end = time.monotonic() + 2 * DEADLINE_S
        while len(accepted) < RECORDS and time.monotonic() < end:
            batch = [message for message in consumer.poll(0.5) if message.error() is None]
            taken = batch[:60] if victims else batch
            for message in batch:
                kind = AcknowledgeType.ACCEPT if message in taken else AcknowledgeType.RELEASE
                consumer.acknowledge(message, kind)
            if batch and victims:
                victim = victims.pop()
                kafka.cluster.kill(victim)
                kafka.cluster.restart(victim)
            if all(result is None for result in (consumer.commit_sync() or {}).values()):
                accepted.update(message.value().decode() for message in taken)
    assert set(accepted) == {str(number) for number in range(RECORDS)}
