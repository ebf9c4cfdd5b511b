"""What a coordinator tells is replicated and goes on: also while appends fail, coordinators change and topics go."""

from __future__ import annotations

import asyncio
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.classic_group import ClassicGroup, Member, Phase
from kraft.coordinators.groups.consumers import Consumers
from kraft.coordinators.groups.group_metadata import GroupMetadata
from kraft.coordinators.groups.instance import Instance
from kraft.coordinators.groups.membership import Membership
from kraft.coordinators.groups.records import CommittedOffset
from kraft.coordinators.groups.request_handlers import RequestHandlers
from kraft.coordinators.groups.shard import GroupShard
from kraft.coordinators.groups.subscriptions import Subscription, encode_assignment, encode_subscription
from kraft.http.limits import Limits
from kraft.http.media import Format
from kraft.http.v2.consumers_poll import Poll
from kraft.protocol.errors import NotCoordinator, NotLeaderOrFollower, OffsetOutOfRange
from metadata.controller.requests import CreateTopics, DeleteTopics, NewTopic
from metadata.image import PartitionImage, TopicImage
from tests.support.plenty import nothing, room
from tests.unit.coordinators.test_coordinator_cluster import ask, commit, create, instance, join, play

TOPIC_ID = UUID(int=1)


def offset(number: int) -> CommittedOffset:
    return CommittedOffset(offset=number, leader_epoch=-1, metadata="", commit_timestamp=0)


class FakeShard:
    """`settle` ends when what was applied before it began is replicated; by then more has been applied."""

    def __init__(self, entry: GroupMetadata) -> None:
        self.entries = {"g": entry}
        self.context = SimpleNamespace(node_id=1, image=self.image)
        self.partitions = 1
        self.settled = 0
        self.now_ms = 0

    def image(self) -> Any:
        numbers = range(self.partitions)
        known = {
            number: PartitionImage(
                topic_id=TOPIC_ID,
                partition=number,
                replicas=(1,),
                isr=(1,),
                leader=1,
                leader_epoch=4,
                partition_epoch=0,
            )
            for number in numbers
        }
        topic = TopicImage(name="t", topic_id=TOPIC_ID, partitions=known)
        return SimpleNamespace(topic=lambda name: topic if name == "t" else None)

    def entry(self, group: str) -> GroupMetadata:
        return self.entries[group]

    def submit(self, entry: GroupMetadata, event: object) -> None:
        """A heartbeat."""

    async def settle(self) -> None:
        self.settled += 1
        self.entries["g"].offsets["t", 0] = offset(9)


def test_offsets_that_come_while_others_are_replicated_are_not_returned() -> None:
    shard = FakeShard(
        GroupMetadata(group=ClassicGroup(group_id="g", protocol_type="consumer"), offsets={("t", 0): offset(5)})
    )
    classic = RequestHandlers(cast(GroupShard, shard), cast(Any, None), cast(Any, None))
    for asked in (r.FetchOffsets(group="g"), r.DescribeGroup(group="g")):
        shard.entries["g"].offsets["t", 0] = offset(5)
        answer = asyncio.run(classic.handle(asked))
        assert isinstance(answer, a.GroupOffsets | a.GroupDescription)
        assert [row.offset for row in answer.offsets] == [5], asked


def test_a_batch_is_repeated_only_once_its_number_is_replicated() -> None:
    served = Instance(
        group="g", name="i", nonce="n", config=r.InstanceConfig(), manual=(("t", 0),), served=3, batch=(("t", 0, 1, 2),)
    )
    shard = FakeShard(GroupMetadata(group=ClassicGroup(group_id="g"), instances={"i": served}))
    consumers = Consumers(cast(GroupShard, shard), lambda: 1)
    plan = asyncio.run(consumers.handle(r.BeginPoll(group="g", instance="i", number=3, wait_ms=0)))
    assert isinstance(plan, a.PollPlan)
    assert plan.is_repeat
    assert shard.settled == 1


class DeposedShard(FakeShard):
    """Can write no more, and does not know it before it tries."""

    def append(self, records: object) -> None:
        pass

    def changed(self, entry: GroupMetadata) -> None:
        pass

    async def settle(self) -> None:
        raise NotCoordinator("the partition has another leader")


def test_deposed_coordinator_does_not_refuse_newer_token() -> None:
    served = Instance(group="g", name="i", nonce="n", config=r.InstanceConfig(), manual=(("t", 0),), served=3)
    shard = DeposedShard(GroupMetadata(group=ClassicGroup(group_id="g"), instances={"i": served}))
    consumers = Consumers(cast(GroupShard, shard), lambda: 1)
    with pytest.raises(NotCoordinator):
        asyncio.run(consumers.handle(r.BeginPoll(group="g", instance="i", number=5, wait_ms=0)))
    older = asyncio.run(consumers.handle(r.BeginPoll(group="g", instance="i", number=2, wait_ms=0)))
    assert isinstance(older, a.Refused), older


