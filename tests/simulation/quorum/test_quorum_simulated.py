"""Whole voters on simulated machines: they start, fail over, keep what they acknowledged, and refuse strangers."""

from __future__ import annotations

import asyncio

import pytest

from kraft.chaos.worlds.simulated.environment import SimulatedWorld
from metadata.environment import FrameConnection
from metadata.quorum.log import AppendLost, AppendUnknown, Leadership
from tests.simulation.quorum.cluster import PORT, Cluster, settings


def test_election_after_start_and_kill() -> None:
    for seed in range(5):
        world = SimulatedWorld(seed)
        cluster = Cluster(world)

        async def scenario(cluster: Cluster = cluster, world: SimulatedWorld = world) -> None:
            begun = world.loop.now_us
            await cluster.start()
            first = await cluster.leader()
            assert world.loop.now_us - begun < 400_000
            await cluster.append(first, "a")
            await asyncio.sleep(1)
            killed = world.loop.now_us
            cluster.kill(first)
            await cluster.append_until_done("b")
            assert world.loop.now_us - killed < 500_000, world.loop.now_us - killed

        world.run(scenario())


@pytest.mark.parametrize("seed", range(6))
def test_acknowledged_appends_survive_faults(seed: int) -> None:
    world = SimulatedWorld(seed)
    cluster = Cluster(world, snapshot_bytes=8_000)

    async def scenario() -> None:
        rng = world.rng("faults")
        await cluster.start()
        done = []
        for number in range(60):
            await cluster.append_until_done(f"s{number}")
            done.append(f"s{number}")
            victim = rng.choice(list(cluster.machines))
            match rng.randrange(6):
                case 0 | 1:
                    cluster.kill(victim, power=True)
                    await cluster.start(victim)
                case 2:
                    for i in cluster.machines:
                        cluster.kill(i, power=True)
                    await cluster.start()
                case 3:
                    others = [f"m{i}" for i in cluster.machines if i != victim]
                    world.network.isolate(f"m{victim}", others)
                    await asyncio.sleep(rng.random())
                    for other in others:
                        world.network.heal(f"m{victim}", other)
        await cluster.append_until_done("last")
        await cluster.settle()
        for log in cluster.logs.values():
            assert settings(log) == {*done, "last"}
        assert not cluster.fatal

    world.run(scenario())


def test_full_disk_suspends_voter() -> None:
    world = SimulatedWorld(3)
    cluster = Cluster(world)

    async def scenario() -> None:
        await cluster.start()
        first = await cluster.leader()
        await cluster.append(first, "a")
        cluster.machines[first].disk.is_full = True
        with pytest.raises((AppendLost, AppendUnknown)):
            await cluster.append(first, "b")
        assert cluster.logs[first].leadership.leader_id == -1
        with pytest.raises(AppendLost):
            await cluster.append(first, "b")
        async with asyncio.timeout(10):
            while True:
                try:
                    await cluster.append(await cluster.leader(), "c")
                except (AppendLost, AppendUnknown):
                    await asyncio.sleep(0.05)
                else:
                    break
        cluster.machines[first].disk.is_full = False
        await asyncio.sleep(3)
        await cluster.settle()
        assert {"a", "c"} <= settings(cluster.logs[first])
        names = [name for name, _ in cluster.events[first].all]
        assert "quorum_suspended" in names
        assert "quorum_resumed" in names
        assert not cluster.fatal

    world.run(scenario())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"key": b"another"}, "the secrets differ"),
        ({"cluster_id": "other"}, "cluster id 'other'"),
    ],
)
def test_unauthenticated_voter_is_refused(changes: dict[str, object], reason: str) -> None:
    world = SimulatedWorld(4)
    cluster = Cluster(world)

    async def scenario() -> None:
        cluster.form(1, 2)
        await cluster.start(1, 2)
        await cluster.append_until_done("a")
        leader = cluster.logs[await cluster.leader()].leadership
        await cluster.start(3, **changes)
        await asyncio.sleep(5)
        await cluster.append_until_done("b")
        assert cluster.logs[1].leadership.term == leader.term
        assert cluster.logs[3].image.offset == -1
        assert any(reason in text for text in cluster.events[1].reasons("quorum_connection_refused"))
        assert len(cluster.events[1].all) < 20

    world.run(scenario())


