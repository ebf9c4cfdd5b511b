"""Who asks for a leader just when it has died is told the next one, and waits for that no longer than it is worth."""

from __future__ import annotations

import asyncio
from typing import Any

from kraft.broker.lost_brokers import ELECTION_WAIT_MS, LOOK_MS, NAMED_MS, LostBrokers
from kraft.chaos.worlds.simulated.cluster import SimulatedCluster
from kraft.chaos.worlds.simulated.environment import SimulatedWorld
from kraft.protocol.messages.find_coordinator_request import FindCoordinatorRequestData
from kraft.protocol.messages.metadata_request import MetadataRequestData, MetadataRequestTopic
from metadata.controller.requests import CreateTopics, NewTopic
from tests.support.client_door import ClientDoor

DEADLINE_S = 30
METADATA, FIND_COORDINATOR = 12, 4


class BrokenOnce:
    """The connection to a leader broke at that moment, and nothing answers since."""

    def __init__(self, leader: int, broke_ms: int) -> None:
        self._leader, self._broke_ms = leader, broke_ms

    def lost(self, since_ms: int) -> set[int]:
        return {self._leader} if self._broke_ms >= since_ms else set()

    async def look(self, node_id: int) -> None:
        del node_id


async def leader_by(door: ClientDoor) -> int:
    asked = MetadataRequestData.make(topics=[MetadataRequestTopic.make(name="t")])
    answer: Any = await door.ask(asked, METADATA)
    return int(answer.topics[0].partitions[0].leader_id)


async def named_by(door: ClientDoor) -> set[int]:
    answer: Any = await door.ask(MetadataRequestData.make(topics=[]), METADATA)
    return {each.node_id for each in answer.brokers}


async def started(world: SimulatedWorld) -> tuple[SimulatedCluster, int, ClientDoor]:
    """With a topic that is followed everywhere, whose leader is not the controller; the door of another broker."""
    cluster = SimulatedCluster(world, settings={"offsets.topic.num.partitions": 1})
    await cluster.start()
    first = cluster.alive[0]
    assert first.node is not None
    leader = next(each for each in cluster.alive if each.node_id != first.node.gateway.controller_id)
    others = tuple(each.node_id for each in cluster.alive if each is not leader)
    new = NewTopic(name="t", assignment={0: (leader.node_id, *others)}, configs={"min.insync.replicas": "1"})
    await first.machine.run(first.node.gateway.control(CreateTopics(topics=(new,)), timeout_ms=10_000))
    door = ClientDoor(next(each for each in cluster.alive if each is not leader))
    async with asyncio.timeout(DEADLINE_S):
        while not follows(door, leader.node_id):  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.1)
    await asyncio.sleep(1)  # its connection is open
    assert await leader_by(door) == leader.node_id
    return cluster, leader.node_id, door


def follows(door: ClientDoor, leader: int) -> bool:
    assert door.node.node is not None
    image = door.node.node.publisher.image.topic("t")
    return image is not None and len(image.partitions[0].isr) == 3 and image.partitions[0].leader == leader


def test_a_client_that_asks_just_when_the_leader_died_receives_the_next_leader() -> None:
    world = SimulatedWorld(3)

    async def story() -> None:
        cluster, leader, door = await started(world)
        assert door.node.node is not None
        next(each for each in cluster.alive if each.node_id == leader).kill()
        lost = door.node.node._context.peers.lost
        async with asyncio.timeout(DEADLINE_S):
            while not lost(0):  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.0005)
        image = door.node.node.publisher.image.topic("t")
        assert image is not None
        assert image.partitions[0].leader == leader, "it is to be asked before the election"
        assert await leader_by(door) not in (leader, -1)
        assert await named_by(door) == {1, 2, 3}, "a client still has to move what the dead one led"
        found: Any = await door.ask(FindCoordinatorRequestData.make(coordinator_keys=["g"]), FIND_COORDINATOR)
        assert found.coordinators[0].node_id != leader
        await asyncio.sleep(NAMED_MS / 1000)
        assert await named_by(door) == {1, 2, 3} - {leader}
        await cluster.stop()
        cluster.raise_fatal()

    world.run(story())


def test_metadata_waits_for_next_leader() -> None:
    world = SimulatedWorld(5)

    async def story() -> None:
        cluster, leader, door = await started(world)
        assert door.node.node is not None
        next(each for each in cluster.alive if each.node_id == leader).kill()
        assert not door.node.node.lost_brokers.are_awaited(), "its connection is to be open still"
        assert await leader_by(door) not in (leader, -1)
        await cluster.stop()
        cluster.raise_fatal()

    world.run(story())


def test_a_leader_that_stands_still_is_named_after_a_moment() -> None:
    world = SimulatedWorld(6)

    async def story() -> None:
        cluster, leader, door = await started(world)
        assert door.node.node is not None
        clock = door.node.node.environment.clock
        others = {each.node_id for each in cluster.alive} - {leader}
        world.network.isolate(f"node-{leader}", [f"node-{each}" for each in sorted(others)])
        begun_ms = clock.monotonic_ms()
        assert await leader_by(door) == leader
        assert LOOK_MS <= clock.monotonic_ms() - begun_ms < LOOK_MS + 50
        await cluster.stop()
        cluster.raise_fatal()

    world.run(story())


def test_a_leader_that_is_cut_off_and_lives_is_named_again_after_a_moment() -> None:
    """Its port does not refuse, so that the controller waits for its session to end."""
    world = SimulatedWorld(4)

    async def story() -> None:
        cluster, leader, door = await started(world)
        assert door.node.node is not None
        node = door.node.node
        clock = node.environment.clock
        broke_ms = clock.monotonic_ms()
        lost = LostBrokers(BrokenOnce(leader, broke_ms), publisher=node.publisher, clock=clock)
        assert lost.are_awaited()
        await door.node.machine.run(lost.fenced())
        assert clock.monotonic_ms() - broke_ms <= ELECTION_WAIT_MS + 1
        await asyncio.sleep(0.01)
        assert not lost.are_awaited(), "only once for each loss"
        assert await leader_by(door) == leader
        await cluster.stop()
        cluster.raise_fatal()

    world.run(story())
