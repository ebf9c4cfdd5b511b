"""DescribeShareGroupOffsets, AlterShareGroupOffsets and DeleteShareGroupOffsets as an administrator's client asks them:
on three nodes with a real share coordinator."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster
from kraft.coordinators.shares.state import ShareKey, Snapshot
from kraft.protocol.messages import alter_share_group_offsets_request as altering
from kraft.protocol.messages import delete_share_group_offsets_request as deleting
from kraft.protocol.messages import describe_share_group_offsets_request as describing
from kraft.protocol.messages.delete_groups_request import DeleteGroupsRequestData
from kraft.protocol.messages.describe_groups_request import DescribeGroupsRequestData
from kraft.protocol.messages.find_coordinator_request import FindCoordinatorRequestData
from kraft.protocol.messages.list_groups_request import ListGroupsRequestData
from kraft.protocol.messages.share_group_heartbeat_request import ShareGroupHeartbeatRequestData
from metadata.image import TopicIdPartition
from tests.support.client_door import ClientDoor
from tests.unit.coordinators.test_share_coordinator import at
from tests.unit.coordinators.test_share_leaders import ACCEPT, RELEASE, SETTINGS, Member, produce
from tests.unit.coordinators.test_transaction_cluster import create, play, until


async def coordinator(cluster: SimulatedCluster, group: str = "g") -> ClientDoor:
    node = cluster.alive[0]
    assert node.node is not None
    return ClientDoor(cluster.nodes[await node.machine.run(node.node.groups.coordinator_of(group))])


async def describe(door: ClientDoor, *names: tuple[str, Sequence[int]], group: str = "g", version: int = 1) -> Any:
    topics = [
        describing.DescribeShareGroupOffsetsRequestTopic.make(topic_name=name, partitions=numbers)
        for name, numbers in names
    ]
    asked = describing.DescribeShareGroupOffsetsRequestGroup.make(group_id=group, topics=topics or None)
    (found,) = (await door.ask(describing.DescribeShareGroupOffsetsRequestData.make(groups=[asked]), version)).groups
    return found


def rows(found: Any) -> list[tuple[str, int, int, int, int]]:
    """Topic, partition, start offset, lag, error code."""
    assert found.error_code == 0, found.error_message
    return [
        (topic.topic_name, each.partition_index, each.start_offset, each.lag, each.error_code)
        for topic in found.topics
        for each in topic.partitions
    ]


async def alter(door: ClientDoor, *offsets: tuple[str, int, int], group: str = "g") -> Any:
    topics = [
        altering.AlterShareGroupOffsetsRequestTopic.make(
            topic_name=name,
            partitions=[
                altering.AlterShareGroupOffsetsRequestPartition.make(partition_index=number, start_offset=offset)
            ],
        )
        for name, number, offset in offsets
    ]
    return await door.ask(altering.AlterShareGroupOffsetsRequestData.make(group_id=group, topics=topics), 0)


async def delete(door: ClientDoor, *topics: str, group: str = "g") -> Any:
    named = [deleting.DeleteShareGroupOffsetsRequestTopic.make(topic_name=name) for name in topics]
    return await door.ask(deleting.DeleteShareGroupOffsetsRequestData.make(group_id=group, topics=named), 0)


async def beat(door: ClientDoor, epoch: int, **fields: Any) -> Any:
    request = ShareGroupHeartbeatRequestData.make(group_id="g", member_id="m", member_epoch=epoch, **fields)
    return await door.ask(request, 1)


async def joined(door: ClientDoor) -> int:
    """The epoch of a member that has its partition."""
    epoch = 0

    async def has_all() -> bool:
        nonlocal epoch
        reported = await beat(door, epoch, subscribed_topic_names=["t"])
        assert reported.error_code in (0, 14, 15, 16), reported.error_message
        if reported.error_code:
            return False
        epoch = reported.member_epoch
        return bool(reported.assignment is not None and reported.assignment.topic_partitions)

    await until(has_all, every_s=0.2)
    return epoch


def test_a_group_is_described_with_its_lag() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        where = await create(cluster, "t", on=(1, 2, 3))
        await produce(cluster, where, 10)
        await alter(await coordinator(cluster), ("t", 0, 0))
        door, member = await coordinator(cluster), Member(cluster, where)
        assert rows(await describe(door)) == [("t", 0, 0, 10, 0)]
        assert await member.got() == [(0, 9, 1)]
        assert await member.acknowledge((0, 2, ACCEPT), (5, 6, ACCEPT), (7, 9, RELEASE)) == 0
        assert rows(await describe(door)) == [("t", 0, 3, 5, 0)]
        (topic,) = (await describe(door)).topics
        assert topic.topic_id == where.topic_id
        asked = await describe(door, ("t", [0, 7, 0]), ("none", [0]))
        assert sorted(rows(asked)) == [("none", 0, -1, -1, 3), ("t", 0, 3, 5, 0), ("t", 7, -1, -1, 3)]
        assert rows(await describe(door, version=0)) == [("t", 0, 3, -1, 0)], "without a lag"
        missing = await describe(await coordinator(cluster, "none"), group="none")
        assert (missing.error_code, list(missing.topics)) == (69, [])

    play(story, **SETTINGS)


def test_a_reset_group_reads_again_from_there_and_only_without_members() -> None:
    """A refusal of all of it is an error of the whole answer (KAFKA-19440)."""

    async def story(cluster: SimulatedCluster) -> None:
        where = await create(cluster, "t", on=(1, 2, 3))
        await produce(cluster, where, 10)
        door, member = await coordinator(cluster), Member(cluster, where)
        assert (await alter(door, ("none", 0, 0))).responses[0].partitions[0].error_code == 3
        assert (await describe(door)).error_code == 69, "nothing that exists was named"
        answer = await alter(door, ("t", 0, 4), ("t", 5, 0))
        assert (answer.error_code, [p.error_code for t in answer.responses for p in t.partitions]) == (0, [3, 0])
        (listed,) = (await door.ask(ListGroupsRequestData.make(types_filter=["share"]), 5)).groups
        assert (listed.group_id, listed.group_state, listed.group_type) == ("g", "Empty", "share")
        assert await member.got() == [(4, 9, 1)]
        assert await member.acknowledge((4, 9, ACCEPT)) == 0
        member.disconnect()
        assert (await alter(door, ("t", 0, 2))).error_code == 0
        assert rows(await describe(door)) == [("t", 0, 2, 8, 0)]
        member.reconnect()
        assert await member.got(wait_ms=1_000) == [(2, 9, 1)], "the leader does not know better"
        epoch = await joined(door)
        for refused in (await alter(door, ("t", 0, 0)), await delete(door, "t")):
            assert (refused.error_code, list(refused.responses)) == (68, [])
            assert "leave first" in refused.error_message
        assert (await beat(door, -1)).member_epoch == -1, epoch

    play(story, **SETTINGS)


def test_a_leader_that_has_records_out_begins_again_by_a_reset() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        where = await create(cluster, "t", on=(1, 2, 3))
        await produce(cluster, where, 10)
        door, member = await coordinator(cluster), Member(cluster, where)
        await alter(door, ("t", 0, 4))
        assert await member.got() == [(4, 9, 1)]
        assert (await alter(door, ("t", 0, 0))).error_code == 0
        assert await member.acknowledge((4, 9, ACCEPT)) == 42, "nothing was handed out by the group that it is now"
        assert await member.got() == [(0, 9, 1)]

    play(story, **SETTINGS)


def test_a_leader_that_remembers_acknowledgements_over_rest_sees_a_reset() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        where = await create(cluster, "t", on=(1, 2, 3))
        await produce(cluster, where, 10)
        door = await coordinator(cluster)
        await alter(door, ("t", 0, 4))
        node, key = Member(cluster, where).leader(), ShareKey("g", where.topic_id, 0)
        assert node.node is not None
        assert node.node.broker is not None
        leaders = node.node.broker.shares.leaders
        known = await at(node, leaders.leader(key))
        known.partition.remembers_until_ms = 10**9
        assert await at(node, leaders.leader(key)) is known
        await alter(door, ("t", 0, 1))
        assert (await at(node, leaders.leader(key))).partition.start_offset == 1

    play(story, **SETTINGS)


def test_a_reset_that_a_leader_was_not_notified_of_is_seen_within_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reset whose message to the leader was lost is seen by it."""

    async def story(cluster: SimulatedCluster) -> None:
        where = await create(cluster, "t", on=(1, 2, 3))
        await produce(cluster, where, 10)
        door = await coordinator(cluster)
        await alter(door, ("t", 0, 4))
        node, key = Member(cluster, where).leader(), ShareKey("g", where.topic_id, 0)
        assert node.node is not None
        assert node.node.broker is not None
        leaders, persister = node.node.broker.shares.leaders, node.node.share_persister
        known = await at(node, leaders.leader(key))
        known.partition.remembers_until_ms = 10**9
        asked: list[ShareKey] = []
        summary = persister.summary

        async def counted(of: ShareKey) -> Snapshot:
            asked.append(of)
            return await summary(of)

        async def lost(*_: object) -> None:
            pass

        monkeypatch.setattr(persister, "summary", counted)
        for each in cluster.alive:
            assert each.node is not None
            monkeypatch.setattr(each.node.queues, "changed", lost)
        for _ in range(20):
            assert await at(node, leaders.leader(key)) is known
            await asyncio.sleep(0.1)
        assert 1 <= len(asked) <= 3
        await alter(door, ("t", 0, 1))
        await asyncio.sleep(1.1)
        assert (await at(node, leaders.leader(key))).partition.start_offset == 1

    play(story, **SETTINGS)


