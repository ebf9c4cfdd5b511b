"""What a node reports of itself and of one partition: the answer of `GET /kraft/evidence`, and all that deciders see.

Times that end with `_ms_ago` are ages at the moment of the answer, on the monotonic clock of the node that reports;
None is never.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from metadata.decode_errors import DECODE_ERRORS

NO_LEADER: Final = -1
Event: TypeAlias = dict[str, Any]
"""The fields of a line of `events.jsonl`: `event`, `at_ms`, `node_id` and fields of its own."""
BrokerState: TypeAlias = Literal["active", "fenced", "shutting down"]


class KnownPartition(msgspec.Struct, frozen=True, kw_only=True):
    """A partition in the node's copy of the metadata."""

    leader: int
    leader_epoch: int
    partition_epoch: int
    replicas: list[int]
    isr: list[int]
    adding: list[int] = []
    removing: list[int] = []
    is_recovering: bool = False
    """After an unclean election its leader has not recovered yet."""
    min_isr: int
    """min.insync.replicas, at most the number of replicas (P2)."""
    is_unclean_allowed: bool
    """unclean.leader.election.enable of the topic."""


class FollowerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A follower as its leader knows it."""

    end_offset: int
    """-1: it has not fetched in this epoch."""
    fetched_ms_ago: int | None
    caught_up_ms_ago: int | None


class ReplicaFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The node's own replica."""

    role: Literal["leader", "follower"]
    leader_epoch: int
    log_start_offset: int
    log_end_offset: int
    latest_epoch: int
    """Leader epoch of its last record; -1: it has none."""
    high_watermark: int
    last_stable_offset: int
    isr: list[int]
    maximal_isr: list[int]
    """The ISR with those that are about to join it (I7)."""
    followers: dict[int, FollowerFacts] = {}
    """On a leader: the other replicas."""
    open_transactions: int = 0
    oldest_transaction_ms: int = 0


class NodeEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """One node, at one moment."""

    node_id: int
    at_ms: int
    """On the wall clock of the node."""
    awaits: str
    """What it waits for before it takes part; empty when it does."""
    metadata_offset: int
    controller_id: int
    """The quorum's leader as the node knows it; -1: none."""
    term: int
    voters: list[int]
    brokers: dict[int, BrokerState]
    """The registered brokers, in the node's copy of the metadata."""
    heartbeats_ms_ago: dict[int, int] = {}
    """On the active controller: when it heard of each broker last."""
    lag_ms_max: int = 30_000
    """replica.lag.time.max.ms"""
    session_ms: int = 9_000
    """broker.session.timeout.ms"""
    partition: KnownPartition | None = None
    replica: ReplicaFacts | None = None
    failure: str = ""
    """The error of the node's log of the partition, which failed or cannot be written."""
    failed_directories: dict[str, str] = {}
    """Log directories of the node that do not work -> the error."""
    events: list[Event] = []
    """Newest events of the partition, and those of the node that may concern it, oldest first."""
    clients: list[Event] = []
    """Newest events about clients that were refused or throttled, oldest first; where no partition is asked for."""
    forgotten: int = 0
    """Older events that the node's memory does not have any more."""


def read_evidence(body: bytes) -> NodeEvidence:
    """Another node's answer. Raises ValueError for what is none."""
    try:
        return msgspec.json.decode(body, type=NodeEvidence)
    except DECODE_ERRORS as error:
        raise ValueError(str(error) or type(error).__name__) from error


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """All that could be found out, by one node that asked all of them."""

    asked: int
    """The node that asked."""
    at_ms: int
    nodes: Mapping[int, NodeEvidence]
    ages_ms: Mapping[int, int] = {}
    """Time since each node has answered."""
    unreached: Mapping[int, str] = {}
    """Nodes that did not answer -> why."""

    @property
    def newest(self) -> NodeEvidence:
        """The node with the newest metadata; the asking one among equals."""
        return max(self.nodes.values(), key=lambda each: (each.metadata_offset, each.node_id == self.asked))

    def events(self, *names: str) -> list[Event]:
        """Events of these names, of all nodes, oldest first."""
        found = [each for node in self.nodes.values() for each in node.events if not names or each["event"] in names]
        return sorted(found, key=lambda each: (each["at_ms"], each["node_id"], each.get("position", 0)))

    def last(self, *names: str, **fields: object) -> Event | None:
        """The last event of these names whose fields have these values."""
        for event in reversed(self.events(*names)):
            if all(event.get(name) == wanted for name, wanted in fields.items()):
                return event
        return None


def newer(one: Event | None, other: Event | None) -> Event | None:
    """The later of two events, where there are both."""
    if one is None or other is None:
        return other if one is None else one
    return one if one["at_ms"] >= other["at_ms"] else other
