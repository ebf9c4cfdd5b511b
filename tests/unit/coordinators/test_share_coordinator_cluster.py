"""Share groups on three simulated nodes, with a share coordinator that does as it is told: initialisation, failover,
deletion, and how share groups stand among the others."""

from __future__ import annotations

import asyncio

import pytest

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster, SimulatedNode
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.consumer_records import Partitions
from kraft.coordinators.groups.coordinator import GroupCoordinator, expire_offsets
from kraft.coordinators.groups.share_group import ShareGroup
from kraft.coordinators.groups.share_requests import InitializeStates, ShareHeartbeat, ShareHeartbeatAnswer
from kraft.protocol.errors import (
    CoordinatorNotAvailable,
    GroupIdNotFound,
    InconsistentGroupProtocol,
    KafkaError,
    NonEmptyGroup,
    UnknownMemberId,
)
from metadata.controller.requests import DeleteTopics
from metadata.image import TopicIdPartition
from tests.unit.coordinators.test_coordinator_cluster import ask, commit, create, instance, join, play


class ShareCoordinator:
    def __init__(self) -> None:
        self.states: dict[tuple[str, TopicIdPartition], int] = {}
        """With the start offset."""
        self.is_down = False
        self.answers_after_s = 0.0
        self.asked = 0
        self.notified: list[tuple[str, Partitions]] = []
        self.may_delete = asyncio.Event()
        self.may_delete.set()

    async def initialize(self, request: InitializeStates) -> Partitions:
        self.asked += 1
        if self.is_down:
            raise CoordinatorNotAvailable("down")
        await asyncio.sleep(self.answers_after_s)
        for partition, offset in request.start_offsets.items():
            self.states[request.group_id, partition] = offset
        return frozenset(request.start_offsets)

    async def delete(self, group_id: str, partitions: Partitions) -> None:
        await self.may_delete.wait()
        if self.is_down:
            raise CoordinatorNotAvailable("down")
        for partition in partitions:
            self.states.pop((group_id, partition), None)

    async def changed(self, group_id: str, partitions: Partitions) -> None:
        self.notified.append((group_id, partitions))


def coordinator_on(node: SimulatedNode) -> GroupCoordinator:
    assert node.node is not None
    assert node.node.broker is not None
    return node.node.broker.group_coordinator


def served_by(cluster: SimulatedCluster) -> ShareCoordinator:
    shares = ShareCoordinator()
    for node in cluster.alive:
        coordinator_on(node)._persister = shares
    return shares


async def home(cluster: SimulatedCluster) -> SimulatedNode:
    node = cluster.alive[0]
    assert node.node is not None
    return cluster.nodes[await node.machine.run(node.node.groups.coordinator_of("g"))]


async def beat(cluster: SimulatedCluster, member_id: str, epoch: int, *topics: str) -> ShareHeartbeatAnswer:
    """Asked again while the coordinator moves or loads."""
    for _ in range(100):
        node = await home(cluster)
        try:
            return await node.machine.run(_beat(coordinator_on(node), member_id, epoch, topics))
        except KafkaError as error:
            if not error.retriable:
                raise
        await asyncio.sleep(0.1)
    raise AssertionError("no coordinator")


async def _beat(
    coordinator: GroupCoordinator, member_id: str, epoch: int, topics: tuple[str, ...]
) -> ShareHeartbeatAnswer:
    return await coordinator.share_heartbeat(
        "g",
        lambda ticket: ShareHeartbeat(
            ticket=ticket,
            member_id=member_id,
            member_epoch=epoch,
            client_id="c",
            client_host="/h",
            topics=frozenset(topics) or None,
        ),
    )


async def described(cluster: SimulatedCluster) -> ShareGroup:
    node = await home(cluster)
    return await node.machine.run(coordinator_on(node).describe_share_group("g"))


async def settled(cluster: SimulatedCluster, *member_ids: str) -> dict[str, int]:
    """How many partitions each has, after some heartbeats."""
    found = {}
    for _ in range(4):
        for member_id in member_ids:
            known = (await described(cluster)).members[member_id]
            await beat(cluster, member_id, known.member_epoch)
            await asyncio.sleep(0.01)
    for member_id in member_ids:
        found[member_id] = len((await described(cluster)).members[member_id].assigned)
    return found


def test_partitions_are_initialised_and_shared_and_the_next_coordinator_goes_on() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        shares = served_by(cluster)
        await create(cluster, "t", 4)
        first = await beat(cluster, "m1", 0, "t")
        assert first.assignment == frozenset()
        assert await settled(cluster, "m1") == {"m1": 4}
        assert len(shares.states) == 4
        assert set(shares.states.values()) == {-1}
        await beat(cluster, "m2", 0, "t")
        assert await settled(cluster, "m1", "m2") == {"m1": 2, "m2": 2}
        before, asked = await described(cluster), shares.asked
        (await home(cluster)).kill()
        await asyncio.sleep(15)
        assert await settled(cluster, "m1", "m2") == {"m1": 2, "m2": 2}
        after = await described(cluster)
        assert (after.epoch, after.initialized) == (before.epoch, before.initialized)
        assert shares.asked == asked

    play(story)


def test_what_the_share_coordinator_did_not_answer_is_asked_for_again() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        shares = served_by(cluster)
        await create(cluster, "t", 2)
        shares.is_down = True
        await beat(cluster, "m", 0, "t")
        assert await settled(cluster, "m") == {"m": 0}
        assert shares.asked >= 2
        shares.is_down = False
        assert await settled(cluster, "m") == {"m": 2}

    play(story)


