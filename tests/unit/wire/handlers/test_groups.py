"""The classic protocol of groups as clients speak it, in every version, to coordinators of three simulated nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster, SimulatedNode
from kraft.chaos.worlds.simulated.environment import SimulatedWorld
from kraft.coordinators.groups.coordinator import expire_offsets
from kraft.coordinators.groups.subscriptions import Subscription, encode_subscription
from kraft.protocol import apis
from kraft.protocol.messages.delete_groups_request import DeleteGroupsRequestData
from kraft.protocol.messages.describe_groups_request import DescribeGroupsRequestData
from kraft.protocol.messages.find_coordinator_request import FindCoordinatorRequestData
from kraft.protocol.messages.heartbeat_request import HeartbeatRequestData
from kraft.protocol.messages.join_group_request import JoinGroupRequestData, JoinGroupRequestProtocol
from kraft.protocol.messages.leave_group_request import LeaveGroupRequestData, MemberIdentity
from kraft.protocol.messages.list_groups_request import ListGroupsRequestData
from kraft.protocol.messages.offset_commit_request import (
    OffsetCommitRequestData,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from kraft.protocol.messages.offset_delete_request import (
    OffsetDeleteRequestData,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from kraft.protocol.messages.offset_fetch_request import (
    OffsetFetchRequestData,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
)
from kraft.protocol.messages.sync_group_request import SyncGroupRequestAssignment, SyncGroupRequestData
from kraft.wire.handlers import operations
from metadata.controller.requests import CreateTopics, NewTopic
from tests.support.client_door import ClientDoor
from tests.support.repetitions import first_and_last

SETTINGS = {"group.initial.rebalance.delay.ms": 0, "offsets.topic.num.partitions": 5}
RANGE = [("range", b"subscription")]
FIND, JOIN, SYNC, LEAVE, COMMIT, FETCH = 6, 9, 5, 5, 9, 9
"""The newest versions; of the offsets those that name topics."""


def versions(key: int) -> range:
    return apis.BY_KEY[key].clients


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


@pytest.mark.parametrize("version", [2, 4, 5])
def test_a_commit_of_old_versions_reports_how_long_it_is_kept(version: int) -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        commit = offset_commit("g", ("t", 0, 5), generation_id_or_member_epoch=-1, retention_time_ms=60_000)
        assert codes(await door.ask(commit, version)) == [0]
        node = door.node.node
        assert node is not None
        assert node.broker is not None

        async def left() -> int:
            assert node.broker is not None
            for shard in node.broker.group_coordinator.shards.loaded():
                expire_offsets(shard)
            await asyncio.sleep(1)
            fetched = await door.ask(offset_fetch("g"), 8)
            return len(fetched.groups[0].topics)

        assert await left() == 1
        await asyncio.sleep(60)
        assert await left() == (1 if version == 5 else 0)

    play(story)


# --- finding ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", first_and_last(versions(10)))
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


@pytest.mark.parametrize(
    ("version", "key_type", "words"),
    [
        (3, 2, "FindCoordinator of a share partition is version 6, not 3"),
        (6, 2, "no share partition"),
        (3, 9, "key type 9"),
        (6, 9, "key type 9"),
    ],
)
def test_an_unknown_coordinator_is_refused_for_good(version: int, key_type: int, words: str) -> None:
    """42 ends Java's initTransactions; it would ask for ever after 15."""

    async def story(groups: Groups) -> None:
        asked = FindCoordinatorRequestData.make(key="x", coordinator_keys=["x"], key_type=key_type)
        response = await groups.any.ask(asked, version)
        found = response.coordinators[0] if version >= 4 else response
        assert (found.error_code, found.node_id, found.host, found.port) == (42, -1, "", -1)
        assert words in found.error_message

    play(story)


