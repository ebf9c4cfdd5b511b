"""The classic protocol of groups as clients speak it, in every version, to coordinators of three simulated nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster, SimulatedNode
from kraft.chaos.worlds.simulated.environment import SimulatedWorld
from kraft.wire.clients.table import ROWS
from kraft.wire.generated.find_coordinator_request import FindCoordinatorRequestData
from kraft.wire.generated.heartbeat_request import HeartbeatRequestData
from kraft.wire.generated.join_group_request import JoinGroupRequestData, JoinGroupRequestProtocol
from kraft.wire.generated.leave_group_request import LeaveGroupRequestData, MemberIdentity
from kraft.wire.generated.offset_commit_request import (
    OffsetCommitRequestData,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from kraft.wire.generated.offset_fetch_request import (
    OffsetFetchRequestData,
    OffsetFetchRequestGroup,
)
from kraft.wire.generated.sync_group_request import SyncGroupRequestAssignment, SyncGroupRequestData
from metadata.controller.requests import CreateTopics, NewTopic
from tests.support.client_door import ClientDoor

SETTINGS = {"group.initial.rebalance.delay.ms": 0, "offsets.topic.num.partitions": 5}
RANGE = [("range", b"subscription")]
FIND, JOIN, SYNC, LEAVE, COMMIT, FETCH = 6, 9, 5, 5, 9, 9
"""The newest versions; of the offsets those that name topics."""


def versions(key: int) -> range:
    return range(ROWS[key].oldest, ROWS[key].newest + 1)


class Groups:
    """A cluster with topic `t`, as clients ask it that know who coordinates."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self.cluster = cluster

    @property
    def any(self) -> ClientDoor:
        return ClientDoor(self.cluster.alive[0])

    async def coordinator(self, group: str) -> ClientDoor:
        """Asked until its groups are loaded."""
        while True:
            found = await self.any.ask(FindCoordinatorRequestData.make(coordinator_keys=[group]), FIND)
            (coordinator,) = found.coordinators
            if coordinator.error_code == 0:
                door = ClientDoor(self.cluster.nodes[coordinator.node_id])
                fetched = await door.ask(offset_fetch(group), FETCH)
                if fetched.groups[0].error_code == 0:
                    return door
            await asyncio.sleep(0.1)


def play(story: Callable[[Groups], Awaitable[None]], **settings: int) -> None:
    world = SimulatedWorld(1)
    given = {name.replace("_", "."): value for name, value in settings.items()}
    cluster = SimulatedCluster(world, settings={**SETTINGS, **given})

    async def run() -> None:
        await cluster.start()
        await create(cluster, "t", 2)
        await story(Groups(cluster))
        await cluster.stop()
        cluster.raise_fatal()

    world.run(run())


async def create(cluster: SimulatedCluster, name: str, partitions: int) -> None:
    node = cluster.alive[0]
    assert node.node is not None
    new = NewTopic(name=name, partitions=partitions, replication_factor=3)
    await node.machine.run(node.node.gateway.control(CreateTopics(topics=(new,)), timeout_ms=10_000))
    for each in cluster.alive:
        assert each.node is not None
        known = each.node.publisher.wait_for(lambda image: image.topic(name) is not None, timeout_ms=10_000)
        assert await each.machine.run(known)


def topic_id(node: SimulatedNode, name: str) -> Any:
    assert node.node is not None
    topic = node.node.gateway.image.topic(name)
    assert topic is not None
    return topic.topic_id


def join_group(group: str, member_id: str = "", protocols: Any = RANGE, **changes: Any) -> JoinGroupRequestData:
    options: dict[str, Any] = {
        "session_timeout_ms": 10_000,
        "rebalance_timeout_ms": 20_000,
        "protocol_type": "consumer",
        "protocols": [JoinGroupRequestProtocol.make(name=name, metadata=data) for name, data in protocols],
    }
    return JoinGroupRequestData.make(group_id=group, member_id=member_id, **{**options, **changes})


def sync_group(group: str, member_id: str, generation: int, **assignments: bytes) -> SyncGroupRequestData:
    return SyncGroupRequestData.make(
        group_id=group,
        member_id=member_id,
        generation_id=generation,
        protocol_type="consumer",
        protocol_name="range",
        assignments=[SyncGroupRequestAssignment.make(member_id=k, assignment=v) for k, v in assignments.items()],
    )


def offset_commit(
    group: str, *offsets: tuple[str, int, int], metadata: str | None = "m", epoch: int = 3, **who: Any
) -> OffsetCommitRequestData:
    topics = [
        OffsetCommitRequestTopic.make(
            name=topic,
            partitions=[
                OffsetCommitRequestPartition.make(
                    partition_index=partition,
                    committed_offset=offset,
                    committed_leader_epoch=epoch,
                    committed_metadata=metadata,
                )
            ],
        )
        for topic, partition, offset in offsets
    ]
    return OffsetCommitRequestData.make(group_id=group, topics=topics, **who)


def offset_fetch(*groups: str, topics: Any = None) -> OffsetFetchRequestData:
    return OffsetFetchRequestData.make(
        groups=[OffsetFetchRequestGroup.make(group_id=group, topics=topics) for group in groups]
    )


