"""Whole voters that are asked for nothing after the last fault: all get everything, by the heartbeats alone."""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from kraft.chaos.worlds.simulated.environment import SimulatedWorld
from tests.simulation.quorum.cluster import Cluster, settings

SEEDS = int(os.environ.get("KRAFT_QUORUM_IDLE_SEEDS", "8"))
STEPS = 25
CONVERGE_S = 2.0


async def _reset_often(cluster: Cluster, rng: random.Random) -> None:
    """Connections end at any moment, with messages under way in both directions."""
    while True:
        await asyncio.sleep(rng.random() * 0.3)
        one, other = rng.sample(sorted(cluster.machines), 2)
        cluster.world.network.reset(f"m{one}", f"m{other}")


async def _write_among_faults(cluster: Cluster, rng: random.Random) -> set[str]:
    done = set()
    for number in range(STEPS):
        name = f"s{number}" + "x" * rng.choice((0, 0, 0, 3_000))
        await cluster.append_until_done(name)
        done.add(name)
        victim = rng.choice(list(cluster.machines))
        match rng.randrange(5):
            case 0:
                cluster.kill(victim, power=rng.random() < 0.5)
                await cluster.start(victim)
            case 1:
                for i in cluster.machines:
                    cluster.kill(i)
                await cluster.start()
            case 2:
                cluster.machines[victim].pause()
                await asyncio.sleep(rng.random())
                cluster.machines[victim].resume()
    return done


@pytest.mark.parametrize("seed", range(SEEDS))
def test_voters_agree_after_restart_and_resets(seed: int) -> None:
    world = SimulatedWorld(seed)
    cluster = Cluster(world, snapshot_bytes=8_000)

    async def scenario() -> None:
        rng = world.rng("faults")
        await cluster.start()
        resets = asyncio.get_running_loop().create_task(_reset_often(cluster, rng))
        done = await _write_among_faults(cluster, rng)
        if seed % 2:
            for i in cluster.machines:
                cluster.kill(i)
            await cluster.start()
            await asyncio.sleep(rng.random())
        resets.cancel()
        await asyncio.sleep(CONVERGE_S)
        offsets = {i: log.image.offset for i, log in cluster.logs.items()}
        state = [str(log._engine._node) for log in cluster.logs.values()]
        assert len(set(offsets.values())) == 1, (offsets, state)
        for log in cluster.logs.values():
            assert log.image == cluster.logs[1].image
            assert settings(log) == done
        assert not cluster.fatal

    world.run(scenario())
