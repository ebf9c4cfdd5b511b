"""The special parts of the world: torn sectors, late threads, moments; and each event is drawn."""

from __future__ import annotations

import asyncio
import itertools
import random

from kraft.chaos.worlds.simulated.cluster import InlineQuorum, SimulatedProcess
from kraft.chaos.worlds.simulated.disk import SECTOR_BYTES, Disk, SimulatedFiles
from kraft.chaos.worlds.simulated.environment import SimulatedWorld
from tests.simulation.faults import Faults
from tests.simulation.moments import Moment, Moments
from tests.simulation.plan import Strangeness
from tests.simulation.plan_generator import ELECTION_TIMEOUT, draw_plan
from tests.simulation.profiles import PROFILES, STRANGE


def test_events_and_handlers_match() -> None:
    drawn = {kind for kinds in PROFILES.values() for kind in kinds}
    drawn.update(event.kind for profile in PROFILES for event in draw_plan(1, profile).events)
    handlers = {
        name[1:]
        for owner in Faults.__mro__
        for name, value in vars(owner).items()
        if name[0] == "_" and asyncio.iscoroutinefunction(value) and list(value.__annotations__) == ["event", "return"]
    }
    assert drawn == handlers


def test_only_the_later_profiles_are_strange() -> None:
    for profile in ("swarm", "power", "unclean"):
        assert draw_plan(1, profile).strange == Strangeness()
    assert all(any(draw_plan(seed, profile).strange != Strangeness() for seed in range(20)) for profile in STRANGE)


def test_timeouts_are_longer_than_latency() -> None:
    for plan in (draw_plan(seed, profile) for seed in range(20) for profile in STRANGE):
        for one, other in itertools.combinations(range(1, len(plan.roles) + 1), 2):
            pair = f"node-{one}", f"node-{other}"
            slowest_ms = (plan.latency_us_of(*pair)[1] + plan.latency_us_of(*pair[::-1])[1]) // 1_000
            waits_ms = {name: int(str(value)) for name, value in plan.settings.items() if "timeout" in name}
            at = plan.profile, plan.seed, pair
            assert waits_ms[ELECTION_TIMEOUT] >= slowest_ms or {one, other} - set(plan.voters), at
            assert waits_ms["broker.session.timeout.ms"] // 2 >= 2 * slowest_ms, at
            assert waits_ms["replica.socket.timeout.ms"] >= 2 * slowest_ms, at
            assert int(str(plan.settings["replica.fetch.max.bytes"])) >= 20 * slowest_ms, at


def _kept(seed: int) -> bytes:
    disk = Disk(random.Random(seed))
    disk.tears_sectors = True
    files = SimulatedFiles(disk)
    file = files.open("/file", create=True)
    files.sync_directory("/")
    file.append([b"x" * (SECTOR_BYTES * 6 + 10)])
    disk.lose_power()
    return files.open("/file").pread(0, 10_000)


def test_torn_write_keeps_any_sectors() -> None:
    kept = [_kept(seed) for seed in range(40)]
    assert any(b"\0x" in data and data.startswith(b"x") for data in kept)
    for data in kept:
        sectors = {data[at : at + SECTOR_BYTES] for at in range(0, SECTOR_BYTES * 6, SECTOR_BYTES)}
        assert all(len(set(sector)) <= 1 for sector in sectors), "a sector is there as a whole, or not at all"


def test_late_threads_keep_the_order_of_calls() -> None:
    world = SimulatedWorld(1)
    machine = world.machine("one")
    process = SimulatedProcess(machine, lambda _: None)
    host = InlineQuorum(machine.environment, hop_us=(10, 5_000), rng=random.Random(1), process=process)
    seen: list[int] = []

    async def never() -> None:
        return None

    async def scenario() -> None:
        host.start(never)
        for number in range(50):
            host.call_main(seen.append, number)
        assert not seen, "a call is not carried out at once"
        await asyncio.sleep(1)
        await host.stop()

    world.run(scenario())
    assert seen == list(range(50))


def test_ambush_gets_node_or_times_out() -> None:
    world = SimulatedWorld(1)
    moments = Moments(world.loop)

    async def scenario() -> tuple[Moment | None, Moment | None]:
        waiting = asyncio.create_task(moments.next("truncated", within_s=5))
        await asyncio.sleep(1)
        moments.happened("truncated", 2, 3)
        return await waiting, await moments.next("truncated", within_s=1)

    assert world.run(scenario()) == ((2, 3), None)
