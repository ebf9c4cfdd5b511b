"""What one node knows of the cluster, for those who watch it: its metadata, its own replicas, its connections.

Nothing is kept between two questions but which partitions a scope picks from an image, so that a node that nobody
watches does nothing for this. Rows are arrays: hundreds of them are sent several times a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple, Protocol

import msgspec
from msgspec import Struct

from kraft.broker.gateway import Gateway
from kraft.broker.permissions import Permissions, permissions_of
from kraft.broker.principal import UserPrincipal, decode_user
from metadata.acls import AclOperation, AclResource
from metadata.authorizer import Authorizer
from metadata.environment import Clock
from metadata.image import MetadataImage, PartitionImage, TopicIdPartition
from metadata.internal_topics import INTERNAL_TOPICS
from replication.manager.status import FollowerMarks, ReplicaMarks

SHOWN_MAX: Final = 500
"""Partitions of one answer."""
SHOWN_DEFAULT: Final = 200
DETAILED_MAX: Final = 4
"""Scopes that pick no more partitions than this get the followers' progress and the leader epochs, too."""
PICKED_AGAIN_MS: Final = 1_000
"""How long the picked partitions of a large cluster stay the same while its metadata changes."""
LARGE: Final = 2_000
"""Partitions from which on a cluster is a large one."""
PICKS_KEPT_MAX: Final = 16

OFFLINE, UNDER_MIN_ISR, UNDER_REPLICATED, REASSIGNING, WELL = range(5)
"""The standing of a partition, the worst first."""


class Scope(Struct, frozen=True, kw_only=True):
    """Which partitions are asked for: the worst first, then those of users, then by name."""

    filter: str = ""
    """Part of `topic-partition`, or with `exact` the whole of it."""
    exact: bool = False
    only_bad: bool = False
    limit: int = SHOWN_DEFAULT
    asker: str = ""
    """The user who asks, as `asker_of` writes it: a topic that it may not describe is as one that does not exist, in
    all numbers too. Empty: one who may describe everything."""


class Totals(Struct, frozen=True, kw_only=True):
    """Numbers of partitions: all, those in a bad standing, those that the scope matches, and those shown of them."""

    topics: int
    partitions: int
    leaders: dict[int, int]
    """Node -> partitions that it leads."""
    offline: int
    under_min_isr: int
    under_replicated: int
    matched: int
    shown: int


class NodeFacts(Struct, frozen=True, kw_only=True):
    """One node's answer. Partitions have keys such as `orders-0`; `at_ms` is the node's wall clock."""

    node_id: int
    at_ms: int
    metadata_offset: int
    controller_id: int
    controller_epoch: int
    awaits: str
    brokers: dict[int, str]
    links: dict[int, dict[str, bool]]
    """Other node -> purpose -> whether this node's connection is open."""
    totals: Totals
    partitions: dict[str, tuple[int, int, tuple[int, ...], tuple[int, ...], int, int]]
    """Leader, leader epoch, replicas, ISR, standing, effective min.insync.replicas."""
    replicas: dict[str, ReplicaMarks]
    """This node's own."""
    followers: dict[str, dict[int, FollowerMarks]]
    """Followers of the partitions that this node leads, when a few are asked for."""
    epochs: dict[str, tuple[tuple[int, int], ...]]
    """Leader epochs of this node's own replicas with their start offsets, when a few are asked for."""


class Replicas(Protocol):
    """The replicas of a broker."""

    def marks(self, keys: Iterable[TopicIdPartition]) -> Mapping[TopicIdPartition, ReplicaMarks]: ...
    def follower_marks(self, key: TopicIdPartition) -> Mapping[int, FollowerMarks]: ...


class Picked(NamedTuple):
    """The partitions that a scope picks from an image."""

    image: MetadataImage
    at_ms: int
    keys: Mapping[TopicIdPartition, str]
    rows: dict[str, tuple[int, int, tuple[int, ...], tuple[int, ...], int, int]]
    totals: Totals


def standing(partition: PartitionImage, min_isr: int) -> int:
    """The worst that is true of a partition."""
    if not partition.has_leader:
        return OFFLINE
    if len(partition.isr) < min_isr:
        return UNDER_MIN_ISR
    if partition.is_under_replicated:
        return UNDER_REPLICATED
    return REASSIGNING if partition.is_reassigning else WELL


def pick(
    image: MetadataImage,
    scope: Scope,
    min_isr_of: Callable[[str], int],
    *,
    at_ms: int,
    may: Permissions | None = None,
) -> Picked:
    """The partitions of this scope with their rows, and the totals of all: of all that `may` allows to describe."""
    counts, leaders = [0] * (WELL + 1), dict.fromkeys(image.brokers, 0)
    topics = [each for each in image.topics.values() if _is_described(may, each.name)]
    topics.sort(key=lambda each: (each.name in INTERNAL_TOPICS, each.name))
    # The order within a standing is that of the walk: of thousands of partitions only those that are shown are kept.
    found: list[list[tuple[str, int, TopicIdPartition, PartitionImage, int, int]]] = [[] for _ in counts]
    matched = 0
    for topic in topics:
        wanted_isr, name = min_isr_of(topic.name), topic.name
        for number, partition in sorted(topic.partitions.items()):
            min_isr = min(wanted_isr, len(partition.replicas))
            state = standing(partition, min_isr)
            counts[state] += 1
            if partition.has_leader:
                leaders[partition.leader] = leaders.get(partition.leader, 0) + 1
            if state >= REASSIGNING and scope.only_bad:
                continue
            if scope.filter and not _matches(scope, f"{name}-{number}"):
                continue
            matched += 1
            if len(found[state]) < scope.limit:
                key = TopicIdPartition(topic.topic_id, number)
                found[state].append((name, number, key, partition, state, min_isr))
    shown = [each for alike in found for each in alike][: scope.limit]
    totals = Totals(
        topics=len(topics),
        partitions=sum(counts),
        leaders=leaders,
        offline=counts[OFFLINE],
        under_min_isr=counts[UNDER_MIN_ISR],
        under_replicated=counts[UNDER_REPLICATED],
        matched=matched,
        shown=len(shown),
    )
    keys = {key: f"{name}-{number}" for name, number, key, _, _, _ in shown}
    rows = {
        f"{name}-{number}": (
            partition.leader, partition.leader_epoch, partition.replicas, partition.isr, state, min_isr,
        )
        for name, number, _, partition, state, min_isr in shown
    }  # fmt: skip
    return Picked(image, at_ms, keys, rows, totals)


