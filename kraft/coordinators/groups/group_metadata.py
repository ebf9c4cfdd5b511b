"""All that a coordinator knows of one group; `apply` is the one place where records become state.

Applied alike when a record was decided and when it is replayed.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum

from kraft.coordinators.groups.answers import OffsetOfGroup
from kraft.coordinators.groups.classic_group import ClassicGroup, Phase, restored
from kraft.coordinators.groups.consumer_group import ConsumerGroup
from kraft.coordinators.groups.consumer_records import ConsumerKey, ConsumerValue, EpochKey
from kraft.coordinators.groups.instance import Instance, decode_instance
from kraft.coordinators.groups.records import (
    CommittedOffset,
    GroupKey,
    GroupRecord,
    InstanceKey,
    OffsetKey,
    StoredGroup,
)
from kraft.coordinators.groups.subscriptions import TopicPartition

UNKNOWN_OFFSET = -1
CONSUMER_PROTOCOL = "consumer"


class Kind(StrEnum):
    """Which protocol a group speaks; Kafka's names of a group's type."""

    CLASSIC = "classic"
    CONSUMER = "consumer"


@dataclass(slots=True)
class GroupMetadata:
    group: ClassicGroup
    """Without members while the group speaks the consumer protocol."""
    consumer: ConsumerGroup | None = None
    """The group while it speaks the consumer protocol (KIP-848)."""
    offsets: dict[TopicPartition, CommittedOffset] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)
    expires_ms: dict[str, int] = field(default_factory=dict)
    """When each instance goes unless it is heard of."""

    @property
    def kind(self) -> Kind:
        return Kind.CLASSIC if self.consumer is None else Kind.CONSUMER

    @property
    def state(self) -> str:
        """Kafka's name of it."""
        return self.group.phase if self.consumer is None else self.consumer.state

    @property
    def protocol_type(self) -> str:
        return (self.group.protocol_type or "") if self.consumer is None else CONSUMER_PROTOCOL

    @property
    def member_ids(self) -> AbstractSet[str]:
        return self.group.members.keys() if self.consumer is None else self.consumer.members.keys()

    @property
    def common_protocols(self) -> AbstractSet[str] | None:
        """Of the classic protocol, what all of its members can do; None when there are none."""
        if self.consumer is None:
            return self.group.common_protocols if self.group.members else None
        return self.consumer.common_classic_protocols if self.consumer.classic_members else None

    @property
    def is_empty(self) -> bool:
        """No members: offsets may be changed from outside, and the group may be deleted."""
        return self.group.phase is Phase.EMPTY and not self.member_ids

    @property
    def is_idle(self) -> bool:
        """Nothing would be lost by forgetting it."""
        group = self.group
        is_used = group.members or group.pending or self.offsets or self.instances or self.consumer is not None
        return not is_used and group.protocol_type is None

    @property
    def exists(self) -> bool:
        return not self.is_idle and self.group.phase is not Phase.DEAD

    def group_tombstones(self) -> list[GroupRecord]:
        """What deletes the group, without its offsets."""
        if self.consumer is None:
            return [GroupRecord(GroupKey(self.group.group_id), None)]
        return [GroupRecord(key, None) for key in self.consumer.tombstones()]

    def apply(self, record: GroupRecord, *, now_ms: int, is_replay: bool) -> None:
        match record.key, record.value:
            case OffsetKey(_, topic, partition), CommittedOffset() as offset:
                self.offsets[topic, partition] = offset
            case OffsetKey(_, topic, partition), None:
                self.offsets.pop((topic, partition), None)
            case GroupKey(group_id), StoredGroup() as stored:
                if is_replay:
                    self.group = restored(group_id, stored, now_ms=now_ms)
            case GroupKey(group_id), None:
                self.group = ClassicGroup(group_id=group_id)
            case InstanceKey(_, name), bytes() as data:
                instance = decode_instance(data)
                self.instances[name] = instance
                self.expires_ms[name] = now_ms + instance.config.timeout_ms
            case InstanceKey(_, name), None:
                self.instances.pop(name, None)
                self.expires_ms.pop(name, None)
            case EpochKey(), None:
                self.consumer = None
            case key, value if is_replay and isinstance(key, ConsumerKey):
                assert value is None or isinstance(value, ConsumerValue), record
                self._replay_consumer(key, value)

    def _replay_consumer(self, key: ConsumerKey, value: ConsumerValue | None) -> None:
        """What was decided here, the decision has applied to a copy of its own, which has become the group."""
        if self.consumer is None and value is not None:
            self.consumer = ConsumerGroup(group_id=key.group)
        if self.consumer is not None:
            self.consumer.apply(key, value)

    def offset_rows(self, partitions: tuple[TopicPartition, ...] | None = None) -> tuple[OffsetOfGroup, ...]:
        """Partitions without an offset have -1; without a question, all that have one."""
        asked = sorted(self.offsets) if partitions is None else partitions
        return tuple(_row(key, self.offsets.get(key)) for key in asked)

    def next_deadline_ms(self) -> int:
        protocol_ms = self.group.next_deadline_ms() if self.consumer is None else self.consumer.next_deadline_ms()
        return min([protocol_ms, *self.expires_ms.values()])


def _row(key: TopicPartition, offset: CommittedOffset | None) -> OffsetOfGroup:
    if offset is None:
        return OffsetOfGroup(*key, UNKNOWN_OFFSET, "", -1)
    return OffsetOfGroup(*key, offset.offset, offset.metadata, offset.leader_epoch)
