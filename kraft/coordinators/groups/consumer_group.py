"""One group of the consumer protocol (KIP-848): its members, what each has, and what each should have.

The group has an epoch, which rises when a member comes, goes or wants something else, or when topics change. For each
epoch the coordinator computes a target assignment. Each member goes there at its own pace, from heartbeat to heartbeat:

    STABLE ──new target, partitions to give up──► UNREVOKED_PARTITIONS ──it no longer owns them──┐
      │ ▲                                                                                        │
      │ └──────────── has all of its target ◄──────────────┬─────────────────────────────────────┘
      └──────── new target, nothing to give up ───────────►┤
                                                           └──others still own some──► UNRELEASED_PARTITIONS
                                                                                     (looks again at each heartbeat)

A partition is in `owners` from when it is given to a member until that member has said that it no longer owns it; so
it is given to nobody else before. All facts come from records through `apply`, alike when they were decided, and when
the log is replayed; deadlines are soft. A group is changed while it is loaded and within one decision, which works on
a copy; otherwise it is read only.
Source: org.apache.kafka.coordinator.group.modern.consumer.ConsumerGroup, ConsumerGroupMember; Kafka 4.3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum, StrEnum, auto
from types import MappingProxyType
from typing import TypeVar

from kraft.coordinators.groups.consumer_records import (
    AssignmentEpochs,
    ClassicSupport,
    ConsumerKey,
    ConsumerValue,
    CurrentKey,
    EpochKey,
    MemberKey,
    PartitionMetadataKey,
    Partitions,
    PatternKey,
    StoredConsumer,
    StoredCurrent,
    StoredEpoch,
    StoredPattern,
    StoredTarget,
    StoredTargetEpoch,
    StoredTopics,
    TargetEpochKey,
    TargetKey,
)
from metadata.image import TopicIdPartition
from metadata.persistent_map import MapDraft, PersistentMap, spread_text, text_draft

NEVER_MS = 2**62
JOIN_EPOCH = 0
LEAVE_EPOCH = -1
LEAVE_STATIC_EPOCH = -2
"""A static member has left and will come back; its place is kept as long as its session lasts."""
NOTHING: AssignmentEpochs = MappingProxyType({})


class MemberState(IntEnum):
    STABLE = 0
    UNREVOKED_PARTITIONS = 1
    UNRELEASED_PARTITIONS = 2
    UNKNOWN = 127
    """Of a later version of Kafka, which wrote it."""


class GroupState(StrEnum):
    """Kafka's names."""

    EMPTY = "Empty"
    ASSIGNING = "Assigning"
    RECONCILING = "Reconciling"
    STABLE = "Stable"


