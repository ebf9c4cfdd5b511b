"""A snapshot of the cluster, from the answers of its nodes: the argument of predicates of `Cluster.until`. Pure.

Answers about the cluster come from the node with the newest metadata; `view` has the answers of one node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

NodeState: TypeAlias = Literal["running", "paused", "down"]
NOBODY = -1
UNKNOWN = -1

PartitionKey: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaView:
    """One replica, from the node that has it."""

    role: Literal["leader", "follower", "offline"]
    topic_id: str
    leader_epoch: int
    log_start_offset: int
    log_end_offset: int
    high_watermark: int
    isr: tuple[int, ...]
    maximal_isr: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionView:
    """One partition in the metadata of a node. `leader` is -1 without a leader."""

    topic_id: str
    leader: int
    leader_epoch: int
    partition_epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    is_reassigning: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """The answer of one node."""

    node: int
    metadata_offset: int
    controller_id: int
    controller_epoch: int
    brokers: Mapping[int, str]
    """Registered brokers: active, fenced or shutting down."""
    partitions: Mapping[PartitionKey, PartitionView]
    replicas: Mapping[PartitionKey, ReplicaView]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    at_us: int
    states: Mapping[int, NodeState]
    """The state of the process of every node."""
    views: Mapping[int, NodeView]
    """The answers of nodes."""

    @property
    def newest(self) -> NodeView | None:
        return max(self.views.values(), key=lambda view: view.metadata_offset, default=None)

    def view(self, node: int) -> NodeView | None:
        return self.views.get(node)

    def partition(self, topic: str, partition: int) -> PartitionView | None:
        newest = self.newest
        return None if newest is None else newest.partitions.get((topic, partition))

    def replica(self, topic: str, partition: int, *, node: int) -> ReplicaView | None:
        view = self.views.get(node)
        return None if view is None else view.replicas.get((topic, partition))

    def leader(self, topic: str, partition: int) -> int:
        found = self.partition(topic, partition)
        return NOBODY if found is None else found.leader

    def isr(self, topic: str, partition: int) -> tuple[int, ...]:
        """The committed ISR, sorted."""
        found = self.partition(topic, partition)
        return () if found is None else tuple(sorted(found.isr))

    def replicas(self, topic: str, partition: int) -> tuple[int, ...]:
        """The replicas in order of assignment: the first one is preferred."""
        found = self.partition(topic, partition)
        return () if found is None else found.replicas

    def epoch(self, topic: str, partition: int) -> int:
        found = self.partition(topic, partition)
        return UNKNOWN if found is None else found.leader_epoch

    def hw(self, topic: str, partition: int, *, node: int | None = None) -> int:
        """The value of the replica of one node, by default of the leader; -1 without an answer."""
        found = self.replica(topic, partition, node=self.leader(topic, partition) if node is None else node)
        return UNKNOWN if found is None else found.high_watermark

    def log_end(self, topic: str, partition: int, *, node: int | None = None) -> int:
        """The value of the replica of one node, by default of the leader; -1 without an answer."""
        found = self.replica(topic, partition, node=self.leader(topic, partition) if node is None else node)
        return UNKNOWN if found is None else found.log_end_offset

    def role(self, topic: str, partition: int, *, node: int) -> str:
        """leader, follower, offline or none, in the answer of the node itself."""
        found = self.replica(topic, partition, node=node)
        return "none" if found is None else found.role

    @property
    def controller(self) -> int:
        newest = self.newest
        return NOBODY if newest is None else newest.controller_id

    @property
    def controller_epoch(self) -> int:
        newest = self.newest
        return UNKNOWN if newest is None else newest.controller_epoch

    @property
    def active_brokers(self) -> tuple[int, ...]:
        newest = self.newest
        brokers = {} if newest is None else newest.brokers
        return tuple(sorted(broker for broker, state in brokers.items() if state == "active"))

    def state(self, node: int) -> str:
        """The state of a broker in the metadata: active, fenced, shutting down or down."""
        newest = self.newest
        return "down" if newest is None else newest.brokers.get(node, "down")

    def partitions(self, topic: str) -> tuple[int, ...]:
        """The partitions of a topic; empty if it does not exist."""
        newest = self.newest
        return tuple(sorted(n for name, n in newest.partitions if name == topic)) if newest else ()

    def alive(self, node: int) -> bool:
        return self.states.get(node) == "running"

    def describe(self) -> str:
        """One line per node, for the message of a wait that failed."""
        lines = [f"controller {self.controller}, active brokers {list(self.active_brokers)}"]
        newest = self.newest
        for (topic, number), found in sorted(newest.partitions.items()) if newest else ():
            lines.append(
                f"{topic}-{number}: leader {found.leader} in epoch {found.leader_epoch}, ISR {list(found.isr)}"
            )
        for node, state in sorted(self.states.items()):
            lines.append(f"node {node} {state}{_replicas(self.views.get(node))}")
        return "\n".join(lines)


def parse_view(document: dict[str, Any]) -> NodeView:
    """The answer of GET /kraft/partitions."""
    return NodeView(
        node=document["node_id"],
        metadata_offset=document["metadata_offset"],
        controller_id=document["controller_id"],
        controller_epoch=document["controller_epoch"],
        brokers={int(broker): state for broker, state in document["brokers"].items()},
        partitions={
            (found["topic"], found["partition"]): PartitionView(
                topic_id=found["topic_id"],
                leader=found["leader"],
                leader_epoch=found["leader_epoch"],
                partition_epoch=found["partition_epoch"],
                replicas=tuple(found["replicas"]),
                isr=tuple(found["isr"]),
                is_reassigning=found["is_reassigning"],
            )
            for found in document["partitions"]
        },
        replicas={(found["topic"], found["partition"]): _replica(found) for found in document["replicas"]},
    )


def _replica(found: dict[str, Any]) -> ReplicaView:
    return ReplicaView(
        role=found["role"],
        topic_id=found["topic_id"],
        leader_epoch=found["leader_epoch"],
        log_start_offset=found["log_start_offset"],
        log_end_offset=found["log_end_offset"],
        high_watermark=found["high_watermark"],
        isr=tuple(found["isr"]),
        maximal_isr=tuple(found["maximal_isr"]),
    )


def roles_in(snapshot: Snapshot | None, node: int) -> str:
    """` (leader of t-0, active controller)`, from the newest metadata of the snapshot; empty for neither."""
    newest = None if snapshot is None else snapshot.newest
    if newest is None:
        return ""
    roles = [f"leader of {t}-{n}" for (t, n), found in sorted(newest.partitions.items()) if found.leader == node]
    if len(roles) > 3:
        roles = [f"leader of {len(roles)} partitions"]
    if newest.controller_id == node != NOBODY:
        roles.append("active controller")
    return f" ({', '.join(roles)})" if roles else ""


# --- whole again ----------------------------------------------------------------------------------------------------


def not_in_sync(snapshot: Snapshot, *, is_excused: Callable[[PartitionKey], bool] = lambda _: False) -> str:
    """What is missing until all nodes have the same metadata and each partition has a leader and a full ISR, while
    clients may still write; empty: nothing. Excused partitions are not checked."""
    newest = snapshot.newest
    if newest is None:
        return "no node answers"
    problems = [f"node {node} gives no answer" for node in snapshot.states if node not in snapshot.views]
    problems += _behind_metadata(snapshot, newest)
    for (topic, number), found in sorted(newest.partitions.items()):
        if is_excused((topic, number)):
            continue
        leader = snapshot.replica(topic, number, node=found.leader)
        if found.is_reassigning or set(found.isr) != set(found.replicas):
            problems.append(f"{topic}-{number}: the ISR is {list(found.isr)} of {list(found.replicas)}")
        elif leader is None or leader.role != "leader" or leader.high_watermark < 0:
            problems.append(f"{topic}-{number}: no leader")
    return "; ".join(problems)


def unsettled(snapshot: Snapshot, *, is_excused: Callable[[PartitionKey], bool] = lambda _: False) -> str:
    """What is missing until each partition has a leader whose whole log is below its high watermark, and all live
    replicas are equal; empty: nothing. Clients have stopped writing."""
    newest = snapshot.newest
    if newest is None:
        return "no node answers"
    problems = _behind_metadata(snapshot, newest)
    for topic, number in sorted(newest.partitions):
        problem = "" if is_excused((topic, number)) else _unsettled_partition(snapshot, topic, number)
        if problem:
            problems.append(f"{topic}-{number}: {problem}")
    return "; ".join(problems)


def _behind_metadata(snapshot: Snapshot, newest: NodeView) -> list[str]:
    behind = [node for node, view in snapshot.views.items() if view.metadata_offset < newest.metadata_offset]
    return [f"node {node} has not caught up with the metadata" for node in behind]


def _unsettled_partition(snapshot: Snapshot, topic: str, number: int) -> str:
    leader = snapshot.replica(topic, number, node=snapshot.leader(topic, number))
    if leader is None or leader.role != "leader":
        return "no leader"
    if leader.high_watermark < leader.log_end_offset:
        return f"high watermark {leader.high_watermark} below the log end {leader.log_end_offset}"
    alive = [node for node in snapshot.replicas(topic, number) if snapshot.alive(node)]
    late = [node for node in alive if not _has_all(snapshot.replica(topic, number, node=node), leader)]
    return f"nodes {late} have not caught up" if late else ""


def _has_all(replica: ReplicaView | None, leader: ReplicaView) -> bool:
    if replica is None:
        return False
    return replica.log_end_offset == leader.log_end_offset and replica.high_watermark == leader.high_watermark


def _replicas(view: NodeView | None) -> str:
    if view is None:
        return ", gives no answer"
    ends = [
        f" {topic}-{number} {replica.role} epoch {replica.leader_epoch}"
        f" high watermark {replica.high_watermark} log end {replica.log_end_offset}"
        for (topic, number), replica in sorted(view.replicas.items())
    ]
    return ":" + ",".join(ends)