def test_second_node_with_same_id_is_refused() -> None:
    world = SimulatedWorld(5)
    cluster = Cluster(world)

    async def scenario() -> None:
        await cluster.start()
        await cluster.append_until_done("a")
        term = cluster.logs[1].leadership.term
        twin = world.machine("twin")
        await cluster.start(3, machine=twin, listen=("twin", PORT))
        await asyncio.sleep(4)
        await cluster.append_until_done("b")
        assert "quorum_duplicate_node_id" in [name for name, _ in cluster.events[1].all]
        assert cluster.twins[3].refused_by == {1, 2}, "the second one does not learn why it is refused"
        assert not any(log.refused_by for log in cluster.logs.values())
        assert cluster.logs[1].leadership == Leadership(
            leader_id=cluster.logs[1].leadership.leader_id, term=term, is_self=cluster.logs[1].leadership.is_self
        )

    world.run(scenario())


def test_garbage_closes_one_connection() -> None:
    world = SimulatedWorld(6)
    cluster = Cluster(world)

    async def scenario() -> None:
        await cluster.start()
        stranger = world.machine("stranger")

        async def send(frame: bytes) -> None:
            network = stranger.environment.network
            connection: FrameConnection = await network.connect("m1", PORT, frame_bytes_max=10**6, timeout_ms=1000)
            connection.send([frame])
            await asyncio.sleep(0.5)
            assert connection.is_closed

        for frame in (b"", b"garbage", bytes(100_000), b"\x80\x04N.", b"GET / HTTP/1.1\r\n\r\n"):
            await stranger.run(send(frame))
        await cluster.append_until_done("a")
        assert not cluster.fatal

    world.run(scenario())


@pytest.mark.parametrize("seed", range(5))
def test_leader_stop_takes_less_than_election_timeout(seed: int) -> None:
    """Its port refuses from then on, which the others need not wait for to believe it."""
    world = SimulatedWorld(seed)
    cluster = Cluster(world)

    async def scenario() -> float:
        await cluster.start()
        await cluster.append_until_done("a")
        await asyncio.sleep(1)
        stopped = await cluster.leader()
        begun = world.loop.now_us
        await cluster.machines[stopped].run(cluster.logs.pop(stopped).stop())
        await cluster.append_until_done("b")
        return (world.loop.now_us - begun) / 1000

    took_ms = world.run(scenario())
    assert took_ms < 250, f"the next append took {took_ms:.0f} ms; the election timeout is 300 ms"


def test_suspended_voter_accepts_returning_peer() -> None:
    """A session made while the voter was suspended must not stay unknown to the voter that is built again."""
    world = SimulatedWorld(8)
    cluster = Cluster(world)

    async def scenario() -> None:
        await cluster.start()
        await cluster.append_until_done("a")
        leader = await cluster.leader()
        full, other = [i for i in cluster.machines if i != leader]
        cluster.machines[full].disk.is_full = True
        await cluster.append_until_done("b")
        assert "quorum_suspended" in [name for name, _ in cluster.events[full].all]
        cluster.kill(other)
        await cluster.start(other)
        await asyncio.sleep(1)
        cluster.machines[full].disk.is_full = False
        await asyncio.sleep(3)
        cluster.kill(leader)
        await cluster.append_until_done("c")
        await cluster.settle()
        assert not cluster.fatal

    world.run(scenario())


def test_deposed_leader_is_not_confirmed() -> None:
    believed = sum(_asks_both_leaders(SimulatedWorld(seed)) for seed in range(6))
    assert believed > 0, "in no seed a leader of the past believed to lead while the next one did"


def _asks_both_leaders(world: SimulatedWorld) -> bool:
    """True if the old leader still believed that it leads when the new one was confirmed."""
    cluster = Cluster(world)

    async def confirm(i: int) -> None:
        await cluster.machines[i].run(cluster.logs[i].confirm())

    async def scenario() -> bool:
        await cluster.start()
        await cluster.append_until_done("a")
        old = await cluster.leader()
        others = tuple(i for i in cluster.machines if i != old)
        offset = cluster.logs[old].image.offset
        await confirm(old)
        await asyncio.sleep(1)
        assert {log.image.offset for log in cluster.logs.values()} == {offset}, "it is no metadata"
        with pytest.raises(AppendLost):
            await confirm(others[0])
        world.network.isolate(f"m{old}", [f"m{i}" for i in others])
        asked = asyncio.ensure_future(confirm(old))
        new = await cluster.leader(among=others)
        await confirm(new)
        believes = cluster.logs[old].leadership.is_self
        assert not (believes and asked.done())
        with pytest.raises((AppendLost, AppendUnknown)):
            await asked
        assert not cluster.fatal
        return believes

    return world.run(scenario())
