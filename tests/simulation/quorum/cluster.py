"""Whole RaftMetadataLogs on simulated machines: engine, link, hosting and files, without replaced parts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from kraft.chaos.worlds.simulated.cluster import form_voter
from kraft.chaos.worlds.simulated.environment import Machine, SimulatedWorld
from metadata.quorum.config import QuorumConfig
from metadata.quorum.log import AppendLost, AppendUnknown
from metadata.quorum.raft_host import InlineHost
from metadata.quorum.raft_log import RaftMetadataLog
from metadata.records import ConfigRecord, ControllerEpochRecord

PORT = 9093
SECRET = b"s3cret"
DIRECTORY = "/data/__cluster_metadata"


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
    twins: dict[int, RaftMetadataLog] = field(default_factory=dict)
    """Started on a machine of its own, beside the first of its id; its events are those of the negative id."""
    events: dict[int, Events] = field(default_factory=dict)
    fatal: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        for i in range(1, self.nodes + 1):
            self.machines[i] = self.world.machine(f"m{i}")

    def form(self, *ids: int) -> None:
        """These voters have met before: a majority is enough for a beginning."""
        for i in ids:
            form_voter(self.machines[i].environment.files, DIRECTORY, cluster_id="c", node_id=i)

    async def start(self, *ids: int, machine: Machine | None = None, **changes: object) -> None:
        for i in ids or self.machines:
            values: dict[str, object] = {
                "cluster_id": "c",
                "node_id": i,
                "key": SECRET,
                "voters": {j: (f"m{j}", PORT) for j in self.machines},
                "listen": (f"m{i}", PORT),
                "directory": DIRECTORY,
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
                self.twins[i], self.events[-i] = log, events
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