def member(name: str, *partitions: int) -> Member:
    return Member(
        member_id=name,
        instance_id=None,
        client_id=name,
        client_host="/h",
        session_timeout_ms=10_000,
        rebalance_timeout_ms=10_000,
        protocols=(("range", encode_subscription(Subscription(topics=("t",)))),),
        assignment=encode_assignment([("t", number) for number in partitions]),
    )


def test_new_partitions_are_found_by_next_coordinator() -> None:
    leader = member("i-n", 0)
    group = ClassicGroup(
        group_id="g",
        phase=Phase.STABLE,
        protocol="range",
        protocol_type="consumer",
        leader="i-n",
        members=MappingProxyType({"i-n": leader}),
    )
    rest = Instance(group="g", name="i", nonce="n", config=r.InstanceConfig(), member_id="i-n", topics=("t",))
    shard = FakeShard(GroupMetadata(group=group, instances={"i": rest}))
    membership = Membership(cast(GroupShard, shard))
    assert not membership._has_changed(shard.entries["g"], rest, leader)
    shard.partitions = 2
    assert membership._has_changed(shard.entries["g"], rest, leader)


class FakeGateway:
    """Knows epoch 4 of a partition that ends, as far as its leader knows, before the offset that is asked."""

    def __init__(self) -> None:
        self.image = FakeShard(GroupMetadata(group=ClassicGroup(group_id="g"))).image()

    async def read(self, *_: object, **__: object) -> Any:
        raise OffsetOutOfRange("the log ends before it")

    async def list_offset(self, *_: object, **__: object) -> Any:
        return SimpleNamespace(offset=0)


def poll(epoch: int) -> Poll:
    clock = SimpleNamespace(monotonic_ms=lambda: 0, sleep=asyncio.sleep)
    plan = a.PollPlan(
        config=r.InstanceConfig(reset="earliest"),
        number=2,
        generation=1,
        is_repeat=False,
        ranges=(("t", 0, 517, -1),),
        epochs=(("t", 0, epoch),),
    )
    limits = Limits(body_bytes_max=1_000, read_bytes_max=1_000)
    context = SimpleNamespace(gateway=FakeGateway(), room=room, clock=clock, limits=limits)
    return Poll(cast(Any, context), plan, Format.BINARY, bytes_max=100, hold=nothing)


def test_a_deposed_leader_does_not_reset_a_position() -> None:
    behind = poll(epoch=5)
    try:
        asyncio.run(behind.run(wait_ms=0))
    except NotLeaderOrFollower:
        assert behind.ranges == (("t", 0, 517, 517),)
    else:
        raise AssertionError(behind.ranges)
    current = poll(epoch=4)
    asyncio.run(current.run(wait_ms=0))
    assert current.ranges == (("t", 0, 0, 0),)
    assert current.has_resolved


def test_offsets_of_a_deleted_topic_go_with_it() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        one, two, _ = cluster.nodes.values()
        await create(cluster, "t", 1)
        await ask(one, instance("other", "i"))
        await ask(one, commit("g", 7))
        assert one.node is not None
        gateway = one.node.gateway
        await one.machine.run(gateway.control(DeleteTopics(topics=("t",)), timeout_ms=10_000))
        again = NewTopic(name="t", partitions=1, replication_factor=3)
        await one.machine.run(gateway.control(CreateTopics(topics=(again,)), timeout_ms=10_000))
        await asyncio.sleep(1)
        found = await ask(two, r.FetchOffsets(group="g", partitions=(("t", 0),)))
        assert [row.offset for row in found.offsets] == [-1]

    play(story)


def test_a_kafka_member_is_taken_by_rest_consumers_whose_coordinator_is_new() -> None:
    """The log has the protocol that they chose among themselves; they can do the newcomer's all the same."""

    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "t", 2)
        one, *others = cluster.nodes.values()
        await ask(one, instance("g", "rest"))
        await ask(one, r.Subscribe(group="g", instance="rest", topics=("t",)))
        chosen = await ask(one, r.DescribeGroup(group="g"))
        assert chosen.protocol == "sticky"
        assert one.node is not None
        coordinator = cluster.nodes[await one.machine.run(one.node.groups.coordinator_of("g"))]
        coordinator.kill()
        asked = next(node for node in (one, *others) if node is not coordinator)
        loaded = await ask(asked, r.DescribeGroup(group="g"))
        assert loaded.coordinator != coordinator.node_id
        joined = await ask(asked, join("g", is_known_required=False))
        assert joined.protocol == "range"

    play(story)
