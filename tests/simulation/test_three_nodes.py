"""Three whole nodes in one thread, everything outside replaced, a clock per node, and faults by seed.

What must hold under every seed: no acknowledged record (acks=all, RF 3, min ISR 2) is lost, moved or doubled; once
all is healed, all replicas are in sync again and hold the same bytes.
"""

from __future__ import annotations

import asyncio
import random
import re

import pytest

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster, SimulatedNode
from kraft.chaos.worlds.simulated.environment import SimulatedWorld
from metadata.image import TopicIdPartition
from tests.simulation.numbered_producer import Producer, check, read_all

SEEDS = [1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 7))]
FAULTS = 6
CALM_S = 3.0
FAULT_S = (0.5, 4.0)


def test_three_nodes_replicate_and_stop() -> None:
    world = SimulatedWorld(1)
    cluster = SimulatedCluster(world)

    async def scenario() -> None:
        await cluster.start()
        which = await cluster.create_topic("flights")
        producer = Producer(cluster, which)
        await _produce_for(producer, 2.0)
        assert producer.failed == 0
        assert len(producer.acked) > 50
        for node in cluster.alive:
            check(producer, await read_all(node, which))
        await cluster.stop()
        cluster.raise_fatal()

    world.run(scenario())


def test_unready_cluster_reports_the_reason() -> None:
    world = SimulatedWorld(1)
    cluster = SimulatedCluster(world)

    async def scenario() -> None:
        await cluster.nodes[1].start()
        await cluster.wait_ready(within_s=1)

    why = (
        "the metadata quorum has no leader yet: of its voters 1, 2, 3 this node has met 1; "
        "a new cluster begins when all of them have met"
    )
    with pytest.raises(AssertionError, match=re.escape(f"not ready within 1 s: {{1: '{why}'}}")):
        world.run(scenario())


def test_records_survive_stop_and_power_loss_of_all() -> None:
    world = SimulatedWorld(2)
    cluster = SimulatedCluster(world)

    async def scenario() -> None:
        await cluster.start()
        # Only what was synced survives a power loss of all: here a record is synced before it is acknowledged.
        which = await cluster.create_topic("flights", configs={"flush.messages": "1"})
        producer = Producer(cluster, which)
        await _produce_for(producer, 1.0)
        await cluster.stop()
        await cluster.start()
        await cluster.wait_in_sync(which)
        check(producer, await read_all(cluster.alive[0], which))
        for node in list(cluster.nodes.values()):
            node.lose_power()
        await cluster.start()
        await cluster.wait_in_sync(which)
        check(producer, await read_all(cluster.alive[0], which))

    world.run(scenario())


@pytest.mark.parametrize("seed", SEEDS)
def test_acknowledged_records_survive_faults(seed: int) -> None:
    _run_faults(seed)


def _run_faults(seed: int) -> None:
    world = SimulatedWorld(seed)
    rng = world.rng("faults")
    rates = tuple(rng.uniform(0.98, 1.02) for _ in range(3))
    cluster = SimulatedCluster(world, rates=rates, settings={"replica.lag.time.max.ms": 3_000})

    async def scenario() -> None:
        await cluster.start()
        which = await cluster.create_topic("flights")
        producer = Producer(cluster, which)
        producing = asyncio.create_task(producer.run())
        for _ in range(FAULTS):
            await asyncio.sleep(rng.uniform(0, 1))
            await _fault(cluster, rng)
            cluster.raise_fatal()
        await asyncio.sleep(CALM_S)
        producer.is_stopping = True
        await producing
        await cluster.wait_in_sync(which)
        assert producer.acked
        for node in cluster.alive:
            check(producer, await read_all(node, which))
        cluster.raise_fatal()

    world.run(scenario())


async def _fault(cluster: SimulatedCluster, rng: random.Random) -> None:
    """One fault on one node, and its end: at most one node is away at a time, so acks=all keeps its promise."""
    node = rng.choice(list(cluster.nodes.values()))
    lasting_s = rng.uniform(*FAULT_S)
    match rng.randrange(5):
        case 0:
            node.kill()
            await _back_after(cluster, node, lasting_s)
        case 1:
            node.lose_power()
            await _back_after(cluster, node, lasting_s)
        case 2:
            node.machine.pause()
            await asyncio.sleep(lasting_s)
            node.machine.resume()
        case 3:
            await _isolate(cluster, node, lasting_s, one_way=rng.random() < 0.5)
        case _:
            node.machine.clock.jump(rng.randint(-3_600_000, 3_600_000))
            for host in cluster.hosts:
                cluster.world.network.reset(node.machine.name, host)
    await cluster.wait_ready()
    await _all_in_sync(cluster)


async def _back_after(cluster: SimulatedCluster, node: SimulatedNode, lasting_s: float) -> None:
    await asyncio.sleep(lasting_s)
    await node.start()


async def _isolate(cluster: SimulatedCluster, node: SimulatedNode, lasting_s: float, *, one_way: bool) -> None:
    network, name = cluster.world.network, node.machine.name
    others = [host for host in cluster.hosts if host != name]
    for host in others:
        network.cut(name, host, direction="to" if one_way else "both")
    await asyncio.sleep(lasting_s)
    for host in others:
        network.heal(name, host)


async def _all_in_sync(cluster: SimulatedCluster) -> None:
    node = cluster.alive[0].node
    assert node is not None
    for partition in node.publisher.image.all_partitions():
        await cluster.wait_in_sync(TopicIdPartition(partition.topic_id, partition.partition))


async def _produce_for(producer: Producer, seconds: float) -> None:
    task = asyncio.create_task(producer.run())
    await asyncio.sleep(seconds)
    producer.is_stopping = True
    await task
