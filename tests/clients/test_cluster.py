"""What clients learn of the cluster: brokers, controller, topics, partitions and their replicas."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import sys
from urllib.request import urlopen

from aiokafka.admin import AIOKafkaAdminClient
from confluent_kafka import Consumer, Producer, TopicCollection
from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient

from kraft.launcher import live
from kraft.launcher.runfile import load_run
from tests.clients.conftest import Kafka
from tests.integration.support.cluster import kraft
from tests.integration.support.waiting import wait_until

DEADLINE_S = 30


def test_confluent_kafka_lists_brokers_and_topics(kafka: Kafka):
    topic = kafka.topic(partitions=4)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    found = admin.list_topics(timeout=DEADLINE_S)
    assert sorted(found.brokers) == [1, 2, 3]
    assert sorted(f"{broker.host}:{broker.port}" for broker in found.brokers.values()) == sorted(kafka.servers)
    assert found.controller_id in found.brokers
    assert found.cluster_id
    assert sorted(found.topics[topic].partitions) == [0, 1, 2, 3]
    for partition in found.topics[topic].partitions.values():
        assert partition.error is None
        assert partition.leader in partition.isrs
        assert sorted(partition.replicas) == sorted(partition.isrs) == [1, 2, 3]


def test_confluent_kafka_describes_cluster_and_topics(kafka: Kafka):
    topic = kafka.topic(partitions=2)
    admin = AdminClient({"bootstrap.servers": kafka.servers[1]})
    cluster = admin.describe_cluster(include_authorized_operations=True).result(DEADLINE_S)
    assert sorted(node.id for node in cluster.nodes) == [1, 2, 3]
    assert cluster.controller.id in (1, 2, 3)
    assert {each.name for each in cluster.authorized_operations} >= {"CREATE", "ALTER", "DESCRIBE"}
    (described,) = admin.describe_topics(TopicCollection([topic]), include_authorized_operations=True).values()
    found = described.result(DEADLINE_S)
    assert found.name == topic
    assert not found.is_internal
    assert [partition.id for partition in found.partitions] == [0, 1]
    assert {each.name for each in found.authorized_operations} >= {"READ", "WRITE", "DELETE"}


def test_kafka_python_lists_topics_and_describes_them(kafka: Kafka):
    topic = kafka.topic(partitions=3)
    admin = KafkaAdminClient(bootstrap_servers=kafka.servers)
    try:
        assert topic in admin.list_topics()
        (described,) = admin.describe_topics([topic])
        assert described["error_code"] == 0
        assert sorted(partition["partition_index"] for partition in described["partitions"]) == [0, 1, 2]
        cluster = admin.describe_cluster()
        assert sorted(broker["broker_id"] for broker in cluster["brokers"]) == [1, 2, 3]
    finally:
        admin.close()


def test_aiokafka_lists_topics_and_describes_them(kafka: Kafka):
    topic = kafka.topic(partitions=3)

    async def ask() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        await admin.start()
        try:
            assert topic in await admin.list_topics()
            (described,) = await admin.describe_topics([topic])
            assert sorted(partition["partition"] for partition in described["partitions"]) == [0, 1, 2]
            cluster = await admin.describe_cluster()
            assert sorted(broker["node_id"] for broker in cluster["brokers"]) == [1, 2, 3]
            assert cluster["controller_id"] in (1, 2, 3)
        finally:
            await admin.close()

    asyncio.run(asyncio.wait_for(ask(), DEADLINE_S))


def test_status_and_metrics_tell_who_is_connected(kafka: Kafka):
    topic = kafka.topic()
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "client.id": "told-in-metrics"})
    producer.produce(topic, b"x")
    assert producer.flush(DEADLINE_S) == 0
    node = kafka.cluster.ids[0]
    shown = kraft("status", "--rest", kafka.cluster.node(node).rest).stdout
    assert f"bootstrap.servers={kafka.bootstrap_servers}" in shown
    known = [kafka.cluster.get("/kraft/status", node_id=node_id)["kafka_clients"] for node_id in kafka.cluster.ids]
    libraries = {(each["listener"], each["software"]) for clients in known for each in clients}
    assert ("PLAINTEXT", "confluent-kafka-python") in libraries
    metrics = "".join(text_of(node.rest + "/metrics") for node in kafka.cluster.nodes)
    assert 'kraft_kafka_requests_total{api="Produce"}' in metrics
    assert 'kraft_kafka_client_requests_total{client_id="told-in-metrics"}' in metrics
    assert 'kraft_kafka_connections{listener="PLAINTEXT",software="confluent-kafka-python"' in metrics


def test_the_lines_that_kraft_up_shows_work(kafka: Kafka):
    kafka.topic(name="hello")
    run = load_run(kafka.cluster.data)
    assert run is not None
    servers, python, *_ = live.kafka_commands(run).splitlines()
    assert servers == f"bootstrap.servers={kafka.bootstrap_servers}"
    assert python.startswith("python -c ")
    command = shlex.join([sys.executable, "-W", "ignore", *shlex.split(python)[1:]])
    subprocess.run(command, shell=True, check=True, timeout=DEADLINE_S)
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "shown", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["hello"])
    try:
        message = consumer.poll(DEADLINE_S)
        assert message is not None
        assert message.value() == b"hi"
    finally:
        consumer.close()


def text_of(url: str) -> str:
    with urlopen(url, timeout=DEADLINE_S) as answer:
        text: str = answer.read().decode()
    return text


def test_an_unknown_topic_is_not_created_unless_the_cluster_allows_it(kafka: Kafka):
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "allow.auto.create.topics": True})
    found = admin.list_topics("nobody-made-this", timeout=DEADLINE_S)
    assert found.topics["nobody-made-this"].error.name() == "UNKNOWN_TOPIC_OR_PART"
    assert "nobody-made-this" not in admin.list_topics(timeout=DEADLINE_S).topics


def test_an_unknown_topic_is_created_when_cluster_and_client_allow_it(creating_kafka: Kafka):
    admin = AdminClient({"bootstrap.servers": creating_kafka.bootstrap_servers, "allow.auto.create.topics": True})
    admin.list_topics("made-by-asking", timeout=DEADLINE_S)
    wait_until(
        lambda: len(admin.list_topics("made-by-asking", timeout=DEADLINE_S).topics["made-by-asking"].partitions) == 3,
        deadline_s=DEADLINE_S,
        what="the topic",
    )
