"""One share group (KIP-932): its members, what each has, and which share partitions may be given to members.

A partition may be the target of several members. A member takes all of its target with one heartbeat and gives up
nothing first, because nobody owns a partition: the leader of the partition hands out records, not the coordinator. A
share partition is assigned once the share coordinator has its state:

    not known ──a member subscribes──► initializing ──the share coordinator has its state──► initialized
                                            │                                                     │
                                            └──── failed: not known ─┐        topic deleted ──────┴──► not known
Source: org.apache.kafka.coordinator.group.modern.share.ShareGroup, Kafka 4.4.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from uuid import UUID

from kraft.coordinators.groups.consumer_records import Partitions
from kraft.coordinators.groups.modern_group import JOIN_EPOCH, NEVER_MS, ModernGroup, Timer
from kraft.coordinators.groups.share_records import (
    ShareCurrentKey,
    ShareEpochKey,
    ShareKey,
    ShareMemberKey,
    ShareStatesKey,
    ShareTargetEpochKey,
    ShareTargetKey,
    ShareValue,
    StoredShareCurrent,
    StoredShareEpoch,
    StoredShareMember,
    StoredShareStates,
    StoredShareTarget,
    StoredShareTargetEpoch,
    TopicStates,
    TopicStatesById,
)
from metadata.image import TopicIdPartition


class ShareGroupState(StrEnum):
    """Kafka's names."""

    EMPTY = "Empty"
    STABLE = "Stable"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareMember:
    member_id: str
    member_epoch: int = JOIN_EPOCH
    previous_epoch: int = -1
    rack_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    topics: frozenset[str] = frozenset()
    assigned: Partitions = frozenset()

    def described(self) -> StoredShareMember:
        return StoredShareMember(
            rack_id=self.rack_id, client_id=self.client_id, client_host=self.client_host, topics=self.topics
        )

    def current(self) -> StoredShareCurrent:
        return StoredShareCurrent(
            member_epoch=self.member_epoch, previous_epoch=self.previous_epoch, assigned=self.assigned
        )


NO_TIMES: Mapping[TopicIdPartition, int] = MappingProxyType({})


@dataclass(slots=True, kw_only=True)
class ShareGroup(ModernGroup[ShareMember]):
    states: StoredShareStates = field(default_factory=StoredShareStates)
    # Soft:
    asked_ms: Mapping[TopicIdPartition, int] = field(default_factory=lambda: NO_TIMES, compare=False)
    """When the share coordinator was asked to initialise each partition that is being initialised."""
    is_target_checked: bool = field(default=False, compare=False)
    """No partition was initialised since it was looked whether each is somebody's target."""

    @property
    def state(self) -> ShareGroupState:
        return ShareGroupState.STABLE if self.members else ShareGroupState.EMPTY

    @property
    def initialized(self) -> Partitions:
        return partitions_of(self.states.initialized)

    @property
    def initializing(self) -> Partitions:
        return partitions_of(self.states.initializing)

    @property
    def topic_ids(self) -> frozenset[UUID]:
        """The topics of which the group has, had or will have states."""
        return frozenset((*self.states.initializing, *self.states.initialized, *self.states.deleting))

    @property
    def with_state(self) -> Partitions:
        """The partitions of which the share coordinator may have a state."""
        return self.initialized | self.initializing

    def initialize_due_ms(self, *, retry_ms: int) -> int:
        """When a partition has been in initialisation for too long. At once for one that was found in the log."""
        if not self.states.initializing:
            return NEVER_MS
        return min(self.asked_ms.get(each, -NEVER_MS) + retry_ms for each in self.initializing)

    def tombstones(self) -> list[ShareKey]:
        group_id = self.group_id
        return [
            *(ShareCurrentKey(group_id, member_id) for member_id in self.members),
            *(ShareTargetKey(group_id, member_id) for member_id in self.targets),
            ShareTargetEpochKey(group_id),
            *(ShareMemberKey(group_id, member_id) for member_id in self.members),
            ShareStatesKey(group_id),
            ShareEpochKey(group_id),
        ]

    # --- how it changes ---------------------------------------------------------------------------------------------

    def copy(self) -> ShareGroup:
        return replace(
            self,
            members=self.members.copy(),
            targets=self.targets.copy(),
            topic_counts=self.topic_counts.copy(),
            deadlines=self.deadlines.copy(),
        )

    def apply(self, key: ShareKey, value: ShareValue | None) -> None:
        match key, value:
            case ShareEpochKey(), StoredShareEpoch():
                self.epoch, self.metadata_hash = value.epoch, value.metadata_hash
            case ShareTargetEpochKey(), StoredShareTargetEpoch():
                self.assignment_epoch = value.epoch
            case ShareTargetEpochKey(), None:
                self.assignment_epoch = -1
            case ShareMemberKey(_, member_id), StoredShareMember():
                self._describe(self.members.get(member_id, ShareMember(member_id=member_id)), value)
            case ShareMemberKey(_, member_id), None:
                self._remove(member_id)
            case ShareTargetKey(_, member_id), StoredShareTarget():
                self.targets[member_id] = value.partitions
            case ShareTargetKey(_, member_id), None:
                self.targets.pop(member_id, None)
            case ShareCurrentKey(_, member_id), StoredShareCurrent():
                self.members[member_id] = replace(
                    self.members.get(member_id, ShareMember(member_id=member_id)),
                    member_epoch=value.member_epoch,
                    previous_epoch=value.previous_epoch,
                    assigned=value.assigned,
                )
            case ShareCurrentKey(_, member_id), None:
                if member_id in self.members:
                    self.members[member_id] = replace(self.members[member_id], assigned=frozenset())
            case ShareStatesKey(), StoredShareStates() | None:
                self.states = StoredShareStates() if value is None else value
                self.is_target_checked = False

    def _describe(self, member: ShareMember, value: StoredShareMember) -> None:
        self.count_topics(member.topics, -1)
        self.count_topics(value.topics, 1)
        self.members[member.member_id] = replace(
            member,
            rack_id=value.rack_id,
            client_id=value.client_id,
            client_host=value.client_host,
            topics=value.topics,
        )

    def _remove(self, member_id: str) -> None:
        member = self.members.pop(member_id, None)
        if member is not None:
            self.count_topics(member.topics, -1)
        self.deadlines.pop((Timer.SESSION, member_id), None)


# --- partitions by their topic --------------------------------------------------------------------------------------


def partitions_of(topics: TopicStatesById) -> Partitions:
    return frozenset(
        TopicIdPartition(topic_id, each) for topic_id, topic in topics.items() for each in topic.partitions
    )


def with_partitions(
    topics: TopicStatesById, added: Iterable[TopicIdPartition], names: Mapping[UUID, str]
) -> TopicStatesById:
    found = dict(topics)
    for each in added:
        before = found.get(each.topic_id, TopicStates(names[each.topic_id], frozenset()))
        found[each.topic_id] = before._replace(partitions=before.partitions | {each.partition})
    return MappingProxyType(found)


def without_partitions(topics: TopicStatesById, gone: Collection[TopicIdPartition]) -> TopicStatesById:
    found = {}
    for topic_id, topic in topics.items():
        left = frozenset(each for each in topic.partitions if TopicIdPartition(topic_id, each) not in gone)
        if left:
            found[topic_id] = topic._replace(partitions=left)
    return MappingProxyType(found)