def test_a_heartbeat_is_taken_while_its_group_is_loaded() -> None:
    """As in Kafka: a member must not leave for a coordinator that has only just begun."""

    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        beat = HeartbeatRequestData.make(group_id="g", member_id="m", generation_id=1)
        assert (await door.ask(beat, 4)).error_code == 25
        parts = door.node.node
        assert parts is not None
        assert parts.broker is not None
        for shard in parts.broker.group_coordinator.shards.by_partition.values():
            shard._is_loaded = False
        assert (await door.ask(beat, 4)).error_code == 0
        assert (await door.ask(offset_fetch("g"), FETCH)).groups[0].error_code == 14
        assert (await door.ask(join_group("g"), JOIN)).error_code == 14

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


@pytest.mark.parametrize("version", first_and_last(versions(11)))
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
        assert parts.broker is not None
        (entry,) = [
            each.entries["g"]
            for each in parts.broker.group_coordinator.shards.by_partition.values()
            if "g" in each.entries
        ]
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


def test_second_member_joins_and_leader_gets_members() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        one = await settled(door, "g")
        waiting = asyncio.get_running_loop().create_task(member(door, "g"))
        await asyncio.sleep(1)
        beat = HeartbeatRequestData.make(group_id="g", member_id=one.member_id, generation_id=1)
        assert (await door.ask(beat, 4)).error_code == 27
        again = await door.ask(join_group("g", one.member_id), JOIN)
        two = await waiting
        assert (again.error_code, again.generation_id, again.leader) == (0, 2, one.member_id)
        assert {each.member_id for each in again.members} == {one.member_id, two.member_id}
        assert (two.error_code, two.generation_id, two.leader, two.members) == (0, 2, one.member_id, ())
        follower = asyncio.get_running_loop().create_task(door.ask(sync_group("g", two.member_id, 2), SYNC))
        await asyncio.sleep(1)
        assert not follower.done()
        assert codes(await door.ask(offset_commit("g", ("t", 0, 1), **who(two)), COMMIT)) == [27]
        shares = {one.member_id: b"\x00one", two.member_id: b"\x00two"}
        assert (await door.ask(sync_group("g", one.member_id, 2, **shares), SYNC)).assignment == b"\x00one"
        assert (await follower).assignment == b"\x00two"
        assert codes(await door.ask(offset_commit("g", ("t", 0, 1), **who(two)), COMMIT)) == [0]

    play(story)


def who(joined: Any) -> dict[str, Any]:
    return {"member_id": joined.member_id, "generation_id_or_member_epoch": joined.generation_id}


def test_a_member_that_is_silent_for_its_session_is_out() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        one = await settled(door, "g")
        beat = HeartbeatRequestData.make(group_id="g", member_id=one.member_id, generation_id=1)
        for _ in range(3):
            await asyncio.sleep(7)
            assert (await door.ask(beat, 4)).error_code == 0
        await asyncio.sleep(11)
        assert (await door.ask(beat, 4)).error_code == 25
        assert (await door.ask(join_group("g", one.member_id), JOIN)).error_code == 25
        assert codes(await door.ask(offset_commit("g", ("t", 0, 1), **who(one)), COMMIT)) == [25]

    play(story)


def test_who_does_not_join_again_in_time_is_out_and_the_others_go_on() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        one = await settled(door, "g", session_timeout_ms=60_000)
        two = await member(door, "g", session_timeout_ms=60_000)  # waits for the first, which never comes
        assert (two.generation_id, two.leader, len(two.members)) == (2, two.member_id, 1)
        beat = HeartbeatRequestData.make(group_id="g", member_id=one.member_id, generation_id=1)
        assert (await door.ask(beat, 4)).error_code == 25

    play(story)


def test_the_first_members_of_a_group_wait_for_each_other() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        loop = asyncio.get_running_loop()
        started = loop.time()
        joins = [loop.create_task(member(door, "g")) for _ in range(3)]
        joined = [await each for each in joins]
        assert 3 <= loop.time() - started < 10
        assert {each.generation_id for each in joined} == {1}
        assert sum(len(each.members) for each in joined) == 3

    play(story, group_initial_rebalance_delay_ms=3_000)


