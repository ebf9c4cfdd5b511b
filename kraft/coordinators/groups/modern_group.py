"""What groups of the consumer protocol (KIP-848) and share groups (KIP-932) have in common, as in Kafka's ModernGroup.

The group has an epoch, which rises when a member comes, goes or wants something else, or when topics change. For each
epoch the coordinator computes a target assignment, and each member goes there from heartbeat to heartbeat. All facts
come from records through `apply`, alike when they were decided and when the log is replayed; deadlines are soft. A
group is changed while it is loaded and within one decision, which works on a copy; otherwise it is read only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Generic, Self, TypeVar

from kraft.coordinators.groups.consumer_records import Partitions
from metadata.persistent_map import MapDraft, PersistentMap, spread_text, text_draft

NEVER_MS = 2**62
JOIN_EPOCH = 0
LEAVE_EPOCH = -1
FIRST_EPOCH = 1
"""A new group has an empty target assignment of this epoch, so that a member may have an epoch, which is not 0, before
the first assignment is computed (KAFKA-20268)."""


class Timer(Enum):
    SESSION = auto()
    REBALANCE = auto()
    """While a member of the consumer protocol has partitions to give up."""
    JOIN = auto()
    """Until a member of the classic protocol joins again, as it was asked to."""
    SYNC = auto()
    """Until a member of the classic protocol asks for its assignment."""


K = TypeVar("K")
V = TypeVar("V")
MemberT = TypeVar("MemberT")


def by_text() -> MapDraft[str, V]:
    return text_draft({})


def _spread_timer(key: tuple[Timer, str]) -> int:
    return spread_text(key[1])


def _by_member() -> MapDraft[tuple[Timer, str], int]:
    return PersistentMap[tuple[Timer, str], int]({}, spread=_spread_timer, buckets=1).draft()


def count(counts: MapDraft[K, int], key: K, by: int) -> None:
    """What counts nothing is not there."""
    left = counts.get(key, 0) + by
    if left:
        counts[key] = left
    else:
        del counts[key]


@dataclass(slots=True, kw_only=True)
class ModernGroup(ABC, Generic[MemberT]):
    group_id: str
    epoch: int = FIRST_EPOCH
    metadata_hash: int = 0
    """A hash of the topics that the members want, as they were when the epoch rose."""
    assignment_epoch: int = FIRST_EPOCH
    members: MapDraft[str, MemberT] = field(default_factory=by_text)
    targets: MapDraft[str, Partitions] = field(default_factory=by_text)
    # Derived from these, kept up to date by `apply`:
    topic_counts: MapDraft[str, int] = field(default_factory=by_text)
    """Topic -> how many members name it, and how many of the patterns match it."""
    # Soft:
    deadlines: MapDraft[tuple[Timer, str], int] = field(default_factory=_by_member)
    due_ms: int = field(default=NEVER_MS, compare=False)
    """No deadline is sooner."""
    assigned_ms: int = field(default=-NEVER_MS, compare=False)
    """When the target assignment was computed."""
    is_metadata_checked: bool = False
    """The topics have not changed since the metadata hash was computed."""

    @property
    def subscribed_topics(self) -> frozenset[str]:
        return frozenset(self.topic_counts)

    def next_deadline_ms(self) -> int:
        """When something is due, at the soonest: sessions may have become longer since all were looked at."""
        return self.due_ms

    @abstractmethod
    def copy(self) -> Self: ...

    @abstractmethod
    def apply(self, key: Any, value: Any) -> None:
        """Any order of the records of a compacted log is taken; the last of each key decides. The record of a group's
        epoch, when it is deleted, deletes the group: `GroupMetadata` does that."""

    @abstractmethod
    def tombstones(self) -> list[Any]:
        """The keys of all records of the group, in the order in which Kafka deletes them."""

    def count_topics(self, topics: Iterable[str], by: int) -> None:
        for topic in topics:
            count(self.topic_counts, topic, by)
