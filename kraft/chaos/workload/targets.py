"""Which node a client turns to: one that was named, the leader as last seen, or all brokers in turn."""

from __future__ import annotations

from typing import Final, Literal, Protocol, TypeAlias

from kraft.chaos.worlds.processes.timeline import now_us
from kraft.chaos.worlds.snapshot import NOBODY, Snapshot

AVOID_MS: Final = 500
Target: TypeAlias = int | Literal["any", "leader"]


class Surroundings(Protocol):
    """What a client needs of a `Cluster`."""

    @property
    def brokers(self) -> tuple[int, ...]: ...
    @property
    def latest(self) -> Snapshot | None:
        """The last look at the cluster."""
        ...

    async def client_address(self, client: str, node: int) -> str: ...


class Targets:
    def __init__(self, around: Surroundings, *, client: str, target: Target) -> None:
        self._around = around
        self._client = client
        self._target = target
        self._turn = 0
        self._addresses: dict[int, str] = {}
        self._refused_us: dict[int, int] = {}
        """Node -> when it last refused a connection."""

    async def open(self) -> None:
        """Make the client's links, so that they can be broken before it has sent anything."""
        nodes = (self._target,) if isinstance(self._target, int) else self._around.brokers
        for node in nodes:
            self._addresses[node] = await self._around.client_address(self._client, node)

    def choose(self, topic: str, partition: int) -> int:
        """The node for the next attempt."""
        if isinstance(self._target, int):
            return self._target
        if self._target == "leader":
            latest = self._around.latest
            leader = NOBODY if latest is None else latest.leader(topic, partition)
            if leader in self._addresses:
                return leader
        self._turn += 1
        since = now_us() - AVOID_MS * 1000
        nodes = [node for node in self._addresses if self._refused_us.get(node, 0) < since] or list(self._addresses)
        return nodes[self._turn % len(nodes)]

    def refused(self, node: int) -> None:
        """A client that may choose leaves this node alone for a while."""
        self._refused_us[node] = now_us()

    def address(self, node: int) -> str:
        return self._addresses[node]

    def partitions(self, topic: str) -> tuple[int, ...]:
        """As last seen; at least partition 0."""
        latest = self._around.latest
        return (latest.partitions(topic) if latest else ()) or (0,)