def test_a_group_takes_no_more_members_than_its_size() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        await settled(door, "g")
        refused = await door.ask(join_group("g"), JOIN)
        assert (refused.error_code, refused.member_id) == (81, "")

    play(story, group_max_size=1)


def test_the_chosen_protocol_is_one_that_all_can_do_and_most_want() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        loop = asyncio.get_running_loop()
        wanted = [
            [("a", b"1a"), ("b", b"1b"), ("c", b"1c")],
            [("b", b"2b"), ("a", b"2a")],
            [("x", b"3x"), ("b", b"3b"), ("a", b"3a")],
        ]
        joins = [loop.create_task(member(door, "g", protocols=each)) for each in wanted]
        joined = [await each for each in joins]
        assert {each.protocol_name for each in joined} == {"b"}
        (leader,) = [each for each in joined if each.members]
        assert sorted(each.metadata for each in leader.members) == [b"1b", b"2b", b"3b"]
        assert (await door.ask(join_group("g", protocols=[("x", b"")]), JOIN)).error_code == 23
        assert (await door.ask(join_group("g", protocol_type="connect"), JOIN)).error_code == 23

    play(story, group_initial_rebalance_delay_ms=1_000)


def test_workers_of_connect_are_a_group_like_any_other() -> None:
    """Their metadata is no subscription of a consumer; nobody but the members reads it."""

    async def story(groups: Groups) -> None:
        door = await groups.coordinator("connect-cluster")
        protocols = [("sessioned", b"\x00\x02http://worker:8083\xff"), ("compatible", b"\x00\x01x"), ("default", b"")]
        joined = await member(door, "connect-cluster", protocol_type="connect", protocols=protocols)
        assert (joined.protocol_type, joined.protocol_name) == ("connect", "sessioned")
        assert joined.members[0].metadata == protocols[0][1]
        request = sync_group("connect-cluster", joined.member_id, 1, **{joined.member_id: b"\xff\xfe\x00"})
        request.protocol_type, request.protocol_name = "connect", "sessioned"
        assert (await door.ask(request, SYNC)).assignment == b"\xff\xfe\x00"
        described = (await door.ask(DescribeGroupsRequestData.make(groups=["connect-cluster"]), 6)).groups[0]
        assert (described.group_state, described.protocol_type) == ("Stable", "connect")
        assert [each.member_assignment for each in described.members] == [b"\xff\xfe\x00"]
        assert [each.member_metadata for each in described.members] == [protocols[0][1]]
        deleted = await door.ask(offset_delete("connect-cluster", ("t", 0)), 0)
        assert deleted.error_code == 68

    play(story)


@pytest.mark.parametrize("version", first_and_last(versions(14)))
def test_a_sync_of_every_version(version: int) -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        joined = await member(door, "g")
        request = sync_group("g", joined.member_id, 1, **{joined.member_id: b"all"})
        wrong = sync_group("g", joined.member_id, 1)
        wrong.protocol_name = "roundrobin"
        if version >= 5:
            assert (await door.ask(wrong, version)).error_code == 23
            wrong.protocol_name = None
            assert (await door.ask(wrong, version)).error_code == 23
        synced = await door.ask(request, version)
        assert (synced.error_code, synced.assignment) == (0, b"all")
        assert synced.protocol_name == ("range" if version >= 5 else None)
        assert (await door.ask(sync_group("g", joined.member_id, 7), version)).error_code == 22
        assert (await door.ask(sync_group("g", "stranger", 1), version)).error_code == 25

    play(story)


@pytest.mark.parametrize("version", first_and_last(versions(12)))
def test_a_heartbeat_of_every_version(version: int) -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        joined = await settled(door, "g")
        for member_id, generation, code in ((joined.member_id, 1, 0), (joined.member_id, 2, 22), ("x", 1, 25)):
            beat = HeartbeatRequestData.make(group_id="g", member_id=member_id, generation_id=generation)
            assert (await door.ask(beat, version)).error_code == code
        beat = HeartbeatRequestData.make(group_id="nobody", member_id="m", generation_id=1)
        nobody = await groups.coordinator("nobody")
        assert (await nobody.ask(beat, version)).error_code == 25

    play(story)


