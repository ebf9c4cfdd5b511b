"""Elections and reassignments for clients, in every version."""

from __future__ import annotations

import pytest

from kraft.protocol.errors import RequestTimedOut
from kraft.protocol.messages.alter_partition_reassignments_request import (
    AlterPartitionReassignmentsRequestData,
    ReassignablePartition,
    ReassignableTopic,
)
from kraft.protocol.messages.alter_partition_reassignments_response import AlterPartitionReassignmentsResponseData
from kraft.protocol.messages.elect_leaders_request import ElectLeadersRequestData, TopicPartitions
from kraft.protocol.messages.elect_leaders_response import ElectLeadersResponseData
from kraft.protocol.messages.list_partition_reassignments_request import (
    ListPartitionReassignmentsRequestData,
    ListPartitionReassignmentsTopics,
)
from kraft.protocol.messages.list_partition_reassignments_response import ListPartitionReassignmentsResponseData
from kraft.wire.handlers import partitions
from metadata.controller.requests import AlterPartition, IsrMember, PartitionAlteration
from tests.support.admin_client import AdminClient
from tests.support.controller_world import World

PREFERRED, UNCLEAN = 0, 1


def client() -> AdminClient:
    """t-0 is led by its preferred replica, t-1 is not, u-0 has no live replica."""
    world = World()
    world.start(1, 2, 3, 4)
    world.create("t", (1, 2), (3, 1))
    world.create("u", (4,))
    world.decide_fence(3)
    world.decide_fence(4)
    world.beat(3)
    return AdminClient(partitions.apis, world)


def elect(
    admin: AdminClient, asked: dict[str, list[int]] | None, *, kind: int = PREFERRED, version: int = 2
) -> tuple[int, dict[tuple[str, int], int]]:
    topics = None
    if asked is not None:
        topics = [TopicPartitions.make(topic=name, partitions=indexes) for name, indexes in asked.items()]
    request = ElectLeadersRequestData.make(election_type=kind, topic_partitions=topics, timeout_ms=20_000)
    answer = admin.ask(request, version, ElectLeadersResponseData)
    items = [(topic.topic, item) for topic in answer.replica_election_results for item in topic.partition_result]
    assert all(bool(item.error_code) == bool(item.error_message) for _, item in items)
    return answer.error_code, {(topic, item.partition_id): item.error_code for topic, item in items}


@pytest.mark.parametrize("version", range(3))
def test_preferred_leaders_are_elected(version: int) -> None:
    admin = client()
    world = admin.gateway.world
    wanted: dict[str, list[int]] = {"t": [0, 1, 2], "u": [0], "none": [0]}
    codes = {("t", 0): 84, ("t", 1): 80, ("t", 2): 3, ("u", 0): 80, ("none", 0): 3}
    assert elect(admin, wanted, version=version) == (0, codes)
    _join(world, 3)
    assert elect(admin, {"t": [1]}, version=version) == (0, {("t", 1): 0})
    assert world.partition("t", 1).leader == 3


def _join(world: World, broker: int) -> None:
    """It is back in the ISR of partition 1."""
    now = world.partition("t", 1)
    members = tuple(IsrMember(broker_id=each, broker_epoch=world.epoch(each)) for each in (*now.isr, broker))
    change = PartitionAlteration(
        topic_id=now.topic_id,
        partition=1,
        leader_epoch=now.leader_epoch,
        partition_epoch=now.partition_epoch,
        new_isr=members,
        recovered=True,
    )
    world.decide(AlterPartition(broker_id=now.leader, broker_epoch=world.epoch(now.leader), alterations=(change,)))


def test_of_all_partitions_those_without_need_are_left_out() -> None:
    admin = client()
    admin.gateway.world.create("led", (1,))
    every = admin.ask(ElectLeadersRequestData.make(topic_partitions=None), 2, ElectLeadersResponseData)
    assert [topic.topic for topic in every.replica_election_results] == ["led", "t", "u"]
    assert elect(admin, None) == (0, {("t", 1): 80, ("u", 0): 80})
    assert elect(admin, {}) == (0, {})


def test_unclean_elections() -> None:
    admin = client()
    assert elect(admin, {"t": [0], "u": [0]}, kind=UNCLEAN) == (0, {("t", 0): 84, ("u", 0): 83})
    assert elect(admin, {"t": [0]}, kind=7)[0] == 42