def test_a_group_forgets_a_topic_and_then_it_is_deleted() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        where = await create(cluster, "t", on=(1, 2, 3))
        await produce(cluster, where, 3)
        door = await coordinator(cluster)
        assert (await delete(door, "t")).error_code == 69
        await alter(door, ("t", 0, 1))
        found = await delete(door, "t", "none")
        assert {each.topic_name: (each.topic_id, each.error_code) for each in found.responses} == {
            "t": (where.topic_id, 0),
            "none": (UUID(int=0), 3),
        }
        assert rows(await describe(door)) == []
        assert rows(await describe(door, ("t", [0]))) == [("t", 0, -1, -1, 0)]
        assert [each.error_code for each in (await delete(door, "t")).responses] == [0]
        await joined(door)
        assert await code_of_deletion(door) == 68
        (state,) = (await door.ask(DescribeGroupsRequestData.make(groups=["g"]), 6)).groups
        assert (state.error_code, state.group_state) == (69, "Dead"), "it is no classic group"
        await beat(door, -1)
        assert await code_of_deletion(door) == 0
        assert await code_of_deletion(door) == 69
        assert list((await door.ask(ListGroupsRequestData.make(types_filter=["share"]), 5)).groups) == []
        assert (await describe(door)).error_code == 69

    play(story, **SETTINGS)