@pytest.mark.parametrize("version", first_and_last(versions(13)))
def test_a_leave_of_every_version(version: int) -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        joined = await settled(door, "g")
        ids = ["x", joined.member_id] if version >= 3 else [joined.member_id]
        request = LeaveGroupRequestData.make(
            group_id="g", member_id=joined.member_id, members=[MemberIdentity.make(member_id=each) for each in ids]
        )
        left = await door.ask(request, version)
        assert left.error_code == 0
        assert [(each.member_id, each.error_code) for each in left.members] == (
            [("x", 25), (joined.member_id, 0)] if version >= 3 else []
        )
        again = await door.ask(request, version)
        assert [again.error_code, *(each.error_code for each in again.members)] == (
            [0, 25, 25] if version >= 3 else [25]
        )
        described = (await door.ask(DescribeGroupsRequestData.make(groups=["g"]), 6)).groups[0]
        assert (described.group_state, described.members) == ("Empty", ())

    play(story)


# --- static members -------------------------------------------------------------------------------------------


def test_static_member_returns_without_rebalance() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        one = await settled(door, "g", group_instance_id="i")
        assert one.member_id.startswith("i-")
        back = await door.ask(join_group("g", group_instance_id="i"), JOIN)
        assert (back.error_code, back.generation_id, back.skip_assignment) == (0, 1, True)
        assert back.leader == back.member_id != one.member_id
        assert [each.group_instance_id for each in back.members] == ["i"]
        synced = sync_group("g", back.member_id, 1)
        synced.group_instance_id = "i"
        assert (await door.ask(synced, SYNC)).assignment == b"all"
        beat = HeartbeatRequestData.make(group_id="g", member_id=one.member_id, generation_id=1, group_instance_id="i")
        assert (await door.ask(beat, 4)).error_code == 82
        old = join_group("g", one.member_id, group_instance_id="i")
        assert (await door.ask(old, JOIN)).error_code == 82
        stale = offset_commit("g", ("t", 0, 1), group_instance_id="i", **who(one))
        assert codes(await door.ask(stale, COMMIT)) == [82]
        identity = MemberIdentity.make(member_id=one.member_id, group_instance_id="i")
        left = await door.ask(LeaveGroupRequestData.make(group_id="g", members=[identity]), LEAVE)
        assert [each.error_code for each in left.members] == [82]

    play(story)


def test_an_older_client_that_leads_and_comes_back_receives_that_another_leads() -> None:
    """Before KIP-814 that is how it is kept from assigning anew."""

    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        one = await settled(door, "g", group_instance_id="i")
        back = await door.ask(join_group("g", group_instance_id="i"), 8)
        assert (back.error_code, back.generation_id, back.leader, back.members) == (0, 1, one.member_id, ())

    play(story)


def test_an_administrator_removes_a_static_member_by_its_instance() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        await settled(door, "g", group_instance_id="i")
        identities = [MemberIdentity.make(group_instance_id=name) for name in ("i", "unknown")]
        left = await door.ask(LeaveGroupRequestData.make(group_id="g", members=identities), LEAVE)
        assert [(each.group_instance_id, each.error_code) for each in left.members] == [("i", 0), ("unknown", 25)]

    play(story)


# --- offsets --------------------------------------------------------------------------------------------------


def asked(name: str, *partitions: int) -> OffsetFetchRequestTopics:
    return OffsetFetchRequestTopics.make(name=name, partition_indexes=partitions)