def _is_described(may: Permissions | None, topic: str) -> bool:
    return may is None or may.silently(AclOperation.DESCRIBE, AclResource.TOPIC, topic)


def _matches(scope: Scope, name: str) -> bool:
    return name == scope.filter if scope.exact else scope.filter in name


class FactsOfNode:
    """Answers what this node knows. `replicas` is None on a node that is no broker; `epochs` returns the leader epochs
    of a log here, each with its first offset."""

    def __init__(
        self,
        *,
        gateway: Gateway,
        clock: Clock,
        replicas: Replicas | None,
        epochs: Callable[[TopicIdPartition], Sequence[tuple[int, int]]],
        links: Callable[[], dict[int, dict[str, bool]]],
        awaits: Callable[[], str],
    ) -> None:
        self._gateway = gateway
        self._clock = clock
        self._replicas = replicas
        self._epochs = epochs
        self._links = links
        self._awaits = awaits
        self._picked: dict[Scope, tuple[Picked, Authorizer | None]] = {}

    def facts(self, scope: Scope) -> NodeFacts:
        """The facts at this moment."""
        gateway, picked = self._gateway, self._pick(scope)
        image, replicas, keys = gateway.image, self._replicas, picked.keys
        details = keys if len(keys) <= DETAILED_MAX and replicas is not None else {}
        marks = {} if replicas is None else replicas.marks(keys)
        return NodeFacts(
            node_id=gateway.node_id,
            at_ms=self._clock.wall_ms(),
            metadata_offset=image.offset,
            controller_id=gateway.controller_id,
            controller_epoch=image.controller_epoch,
            awaits=self._awaits(),
            brokers={
                each.broker_id: "shutting down"
                if each.in_controlled_shutdown
                else "fenced"
                if each.fenced
                else "active"
                for each in image.brokers.values()
            },
            links=self._links(),
            totals=picked.totals,
            partitions=picked.rows,
            replicas={keys[key]: row for key, row in marks.items()},
            followers={name: dict(known) for key, name in details.items() if (known := _followers(replicas, key))},
            epochs={name: found for key, name in details.items() if (found := tuple(self._epochs(key)))},
        )

    def _pick(self, scope: Scope) -> Picked:
        gateway, now_ms = self._gateway, self._clock.monotonic_ms()
        image, authorizer = gateway.image, gateway.authorizer
        kept, decided_by = self._picked.get(scope, (None, None))
        if kept is not None and (not scope.asker or decided_by is authorizer):
            is_large = max(kept.totals.partitions, len(image.topics)) > LARGE
            if kept.image is image or (is_large and now_ms - kept.at_ms < PICKED_AGAIN_MS):
                return kept
        elif kept is None and len(self._picked) >= PICKS_KEPT_MAX:
            del self._picked[next(iter(self._picked))]
        settings = gateway.topic_settings
        may = permissions_of(authorizer, decode_user(scope.asker.encode())) if scope.asker else None
        picked = pick(image, scope, lambda topic: settings(topic).min_insync_replicas, at_ms=now_ms, may=may)
        self._picked[scope] = picked, authorizer
        return picked


def asker_of(principal: UserPrincipal) -> str:
    """The user of a scope."""
    return replace(principal, client_id=None).encode().decode()


def _followers(replicas: Replicas | None, key: TopicIdPartition) -> Mapping[int, FollowerMarks]:
    return {} if replicas is None else replicas.follower_marks(key)


def encode_scope(scope: Scope) -> bytes:
    """MessagePack, between nodes."""
    return msgspec.msgpack.encode(scope)


def decode_scope(data: bytes) -> Scope:
    """Raises msgspec's errors for what is none; a limit out of range is the nearest that is in it."""
    scope = msgspec.msgpack.decode(data, type=Scope)
    if scope.asker:
        try:
            decode_user(scope.asker.encode())
        except ValueError as error:
            raise msgspec.ValidationError(str(error)) from error
    return msgspec.structs.replace(scope, limit=min(max(scope.limit, 1), SHOWN_MAX))


def encode_facts(facts: NodeFacts) -> bytes:
    """MessagePack, between nodes."""
    return msgspec.msgpack.encode(facts)


def decode_facts(data: bytes) -> NodeFacts:
    """Raises msgspec's errors for what is none."""
    return msgspec.msgpack.decode(data, type=NodeFacts)