async def code_of_deletion(door: ClientDoor) -> int:
    (result,) = (await door.ask(DeleteGroupsRequestData.make(groups_names=["g"]), 2)).results
    return int(result.error_code)


def test_the_coordinator_of_a_share_partition_is_found() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        where = await create(cluster, "t", on=(1, 2, 3))
        door = ClientDoor(cluster.alive[0])
        key = f"g:{kafka_id(where)}:0"

        async def is_found() -> bool:
            request = FindCoordinatorRequestData.make(key_type=2, coordinator_keys=[key])
            (found,) = (await door.ask(request, 6)).coordinators
            assert (found.key, found.error_code in (0, 15)) == (key, True), found
            return found.error_code == 0 and found.node_id in cluster.nodes

        await until(is_found, every_s=0.2)
        for version, wrong in ((6, "g:0"), (6, "g:!:0"), (6, f"g:{kafka_id(where)}:x"), (5, key)):
            request = FindCoordinatorRequestData.make(key_type=2, coordinator_keys=[wrong])
            (found,) = (await door.ask(request, version)).coordinators
            assert found.error_code == 42, (version, wrong)

    play(story, **SETTINGS)


def kafka_id(where: TopicIdPartition) -> str:
    return urlsafe_b64encode(where.topic_id.bytes).decode().rstrip("=")
