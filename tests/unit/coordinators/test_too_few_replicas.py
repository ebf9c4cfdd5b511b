"""Coordinators while too few replicas are in sync: what is new is refused, and the shard stays as it is (P1)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from kraft.coordinators.groups.classic_requests import Heartbeat, Join, Joined, Sync
from kraft.coordinators.groups.group_metadata import GroupMetadata
from kraft.coordinators.groups.instance import Instance
from kraft.coordinators.groups.membership import Membership
from kraft.coordinators.groups.offsets import commit_records
from kraft.coordinators.groups.records import TransactionOf
from kraft.coordinators.groups.requests import InstanceConfig
from kraft.coordinators.groups.shard import GroupShard
from kraft.coordinators.shard import CoordinatorContext, CoordinatorShard
from kraft.coordinators.shares import decide
from kraft.coordinators.shares.shard import ShareStateShard
from kraft.coordinators.shares.state import ShareKey
from kraft.protocol.errors import CoordinatorNotAvailable, NotCoordinator
from metadata.image import TopicIdPartition
from metadata.settings import TopicSettings
from tests.unit.replication.harness.virtual import environment, run
from tests.unit.wire.handlers.brokers import Brokers

REFUSED = r"cannot be replicated: .* asks for 2"


class World:
    """One partition of a coordinator's topic; broker 1 of three leads it, and two replicas have to be in sync."""

    def __init__(self, cluster: Brokers, key: TopicIdPartition) -> None:
        self._cluster = cluster
        self._key = key
        self.failed: list[CoordinatorShard[Any]] = []
        self.has_session = True

    async def loaded(self, kind: type[Any]) -> Any:
        context = CoordinatorContext(
            node_id=1,
            environment=environment(1),
            replicas=self._cluster.nodes[1].manager,
            settings=lambda: self._cluster.settings,
            topic_settings=lambda _: TopicSettings(),
            image=lambda: self._cluster.image,
            has_session=lambda: self.has_session,
        )
        shard = kind(self._key, self._cluster.partition(self._key).leader_epoch, context, on_failed=self.failed.append)
        await shard.load(lambda offset, reason: pytest.fail(f"{offset}: {reason}"))
        return shard

    def lose_followers(self) -> None:
        self._cluster.cut = {(2, 1), (3, 1)}
        self._cluster.change_isr(self._key, (1,))

    async def find_followers(self) -> None:
        self._cluster.cut = set()
        await self._cluster.until(lambda: len(self._cluster.partition(self._key).isr) == 3)

    @property
    def log_end(self) -> int:
        return self._cluster.nodes[1].manager._registry.replicas[self._key].log.log_end_offset