def codes(response: Any) -> list[int]:
    return [partition.error_code for topic in response.topics for partition in topic.partitions]


async def member(door: ClientDoor, group: str, *, version: int = JOIN, **changes: Any) -> Any:
    """JoinGroup as often as it takes."""
    joined = await door.ask(join_group(group, **changes), version)
    if joined.error_code == 79:
        joined = await door.ask(join_group(group, joined.member_id, **changes), version)
    return joined


async def settled(door: ClientDoor, group: str, **changes: Any) -> Any:
    """A group of one member that has its assignment."""
    joined = await member(door, group, **changes)
    assert joined.error_code == 0, joined
    request = sync_group(group, joined.member_id, joined.generation_id, **{joined.member_id: b"all"})
    request.group_instance_id = changes.get("group_instance_id")
    synced = await door.ask(request, SYNC)
    assert (synced.error_code, synced.assignment) == (0, b"all")
    return joined


# --- finding ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", versions(10))
def test_the_first_who_asks_for_a_coordinator_brings_the_topic_into_being(version: int) -> None:
    async def story(groups: Groups) -> None:
        response = await groups.any.ask(FindCoordinatorRequestData.make(key="g", coordinator_keys=["g", "h"]), version)
        found = response.coordinators if version >= 4 else [response]
        assert len(found) == (2 if version >= 4 else 1)
        assert [each.key for each in found if version >= 4] == ["g", "h"][: len(found) if version >= 4 else 0]
        for each in found:
            node = groups.cluster.nodes[each.node_id]
            assert node.node is not None
            assert (each.error_code, f"{each.host}:{each.port}") == (0, node.node.gateway.nodes[each.node_id].kafka)
        await groups.coordinator("g")

    play(story)


@pytest.mark.parametrize(("key_type", "words"), [(1, "transactions"), (2, "share groups"), (9, "key type 9")])
@pytest.mark.parametrize("version", [3, 6])
def test_who_wants_another_coordinator_is_told_at_once_that_there_is_none(
    key_type: int, words: str, version: int
) -> None:
    """42 ends Java's initTransactions; it would ask for ever after 15."""

    async def story(groups: Groups) -> None:
        asked = FindCoordinatorRequestData.make(key="x", coordinator_keys=["x"], key_type=key_type)
        response = await groups.any.ask(asked, version)
        found = response.coordinators[0] if version >= 4 else response
        assert (found.error_code, found.node_id, found.host, found.port) == (42, -1, "", -1)
        assert words in found.error_message

    play(story)


def test_a_group_of_another_node_is_not_coordinated_here() -> None:
    async def story(groups: Groups) -> None:
        right = await groups.coordinator("g")
        wrong = ClientDoor(next(node for node in groups.cluster.alive if node is not right.node))
        assert (await wrong.ask(join_group("g"), JOIN)).error_code == 16
        assert (await wrong.ask(sync_group("g", "m", 1), SYNC)).error_code == 16
        beat = HeartbeatRequestData.make(group_id="g", member_id="m", generation_id=1)
        assert (await wrong.ask(beat, 4)).error_code == 16
        leave = LeaveGroupRequestData.make(group_id="g", members=[MemberIdentity.make(member_id="m")])
        assert (await wrong.ask(leave, LEAVE)).error_code == 16
        assert codes(await wrong.ask(offset_commit("g", ("t", 0, 1)), COMMIT)) == [16]
        assert (await wrong.ask(offset_fetch("g"), FETCH)).groups[0].error_code == 16

    play(story)


# --- membership -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", versions(11))
def test_members_of_every_version_join(version: int) -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        first = await door.ask(join_group("g"), version)
        if version >= 4:
            assert (first.error_code, first.generation_id, first.leader) == (79, -1, "")
            assert first.member_id.startswith("client-")
            first = await door.ask(join_group("g", first.member_id), version)
        assert (first.error_code, first.generation_id, first.protocol_name) == (0, 1, "range")
        assert first.leader == first.member_id
        assert [(each.member_id, each.metadata) for each in first.members] == [(first.member_id, b"subscription")]
        assert first.protocol_type == ("consumer" if version >= 7 else None)
        again = await door.ask(join_group("g", "stranger"), version)
        assert (again.error_code, again.member_id, again.generation_id) == (25, "stranger", -1)

    play(story)


def test_a_member_of_version_0_has_its_session_for_a_rebalance() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        await door.ask(join_group("g", rebalance_timeout_ms=-1), 0)
        parts = door.node.node
        assert parts is not None
        assert parts.coordinator is not None
        (entry,) = [led.shard.entries["g"] for led in parts.coordinator._led.values() if "g" in led.shard.entries]
        assert [each.rebalance_timeout_ms for each in entry.group.members.values()] == [10_000]

    play(story)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"session_timeout_ms": 5_999}, 26),
        ({"session_timeout_ms": 1_800_001}, 26),
        ({"protocols": []}, 23),
        ({"protocol_type": ""}, 23),
    ],
)
def test_a_join_that_kafka_refuses_is_refused(changes: dict[str, Any], code: int) -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        assert (await door.ask(join_group("g", **changes), JOIN)).error_code == code
        assert (await door.ask(join_group("", **changes), JOIN)).error_code == 24

    play(story)
