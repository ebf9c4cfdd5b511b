"""Three real voters in one process: real threads, real files, real sockets on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from kraft.runtime.environment import close_environment, system_environment
from kraft.runtime.quorum_thread import QuorumThread
from metadata.quorum.config import QuorumConfig
from metadata.quorum.raft_log import RaftMetadataLog
from metadata.records import ConfigRecord, ControllerEpochRecord
from tests.support.ports import free_ports, own_host

SECRET = b"a secret of the cluster"


class RecordedEvents:
    def __init__(self) -> None:
        self.all: list[tuple[str, dict[str, object]]] = []

    def emit(self, event: str, /, **fields: object) -> None:
        self.all.append((event, fields))

    def named(self, event: str) -> list[dict[str, object]]:
        return [fields for name, fields in self.all if name == event]


def setting(name: str, value: str = "1") -> ConfigRecord:
    return ConfigRecord(resource_type="broker", resource_name="", name=name, value=value)


async def until(condition: Callable[[], bool], *, timeout_s: float = 120) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - polls with a deadline
            await asyncio.sleep(0.002)


class Cluster:
    def __init__(
        self, directory: Path, *, voters: int = 3, snapshot_bytes: int = 20_000_000, election_timeout_ms: int = 300
    ) -> None:
        self._directory = directory
        self._election_timeout_ms = election_timeout_ms
        self._snapshot_bytes = snapshot_bytes
        host = own_host()
        self.addresses = {number: (host, port) for number, port in enumerate(free_ports(voters, host=host), 1)}
        self.logs: dict[int, RaftMetadataLog] = {}
        self.events: dict[int, RecordedEvents] = {}
        self.fatal: list[BaseException] = []
        self._environment = system_environment()

    def config(self, node: int, **changes: object) -> QuorumConfig:
        values: dict[str, object] = {
            "cluster_id": "test-cluster",
            "node_id": node,
            "key": SECRET,
            "voters": self.addresses,
            "listen": self.addresses[node],
            "directory": str(self._directory / str(node) / "__cluster_metadata"),
            "election_timeout_ms": self._election_timeout_ms,
            "snapshot_bytes": self._snapshot_bytes,
        }
        return QuorumConfig(**{**values, **changes})  # type: ignore[arg-type]

    def make(self, config: QuorumConfig) -> tuple[RaftMetadataLog, RecordedEvents]:
        host, events = QuorumThread(), RecordedEvents()
        log = RaftMetadataLog(
            self._environment,
            config,
            raft_environment=host.environment,
            host=host,
            events=events,
            on_fatal=self.fatal.append,
        )
        return log, events

    async def start(self, *nodes: int) -> None:
        for node in nodes or self.addresses:
            log, self.events[node] = self.make(self.config(node))
            await log.start()
            self.logs[node] = log

    async def stop(self, *nodes: int) -> None:
        for node in nodes or list(self.logs):
            await self.logs.pop(node).stop()

    async def leader(self) -> RaftMetadataLog:
        await until(lambda: any(log.leadership.is_self for log in self.logs.values()))
        return next(log for log in self.logs.values() if log.leadership.is_self)

    def is_settled(self) -> bool:
        """Each voter is connected with every other, follows the leader and has all that it has."""
        beliefs = {node: str(log._engine._node) for node, log in self.logs.items()}
        connected = [f"connected {sorted(set(beliefs) - {node})}" in belief for node, belief in beliefs.items()]
        leaders = {belief.partition(" commit")[0] for belief in beliefs.values()}
        return all(connected) and len(leaders) == 1 and len({log.image.offset for log in self.logs.values()}) == 1

    async def claim(self) -> tuple[RaftMetadataLog, int]:
        """A leader with an epoch of its own."""
        leader = await self.leader()
        epoch = leader.image.controller_epoch + 1
        record = ControllerEpochRecord(epoch=epoch, node_id=leader.leadership.leader_id)
        await leader.append([record], controller_epoch=epoch, expected_offset=leader.image.offset)
        return leader, epoch

    async def close(self) -> None:
        await self.stop()
        close_environment(self._environment)
        assert not self.fatal, self.fatal


@asynccontextmanager
async def running(directory: Path, **options: int) -> AsyncIterator[Cluster]:
    cluster = Cluster(directory, **options)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.close()
