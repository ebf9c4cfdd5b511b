"""A truncation is on disk before anything is written in its place: a power loss never leaves parts of both.

Found by simulated clusters (power 11006): old batches before newer ones, each with a good CRC, the epochs in order.
"""

from __future__ import annotations

import asyncio

from kraft.chaos.worlds.simulated.environment import SimulatedWorld
from kraft.protocol.batches.header import BatchHeader, whole_batches
from metadata.environment import Environment
from metadata.settings import TopicSettings
from tests.unit.storage.world import NOW_MS, batch, load

KEPT, CUT = 2, 6
SEEDS = 60


async def _cut_and_write_anew(environment: Environment) -> None:
    log, _ = load(environment, "/data/t-0")
    for _ in range(CUT):
        log.append_as_leader(batch(), leader_epoch=2, now_ms=NOW_MS)
    await log.flush()
    log.truncate_to(KEPT)
    for _ in range(CUT):
        log.append_as_leader(batch(), leader_epoch=4, now_ms=NOW_MS)


def _headers(world: SimulatedWorld, environment: Environment) -> list[BatchHeader]:
    log, _ = load(environment, "/data/t-0")
    end = log.log_end_offset
    found = log.read(0, bytes_max=1 << 20, upper_bound=end).data if end else b""
    return [header for _, header in whole_batches(found)]


def test_what_was_cut_is_never_in_front_of_what_was_written_in_its_place() -> None:
    outcomes = set()
    for seed in range(SEEDS):
        world = SimulatedWorld(seed)
        machine = world.machine("node")
        machine.environment.files.make_directories("/data/t-0")
        for folder in ("/", "/data", "/data/t-0"):
            machine.environment.files.sync_directory(folder)
        world.run(machine.run(_cut_and_write_anew(machine.environment)))
        machine.disk.lose_power()
        headers = _headers(world, machine.environment)
        after = [header.leader_epoch for header in headers if header.base_offset >= KEPT]
        assert len(set(after)) <= 1, (seed, after)
        outcomes.add(tuple(after))
    assert len(outcomes) > 2, "the power losses all look the same"


def test_a_cut_asks_for_a_flush_and_a_flush_is_enough() -> None:
    async def story(environment: Environment) -> None:
        log, _ = load(environment, "/data/t-0", settings=TopicSettings())
        log.append_as_leader(batch(), leader_epoch=0, now_ms=NOW_MS)
        log.append_as_leader(batch(), leader_epoch=0, now_ms=NOW_MS)
        await log.flush()
        assert not log.needs_flush()
        log.truncate_to(1)
        assert log.needs_flush()
        await asyncio.gather(log.flush(), log.flush())
        assert not log.needs_flush()

    world = SimulatedWorld(1)
    machine = world.machine("node")
    machine.environment.files.make_directories("/data/t-0")
    world.run(machine.run(story(machine.environment)))
