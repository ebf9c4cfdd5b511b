"""One group of the consumer protocol (KIP-848): its members, what each has, and what each should have.

Its epochs and target assignment are those of `ModernGroup`. Each member goes to its target at its own pace:

    STABLE ──new target, partitions to give up──► UNREVOKED_PARTITIONS ──it no longer owns them──┐
      │ ▲                                                                                        │
      │ └──────────── has all of its target ◄──────────────┬─────────────────────────────────────┘
      └──────── new target, nothing to give up ───────────►┤
                                                           └──others still own some──► UNRELEASED_PARTITIONS
                                                                                     (looks again at each heartbeat)

A partition is in `owners` from when it is given to a member until that member has said that it no longer owns it; so
it is given to nobody else before.
Source: org.apache.kafka.coordinator.group.modern.consumer.ConsumerGroup, ConsumerGroupMember; Kafka 4.3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum, StrEnum
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
from kraft.coordinators.groups.modern_group import JOIN_EPOCH, LEAVE_EPOCH, NEVER_MS, ModernGroup, Timer, by_text, count
from metadata.image import TopicIdPartition
from metadata.persistent_map import MapDraft, PersistentMap

LEAVE_STATIC_EPOCH = -2
"""A static member has left and will come back; its place is kept as long as its session lasts."""
NOTHING: AssignmentEpochs = MappingProxyType({})


class MemberState(IntEnum):
    STABLE = 0
    UNREVOKED_PARTITIONS = 1
    UNRELEASED_PARTITIONS = 2
    UNKNOWN = 127
    """A state that a later version of Kafka wrote."""


class GroupState(StrEnum):
    """Kafka's names."""

    EMPTY = "Empty"
    ASSIGNING = "Assigning"
    RECONCILING = "Reconciling"
    STABLE = "Stable"


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


def _spread_partition(key: TopicIdPartition) -> int:
    return key.topic_number + key.partition


def _by_partition() -> MapDraft[TopicIdPartition, str]:
    return PersistentMap[TopicIdPartition, str]({}, spread=_spread_partition, buckets=1).draft()


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternRound:
    """A look at all patterns, a few at each heartbeat, after topics have come or gone, or ACLs."""

    names: Mapping[str, object]
    """The topics that there were."""
    acls: object
    """The ACLs that there were."""
    patterns: tuple[str, ...]
    done: int = 0
    has_changed: bool = False

    @property
    def is_over(self) -> bool:
        return self.done >= len(self.patterns)


@dataclass(slots=True, kw_only=True)
class ConsumerGroup(ModernGroup[ConsumerMember]):
    patterns: MapDraft[str, StoredPattern] = field(default_factory=by_text)
    """What each subscribed pattern was found to match."""
    has_topics_record: bool = False
    """Kafka before 4.1 left a record of topics, which is deleted when the epoch rises next."""
    # Derived from these, kept up to date by `apply`:
    owners: MapDraft[TopicIdPartition, str] = field(default_factory=_by_partition)
    static: MapDraft[str, str] = field(default_factory=by_text)
    """Instance id -> member id."""
    subscribed_patterns: MapDraft[str, int] = field(default_factory=by_text)
    """Pattern -> number of its members."""
    patterns_ms: int = field(default=-NEVER_MS, compare=False)
    """Wall time at which a pattern was found to match others than before."""
    # Soft:
    round: PatternRound | None = field(default=None, compare=False)
    """The last look at all patterns; None: nobody has looked since the group was loaded."""

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

    def tombstones(self) -> list[ConsumerKey]:
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
        self.count_topics(member.topics, by)
        if member.pattern:
            if by < 0 and self.subscribed_patterns[member.pattern] == 1:
                self._count_matches(member.pattern, -1)
            count(self.subscribed_patterns, member.pattern, by)
            if by > 0 and self.subscribed_patterns[member.pattern] == 1:
                self._count_matches(member.pattern, 1)

    def _count_matches(self, pattern: str, by: int) -> None:
        found = self.patterns.get(pattern)
        if found is not None:
            self.count_topics(found.topics, by)

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
