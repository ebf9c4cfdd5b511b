"""Clusters of other shapes: controllers apart from brokers, a broker that was away while the metadata log went on into
snapshots, and a single node."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster
from tests.integration.support.configuration import BOTH, QUICK_FAILURES
from tests.integration.support.load import Load
from tests.integration.support.reading import values, wait_for_values
from tests.integration.support.waiting import wait_until

CONTROLLERS = [11, 12, 13]
BROKERS = [1, 2, 3]
SMALL_SNAPSHOTS = {**QUICK_FAILURES, "metadata.log.max.record.bytes.between.snapshots": 4_096}


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    roles = {node_id: ["controller"] for node_id in CONTROLLERS} | {node_id: ["broker"] for node_id in BROKERS}
    yield from run_cluster(tmp_path_factory.mktemp("apart"), settings=SMALL_SNAPSHOTS, roles=roles)


@pytest.fixture
def nodes(apart: Cluster) -> Cluster:
    apart.heal()
    return apart


def test_every_node_knows_the_cluster_and_only_brokers_hold_partitions(nodes: Cluster):
    nodes.create_topic("spread", partitions=3)
    for partition in range(3):
        nodes.wait_for_isr("spread", partition, BROKERS)
    for node_id in nodes.ids:
        states = {node["id"]: node["state"] for node in nodes.status(node_id)["nodes"]}
        assert states == dict.fromkeys(CONTROLLERS, "controller") | dict.fromkeys(BROKERS, "active")
        assert nodes.status(node_id)["controller_id"] in CONTROLLERS
    nodes.write_all("spread", ["by way of a controller"])
    for node_id in nodes.ids:
        assert values(nodes, node_id, "spread") == ["by way of a controller"], "any node takes any request"
    assert not any(nodes.folder(node_id, "spread").exists() for node_id in CONTROLLERS)


def test_the_controller_and_a_leader_die_together(nodes: Cluster):
    nodes.create_assigned("apart", [2, 1, 3])
    controller = nodes.controller()
    with Load(nodes, "apart", through=[1, 3]) as load:
        nodes.kill(controller)
        nodes.kill(2)
        load.wait_for_acknowledgements(100)
        assert nodes.controller() in CONTROLLERS
    nodes.heal()
    load.verify(node_id=2)


def test_a_broker_that_was_away_gets_the_metadata_as_a_snapshot(nodes: Cluster):
    nodes.kill(3)
    for number in range(40):
        assert nodes.call("POST", "/topics", {"topic_name": f"meanwhile-{number}"}).status == 201
    for number in range(0, 40, 2):
        assert nodes.call("DELETE", f"/topics/meanwhile-{number}").status == 204
    wait_until(
        lambda: any(True for _ in nodes.folder(CONTROLLERS[0], "x").parents[1].rglob("*snapshot*")),
        what="a snapshot at a voter",
    )
    nodes.restart(3)
    wait_until(
        lambda: nodes.status(3)["metadata_offset"] == nodes.status(1)["metadata_offset"], what="the same metadata"
    )
    topics = {topic["topic_name"] for topic in nodes.call("GET", "/topics", node_id=3).json()["data"]}
    assert {f"meanwhile-{number}" for number in range(1, 40, 2)} <= topics
    assert not {f"meanwhile-{number}" for number in range(0, 40, 2)} & topics


@pytest.mark.slow
def test_everything_dies_and_the_metadata_is_what_it_was(nodes: Cluster):
    nodes.create_assigned("kept", [1, 2, 3], retention_ms="12345678")
    nodes.write_all("kept", ["record"])
    topic_id = nodes.topic_id("kept")
    nodes.kill_all()
    nodes.start_again()
    for node_id in nodes.ids:
        answer = nodes.call("GET", "/topics/kept/configs/retention.ms", node_id=node_id)
        assert answer.json()["value"] == "12345678"
    assert nodes.topic_id("kept") == topic_id
    wait_for_values(nodes, 3, "kept", ["record"])


def test_a_single_node_is_a_cluster(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("single")
    for cluster in run_cluster(folder, settings={}, roles={1: BOTH}):
        cluster.create_topic("alone", replication_factor=1)
        with Load(cluster, "alone") as load:
            load.wait_for_acknowledgements(50)
        cluster.kill_all()
        cluster.start_again()
        load.verify(node_id=1)
        cluster.stop_all()
        cluster.start_again()
        load.verify(node_id=1)
