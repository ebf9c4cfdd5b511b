"""Clients that come through other listeners than nodes do: what they are told they can reach, and use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from kraft.config import parse_config
from kraft.launcher.runfile import RESOLVED_FILE
from tests.clients.conftest import SETTINGS
from tests.integration.support.cluster import Cluster
from tests.integration.support.configuration import write_config

DEADLINE_S = 30
LISTENERS = """[[nodes.listeners]]
name = "OUTSIDE"
port = 2000{number}
[[nodes.listeners]]
name = "TRANSLATED"
port = 2100{number}
advertised = "kafka{number}.example:29092"
"""


@pytest.fixture(scope="module")
def translated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes with two more listeners each, one of them behind an address that does not exist here."""
    folder = tmp_path_factory.mktemp("listeners")
    path = Path(write_config(folder / "cluster.toml", settings=SETTINGS))
    first, *nodes = path.read_text().split("[[nodes]]\n")
    tables = ["[[nodes]]\n" + node + LISTENERS.format(number=number) for number, node in enumerate(nodes, start=1)]
    path.write_text(first + "".join(tables))
    cluster = Cluster(data=str(folder / "data"), config=str(path))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.destroy()


def addresses(cluster: Cluster, name: str) -> dict[int, str]:
    """Where each node listens."""
    config = parse_config((Path(cluster.data) / RESOLVED_FILE).read_text())
    return {
        node.id: f"{node.host}:{each.port}" for node in config.nodes for each in node.listeners if each.name == name
    }


def reported(bootstrap: str) -> dict[int, str]:
    found = AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=DEADLINE_S)
    return {broker.id: f"{broker.host}:{broker.port}" for broker in found.brokers.values()}


def test_each_listener_names_its_own_addresses(translated: Cluster):
    outside = addresses(translated, "OUTSIDE")
    assert reported(outside[1]) == reported(outside[3]) == outside
    assert reported(translated.node(2).kafka) == {node.id: node.kafka for node in translated.nodes}
    assert reported(addresses(translated, "TRANSLATED")[1]) == {
        number: f"kafka{number}.example:29092" for number in (1, 2, 3)
    }


def test_a_client_writes_and_reads_through_another_listener(translated: Cluster):
    translated.create_topic("through", partitions=3)
    bootstrap = ",".join(addresses(translated, "OUTSIDE").values())
    producer = Producer({"bootstrap.servers": bootstrap})
    for number in range(60):
        producer.produce("through", str(number).encode(), partition=number % 3)
    assert producer.flush(DEADLINE_S) == 0
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "through", "auto.offset.reset": "earliest"})
    consumer.subscribe(["through"])
    found: list[int] = []
    try:
        while len(found) < 60:
            message = consumer.poll(DEADLINE_S)
            assert message is not None, f"{len(found)} of 60 came"
            assert message.error() is None, message.error()
            found.append(int(message.value()))
    finally:
        consumer.close()
    assert sorted(found) == list(range(60))
