"""A node whose main loop hangs while its Raft half lives on: it neither holds nor wins an election, and ends itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kraft.chaos.worlds.simulated.cluster import EVENTS, EVENTS_BYTES, POLL_S, SimulatedCluster, SimulatedNode
from kraft.chaos.worlds.simulated.environment import SimulatedWorld
from kraft.chaos.worlds.simulated.loop import Livelock
from kraft.coordinators.groups.shard import GroupShard
from metadata.quorum.raft_log import RaftMetadataLog
from metadata.watchdog import HANGING_MS, WAITING_FACTOR
from tests.simulation.planted import Patch, Planted, planted
from tests.simulation.planted_clients import spins_on_a_proof
from tests.unit.coordinators.test_leadership import Replicas, shard_of

SPINS = Planted(what="a proof spins", patches=(Patch(GroupShard, "prove_leadership", spins_on_a_proof),))
END_MS = 20_000
SETTINGS = {"node.hang.timeout.ms": END_MS}
ELECTION_S = 3
ROLES = (("broker", "controller"),) * 3


def play(story: Callable[[SimulatedCluster], Awaitable[None]], *, roles: tuple[tuple[Any, ...], ...] = ROLES) -> None:
    cluster = SimulatedCluster(SimulatedWorld(1), settings=SETTINGS, rates=(1,) * len(roles), roles=roles)

    async def whole() -> None:
        await cluster.start()
        await story(cluster)
        cluster.raise_fatal()

    cluster.world.run(whole())


def leads(node: SimulatedNode) -> bool:
    """The leader in its Raft part, which may differ from the main loop."""
    assert node.node is not None
    assert isinstance(node.node.log, RaftMetadataLog)
    raft = node.node.log._engine._node
    return raft is not None and raft.is_leader


async def leader_of(nodes: list[SimulatedNode], *, within_s: float = ELECTION_S) -> SimulatedNode:
    async with asyncio.timeout(within_s):
        while not (found := [node for node in nodes if leads(node)]):  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(POLL_S)
    return found[0]


def others(cluster: SimulatedCluster, *nodes: SimulatedNode) -> list[SimulatedNode]:
    return [node for node in cluster.nodes.values() if node not in nodes]


def events_of(node: SimulatedNode, name: str) -> list[dict[str, Any]]:
    text = node.machine.environment.files.open(EVENTS).pread(0, EVENTS_BYTES).decode()
    return [event for event in map(json.loads, text.splitlines()) if event["event"] == name]


async def ready(cluster: SimulatedCluster, node: SimulatedNode) -> None:
    async with asyncio.timeout(30):
        while node.node is None or node.node.awaiting.service():  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(POLL_S)
    cluster.raise_fatal()


def test_hanging_leader_is_deposed() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        hung = await leader_of(list(cluster.nodes.values()))
        hung.machine.hang()
        await asyncio.sleep(HANGING_MS / 1_000 - 0.5)
        assert leads(hung), "one large request ends no leadership"
        successor = await leader_of(others(cluster, hung))
        assert not leads(hung)
        (event,) = events_of(hung, "main_loop_hangs")
        assert event["silent_ms"] >= HANGING_MS
        assert event["stack"] == [f"somewhere in {hung.machine.name}"]
        successor.kill()  # of the two that are left only one can lead, and the other one's vote is needed
        heir = await leader_of(others(cluster, hung, successor))
        assert not leads(hung)
        hung.machine.resume()
        await ready(cluster, hung)
        await asyncio.sleep(1)
        assert events_of(hung, "main_loop_turns_again")
        assert leads(heir)

    play(story)


def test_hanging_voter_votes_and_is_no_candidate() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        leader = await leader_of(list(cluster.nodes.values()))
        hung, other = others(cluster, leader)
        hung.machine.hang()
        await asyncio.sleep(HANGING_MS / 1_000 + 1)
        assert leads(leader)
        leader.kill()
        assert await leader_of([other]) is other
        assert not leads(hung)

    play(story)


def test_hanging_node_ends_itself() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        hung = next(iter(cluster.nodes.values()))
        hung.machine.hang()
        await asyncio.sleep(END_MS / 1_000 - 1)
        assert not hung.ended
        await asyncio.sleep(2)
        (reason,) = hung.ended
        assert "node.hang.timeout.ms is 20000" in reason
        assert events_of(hung, "main_loop_past_help")
        await hung.start()
        await ready(cluster, hung)

    play(story)


def test_hanging_broker_without_quorum_ends_itself() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        hung = cluster.nodes[2]
        hung.machine.hang()
        await asyncio.sleep(END_MS / 1_000 + 1)
        assert hung.ended
        await hung.start()
        await ready(cluster, hung)
        await cluster.stop()

    play(story, roles=(("controller",), ("broker",), ("broker",)))


def test_node_waiting_for_disk_survives() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        hung = next(iter(cluster.nodes.values()))
        hung.machine.hang(computes=False)
        await asyncio.sleep((WAITING_FACTOR - 1) * END_MS / 1_000)
        hung.machine.resume()
        await ready(cluster, hung)
        assert not hung.ended

    play(story)


def test_pause_of_a_minute_is_survived() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        paused = await leader_of(list(cluster.nodes.values()))
        paused.machine.pause()
        await asyncio.sleep(60)
        paused.machine.resume()
        await ready(cluster, paused)
        assert not paused.ended
        assert not events_of(paused, "main_loop_hangs")

    play(story)


def test_lone_voter_keeps_leading() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        alone = cluster.nodes[1]
        alone.machine.hang()
        await asyncio.sleep(HANGING_MS / 1_000 + 1)
        assert leads(alone), "nobody else could"
        alone.machine.resume()
        await ready(cluster, alone)

    play(story, roles=(("broker", "controller"),))


def test_spinning_coordinator_is_found_with_stack() -> None:
    """A request in the moment between the end of a proof and its callbacks: a loop would be an endless step."""

    async def story(shard: GroupShard) -> None:
        first = asyncio.ensure_future(shard.prove_leadership())
        for _ in range(3):
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        await shard.prove_leadership()
        await first

    def run() -> None:
        world = SimulatedWorld(1)
        world.loop.step_s_max = 0.5
        world.run(story(shard_of(world, Replicas(world), [])))

    run()
    with planted(SPINS), pytest.raises(Livelock, match=r"a step that does not end:(?s:.*)in prove_leadership"):
        run()