def test_a_refusal_names_each_partition() -> None:
    admin = client()
    admin.gateway.unreachable = RequestTimedOut("late")
    assert elect(admin, {"t": [0, 1]}) == (7, {("t", 0): 7, ("t", 1): 7})
    assert reassign(admin, {("t", 0): [1]}) == (7, {("t", 0): 7})


# --- reassignments --------------------------------------------------------------------------------------------------


def reassign(
    admin: AdminClient,
    wanted: dict[tuple[str, int], list[int] | None],
    *,
    version: int = 1,
    allow_factor_change: bool = True,
) -> tuple[int, dict[tuple[str, int], int]]:
    request = AlterPartitionReassignmentsRequestData.make(
        timeout_ms=20_000,
        allow_replication_factor_change=allow_factor_change,
        topics=[
            ReassignableTopic.make(
                name=name, partitions=[ReassignablePartition.make(partition_index=index, replicas=replicas)]
            )
            for (name, index), replicas in wanted.items()
        ],
    )
    answer = admin.ask(request, version, AlterPartitionReassignmentsResponseData)
    items = [(topic.name, item) for topic in answer.responses for item in topic.partitions]
    assert all(bool(item.error_code) == bool(item.error_message) for _, item in items)
    return answer.error_code, {(topic, item.partition_index): item.error_code for topic, item in items}


def ongoing(
    admin: AdminClient, asked: dict[str, list[int]] | None = None
) -> dict[tuple[str, int], tuple[list[int], list[int], list[int]]]:
    topics = None
    if asked is not None:
        topics = [ListPartitionReassignmentsTopics.make(name=n, partition_indexes=i) for n, i in asked.items()]
    request = ListPartitionReassignmentsRequestData.make(timeout_ms=20_000, topics=topics)
    answer = admin.ask(request, 0, ListPartitionReassignmentsResponseData)
    assert (answer.error_code, answer.error_message) == (0, None)
    return {
        (topic.name, item.partition_index): (
            list(item.replicas),
            list(item.adding_replicas),
            list(item.removing_replicas),
        )
        for topic in answer.topics
        for item in topic.partitions
    }


@pytest.mark.parametrize("version", [0, 1])
def test_a_partition_moves_and_is_listed_until_it_is_cancelled(version: int) -> None:
    admin = client()
    assert ongoing(admin) == {}
    assert reassign(admin, {("t", 0): [3, 2]}, version=version) == (0, {("t", 0): 0})
    moving = {("t", 0): ([3, 2, 1], [3], [1])}
    assert ongoing(admin) == ongoing(admin, {"t": [0, 1, 9], "none": [0]}) == moving
    assert ongoing(admin, {"t": [1]}) == ongoing(admin, {}) == {}
    assert reassign(admin, {("t", 0): None}, version=version) == (0, {("t", 0): 0})
    assert ongoing(admin) == {}
    assert set(admin.gateway.world.partition("t").replicas) == {1, 2}


def test_refused_moves() -> None:
    admin = client()
    codes = {
        ("t", 0): reassign(admin, {("t", 0): None}),
        ("t", 1): reassign(admin, {("t", 1): [9]}),
        ("t", 9): reassign(admin, {("t", 9): [1]}),
        ("u", 0): reassign(admin, {("u", 0): []}),
    }
    assert {key: answer[key] for key, (_, answer) in codes.items()} == {
        ("t", 0): 85,
        ("t", 1): 39,
        ("t", 9): 3,
        ("u", 0): 39,
    }


def test_the_replication_factor_is_kept_when_the_request_asks_for_it() -> None:
    admin = client()
    assert reassign(admin, {("t", 0): [1, 2, 3]}, allow_factor_change=False)[1] == {("t", 0): 38}
    assert reassign(admin, {("t", 0): [3, 2]}, allow_factor_change=False)[1] == {("t", 0): 0}
    assert reassign(admin, {("t", 0): [1, 3]}, allow_factor_change=False)[1] == {("t", 0): 0}, "two, while three move"
    assert reassign(admin, {("t", 0): [1, 2, 3]})[1] == {("t", 0): 0}