def play(topic: str, story: Callable[[World], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with Brokers(min_insync_replicas=2, group_initial_rebalance_delay_ms=0) as cluster:
            world = World(cluster, cluster.create(topic, cleanup_policy="compact"))
            await story(world)
            assert world.failed == []

    run(whole())


async def joined(shard: GroupShard, group: str = "g") -> Joined:
    answer = await shard.ask(
        shard.entry(group),
        lambda ticket: Join(
            ticket=ticket,
            member_id="",
            client_id="c",
            client_host="/1",
            session_timeout_ms=10_000,
            rebalance_timeout_ms=10_000,
            protocol_type="consumer",
            protocols=(("range", b""),),
            new_member_id="c-1",
            is_known_required=False,
        ),
    )
    assert isinstance(answer, Joined)
    return answer


async def rest_member_with_a_step(world: World, shard: GroupShard) -> GroupMetadata:
    """Instance "i" of group "g" has subscribed, and its next step cannot be written."""
    membership = Membership(shard)
    config = InstanceConfig(timeout_ms=60_000)
    instance = Instance(group="g", name="i", nonce="1", owner="", config=config, member_id="i-1")
    await shard.write([instance.record()])
    await shard.write([instance.changed(topics=("t",)).record()])
    entry = shard.entry("g")
    world.lose_followers()
    membership.touch(entry, entry.instances["i"])
    shard.changed(entry)
    return entry


def commit(offset: int) -> Any:
    return commit_records("g", {("t", 0): (offset, -1, "")}, metadata_bytes_max=100, wall_ms=0)


def test_a_group_refuses_what_has_to_be_written_and_answers_the_rest() -> None:
    async def story(world: World) -> None:
        shard: GroupShard = await world.loaded(GroupShard)
        member = await joined(shard)
        await shard.write(commit(5))
        world.lose_followers()
        before, end = shard.entry("g").group, world.log_end
        with pytest.raises(CoordinatorNotAvailable, match=REFUSED):
            await shard.write(commit(6))
        with pytest.raises(CoordinatorNotAvailable, match=REFUSED):
            shard.append_in_transaction(commit(6), TransactionOf(1, 0), shard.producers.ask_again(1, None))
        sync = Sync(ticket=0, member_id=member.member_id, generation=1, assignments=((member.member_id, b"a"),))
        with pytest.raises(CoordinatorNotAvailable, match=REFUSED):
            await shard.ask(shard.entry("g"), lambda ticket: replace(sync, ticket=ticket))
        beat = Heartbeat(ticket=0, member_id=member.member_id, generation=1)
        await shard.ask(shard.entry("g"), lambda ticket: replace(beat, ticket=ticket))
        shard.append_apart(commit(6))
        assert shard.entry("g").offsets["t", 0].offset == 5
        assert not shard.entry("g").pending
        assert shard.entry("g").group.phase is before.phase
        assert world.log_end == end
        await world.find_followers()
        await shard.write(commit(6))
        await shard.ask(shard.entry("g"), lambda ticket: replace(sync, ticket=ticket))
        assert shard.entry("g").offsets["t", 0].offset == 6

    play("__consumer_offsets", story)


def test_a_session_that_ends_meanwhile_is_over_when_replicas_are_back() -> None:
    async def story(world: World) -> None:
        shard: GroupShard = await world.loaded(GroupShard)
        member = await joined(shard)
        sync = Sync(ticket=0, member_id=member.member_id, generation=1, assignments=((member.member_id, b"a"),))
        await shard.ask(shard.entry("g"), lambda ticket: replace(sync, ticket=ticket))
        world.lose_followers()
        await asyncio.sleep(30)
        assert shard.entry("g").group.members
        await world.find_followers()
        await asyncio.sleep(1)
        assert not shard.entry("g").group.members

    play("__consumer_offsets", story)


def test_a_rest_member_takes_its_steps_when_replicas_are_back_and_expires_then() -> None:
    async def story(world: World) -> None:
        shard: GroupShard = await world.loaded(GroupShard)
        entry = await rest_member_with_a_step(world, shard)
        await asyncio.sleep(5)
        assert entry.group.phase.name != "STABLE"
        await world.find_followers()
        await asyncio.sleep(1)
        assert entry.group.phase.name == "STABLE"
        world.lose_followers()
        await asyncio.sleep(90)
        assert [*entry.instances] == ["i"], "its end cannot be written"
        await world.find_followers()
        await asyncio.sleep(1)
        assert not entry.instances
        assert not entry.group.members

    play("__consumer_offsets", story)


def test_what_is_due_and_cannot_be_written_is_not_tried_without_a_pause() -> None:
    """The end of a REST member, and its step before: each waits for half a second, both together, too."""

    async def story(world: World) -> None:
        shard: GroupShard = await world.loaded(GroupShard)
        ticks, tick = 0, shard._tick

        def counted() -> None:
            nonlocal ticks
            ticks += 1
            assert ticks < 1_000
            tick()

        shard._tick = counted  # type: ignore[method-assign]
        entry = await rest_member_with_a_step(world, shard)
        await asyncio.sleep(90)
        assert entry.next_deadline_ms() < shard.now_ms
        assert 100 < ticks < 400

    play("__consumer_offsets", story)


def test_a_proof_of_leadership_is_refused_and_not_written() -> None:
    async def story(world: World) -> None:
        shard: GroupShard = await world.loaded(GroupShard)
        world.has_session = False
        await shard.ensure_leadership()
        world.lose_followers()
        end = world.log_end
        with pytest.raises(NotCoordinator, match=REFUSED):
            await shard.ensure_leadership()
        assert world.log_end == end
        await world.find_followers()
        await shard.ensure_leadership()

    play("__consumer_offsets", story)


def test_the_share_coordinator_refuses_what_has_to_be_written() -> None:
    async def story(world: World) -> None:
        shard: ShareStateShard = await world.loaded(ShareStateShard)
        key = ShareKey("g", UUID(int=7), 0)
        await shard.initialize(key, state_epoch=1, start_offset=5)
        await shard.read(key, leader_epoch=0)
        world.lose_followers()
        before, end = shard.states[key], world.log_end
        write = decide.Write(state_epoch=1, leader_epoch=0, start_offset=6, delivery_complete_count=0, batches=())
        for asked in (shard.write(key, write), shard.read(key, leader_epoch=1), shard.delete(key)):
            with pytest.raises(CoordinatorNotAvailable, match=REFUSED):
                await asked
        assert shard.write_cold_snapshots() == 0
        shard.forget_topics({key.topic_id})
        assert (await shard.summary(key)).start_offset == 5
        assert (shard.states[key], world.log_end) == (before, end)
        await world.find_followers()
        await shard.write(key, write)
        assert (await shard.summary(key)).start_offset == 6

    play("__share_group_state", story)
