"""The cluster for its administrators: who has the metadata, which features are final, which brokers are known."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kraft.broker.features import FEATURES
from kraft.broker.gateway import NodeInfo
from kraft.protocol.errors import NotController
from kraft.protocol.messages.describe_quorum_request import DescribeQuorumRequestData, PartitionData, TopicData
from kraft.protocol.messages.describe_quorum_response import DescribeQuorumResponseData
from kraft.protocol.messages.unregister_broker_request import UnregisterBrokerRequestData
from kraft.protocol.messages.unregister_broker_response import UnregisterBrokerResponseData
from kraft.protocol.messages.update_features_request import FeatureUpdateKey, UpdateFeaturesRequestData
from kraft.protocol.messages.update_features_response import UpdateFeaturesResponseData
from kraft.wire.handlers import cluster_admin
from metadata.records import ControllerEpochRecord
from tests.support.admin_client import AdminClient
from tests.support.controller_world import World

WALL_MS = 1_700_000_000_000


def client() -> AdminClient:
    """Nodes 1 to 3 vote, 3 without the broker role; 4 is a broker that observes. 1 is the active controller."""
    world = World()
    world.image = world.image.apply([ControllerEpochRecord(epoch=6, node_id=1)])
    world.start(1, 2, 4)
    world.create("t", (2, 1), (4, 1))
    environment = SimpleNamespace(clock=SimpleNamespace(wall_ms=lambda: WALL_MS))
    admin = AdminClient(cluster_admin.apis, world, environment=environment)
    admin.gateway.nodes = {  # type: ignore[attr-defined]
        number: NodeInfo(
            node_id=number,
            roles=(),
            rest="",
            kafka="",
            quorum=f"10.0.0.{number}:9093" if number < 4 else None,
            rack=None,
        )
        for number in (1, 2, 3, 4)
    }
    return admin


def describe(admin: AdminClient, topic: str = "__cluster_metadata", *, version: int = 2) -> DescribeQuorumResponseData:
    data = TopicData.make(topic_name=topic, partitions=[PartitionData.make(partition_index=0)])
    return admin.ask(DescribeQuorumRequestData.make(topics=[data]), version, DescribeQuorumResponseData)


@pytest.mark.parametrize("version", range(3))
def test_the_quorum_is_described_as_the_controller_has_heard_it(version: int) -> None:
    admin = client()
    world = admin.gateway.world
    world.now_ms = 10_000
    world.beat(2)
    world.beat(4, offset=world.image.offset - 2)
    world.now_ms = 11_000
    answer = describe(admin, version=version)
    [topic] = answer.topics
    [partition] = topic.partitions
    end = world.image.next_offset
    assert (answer.error_code, partition.error_code) == (0, 0)
    assert (partition.leader_id, partition.leader_epoch, partition.high_watermark) == (1, 6, end)
    voters = {each.replica_id: each for each in partition.current_voters}
    assert {number: each.log_end_offset for number, each in voters.items()} == {1: end, 2: end, 3: -1}
    [observer] = partition.observers
    assert (observer.replica_id, observer.log_end_offset) == (4, end - 2)
    moments = {
        number: (each.last_fetch_timestamp, each.last_caught_up_timestamp)
        for number, each in {**voters, 4: observer}.items()
    }
    heard = WALL_MS - 1_000
    expected = {1: (WALL_MS, WALL_MS), 2: (heard, heard), 3: (-1, -1), 4: (heard, WALL_MS - 11_000)}
    assert moments == (expected if version else dict.fromkeys(expected, (-1, -1)))
    if version >= 2:
        assert [(node.node_id, node.listeners[0].host, node.listeners[0].port) for node in answer.nodes] == [
            (1, "10.0.0.1", 9093),
            (2, "10.0.0.2", 9093),
            (3, "10.0.0.3", 9093),
        ]


def test_no_other_topic_has_a_quorum() -> None:
    answer = describe(client(), "t")
    assert (answer.error_code, answer.topics[0].partitions[0].error_code) == (0, 3)


def test_nobody_describes_a_quorum_without_a_leader() -> None:
    admin = client()
    admin.gateway.unreachable = NotController("none")
    assert describe(admin).error_code == 41


# --- features -------------------------------------------------------------------------------------------------------


def update(*wanted: tuple[str, int, int], version: int = 2) -> UpdateFeaturesResponseData:
    updates = [
        FeatureUpdateKey.make(feature=name, max_version_level=level, upgrade_type=kind) for name, level, kind in wanted
    ]
    request = UpdateFeaturesRequestData.make(feature_updates=updates)
    return client().ask(request, version, UpdateFeaturesResponseData)


@pytest.mark.parametrize("version", range(3))
def test_the_level_that_a_feature_has_is_fine(version: int) -> None:
    answer = update(*((feature.name, feature.final, 1) for feature in FEATURES), version=version)
    assert (answer.error_code, answer.error_message) == (0, None)
    names = [result.feature for result in answer.results]
    assert names == ([feature.name for feature in FEATURES] if version < 2 else [])


@pytest.mark.parametrize(
    ("name", "level", "kind", "reported"),
    [
        ("no.such.feature", 1, 1, "no such feature"),
        ("metadata.version", 9999, 1, "levels"),
        ("metadata.version", 1, 3, "levels"),
        ("metadata.version", -1, 1, "levels"),
        ("group.version", 0, 2, "cannot be changed"),
        ("group.version", 1, 9, "upgrade type"),
    ],
)
def test_other_levels_are_refused_in_words(name: str, level: int, kind: int, reported: str) -> None:
    answer = update((name, level, kind))
    assert (answer.error_code, list(answer.results)) == (95, [])
    assert reported in (answer.error_message or "")
    assert name in (answer.error_message or "")


# --- brokers --------------------------------------------------------------------------------------------------------


def unregister(admin: AdminClient, broker: int) -> int:
    request = UnregisterBrokerRequestData.make(broker_id=broker)
    answer = admin.ask(request, 0, UnregisterBrokerResponseData)
    assert bool(answer.error_code) == bool(answer.error_message)
    return answer.error_code


def test_an_unregistered_broker_leads_nothing_and_may_come_back() -> None:
    admin = client()
    world = admin.gateway.world
    assert unregister(admin, 77) == 102
    assert unregister(admin, 2) == 0
    assert sorted(world.image.brokers) == [1, 4]
    assert (world.partition("t").leader, world.partition("t").isr) == (1, (1,))
    assert unregister(admin, 2) == 102
    world.register(2)
    world.beat(2)
    assert world.image.is_active_broker(2)
