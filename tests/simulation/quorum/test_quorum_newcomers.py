"""Voters that come back with an empty disk: by seeds, and what happens when such a voter votes at once.

One at a time, while all others are voters with their files. `KRAFT_QUORUM_SEEDS=1000` runs more seeds.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest

from kraft.chaos.worlds.simulated.environment import SimulatedWorld
from metadata.quorum.newcomer import Newcomer
from tests.simulation.quorum.cluster import DIRECTORY, Cluster, settings
from tests.simulation.quorum.plan import Plan, Violation
from tests.simulation.quorum.scripting import CALM, calm, commit, heal, isolate
from tests.simulation.quorum.story import Story

SEEDS = int(os.environ.get("KRAFT_QUORUM_SEEDS", "1"))
WIPED = Plan(wipe=0.5, crash=0.35, power=0.3, large_share=0.05)
PLANS = {
    "wiped": WIPED,
    "wiped, snapshots": replace(WIPED, snapshot_bytes=40_000, orphan=0.3),
    "wiped, five": replace(WIPED, nodes=5, large_share=0.02),
    "wiped, never met": replace(WIPED, strangers=True),
}


class VotesAtOnce(Newcomer):
    def tick(self) -> None:
        if self.is_newcomer:
            self._settle(None)


@pytest.mark.parametrize("name", ["wiped", *(pytest.param(name, marks=pytest.mark.slow) for name in list(PLANS)[1:])])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_wiped_voters_lose_nothing(seed: int, name: str) -> None:
    story = Story(seed, PLANS[name])
    story.play()
    nodes = story.world.nodes.values()
    assert story.world.run_for(1_000, until=lambda: not any(node.journal.votes.is_newcomer for node in nodes))


def _entry_on_two_of_three_and_one_of_them_wiped(plan: Plan) -> None:
    """The leader and one more have an entry; that one is wiped, the leader dies, the third has never seen it."""
    world = calm(1, plan)
    leader = world.leader
    assert leader is not None
    helper, third = (i for i in world.ids if i != leader)
    isolate(world, third)
    commit(world, b"on two disks")
    world.crash(helper, power=False, restart_ms=10)
    assert world.wipe(helper)
    world.crash(leader, power=False, restart_ms=3_000)
    heal(world)
    world.run_for(2_500)
    commit(world, b"later", within_ms=5_000)
    world.run_for(1_000, until=lambda: world.is_converged)
    assert world.is_converged
    world.check_acked()


def test_wiped_voter_waits_for_leader_with_its_entries() -> None:
    _entry_on_two_of_three_and_one_of_them_wiped(CALM)
    with pytest.raises(Violation, match="lacks committed entry"):
        _entry_on_two_of_three_and_one_of_them_wiped(replace(CALM, newcomer=VotesAtOnce))


def test_wiped_voter_votes_after_catching_up() -> None:
    world = calm(2, CALM)
    leader = world.leader
    assert leader is not None
    wiped, other = (i for i in world.ids if i != leader)
    commit(world, b"before")
    world.crash(wiped, power=True, restart_ms=10)
    assert world.wipe(wiped)
    world.run_for(1_000, until=lambda: world.settled == 1)
    assert world.settled == 1
    isolate(world, other)
    commit(world, b"after")
    assert world.run_for(500, until=lambda: world.nodes[wiped].machine.commands == world.nodes[leader].machine.commands)


def test_new_voters_begin_when_all_have_met() -> None:
    world = SimulatedWorld(11)
    cluster = Cluster(world)

    async def scenario() -> None:
        await cluster.start(1, 2)
        await asyncio.sleep(5)
        assert cluster.logs[1].leadership.leader_id == -1
        await cluster.start(3)
        await cluster.append_until_done("all are there", within_s=3)
        await cluster.settle()
        for i in (1, 2, 3):
            assert settings(cluster.logs[i]) == {"all are there"}
            names = [name for name, _ in cluster.events[i].all]
            assert names.count("quorum_newcomer") == names.count("quorum_newcomer_settled") == 1
        cluster.kill(3)
        cluster.machines[3].environment.files.remove_tree(DIRECTORY)
        await cluster.append_until_done("two are enough")
        await cluster.start(3)
        await cluster.settle()
        await asyncio.sleep(1)
        assert "quorum_newcomer_settled" in [name for name, _ in cluster.events[3].all]

    world.run(scenario())
