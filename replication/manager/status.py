"""State of the replicas of this broker: numbers for metrics and status pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from metadata.image import TopicIdPartition
from replication.manager.registry import Registry
from replication.partition.replica import Replica
from replication.partition.states import NEVER_MS, LeaderState


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStatus:
    topic: str
    partition: int
    is_leader: bool
    leader: int
    leader_epoch: int
    partition_epoch: int
    log_start_offset: int
    log_end_offset: int
    high_watermark: int
    isr: tuple[int, ...]
    maximal_isr: tuple[int, ...]
    replicas: tuple[int, ...]
    lag: dict[int, int]
    """Follower -> records behind this leader; empty on followers."""
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicationStatus:
    partitions: int
    leaders: int
    under_replicated: int
    under_min_isr: int
    at_min_isr: int
    offline: int
    read_only: int
    waiting_produces: int
    waiting_fetches: int
    fetch_sessions: int


def replication_status(registry: Registry, *, fetch_sessions: int) -> ReplicationStatus:
    led = [state for _replica, state in registry.led()]
    return ReplicationStatus(
        partitions=len(registry.replicas),
        leaders=len(led),
        under_replicated=sum(len(state.isr.members) < len(state.image.replicas) for state in led),
        under_min_isr=sum(state.is_under_min_isr for state in led),
        at_min_isr=sum(len(state.isr.members) == state.min_isr for state in led),
        offline=len(registry.offline),
        read_only=len(registry.read_only),
        waiting_produces=len(registry.produces),
        waiting_fetches=len(registry.fetches),
        fetch_sessions=fetch_sessions,
    )


def replica_status(replica: Replica) -> ReplicaStatus:
    state, log = replica.state, replica.log
    is_leader = isinstance(state, LeaderState)
    isr = state.isr.members if isinstance(state, LeaderState) else state.image.isr
    return ReplicaStatus(
        topic=replica.topic,
        partition=replica.key.partition,
        is_leader=is_leader,
        leader=state.image.leader,
        leader_epoch=state.leader_epoch,
        partition_epoch=state.partition_epoch if isinstance(state, LeaderState) else state.image.partition_epoch,
        log_start_offset=log.log_start_offset,
        log_end_offset=log.log_end_offset,
        high_watermark=state.high_watermark,
        isr=isr,
        maximal_isr=state.isr.maximal if isinstance(state, LeaderState) else isr,
        replicas=state.image.replicas,
        lag=_lag(state, log.log_end_offset) if isinstance(state, LeaderState) else {},
        size_bytes=log.size_bytes,
    )


def _lag(state: LeaderState, log_end_offset: int) -> dict[int, int]:
    return {replica: log_end_offset - max(progress.end_offset, 0) for replica, progress in state.followers.items()}


def open_transactions_of(replica: Replica, *, now_ms: int) -> OpenTransactions | None:
    """Those of one replica; None while none is open and no marker is awaited."""
    states = replica.log.producer_states
    if not states.has_unstable:
        return None
    since_ms = states.open_since_ms
    found = OpenTransactions(
        topic=replica.topic,
        partition=replica.key.partition,
        is_leader=isinstance(replica.state, LeaderState),
        count=states.open_transactions,
        oldest_ms=0 if since_ms is None else max(now_ms - since_ms, 0),
        last_stable_offset_lag=max(replica.state.high_watermark - replica.log.last_stable_offset, 0),
    )
    return found if found.count or found.last_stable_offset_lag else None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTransactions:
    """Open transactions of one local replica."""

    topic: str
    partition: int
    is_leader: bool
    count: int
    oldest_ms: int
    """Time for which the oldest has been open; 0 when only markers are not replicated yet."""
    last_stable_offset_lag: int
    """Number of records below the high watermark that read_committed consumers wait for."""


def open_transactions(registry: Registry) -> list[OpenTransactions]:
    """Open transactions of all replicas, the oldest first: hanging ones, and those that consumers wait for
    (KIP-664)."""
    now_ms = registry.clock.wall_ms()
    found = (open_transactions_of(replica, now_ms=now_ms) for replica in registry.replicas.values())
    return sorted((each for each in found if each is not None), key=lambda each: -each.oldest_ms)


def all_replica_status(registry: Registry) -> dict[TopicIdPartition, ReplicaStatus]:
    return {key: replica_status(replica) for key, replica in registry.replicas.items()}


class ReplicaMarks(NamedTuple):
    """Where the log of one replica of this broker begins and ends, for those who watch it."""

    role: str
    """`leader`, `follower` or `offline`."""
    leader_epoch: int
    log_start_offset: int
    last_stable_offset: int
    high_watermark: int
    log_end_offset: int
    size_bytes: int


class FollowerMarks(NamedTuple):
    """What a leader knows of one follower; ages in ms, -1 before the first fetch."""

    log_end_offset: int
    fetched_ms_ago: int
    caught_up_ms_ago: int


def replica_marks(registry: Registry, keys: Iterable[TopicIdPartition]) -> dict[TopicIdPartition, ReplicaMarks]:
    """Those of these partitions that have a replica here."""
    found: dict[TopicIdPartition, ReplicaMarks] = {}
    for key in keys:
        replica = registry.replicas.get(key)
        if replica is not None:
            state, log = replica.state, replica.log
            role = "leader" if isinstance(state, LeaderState) else "follower"
            found[key] = ReplicaMarks(
                role,
                state.leader_epoch,
                log.log_start_offset,
                log.last_stable_offset,
                state.high_watermark,
                log.log_end_offset,
                log.size_bytes,
            )
        elif (offline := registry.offline.get(key)) is not None:
            found[key] = ReplicaMarks("offline", offline.image.leader_epoch, -1, -1, -1, -1, -1)
    return found


def follower_marks(registry: Registry, key: TopicIdPartition) -> Mapping[int, FollowerMarks]:
    """What this broker knows of the followers of a partition that it leads; empty when it does not."""
    replica = registry.replicas.get(key)
    if replica is None or not isinstance(replica.state, LeaderState):
        return {}
    now_ms = registry.clock.monotonic_ms()
    return {
        node: FollowerMarks(
            progress.end_offset, _ago(now_ms, progress.last_fetched_ms), _ago(now_ms, progress.last_caught_up_ms)
        )
        for node, progress in replica.state.followers.items()
    }


def _ago(now_ms: int, at_ms: int) -> int:
    return -1 if at_ms == NEVER_MS else max(now_ms - at_ms, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaDetail:
    """One replica with what only a look at it alone is worth."""

    status: ReplicaStatus | None
    """None where its log does not work."""
    latest_epoch: int
    last_stable_offset: int
    followers: Mapping[int, FollowerMarks]
    """Empty on followers."""
    transactions: OpenTransactions | None
    failure: str
    """The error of a log that is offline, or cannot be written; empty otherwise."""


def replica_detail(registry: Registry, key: TopicIdPartition) -> ReplicaDetail | None:
    """None where this broker has no replica of the partition."""
    replica, offline = registry.replicas.get(key), registry.offline.get(key)
    if replica is None and offline is None:
        return None
    failure = offline.reason if offline is not None else registry.read_only.get(key, "")
    if replica is None or (offline is not None and key not in registry.read_only):
        return ReplicaDetail(
            status=None, latest_epoch=-1, last_stable_offset=-1, followers={}, transactions=None, failure=failure
        )
    return ReplicaDetail(
        status=replica_status(replica),
        latest_epoch=replica.log.latest_epoch,
        last_stable_offset=replica.log.last_stable_offset,
        followers=follower_marks(registry, key),
        transactions=open_transactions_of(replica, now_ms=registry.clock.wall_ms()),
        failure=failure,
    )
