"""Whole RaftMetadataLogs on simulated machines: engine, link, hosting and files, with nothing of it replaced."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from metadata.environment import FrameConnection
from metadata.quorum.config import QuorumConfig
from metadata.quorum.hosting import InlineHost
from metadata.quorum.log import AppendLost, AppendUnknown, Leadership
from metadata.quorum.raft_log import RaftMetadataLog
from metadata.records import ConfigRecord, ControllerEpochRecord
from tests.simulation.environment import Machine, SimulatedWorld

PORT = 9093
SECRET = b"s3cret"


class Events:
    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, object]]] = []

    def emit(self, event: str, /, **fields: object) -> None:
        self.all.append((event, fields))

    def reasons(self, event: str) -> list[str]:
        return [str(fields.get("reason")) for name, fields in self.all if name == event]


@dataclass
class Cluster:
    world: SimulatedWorld
    nodes: int = 3
    snapshot_bytes: int = 20_000_000
    machines: dict[int, Machine] = field(default_factory=dict)
    logs: dict[int, RaftMetadataLog] = field(default_factory=dict)
    events: dict[int, Events] = field(default_factory=dict)
    fatal: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        for i in range(1, self.nodes + 1):
            self.machines[i] = self.world.machine(f"m{i}")

    async def start(self, *ids: int, machine: Machine | None = None, **changes: object) -> None:
        for i in ids or self.machines:
            values: dict[str, object] = {
                "cluster_id": "c",
                "node_id": i,
                "secret": SECRET,
                "voters": {j: (f"m{j}", PORT) for j in self.machines},
                "listen": (f"m{i}", PORT),
                "directory": "/data/__cluster_metadata",
                "election_timeout_ms": 300,
                "snapshot_bytes": self.snapshot_bytes,
            }
            host = machine or self.machines[i]
            events = Events()
            log = RaftMetadataLog(
                host.environment,
                QuorumConfig(**{**values, **changes}),  # type: ignore[arg-type]
                raft_environment=host.environment,
                host=InlineHost(),
                events=events,
                on_fatal=self.fatal.append,
            )
            if machine is None:
                self.logs[i], self.events[i] = log, events
            else:
                self.events[-i] = events
            await host.run(log.start())

    def kill(self, i: int, *, power: bool = False) -> None:
        del self.logs[i]
        if power:
            self.machines[i].lose_power()
            self.machines[i].power_on()
        else:
            self.machines[i].kill()

    async def leader(self, *, among: tuple[int, ...] = ()) -> int:
        async with asyncio.timeout(20):
            while True:
                for i in among or tuple(self.logs):
                    if self.logs[i].leadership.is_self:
                        return i
                await asyncio.sleep(0.001)

    async def append(self, i: int, name: str) -> None:
        """Claim first when another node controls."""
        log, machine = self.logs[i], self.machines[i]
        if log.image.controller_id != i:
            epoch = log.image.controller_epoch + 1
            record = ControllerEpochRecord(epoch=epoch, node_id=i)
            await machine.run(log.append([record], controller_epoch=epoch, expected_offset=log.image.offset))
        fact = ConfigRecord(resource_type="broker", resource_name="", name=name, value="1")
        image = log.image
        await machine.run(log.append([fact], controller_epoch=image.controller_epoch, expected_offset=image.offset))

    async def append_until_done(self, name: str, *, within_s: float = 20) -> None:
        async with asyncio.timeout(within_s):
            while True:
                try:
                    await self.append(await self.leader(), name)
                except (AppendLost, AppendUnknown):
                    await asyncio.sleep(0.05)
                else:
                    return

    async def settle(self) -> None:
        async with asyncio.timeout(20):
            while len({log.image.offset for log in self.logs.values()}) > 1:  # noqa: ASYNC110 - has a deadline
                await asyncio.sleep(0.01)


def settings(log: RaftMetadataLog) -> set[str]:
    return set(log.image.config("broker", ""))


def test_a_leader_is_there_soon_after_the_start_and_soon_after_a_kill() -> None:
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
def test_acknowledged_appends_survive_kills_power_loss_and_partitions(seed: int) -> None:
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


def test_a_full_disk_suspends_a_voter_until_there_is_room() -> None:
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
        ({"secret": b"another"}, "the secrets differ"),
        ({"cluster_id": "other"}, "cluster id 'other'"),
    ],
)
def test_a_stranger_is_refused_and_disturbs_nobody(changes: dict[str, object], reason: str) -> None:
    world = SimulatedWorld(4)
    cluster = Cluster(world)

    async def scenario() -> None:
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


def test_two_nodes_with_one_id_are_noticed_and_the_first_stays() -> None:
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
        assert cluster.logs[1].leadership == Leadership(
            leader_id=cluster.logs[1].leadership.leader_id, term=term, is_self=cluster.logs[1].leadership.is_self
        )

    world.run(scenario())


def test_garbage_on_the_port_closes_that_connection_only() -> None:
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