@pytest.mark.parametrize("version", first_and_last(range(2, 10)))
def test_a_commit_of_every_version_comes_back_in_every_version(version: int) -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        request = offset_commit("g", ("t", 0, 5), ("t", 9, 5), ("nowhere", 0, 5), retention_time_ms=1)
        assert codes(await door.ask(request, version)) == [0, 3, 3]
        epoch = 3 if version >= 6 else -1
        for newer in versions(9):
            if newer >= 8:
                continue
            wanted = [OffsetFetchRequestTopic.make(name="t", partition_indexes=[1, 0])]
            for topics in (wanted, None) if newer >= 2 else (wanted,):
                fetched = await door.ask(OffsetFetchRequestData.make(group_id="g", topics=topics), newer)
                rows = [
                    (each.partition_index, each.committed_offset, each.metadata, each.error_code)
                    for each in fetched.topics[0].partitions
                ]
                assert rows == ([(1, -1, "", 0), (0, 5, "m", 0)] if topics else [(0, 5, "m", 0)])
                if newer >= 5:
                    assert fetched.topics[0].partitions[-1].committed_leader_epoch == epoch
        for newer in (8, 9):
            fetched = await door.ask(offset_fetch("g", topics=[asked("t", 0), asked("nowhere", 1)]), newer)
            (group,) = fetched.groups
            assert [(each.name, each.partitions[0].committed_offset) for each in group.topics] == [
                ("t", 5),
                ("nowhere", -1),
            ]
            assert codes(group) == [0, 0]
            assert group.topics[0].partitions[0].committed_leader_epoch == epoch

    play(story)


def test_topics_are_named_by_id_in_the_newest_versions() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        known, unknown = topic_id(door.node, "t"), UUID(int=99)
        commit = offset_commit("g", ("", 0, 5), ("", 0, 6))
        commit.topics[0].topic_id, commit.topics[1].topic_id = known, unknown
        committed = await door.ask(commit, 10)
        assert codes(committed) == [0, 100]
        assert [each.topic_id for each in committed.topics] == [known, unknown]
        topics = [OffsetFetchRequestTopics.make(topic_id=each, partition_indexes=[0]) for each in (unknown, known)]
        (group,) = (await door.ask(offset_fetch("g", topics=topics), 10)).groups
        assert [(each.topic_id, each.partitions[0].committed_offset) for each in group.topics] == [
            (known, 5),
            (unknown, -1),
        ]
        assert codes(group) == [0, 100]
        (group,) = (await door.ask(offset_fetch("g"), 10)).groups
        assert [(each.topic_id, each.partitions[0].committed_offset) for each in group.topics] == [(known, 5)]

    play(story)


def test_metadata_that_is_too_long_costs_its_partition_alone() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        request = offset_commit("g", ("t", 0, 5), ("t", 1, 6))
        request.topics[0].partitions[0].committed_metadata = "x" * 4097
        request.topics[1].partitions[0].committed_metadata = None
        assert codes(await door.ask(request, COMMIT)) == [12, 0]
        (group,) = (await door.ask(offset_fetch("g", topics=[asked("t", 0, 1)]), FETCH)).groups
        rows = [(each.committed_offset, each.metadata) for each in group.topics[0].partitions]
        assert rows == [(-1, ""), (6, "")]
        alone = offset_commit("g", ("t", 0, 5), metadata="x" * 4097, member_id="m", generation_id_or_member_epoch=4)
        assert codes(await door.ask(alone, COMMIT)) == [25]

    play(story)


@pytest.mark.parametrize(("version", "code"), [(8, 22), (9, 69)])
def test_a_generation_of_a_group_that_is_not_there(version: int, code: int) -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        request = offset_commit("g", ("t", 0, 5), member_id="m", generation_id_or_member_epoch=1)
        assert codes(await door.ask(request, version)) == [code]

    play(story)


