"""Groups on three simulated nodes: any node takes any request, and what was answered survives the coordinator."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster, SimulatedNode
from kraft.chaos.worlds.simulated.environment import SimulatedWorld
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.groups.consumer_requests import ConsumerHeartbeat
from kraft.coordinators.groups.shard import GroupShard
from kraft.coordinators.groups.subscriptions import Subscription, encode_subscription
from kraft.coordinators.groups.target_assignment import ASSIGNED_AT_ONCE_MAX
from kraft.coordinators.java import abs_hash
from kraft.protocol.errors import (
    CoordinatorNotAvailable,
    GroupIdNotFound,
    GroupMaxSizeReached,
    IllegalGeneration,
    InvalidCommitOffsetSize,
    MemberIdRequired,
    NonEmptyGroup,
    UnknownMemberId,
)
from metadata.acls import Acl, AclOperation, AclPattern, AclPermission, AclResource
from metadata.controller.requests import (
    AlterConfigs,
    ConfigAlteration,
    ConfigResource,
    CreateAcls,
    CreateTopics,
    DeleteTopics,
    NewTopic,
)
from metadata.internal_topics import OFFSETS_TOPIC

SETTINGS = {"group.initial.rebalance.delay.ms": 0, "offsets.topic.num.partitions": 5}


def play(story: Callable[[SimulatedCluster], Awaitable[None]], *, seed: int = 1, **settings: int | str) -> None:
    world = SimulatedWorld(seed)
    given = {name.replace("_", "."): value for name, value in settings.items()}
    cluster = SimulatedCluster(world, settings={**SETTINGS, **given})

    async def run() -> None:
        await cluster.start()
        await story(cluster)
        await cluster.stop()
        cluster.raise_fatal()

    world.run(run())


async def ask(node: SimulatedNode, request: r.Request) -> Any:
    assert node.node is not None
    return await node.machine.run(node.node.groups.ask(request))


async def create(cluster: SimulatedCluster, name: str, partitions: int, **configs: str) -> None:
    node = cluster.alive[0]
    assert node.node is not None
    given = {key.replace("_", "."): value for key, value in configs.items()}
    new = NewTopic(name=name, partitions=partitions, replication_factor=3, configs=given)
    await node.machine.run(node.node.gateway.control(CreateTopics(topics=(new,)), timeout_ms=10_000))
    for each in cluster.alive:
        assert each.node is not None
        known = each.node.publisher.wait_for(lambda image: image.topic(name) is not None, timeout_ms=10_000)
        assert await each.machine.run(known)


def instance(group: str, name: str, **config: Any) -> r.CreateInstance:
    return r.CreateInstance(group=group, instance=name, nonce=f"nonce-{name}", config=r.InstanceConfig(**config))


async def partitions_of(node: SimulatedNode, group: str, *names: str) -> list[list[int]]:
    found = [await ask(node, r.DescribeInstance(group=group, instance=name)) for name in names]
    return [[partition for _, partition in each.partitions] for each in found]


def commit(group: str, offset: int, **who: Any) -> r.CommitOffsets:
    return r.CommitOffsets(group=group, offsets=(r.OffsetToCommit("t", 0, offset, "m"),), **who)


def join(group: str, member_id: str = "", **changes: Any) -> r.JoinGroup:
    options: dict[str, Any] = {
        "client_id": "c",
        "client_host": "/h",
        "session_timeout_ms": 10_000,
        "rebalance_timeout_ms": 10_000,
        "protocol_type": "consumer",
        "protocols": (("range", encode_subscription(Subscription(topics=("t",)))),),
    }
    return r.JoinGroup(group=group, member_id=member_id, **{**options, **changes})


@pytest.mark.parametrize(
    ("text", "expected"), [("", 0), ("a", 97), ("group", 98629247), ("hello", 99162322), ("polygenelubricants", 0)]
)
def test_groups_are_spread_by_javas_hash(text: str, expected: int) -> None:
    assert abs_hash(text) == expected


def test_commits_survive_the_coordinator_and_every_node_serves_them() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        nodes = list(cluster.nodes.values())
        for offset in range(3):
            await ask(nodes[offset], commit("g", offset))
        for node in nodes:
            answer = await ask(node, r.FetchOffsets(group="g", partitions=(("t", 0), ("t", 1))))
            assert [(row.offset, row.metadata) for row in answer.offsets] == [(2, "m"), (-1, "")]
        first = nodes[0].node
        assert first is not None
        coordinator = cluster.nodes[await nodes[0].machine.run(first.groups.coordinator_of("g"))]
        coordinator.kill()
        survivor = next(node for node in nodes if node is not coordinator)
        answer = await ask(survivor, r.FetchOffsets(group="g"))
        assert [row.offset for row in answer.offsets] == [2]
        await ask(survivor, commit("g", 7))
        await coordinator.start()
        await cluster.wait_ready()
        answer = await ask(coordinator, r.FetchOffsets(group="g"))
        assert [row.offset for row in answer.offsets] == [7]

    play(story)


def test_a_kafka_member_joins_syncs_commits_and_is_evicted() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        one, two, three = cluster.nodes.values()
        with pytest.raises(MemberIdRequired) as reported:
            await ask(one, join("g"))
        joined = await ask(two, join("g", reported.value.message))
        assert (joined.generation, joined.leader, joined.protocol) == (1, joined.member_id, "range")
        who = {"member_id": joined.member_id, "generation": 1}
        synced = await ask(three, r.SyncGroup(group="g", assignments=((joined.member_id, b"mine"),), **who))
        assert synced.assignment == b"mine"
        await ask(one, r.HeartbeatGroup(group="g", **who))
        await ask(two, commit("g", 5, **who))
        with pytest.raises(IllegalGeneration):
            await ask(two, commit("g", 6, member_id=joined.member_id, generation=0))
        with pytest.raises(UnknownMemberId):
            await ask(two, commit("g", 6))
        with pytest.raises(NonEmptyGroup):
            await ask(three, r.DeleteGroup(group="g"))
        described = await ask(three, r.DescribeGroup(group="g"))
        assert (described.state, len(described.members), described.offsets[0].offset) == ("Stable", 1, 5)
        await asyncio.sleep(11)
        with pytest.raises(UnknownMemberId):
            await ask(one, r.HeartbeatGroup(group="g", **who))
        described = await ask(three, r.DescribeGroup(group="g"))
        assert (described.state, described.members) == ("Empty", ())
        await ask(one, r.ResetOffsets(group="g", offsets=(r.OffsetToCommit("t", 0, 1),)))
        await ask(two, r.DeleteOffsets(group="g", partitions=(("t", 0),)))
        await ask(one, r.DeleteGroup(group="g"))
        with pytest.raises(GroupIdNotFound):
            await ask(two, r.DescribeGroup(group="g"))

    play(story)


def test_a_pattern_over_rest_matches_what_its_user_may_describe() -> None:
    """Also after the ACLs have changed, and for ACLs that are about hosts."""

    async def story(cluster: SimulatedCluster) -> None:
        one, two, _ = cluster.nodes.values()
        assert one.node is not None
        gateway = one.node.gateway
        for name in ("seen-1", "seen-2", "hidden-1"):
            await create(cluster, name, 1)

        async def allow(name: str, pattern: AclPattern, host: str) -> None:
            acl = Acl(
                resource=AclResource.TOPIC, name=name, pattern=pattern, principal="User:alice", host=host,
                operation=AclOperation.READ, permission=AclPermission.ALLOW,
            )  # fmt: skip
            await one.machine.run(gateway.control(CreateAcls(acls=(acl,)), timeout_ms=10_000))

        await allow("seen-", AclPattern.PREFIXED, "10.0.0.1")
        for name, owner, host in (("a", "User:alice", "10.0.0.1"), ("b", "User:alice", "10.0.0.2"), ("c", "", "")):
            await ask(one, r.CreateInstance(
                group=name, instance=name, nonce=name, config=r.InstanceConfig(), owner=owner, host=host
            ))  # fmt: skip
            await ask(two, r.Subscribe(group=name, instance=name, pattern=".*-.*", owner=owner))

        async def topics(name: str) -> set[str]:
            found = await ask(two, r.DescribeInstance(group=name, instance=name, owner="User:alice"))
            return {topic for topic, _ in found.partitions}

        assert [await topics(name) for name in "abc"] == [{"seen-1", "seen-2"}, set(), set()]
        await allow("hidden-1", AclPattern.LITERAL, "*")
        expected = [{"seen-1", "seen-2", "hidden-1"}, {"hidden-1"}, set[str]()]
        deadline = 100
        while [await topics(name) for name in "abc"] != expected and deadline:
            await asyncio.sleep(0.05)
            deadline -= 1
        assert deadline, [await topics(name) for name in "abc"]

    play(story, authorizer_class_name="org.apache.kafka.metadata.authorizer.StandardAuthorizer")


def test_rest_consumers_share_partitions_and_follow_a_pattern() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        one, two, three = cluster.nodes.values()
        await create(cluster, "flights-1", 6)
        await ask(one, instance("g", "a", reset="earliest"))
        await ask(two, instance("g", "b"))
        await ask(three, r.Subscribe(group="g", instance="a", pattern="flights-.*"))
        assert await partitions_of(one, "g", "a", "b") == [[0, 1, 2, 3, 4, 5], []]
        await ask(one, r.Subscribe(group="g", instance="b", topics=("flights-1",)))
        first, second = await partitions_of(two, "g", "a", "b")
        assert len(first) == len(second) == 3
        assert sorted(first + second) == list(range(6))
        await create(cluster, "flights-2", 2)
        found = await ask(three, r.DescribeInstance(group="g", instance="a"))
        deadline = 100
        while ("flights-2", 0) not in found.partitions and deadline:
            await asyncio.sleep(0.05)
            deadline -= 1
            found = await ask(three, r.DescribeInstance(group="g", instance="a"))
        assert {("flights-2", 0), ("flights-2", 1)} <= set(found.partitions)
        await ask(two, r.DeleteInstance(group="g", instance="a"))
        assert await partitions_of(one, "g", "b") == [[0, 1, 2, 3, 4, 5]]
        listed = await one.machine.run(one.node.groups.list_all())  # type: ignore[union-attr]
        assert [(each.group, each.state) for each in listed] == [("g", "Stable")]

    play(story)


def test_batch_token_repeats_after_failover() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        one, *_ = cluster.nodes.values()
        await create(cluster, "t", 1)
        await ask(one, instance("g", "a", reset="earliest"))
        await ask(one, r.Subscribe(group="g", instance="a", topics=("t",)))

        async def begin(node: SimulatedNode, number: int | None) -> Any:
            return await ask(node, r.BeginPoll(group="g", instance="a", number=number, wait_ms=5_000))

        plan = await begin(one, 1)
        assert (plan.ranges, plan.is_repeat) == ((("t", 0, -1, -1),), False)
        ended = await ask(
            one, r.EndPoll(group="g", instance="a", number=1, generation=plan.generation, ranges=(("t", 0, 0, 10),))
        )
        assert ended.ranges == (("t", 0, 0, 10),)
        assert one.node is not None
        coordinator = cluster.nodes[await one.machine.run(one.node.groups.coordinator_of("g"))]
        coordinator.kill()
        survivor = cluster.alive[0]
        plan = await begin(survivor, 1)
        assert (plan.ranges, plan.is_repeat) == ((("t", 0, 0, 10),), True)
        assert (await ask(survivor, r.FetchOffsets(group="g"))).offsets == ()
        plan = await begin(survivor, 2)
        assert (plan.ranges, plan.is_repeat) == ((("t", 0, 10, -1),), False)
        committed = await ask(survivor, r.FetchOffsets(group="g"))
        assert [row.offset for row in committed.offsets] == [10]
        assert isinstance(await begin(survivor, 5), a.Refused)
        assert isinstance(await begin(survivor, 0), a.Refused)

    play(story)


def test_a_rest_consumer_is_there_for_its_user_alone() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "t", 1)
        nodes = list(cluster.nodes.values())
        alice, bob = {"owner": "User:alice"}, {"owner": "User:bob"}
        made = msgspec.structs.replace(instance("g", "a"), **alice)
        assert await ask(nodes[0], made) == await ask(nodes[1], made) == a.Taken()
        assert (await ask(nodes[2], msgspec.structs.replace(made, **bob))).code == 40902
        await ask(nodes[0], instance("g", "everybodys"))
        name = {"group": "g", "instance": "a"}
        asked: list[Any] = [
            r.Subscribe(**name, topics=("t",), **bob),
            r.DescribeInstance(**name),
            r.AssignInstance(**name, partitions=(("t", 0),), **bob),
            r.Seek(**name, positions=(), **bob),
            r.BeginPoll(**name, wait_ms=0, **bob),
            r.EndPoll(**name, number=1, generation=0, ranges=(), **bob),
            r.CommitInstance(**name, **bob),
            r.CommitInstanceInTransaction(**name, transactional_id="x", producer_id=1, producer_epoch=0, **bob),
            r.DeleteInstance(**name, **bob),
        ]
        unknown = "Consumer instance not found: 'a' in group 'g'; it was deleted, or expired"
        for each in asked:
            for node in nodes:
                assert await ask(node, each) == a.Refused(code=40403, message=unknown, kafka_code=25), each
        coordinator = cluster.nodes[await nodes[0].machine.run(nodes[0].node.groups.coordinator_of("g"))]
        coordinator.kill()
        survivor = next(node for node in nodes if node is not coordinator)
        assert (await ask(survivor, asked[-1])).code == 40403
        assert await ask(survivor, r.DeleteInstance(group="g", instance="everybodys", **bob)) == a.Taken()
        assert await ask(survivor, r.DeleteInstance(**name, **alice)) == a.Taken()

    play(story)


def test_an_idle_consumer_expires_and_leaves_its_group() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        one, two, _ = cluster.nodes.values()
        await create(cluster, "t", 2)
        for name, timeout_ms in (("a", 60_000), ("b", 7_000)):
            await ask(one, instance("g", name, timeout_ms=timeout_ms))
            await ask(one, r.Subscribe(group="g", instance=name, topics=("t",)))
        assert [len(each) for each in await partitions_of(two, "g", "a", "b")] == [1, 1]
        await asyncio.sleep(8)
        assert await partitions_of(two, "g", "a") == [[0, 1]]
        gone = await ask(two, r.CommitInstance(group="g", instance="b"))
        assert isinstance(gone, a.Refused)
        assert (gone.code, gone.kafka_code) == (40403, 25)

    play(story)


@pytest.mark.parametrize("seed", [11, 12])
def test_members_never_share_a_partition_in_failovers(seed: int) -> None:
    rng = random.Random(seed)
    owners: dict[tuple[int, tuple[str, int]], str] = {}

    async def look(cluster: SimulatedCluster) -> None:
        found = await ask(rng.choice(cluster.alive), r.DescribeGroup(group="g"))
        if found.state != "Stable":
            return
        for member in found.members:
            for partition in member.partitions:
                assert owners.setdefault((found.generation, partition), member.member_id) == member.member_id
        assert sum(len(member.partitions) for member in found.members) in (0, 12)

    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "t", 12)
        alive: list[str] = []
        for step in range(40):
            node = rng.choice(cluster.alive)
            if len(alive) < 2 or (rng.random() < 0.55 and len(alive) < 12):
                alive.append(f"i{step}")
                assert isinstance(await ask(node, instance("g", alive[-1])), a.Taken)
                assert isinstance(await ask(node, r.Subscribe(group="g", instance=alive[-1], topics=("t",))), a.Taken)
            else:
                gone = alive.pop(rng.randrange(len(alive)))
                assert isinstance(await ask(node, r.DeleteInstance(group="g", instance=gone)), a.Taken)
            if step % 13 == 12:
                assert node.node is not None
                coordinator = cluster.nodes[await node.machine.run(node.node.groups.coordinator_of("g"))]
                coordinator.kill()
                await look(cluster)
                await coordinator.start()
                await cluster.wait_ready()
            await look(cluster)
        assert len({generation for generation, _ in owners}) > 20

    play(story, seed=seed)


@pytest.mark.parametrize("limit", ["segment_bytes", "max_message_bytes"])
def test_too_large_group_change_is_refused_alone(limit: str) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        node = cluster.alive[0]
        await create(cluster, OFFSETS_TOPIC, 1, **{limit: "600"})
        await create(cluster, "t", 2)
        await ask(node, commit("small", 1))
        shards = [shard for each in cluster.alive for shard in _shards(each)]
        await ask(node, instance("rest", "a"))
        with pytest.raises(MemberIdRequired) as reported:
            await ask(node, join("kafka", client_id="c" * 700))
        for _ in range(3):
            with pytest.raises(InvalidCommitOffsetSize, match=r"bytes, a batch of __consumer_offsets at most 600"):
                await ask(node, r.CommitOffsets(group="big", offsets=(r.OffsetToCommit("t", 0, 1, "m" * 700),)))
            joined = await ask(node, join("kafka", reported.value.message, client_id="c" * 700))
            with pytest.raises(InvalidCommitOffsetSize):
                await ask(node, r.SyncGroup(group="kafka", member_id=joined.member_id, generation=joined.generation))
            await ask(node, r.Subscribe(group="rest", instance="a", topics=("t",)))
            await asyncio.sleep(1)
        await ask(node, commit("small", 2))
        answer = await ask(node, r.FetchOffsets(group="small"))
        assert [row.offset for row in answer.offsets] == [2]
        assert [shard for each in cluster.alive for shard in _shards(each)] == shards, "none was loaded again"
        assert not any(shard.has_ended for shard in shards)
        await asyncio.sleep(60)
        with pytest.raises(UnknownMemberId):
            await ask(node, r.HeartbeatGroup(group="kafka", member_id=joined.member_id, generation=joined.generation))
        assert not any(shard.has_ended for shard in shards)

    play(story)


def test_too_large_due_changes_are_split() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        node = cluster.alive[0]
        await create(cluster, OFFSETS_TOPIC, 1)
        await create(cluster, "t", 1)
        for partition in range(40):
            await ask(node, r.CommitOffsets(group="g", offsets=(r.OffsetToCommit("t", partition, 1, ""),)))
        with pytest.raises(MemberIdRequired) as reported:
            await ask(node, join("kafka"))
        joined = await ask(node, join("kafka", reported.value.message))
        await ask(node, r.SyncGroup(group="kafka", member_id=joined.member_id, generation=1))
        shards = [shard for each in cluster.alive for shard in _shards(each)]
        await _limit(cluster, 100)
        await asyncio.sleep(60)
        assert [row.state for row in (await ask(node, r.ListGroups(group=""))).groups if row.group == "kafka"] == [
            "Stable"
        ]
        await _limit(cluster, 300)
        await asyncio.sleep(1)
        assert [row.state for row in (await ask(node, r.ListGroups(group=""))).groups if row.group == "kafka"] == [
            "Empty"
        ]
        await node.machine.run(node.node.gateway.control(DeleteTopics(topics=("t",)), timeout_ms=10_000))  # type: ignore[union-attr]
        await asyncio.sleep(1)
        assert (await ask(node, r.FetchOffsets(group="g"))).offsets == ()
        assert [shard for each in cluster.alive for shard in _shards(each)] == shards, "none was loaded again"

    play(story)


async def _limit(cluster: SimulatedCluster, message_bytes_max: int) -> None:
    gateway = cluster.alive[0].node.gateway  # type: ignore[union-attr]
    topic = ConfigResource(resource_type="topic", name=OFFSETS_TOPIC)
    alteration = ConfigAlteration(name="max.message.bytes", operation="set", value=str(message_bytes_max))
    await cluster.alive[0].machine.run(
        gateway.control(AlterConfigs(resources={topic: (alteration,)}), timeout_ms=10_000)
    )


def _shards(node: SimulatedNode) -> list[GroupShard]:
    assert node.node is not None
    assert node.node.broker is not None
    return list(node.node.broker.group_coordinator.shards.by_partition.values())


def test_what_a_group_takes_is_bounded_and_what_it_leaves_is_forgotten() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        node = cluster.alive[0]
        await create(cluster, "t", 2)
        await ask(node, instance("g", "a"))
        await ask(node, r.Subscribe(group="g", instance="a", topics=("t",)))
        await ask(node, instance("g", "b"))
        full = await ask(node, r.Subscribe(group="g", instance="b", topics=("t",)))
        assert (full.code, full.kafka_code) == (40903, GroupMaxSizeReached.code)
        many = await ask(node, r.Subscribe(group="g", instance="b", topics=tuple(f"t{n}" for n in range(10_001))))
        assert many.code == 40903
        assert (await ask(node, instance("g", "c"))).code == 50302
        partitions = tuple((f"{number:0250}", number) for number in range(40_000))
        with pytest.raises(InvalidCommitOffsetSize):
            await ask(node, r.AssignInstance(group="g", instance="b", partitions=partitions))
        assert await partitions_of(node, "g", "a", "b") == [[0, 1], []], "what was refused changed nothing"
        with pytest.raises(UnknownMemberId):
            await ask(node, r.HeartbeatGroup(group="nobody", member_id="m", generation=1))
        for name in "ab":
            await ask(node, r.DeleteInstance(group="g", instance=name))
        coordinators = [each.node.broker.group_coordinator for each in cluster.alive if each.node is not None]
        groups = {
            group for each in coordinators for shard in each.shards.by_partition.values() for group in shard.entries
        }
        assert groups == {"g"}
        await asyncio.sleep(1)
        groups = {
            group for each in coordinators for shard in each.shards.by_partition.values() for group in shard.entries
        }
        assert not groups, "offsets.retention.check.interval.ms has passed, and nothing of the group is left"

    play(story, group_max_size=1, consumer_instances_max=2, offsets_retention_check_interval_ms=500)


def test_a_large_consumer_group_is_assigned_apart_from_its_heartbeats() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        members = ASSIGNED_AT_ONCE_MAX + 20
        await create(cluster, OFFSETS_TOPIC, 1)
        await create(cluster, "t", 2 * members)
        await ask(cluster.alive[0], commit("other", 1))
        (shard,) = [shard for each in cluster.alive for shard in _shards(each) if shard.is_loaded]

        async def beat(number: int, epoch: int, **said: Any) -> Any:
            entry = shard.entry("g")
            return await shard.ask(
                entry,
                lambda ticket: ConsumerHeartbeat(
                    ticket=ticket, member_id=f"m{number}", member_epoch=epoch, client_id="c", client_host="/h", **said
                ),
            )

        for number in range(members):
            said = {"topics": frozenset({"t"}), "owned": frozenset(), "rebalance_timeout_ms": 30_000}
            await beat(number, 0, **said)
        async with asyncio.timeout(60):
            group = shard.entry("g").consumer
            while group is None or group.assignment_epoch < group.epoch:
                await asyncio.sleep(1)
                await beat(0, group.members["m0"].member_epoch)  # type: ignore[union-attr]
                group = shard.entry("g").consumer
        assert {len(partitions) for partitions in group.targets.values()} == {2}
        assert len(group.targets) == len(frozenset().union(*group.targets.values())) // 2 == members
        assert not shard._assigning

    play(story)


@pytest.mark.long
def test_a_coordinator_with_too_few_replicas_refuses_commits_and_stays_loaded() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        one = next(iter(cluster.nodes.values()))
        await ask(one, commit("g", 1))
        assert one.node is not None
        coordinator = cluster.nodes[await one.machine.run(one.node.groups.coordinator_of("g"))]
        await _ask_for_in_sync(coordinator, 3)
        follower = next(node for node in cluster.nodes.values() if node is not coordinator)
        follower.kill()
        await asyncio.sleep(30)  # it leaves the ISR
        shards = _shards(coordinator)
        for _ in range(3):
            with pytest.raises(CoordinatorNotAvailable, match="cannot be replicated"):
                await ask(coordinator, commit("g", 3))
            answer = await ask(coordinator, r.FetchOffsets(group="g"))
            assert [row.offset for row in answer.offsets] == [1]
        assert _shards(coordinator) == shards
        await _ask_for_in_sync(coordinator, 2)
        await ask(coordinator, commit("g", 4))
        assert _shards(coordinator) == shards
        await follower.start()
        await cluster.wait_ready()

    play(story)


async def _ask_for_in_sync(node: SimulatedNode, count: int) -> None:
    alteration = ConfigAlteration(name="min.insync.replicas", operation="set", value=str(count))
    topic = ConfigResource(resource_type="topic", name=OFFSETS_TOPIC)
    assert node.node is not None
    altered = node.node.gateway.control(AlterConfigs(resources={topic: (alteration,)}), timeout_ms=10_000)
    assert await node.machine.run(altered) == {topic: None}