class Timer(Enum):
    SESSION = auto()
    REBALANCE = auto()
    """While it has partitions to give up."""
    JOIN = auto()
    """Of a member of the classic protocol: until it joins again, as it was told to."""
    SYNC = auto()
    """Of a member of the classic protocol: until it asks what it got."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerMember:
    member_id: str
    member_epoch: int = JOIN_EPOCH
    previous_epoch: int = -1
    instance_id: str | None = None
    rack_id: str | None = None
    rebalance_timeout_ms: int = -1
    client_id: str = ""
    client_host: str = ""
    topics: frozenset[str] = frozenset()
    pattern: str = ""
    assignor: str | None = None
    classic: ClassicSupport | None = None
    state: MemberState = MemberState.STABLE
    assigned: AssignmentEpochs = field(default_factory=lambda: NOTHING)
    revoking: AssignmentEpochs = field(default_factory=lambda: NOTHING)

    def is_reconciled_to(self, epoch: int) -> bool:
        return self.state is MemberState.STABLE and self.member_epoch == epoch

    def described(self) -> StoredConsumer:
        return StoredConsumer(
            instance_id=self.instance_id,
            rack_id=self.rack_id,
            client_id=self.client_id,
            client_host=self.client_host,
            topics=self.topics,
            pattern=self.pattern,
            rebalance_timeout_ms=self.rebalance_timeout_ms,
            assignor=self.assignor,
            classic=self.classic,
        )

    def current(self) -> StoredCurrent:
        return StoredCurrent(
            member_epoch=self.member_epoch,
            previous_epoch=self.previous_epoch,
            state=self.state,
            assigned=self.assigned,
            revoking=self.revoking,
        )


FIRST_EPOCH = 1
"""A new group has an empty target assignment of this epoch, so that a member may have an epoch, which is not 0, before
the first assignment is computed (KAFKA-20268)."""


K = TypeVar("K")
V = TypeVar("V")


def _spread_partition(key: TopicIdPartition) -> int:
    return key.topic_number + key.partition


def _spread_timer(key: tuple[Timer, str]) -> int:
    return spread_text(key[1])


def _by_text() -> MapDraft[str, V]:
    return text_draft({})


def _by_partition() -> MapDraft[TopicIdPartition, V]:
    return PersistentMap[TopicIdPartition, V]({}, spread=_spread_partition, buckets=1).draft()


def _by_member() -> MapDraft[tuple[Timer, str], V]:
    return PersistentMap[tuple[Timer, str], V]({}, spread=_spread_timer, buckets=1).draft()


def _count(counts: MapDraft[K, int], key: K, by: int) -> None:
    """What counts nothing is not there."""
    left = counts.get(key, 0) + by
    if left:
        counts[key] = left
    else:
        del counts[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternRound:
    """A look at all patterns, a few at each heartbeat, after topics have come or gone."""

    names: Mapping[str, object]
    """The topics that there were."""
    patterns: tuple[str, ...]
    done: int = 0
    has_changed: bool = False

    @property
    def is_over(self) -> bool:
        return self.done >= len(self.patterns)


@dataclass(slots=True, kw_only=True)
class ConsumerGroup:
    group_id: str
    epoch: int = FIRST_EPOCH
    metadata_hash: int = 0
    """Of the topics that the members want, as they were when the epoch rose."""
    assignment_epoch: int = FIRST_EPOCH
    members: MapDraft[str, ConsumerMember] = field(default_factory=_by_text)
    targets: MapDraft[str, Partitions] = field(default_factory=_by_text)
    patterns: MapDraft[str, StoredPattern] = field(default_factory=_by_text)
    """What each subscribed pattern was found to match."""
    has_topics_record: bool = False
    """Kafka before 4.1 left a record of topics, which is deleted when the epoch rises next."""
    # Derived from these, kept up to date by `apply`:
    owners: MapDraft[TopicIdPartition, str] = field(default_factory=_by_partition)
    static: MapDraft[str, str] = field(default_factory=_by_text)
    """Instance id -> member id."""
    subscribed_patterns: MapDraft[str, int] = field(default_factory=_by_text)
    """Pattern -> number of its members."""
    patterns_ms: int = field(default=-NEVER_MS, compare=False)
    """Wall time at which a pattern was found to match others than before."""
    topic_counts: MapDraft[str, int] = field(default_factory=_by_text)
    """Topic -> how many members name it, and how many of the patterns match it."""
    # Soft:
    deadlines: MapDraft[tuple[Timer, str], int] = field(default_factory=_by_member)
    due_ms: int = field(default=NEVER_MS, compare=False)
    """No deadline is sooner."""
    assigned_ms: int = field(default=-NEVER_MS, compare=False)
    """When the target assignment was computed."""
    round: PatternRound | None = field(default=None, compare=False)
    """The last look at all patterns; None: nobody has looked since the group was loaded."""
    is_metadata_checked: bool = False
    """The topics have not changed since the metadata hash was computed."""

    # --- what it is -------------------------------------------------------------------------------------------------

    @property
    def state(self) -> GroupState:
        if not self.members:
            return GroupState.EMPTY
        if self.epoch > self.assignment_epoch:
            return GroupState.ASSIGNING
        if all(member.is_reconciled_to(self.assignment_epoch) for member in self.members.values()):
            return GroupState.STABLE
        return GroupState.RECONCILING

    def static_member(self, instance_id: str | None) -> ConsumerMember | None:
        member_id = None if instance_id is None else self.static.get(instance_id)
        return None if member_id is None else self.members.get(member_id)

    def subscription_of(self, member: ConsumerMember) -> frozenset[str]:
        """Names of topics, whether they exist or not; of a pattern, what it matched last."""
        resolved = self.patterns.get(member.pattern) if member.pattern else None
        return member.topics if resolved is None else member.topics | resolved.topics

    @property
    def subscribed_topics(self) -> frozenset[str]:
        return frozenset(self.topic_counts)

    @property
    def classic_members(self) -> list[ConsumerMember]:
        return [member for member in self.members.values() if member.classic is not None]

    @property
    def common_classic_protocols(self) -> frozenset[str]:
        """What all members of the classic protocol can do."""
        offered = [
            frozenset(name for name, _ in each.classic.protocols) for each in self.members.values() if each.classic
        ]
        return frozenset.intersection(*offered) if offered else frozenset()

    def preferred_assignor(self, available: Iterable[str]) -> str:
        """The one that most members name, the default (the first that is available) when none does."""
        names = list(available)
        votes = Counter(member.assignor for member in self.members.values() if member.assignor in names)
        return max(names, key=lambda name: votes[name])

    def waits_for_others(self, member: ConsumerMember) -> bool:
        """Some of its target is still another member's."""
        missing = self.targets.get(member.member_id, frozenset()) - member.assigned.keys()
        return any(self.owners.get(each, member.member_id) != member.member_id for each in missing)

    def next_deadline_ms(self) -> int:
        """When something is due, at the soonest: sessions may have become longer since all were looked at."""
        return self.due_ms

    def tombstones(self) -> list[ConsumerKey]:
        """The keys of all records of the group, in the order in which Kafka deletes them."""
        group_id = self.group_id
        return [
            *(CurrentKey(group_id, member_id) for member_id in self.members),
            *(TargetKey(group_id, member_id) for member_id in self.targets),
            TargetEpochKey(group_id),
            *(MemberKey(group_id, member_id) for member_id in self.members),
            *(PatternKey(group_id, pattern) for pattern in self.patterns),
            *([PartitionMetadataKey(group_id)] if self.has_topics_record else []),
            EpochKey(group_id),
        ]

    # --- how it changes ---------------------------------------------------------------------------------------------

    def copy(self) -> ConsumerGroup:
        return replace(
            self,
            members=self.members.copy(),
            targets=self.targets.copy(),
            patterns=self.patterns.copy(),
            owners=self.owners.copy(),
            static=self.static.copy(),
            subscribed_patterns=self.subscribed_patterns.copy(),
            topic_counts=self.topic_counts.copy(),
            deadlines=self.deadlines.copy(),
        )

    def apply(self, key: ConsumerKey, value: ConsumerValue | None) -> None:
        """Any order of the records of a compacted log is taken; the last of each key decides. The record of a group's
        epoch, when it is deleted, deletes the group: whoever has the group does that."""
        match key, value:
            case EpochKey(), StoredEpoch():
                self.epoch, self.metadata_hash = value.epoch, value.metadata_hash
            case TargetEpochKey(), StoredTargetEpoch():
                self.assignment_epoch = value.epoch
            case TargetEpochKey(), None:
                self.assignment_epoch = -1
            case MemberKey(_, member_id), StoredConsumer():
                self._describe(self.members.get(member_id, ConsumerMember(member_id=member_id)), value)
            case MemberKey(_, member_id), None:
                self._remove(member_id)
            case TargetKey(_, member_id), StoredTarget():
                self.targets[member_id] = value.partitions
            case TargetKey(_, member_id), None:
                self.targets.pop(member_id, None)
            case CurrentKey(_, member_id), StoredCurrent():
                self._own(self.members.get(member_id, ConsumerMember(member_id=member_id)), value)
            case CurrentKey(_, member_id), None:
                self._disown(member_id)
            case PatternKey(_, pattern), StoredPattern() | None:
                self._resolve(pattern, value)
            case PartitionMetadataKey(), StoredTopics() | None:
                self.has_topics_record = value is not None

    def _resolve(self, pattern: str, value: StoredPattern | None) -> None:
        if pattern in self.subscribed_patterns:
            self._count_matches(pattern, -1)
        if value is None:
            self.patterns.pop(pattern, None)
        else:
            self.patterns[pattern] = value
            self.patterns_ms = max(self.patterns_ms, value.timestamp)
        if pattern in self.subscribed_patterns:
            self._count_matches(pattern, 1)

    def _count_subscription(self, member: ConsumerMember, by: int) -> None:
        for topic in member.topics:
            _count(self.topic_counts, topic, by)
        if member.pattern:
            if by < 0 and self.subscribed_patterns[member.pattern] == 1:
                self._count_matches(member.pattern, -1)
            _count(self.subscribed_patterns, member.pattern, by)
            if by > 0 and self.subscribed_patterns[member.pattern] == 1:
                self._count_matches(member.pattern, 1)

    def _count_matches(self, pattern: str, by: int) -> None:
        found = self.patterns.get(pattern)
        for topic in () if found is None else found.topics:
            _count(self.topic_counts, topic, by)

    def _describe(self, member: ConsumerMember, value: StoredConsumer) -> None:
        before = self.members.get(member.member_id)
        if before is not None:
            self._count_subscription(before, -1)
        self.members[member.member_id] = replace(
            member,
            instance_id=value.instance_id,
            rack_id=value.rack_id,
            client_id=value.client_id,
            client_host=value.client_host,
            topics=value.topics,
            pattern=value.pattern or "",
            rebalance_timeout_ms=value.rebalance_timeout_ms,
            assignor=value.assignor,
            classic=value.classic,
        )
        self._count_subscription(self.members[member.member_id], 1)
        if value.instance_id is not None:
            self.static[value.instance_id] = member.member_id

    def _own(self, member: ConsumerMember, value: StoredCurrent) -> None:
        self._release(member)
        known = value.state in MemberState.__members__.values()
        self.members[member.member_id] = replace(
            member,
            member_epoch=value.member_epoch,
            previous_epoch=value.previous_epoch,
            state=MemberState(value.state) if known else MemberState.UNKNOWN,
            assigned=value.assigned,
            revoking=value.revoking,
        )
        for partition in (*value.assigned, *value.revoking):
            self.owners[partition] = member.member_id

    def _release(self, member: ConsumerMember) -> None:
        for partition in (*member.assigned, *member.revoking):
            if self.owners.get(partition) == member.member_id:
                del self.owners[partition]

    def _disown(self, member_id: str) -> None:
        member = self.members.get(member_id)
        if member is not None:
            self._release(member)
            self.members[member_id] = replace(
                member, member_epoch=LEAVE_EPOCH, previous_epoch=LEAVE_EPOCH, assigned=NOTHING, revoking=NOTHING
            )

    def _remove(self, member_id: str) -> None:
        self._disown(member_id)
        member = self.members.pop(member_id, None)
        if member is not None:
            self._count_subscription(member, -1)
        if member is not None and member.instance_id is not None and self.static.get(member.instance_id) == member_id:
            del self.static[member.instance_id]
        for timer in Timer:
            self.deadlines.pop((timer, member_id), None)