def test_who_is_no_member_commits_to_an_empty_group_only() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        assert codes(await door.ask(offset_commit("g", ("t", 0, 5)), COMMIT)) == [0]
        joined = await settled(door, "g")
        assert codes(await door.ask(offset_commit("g", ("t", 0, 6)), COMMIT)) == [25]
        assert codes(await door.ask(offset_commit("g", ("t", 0, 7), **who(joined)), COMMIT)) == [0]
        leave = LeaveGroupRequestData.make(group_id="g", members=[MemberIdentity.make(member_id=joined.member_id)])
        await door.ask(leave, LEAVE)
        assert codes(await door.ask(offset_commit("g", ("t", 0, 8)), COMMIT)) == [0]

    play(story)


def test_offsets_may_be_kept_without_a_name_of_a_group() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("")
        assert codes(await door.ask(offset_commit("", ("t", 0, 5)), COMMIT)) == [0]
        (group,) = (await door.ask(offset_fetch(""), FETCH)).groups
        assert [each.partitions[0].committed_offset for each in group.topics] == [5]
        described = (await door.ask(DescribeGroupsRequestData.make(groups=[""]), 6)).groups[0]
        assert (described.error_code, described.group_state) == (0, "Empty")
        assert (await door.ask(DeleteGroupsRequestData.make(groups_names=[""]), 2)).results[0].error_code == 0

    play(story)


def test_several_groups_are_fetched_at_once_and_each_has_its_error() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        other = await elsewhere(groups, "g")
        await door.ask(offset_commit("g", ("t", 0, 5)), COMMIT)
        fetched = await door.ask(offset_fetch("g", other), FETCH)
        assert [(each.group_id, each.error_code) for each in fetched.groups] == [("g", 0), (other, 16)]
        topics = [OffsetFetchRequestTopic.make(name="t", partition_indexes=[0])]
        request = OffsetFetchRequestData.make(group_id=other, topics=topics)
        assert codes(await door.ask(request, 1)) == [16]
        assert (await door.ask(request, 2)).error_code == 16

    play(story)


async def elsewhere(groups: Groups, group: str) -> str:
    """Another group, of another coordinator."""
    here = await groups.coordinator(group)
    for number in range(100):
        there = await groups.coordinator(f"other-{number}")
        if there.node is not here.node:
            return f"other-{number}"
    raise AssertionError("one node coordinates all")


# --- administration -------------------------------------------------------------------------------------------


def offset_delete(group: str, *partitions: tuple[str, int]) -> OffsetDeleteRequestData:
    topics = [
        OffsetDeleteRequestTopic.make(name=name, partitions=[OffsetDeleteRequestPartition.make(partition_index=number)])
        for name, number in partitions
    ]
    return OffsetDeleteRequestData.make(group_id=group, topics=topics)


@pytest.mark.parametrize("version", first_and_last(versions(15)))
def test_groups_are_described_in_every_version(version: int) -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        joined = await settled(door, "g", group_instance_id="i")
        await door.ask(offset_commit("nobody", ("t", 0, 1)), COMMIT)
        request = DescribeGroupsRequestData.make(groups=["g"], include_authorized_operations=True)
        (found,) = (await door.ask(request, version)).groups
        assert (found.error_code, found.group_state, found.protocol_type, found.protocol_data) == (
            0,
            "Stable",
            "consumer",
            "range",
        )
        (one,) = found.members
        assert (one.member_id, one.client_id, one.client_host) == (joined.member_id, "client", "/10.1.2.3")
        assert (one.member_metadata, one.member_assignment) == (b"subscription", b"all")
        assert one.group_instance_id == ("i" if version >= 4 else None)
        assert found.authorized_operations == (operations.GROUP if version >= 3 else operations.NOT_ASKED)
        nobody = await groups.coordinator("missing")
        (missing,) = (await nobody.ask(DescribeGroupsRequestData.make(groups=["missing"]), version)).groups
        assert (missing.error_code, missing.group_state) == (69 if version >= 6 else 0, "Dead")
        assert missing.error_message == (f"Group {missing.group_id} not found." if version >= 6 else None)
        other = await elsewhere(groups, "g")
        (moved,) = (await door.ask(DescribeGroupsRequestData.make(groups=[other]), version)).groups
        assert (moved.error_code, moved.group_state) == (16, "")

    play(story)


