"""Replicas move between the log directories of their brokers (KIP-113) because a client asks, under load and kills."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import kafka as kafka_python
import pytest
from kafka import errors
from kafka.admin import KafkaAdminClient

from tests.clients.conftest import SETTINGS, Kafka
from tests.integration.conftest import run_cluster
from tests.integration.support.waiting import NotYet, wait_until

DEADLINE_S = 60


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Three nodes with two log directories each."""
    settings = {**SETTINGS, "log.segment.bytes": 8 << 20}
    for cluster in run_cluster(tmp_path_factory.mktemp("disks"), settings=settings, log_dirs=2):
        yield Kafka(cluster)


@pytest.fixture
def python(disks: Kafka) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=disks.servers)
    yield client
    client.close()


def replicas(python: KafkaAdminClient, topic: str) -> dict[tuple[int, str], dict[str, Any]]:
    """By broker and directory, and whether it is a copy on its way: `(1, "a", False)`."""
    found = {}
    for broker in python.describe_log_dirs({topic: [0]}):
        for directory in broker["log_dirs"]:
            assert not directory["error_code"], directory
            for each in directory["topics"]:
                for partition in each["partitions"]:
                    key = (broker["broker"], directory["log_dir"][-1], partition["is_future_key"])
                    found[key] = partition
    return found


def where(python: KafkaAdminClient, topic: str) -> dict[int, str]:
    found = replicas(python, topic)
    if any(is_future for _, _, is_future in found):
        raise NotYet(found)
    return {broker: name for broker, name, _ in found}


def paths(disks: Kafka, name: str, broker: int) -> str:
    return str(Path(disks.cluster.data).parent / f"logs-{broker}-{name}")


def produced(disks: Kafka, topic: str, count: int, *, size: int = 100_000) -> confluent_kafka.Producer:
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": disks.bootstrap_servers, "enable.idempotence": True, "linger.ms": 5}
    )
    for number in range(count):
        producer.produce(topic, value=f"{number}".encode().ljust(size, b"."), partition=0)
        producer.poll(0)
    assert producer.flush(DEADLINE_S) == 0
    return producer


def consumed(disks: Kafka, topic: str, count: int) -> list[int]:
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": disks.bootstrap_servers, "group.id": "none", "auto.offset.reset": "earliest"}
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    try:
        numbers = []
        while len(numbers) < count:
            [*messages] = consumer.consume(min(500, count - len(numbers)), timeout=DEADLINE_S)
            assert messages, numbers[-1:]
            numbers += [int(message.value().rstrip(b".")) for message in messages]
        return numbers
    finally:
        consumer.close()


def test_all_replicas_move_while_a_producer_writes(disks: Kafka, python: KafkaAdminClient) -> None:
    topic = disks.topic()
    produced(disks, topic, 200)
    before = where(python, topic)
    targets = {broker: "b" if name == "a" else "a" for broker, name in before.items()}
    asked = {(topic, 0, broker): paths(disks, name, broker) for broker, name in targets.items()}
    assert set(python.alter_replica_log_dirs(asked).values()) == {errors.NoError}
    produced(disks, topic, 100)
    after = wait_until(lambda: where(python, topic), deadline_s=DEADLINE_S, what="the end of the moves")
    assert after == targets
    assert consumed(disks, topic, 300) == [*range(200), *range(100)]
    assert len(disks.cluster.events("replica_moved")) >= 3
    for broker, path in ((broker, path) for (_, _, broker), path in asked.items()):
        assert (Path(path) / f"{topic}-0").is_dir()
        other = paths(disks, before[broker], broker)
        assert not (Path(other) / f"{topic}-0").exists()


def test_what_cannot_be_moved_is_refused(disks: Kafka, python: KafkaAdminClient) -> None:
    topic = disks.topic()
    [no_directory] = python.alter_replica_log_dirs({(topic, 0, 1): "/nowhere"}).values()
    assert no_directory is errors.LogDirNotFoundError
    [no_topic] = python.alter_replica_log_dirs({("none", 0, 1): paths(disks, "a", 1)}).values()
    assert no_topic is errors.UnknownTopicOrPartitionError


@pytest.mark.parametrize("killed", ["leader", "follower"])
def test_a_move_goes_on_after_a_kill(disks: Kafka, python: KafkaAdminClient, killed: str) -> None:
    """Its copy is large enough that the kill comes while it grows."""
    topic = disks.topic()
    produced(disks, topic, 2_000)
    leader = disks.cluster.leader_of(topic)
    broker = leader if killed == "leader" else next(each for each in (1, 2, 3) if each != leader)
    source = where(python, topic)[broker]
    target = "b" if source == "a" else "a"
    asked = {(topic, 0, broker): paths(disks, target, broker)}
    assert set(python.alter_replica_log_dirs(asked).values()) == {errors.NoError}
    disks.cluster.kill(broker)
    folders = [path.name for path in Path(paths(disks, target, broker)).glob(f"{topic}-0*")]
    assert [name for name in folders if name.endswith("-future")], folders
    produced(disks, topic, 20)
    disks.cluster.restart(broker)
    disks.cluster.wait_for_isr(topic, 0, (1, 2, 3), deadline_s=DEADLINE_S)
    client = kafka_python.KafkaAdminClient(bootstrap_servers=disks.servers)
    try:
        moved = wait_until(
            lambda: where(client, topic).get(broker) == target,
            deadline_s=DEADLINE_S,
            what="the end of the move",
        )
    finally:
        client.close()
    assert moved
    assert not [path.name for path in Path(paths(disks, source, broker)).glob(f"{topic}-0")]
    for other in (1, 2, 3):
        if other != broker:
            disks.cluster.kill(other)
            disks.cluster.restart(other)
            disks.cluster.wait_for_isr(topic, 0, (1, 2, 3), deadline_s=DEADLINE_S)
    assert consumed(disks, topic, 2_020) == [*range(2_000), *range(20)]


def test_replica_that_cannot_be_created_is_offline(disks: Kafka, python: KafkaAdminClient) -> None:
    topic = f"topic-{uuid.uuid4().hex[:12]}"
    in_the_way = [Path(paths(disks, name, 2)) / f"{topic}-0" for name in "ab"]
    for path in in_the_way:
        path.touch()
    disks.cluster.create_topic(topic)

    def reported() -> set[tuple[int, ...]]:
        """By each of the nodes."""
        found = set()
        for server in disks.servers:
            client = KafkaAdminClient(bootstrap_servers=server)
            try:
                [described] = client.describe_topics([topic])
            finally:
                client.close()
            found |= {tuple(each["offline_replicas"]) for each in described["partitions"]}
        return found

    wait_until(lambda: reported() == {(2,)}, deadline_s=DEADLINE_S, what="the offline replica, known to all")
    assert {broker["broker"] for broker in python.describe_log_dirs({topic: [0]})} == {1, 2, 3}, "the broker lives"
    for path in in_the_way:
        path.unlink()
    wait_until(lambda: reported() == {()}, deadline_s=DEADLINE_S, what="no offline replica")
    disks.cluster.wait_for_isr(topic, 0, (1, 2, 3), deadline_s=DEADLINE_S)