def test_a_new_group_on_fresh_topics_begins_with_its_second_heartbeat() -> None:
    """As soon as Kafka's does: `__share_group_state` comes into being and all states are there in one interval."""

    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "t", 6)
        joined = await beat(cluster, "m", 0, "t")
        assert (joined.heartbeat_interval_ms, joined.assignment) == (5_000, frozenset())
        await asyncio.sleep(joined.heartbeat_interval_ms / 1_000)
        begun = await beat(cluster, "m", joined.member_epoch)
        assert begun.assignment is not None
        assert len(begun.assignment) == 6

    play(story, share_coordinator_state_topic_num_partitions=50)


def test_a_group_begins_soon_after_a_share_coordinator_that_was_away() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        shares = served_by(cluster)
        await create(cluster, "t", 2)
        shares.answers_after_s = 5.8
        answer, begun_s = await beat(cluster, "m", 0, "t"), cluster.world.loop.time()
        while not answer.assignment:
            await asyncio.sleep(answer.heartbeat_interval_ms / 1_000)
            answer = await beat(cluster, "m", answer.member_epoch)
        assert shares.asked == 1
        assert 5.8 < cluster.world.loop.time() - begun_s < 6.6

    play(story)


def test_a_share_group_is_listed_and_described_and_keeps_no_offsets() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        served_by(cluster)
        await create(cluster, "t", 1)
        await beat(cluster, "m", 0, "t")
        await settled(cluster, "m")
        node = cluster.alive[-1]
        assert node.node is not None
        (listed,) = await node.machine.run(node.node.groups.list_all())
        assert (listed.group, listed.state, listed.protocol_type, listed.group_type) == (
            "g",
            "Stable",
            "share",
            "share",
        )
        found = await ask(node, r.DescribeGroup(group="g"))
        assert (found.group_type, found.state, found.protocol) == ("share", "Stable", "simple")
        assert [each.partitions for each in found.members] == [(("t", 0),)]
        refused: list[tuple[r.Request, type[Exception]]] = [
            (commit("g", 5), GroupIdNotFound),
            (r.FetchOffsets(group="g"), GroupIdNotFound),
            (r.DeleteOffsets(group="g", partitions=(("t", 0),)), GroupIdNotFound),
            (r.ResetOffsets(group="g", offsets=()), GroupIdNotFound),
            (join("g"), InconsistentGroupProtocol),
            (r.HeartbeatGroup(group="g", member_id="m", generation=1), UnknownMemberId),
        ]
        for request, error in refused:
            with pytest.raises(error):
                await ask(node, request)
        answer = await ask(node, instance("g", "rest"))
        assert isinstance(answer, a.Refused)
        assert "share group" in answer.message
        await ask(node, commit("offsets", 5))
        owner = cluster.nodes[await node.machine.run(node.node.groups.coordinator_of("offsets"))]
        with pytest.raises(GroupIdNotFound, match="not a share group"):
            await owner.machine.run(coordinator_on(owner).describe_share_group("offsets"))

    play(story)


def test_an_empty_share_group_stays_until_it_is_deleted_with_its_states() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        shares = served_by(cluster)
        await create(cluster, "t", 2)
        await beat(cluster, "m", 0, "t")
        await settled(cluster, "m")
        node = cluster.alive[0]
        with pytest.raises(NonEmptyGroup):
            await ask(node, r.DeleteGroup(group="g"))
        await beat(cluster, "m", -1)
        for shard in coordinator_on(await home(cluster)).shards.loaded():
            expire_offsets(shard)
        await asyncio.sleep(1)
        assert (await described(cluster)).state == "Empty"
        shares.is_down = True
        with pytest.raises(CoordinatorNotAvailable):
            await ask(node, r.DeleteGroup(group="g"))
        found = await described(cluster)
        assert found.with_state == frozenset(), "a coordinator that dies now takes none for initialised"
        assert list(found.states.deleting.values()) == ["t"]
        shares.is_down = False
        await ask(node, r.DeleteGroup(group="g"))
        assert not shares.states
        with pytest.raises(GroupIdNotFound):
            await described(cluster)

    play(story)


def test_a_member_that_joins_during_deletion_keeps_the_group() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        shares = served_by(cluster)
        await create(cluster, "t", 2)
        await beat(cluster, "m", 0, "t")
        await settled(cluster, "m")
        await beat(cluster, "m", -1)
        shares.may_delete.clear()
        deleting = asyncio.ensure_future(ask(cluster.alive[0], r.DeleteGroup(group="g")))
        await asyncio.sleep(0.1)
        await beat(cluster, "late", 0, "t")
        await asyncio.sleep(0.1)
        shares.may_delete.set()
        with pytest.raises(NonEmptyGroup):
            await deleting
        assert not shares.states
        assert await settled(cluster, "late") == {"late": 2}
        assert len(shares.states) == 2

    play(story)


def test_a_deleted_topic_goes_and_a_new_one_of_its_name_begins_again() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        served_by(cluster)
        await create(cluster, "t", 2)
        await beat(cluster, "m", 0, "t")
        assert await settled(cluster, "m") == {"m": 2}
        gateway = cluster.alive[0].node.gateway  # type: ignore[union-attr]
        await cluster.alive[0].machine.run(gateway.control(DeleteTopics(topics=("t",)), timeout_ms=10_000))
        await asyncio.sleep(1)
        assert (await described(cluster)).topic_ids == frozenset()
        assert await settled(cluster, "m") == {"m": 0}
        await create(cluster, "t", 3)
        assert await settled(cluster, "m") == {"m": 3}

    play(story)
