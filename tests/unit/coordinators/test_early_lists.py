"""A list of groups is all of them or an error, whatever the coordinators know at that moment."""

from __future__ import annotations

import asyncio

import pytest

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster, SimulatedNode
from kraft.coordinators.groups import requests as r
from kraft.protocol.errors import CoordinatorLoadInProgress
from tests.unit.coordinators.test_coordinator_cluster import ask, commit, play

GROUPS = [f"group-{number:02}" for number in range(20)]


async def listed(node: SimulatedNode) -> list[str]:
    assert node.node is not None
    return [each.group for each in await node.machine.run(node.node.groups.list_all())]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_while_brokers_restart_a_list_is_whole_or_refused(seed: int) -> None:
    """A coordinator that has just started leads nothing yet as far as it knows: that is no empty list."""
    looks = refusals = 0

    async def story(cluster: SimulatedCluster) -> None:
        nonlocal looks, refusals
        nodes = list(cluster.nodes.values())
        for group in GROUPS:
            await ask(nodes[0], commit(group, 3))

        async def look() -> None:
            nonlocal looks
            while True:
                assert nodes[0].node is not None
                assert await listed(nodes[0]) == GROUPS
                looks += 1
                await asyncio.sleep(0.002)

        async def look_directly(node: SimulatedNode) -> None:
            """As another node asks it, over the wire, without the patience of `Groups`."""
            nonlocal refusals
            while True:
                broker = None if node.node is None else node.node.broker
                coordinator = None if broker is None else broker.group_coordinator
                if coordinator is not None and not coordinator.shards._knows_its_partitions:
                    with pytest.raises(CoordinatorLoadInProgress):
                        await node.machine.run(coordinator.ask(r.ListGroups(group="")))
                    refusals += 1
                await asyncio.sleep(0.002)

        tasks = [asyncio.ensure_future(look()), *(asyncio.ensure_future(look_directly(node)) for node in nodes[1:])]
        for node in nodes[1:]:
            node.kill()
            await node.start()
            await cluster.wait_ready()
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            assert isinstance(error, asyncio.CancelledError), error

    play(story, seed=seed)
    assert looks > 3
    assert refusals > 3
