"""Which node a client sends its requests to: a named one, the last known leader, or all brokers in turn."""

from __future__ import annotations

from typing import Final, Literal, Protocol, TypeAlias

from kraft.chaos.workload.client import Client
from kraft.chaos.workload.group_client import GroupClient, Membership
from kraft.chaos.workload.queue_client import QueueClient, QueuePlan
from kraft.chaos.workload.transaction_client import TransactionClient, TransactionPlan
from kraft.chaos.worlds.snapshot import NOBODY, Snapshot

AVOID_MS: Final = 500
Target: TypeAlias = int | Literal["any", "leader"]


class ClientWorld(Protocol):
    """What a client needs from a `Cluster`."""

    @property
    def brokers(self) -> tuple[int, ...]: ...
    @property
    def latest(self) -> Snapshot | None:
        """The last snapshot of the cluster."""
        ...

    def now_us(self) -> int:
        """The time of the clock of the run."""
        ...

    def client(self, name: str, *, in_flight_max: int) -> Client:
        """A new client with links of its own, not open yet."""
        ...

    def transaction_client(self, name: str, plan: TransactionPlan) -> TransactionClient:
        """The same, for a transactional producer."""
        ...

    def group_client(self, name: str, membership: Membership) -> GroupClient:
        """The same, for a member of a group."""
        ...

    def queue_client(self, name: str, plan: QueuePlan) -> QueueClient:
        """The same, for a worker of a queue."""
        ...


class Targets:
    def __init__(self, client_world: ClientWorld, *, target: Target) -> None:
        self._client_world = client_world
        self._target = target
        self._turn = 0
        self.nodes: tuple[int, ...] = (target,) if isinstance(target, int) else client_world.brokers
        """The brokers that the client may use."""
        self._refused_us: dict[int, int] = {}
        """Node -> the time at which it last refused a connection."""

    def choose(self, topic: str, partition: int) -> int:
        """The node for the next attempt."""
        if isinstance(self._target, int):
            return self._target
        if self._target == "leader":
            latest = self._client_world.latest
            leader = NOBODY if latest is None else latest.leader(topic, partition)
            if leader in self.nodes:
                return leader
        self._turn += 1
        since = self._client_world.now_us() - AVOID_MS * 1000
        nodes = [node for node in self.nodes if self._refused_us.get(node, -AVOID_MS * 1000) < since] or self.nodes
        return nodes[self._turn % len(nodes)]

    def refused(self, node: int) -> None:
        """The node refused a connection: the client avoids it for a while, if it may choose."""
        self._refused_us[node] = self._client_world.now_us()

    def partitions(self, topic: str) -> tuple[int, ...]:
        """The partitions in the last snapshot; at least partition 0."""
        latest = self._client_world.latest
        return (latest.partitions(topic) if latest else ()) or (0,)