def test_a_group_that_rebalances_is_described_without_metadata() -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        await member(door, "g")
        (found,) = (await door.ask(DescribeGroupsRequestData.make(groups=["g"]), 6)).groups
        assert (found.group_state, found.protocol_data) == ("CompletingRebalance", "")
        assert [(each.member_metadata, each.member_assignment) for each in found.members] == [(b"", b"")]

    play(story)


@pytest.mark.parametrize("version", first_and_last(versions(16)))
def test_groups_are_listed_in_every_version(version: int) -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        await settled(door, "g")
        simple = await groups.coordinator("simple")
        await simple.ask(offset_commit("simple", ("t", 0, 1)), COMMIT)

        async def listed(**filters: Any) -> dict[str, tuple[str, str, str]]:
            found = {}
            for node in groups.cluster.alive:
                answer = await ClientDoor(node).ask(ListGroupsRequestData.make(**filters), version)
                assert answer.error_code == 0
                found.update(
                    {each.group_id: (each.protocol_type, each.group_state, each.group_type) for each in answer.groups}
                )
            return found

        state, kind = version >= 4, version >= 5
        everything = {
            "g": ("consumer", "Stable" if state else "", "classic" if kind else ""),
            "simple": ("", "Empty" if state else "", "classic" if kind else ""),
        }
        assert await listed() == everything
        if state:
            assert set(await listed(states_filter=["stable "])) == {"g"}
            assert set(await listed(states_filter=["Empty", "Dead"])) == {"simple"}
        if kind:
            assert await listed(types_filter=["Classic"]) == everything
            assert await listed(types_filter=["consumer"]) == {}
            assert await listed(types_filter=["what"]) == {}

    play(story)


@pytest.mark.parametrize("version", first_and_last(versions(42)))
def test_groups_are_deleted_when_nobody_is_in_them(version: int) -> None:
    async def story(groups: Groups) -> None:
        door = await groups.coordinator("g")
        joined = await settled(door, "g")
        assert codes(await door.ask(offset_commit("g", ("t", 0, 7), **who(joined)), COMMIT)) == [0]
        other = await elsewhere(groups, "g")

        async def delete(*names: str) -> list[tuple[str, int]]:
            answer = await door.ask(DeleteGroupsRequestData.make(groups_names=names), version)
            return [(each.group_id, each.error_code) for each in answer.results]

        assert await delete("g", other) == [("g", 68), (other, 16)]
        leave = LeaveGroupRequestData.make(group_id="g", members=[MemberIdentity.make(member_id=joined.member_id)])
        await door.ask(leave, LEAVE)
        assert await delete("g") == [("g", 0)]
        assert await delete("g") == [("g", 69)]
        assert (await door.ask(offset_fetch("g"), FETCH)).groups[0].topics == ()

    play(story)


def test_offsets_of_topics_that_nobody_wants_are_deleted() -> None:
    async def story(groups: Groups) -> None:
        await create(groups.cluster, "u", 1)
        door = await groups.coordinator("g")
        wants = [("range", encode_subscription(Subscription(topics=("t",))))]
        joined = await settled(door, "g", protocols=wants)
        request = offset_commit("g", ("t", 0, 7), ("u", 0, 8), **who(joined))
        assert codes(await door.ask(request, COMMIT)) == [0, 0]
        deleted = await door.ask(offset_delete("g", ("t", 0), ("u", 0), ("u", 5), ("nowhere", 0)), 0)
        assert deleted.error_code == 0
        assert codes(deleted) == [86, 0, 3, 3]
        (group,) = (await door.ask(offset_fetch("g"), FETCH)).groups
        assert [each.name for each in group.topics] == ["t"]
        nobody = await groups.coordinator("nobody")
        assert (await nobody.ask(offset_delete("nobody", ("t", 0)), 0)).error_code == 69

    play(story)
