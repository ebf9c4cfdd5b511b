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
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum, StrEnum, auto
from types import MappingProxyType

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


@dataclass(slots=True, kw_only=True)
class ConsumerGroup:
    group_id: str
    epoch: int = 0
    metadata_hash: int = 0
    """Of the topics that the members want, as they were when the epoch rose."""
    assignment_epoch: int = 0
    members: dict[str, ConsumerMember] = field(default_factory=dict)
    targets: dict[str, Partitions] = field(default_factory=dict)
    patterns: dict[str, StoredPattern] = field(default_factory=dict)
    """What each subscribed pattern was found to match."""
    has_topics_record: bool = False
    """Kafka before 4.1 left a record of topics, which is deleted when the epoch rises next."""
    # Derived from these, kept up to date by `apply`:
    owners: dict[TopicIdPartition, str] = field(default_factory=dict)
    static: dict[str, str] = field(default_factory=dict)
    """Instance id -> member id."""
    # Soft:
    deadlines: dict[tuple[Timer, str], int] = field(default_factory=dict)
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
        return frozenset[str]().union(*map(self.subscription_of, self.members.values()))

    @property
    def subscribed_patterns(self) -> Counter[str]:
        """Pattern -> number of its members."""
        return Counter(member.pattern for member in self.members.values() if member.pattern)

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
        return min(self.deadlines.values(), default=NEVER_MS)

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
            members=dict(self.members),
            targets=dict(self.targets),
            patterns=dict(self.patterns),
            owners=dict(self.owners),
            static=dict(self.static),
            deadlines=dict(self.deadlines),
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
            case PatternKey(_, pattern), StoredPattern():
                self.patterns[pattern] = value
            case PatternKey(_, pattern), None:
                self.patterns.pop(pattern, None)
            case PartitionMetadataKey(), StoredTopics() | None:
                self.has_topics_record = value is not None

    def _describe(self, member: ConsumerMember, value: StoredConsumer) -> None:
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
        if member is not None and member.instance_id is not None and self.static.get(member.instance_id) == member_id:
            del self.static[member.instance_id]
        for timer in Timer:
            self.deadlines.pop((timer, member_id), None)
