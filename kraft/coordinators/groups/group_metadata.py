"""All that a coordinator knows of one group; `apply` is the one place where records become state.

Applied alike when a record was decided and when it is replayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum

from kraft.coordinators.groups.answers import OffsetOfGroup
from kraft.coordinators.groups.classic_group import ClassicGroup, Phase, restored
from kraft.coordinators.groups.consumer_group import ConsumerGroup
from kraft.coordinators.groups.consumer_records import ConsumerKey, ConsumerValue, EpochKey
from kraft.coordinators.groups.instance import Instance, decode_instance
from kraft.coordinators.groups.pending_offsets import PendingOffsets
from kraft.coordinators.groups.records import (
    CommittedOffset,
    GroupKey,
    GroupRecord,
    InstanceKey,
    OffsetKey,
    StoredGroup,
)
from kraft.coordinators.groups.share_group import ShareGroup
from kraft.coordinators.groups.share_records import ShareEpochKey, ShareKey, ShareValue
from kraft.protocol.primitives import TopicPartition

UNKNOWN_OFFSET = -1
CONSUMER_PROTOCOL = "consumer"
SHARE_PROTOCOL = "share"


class Kind(StrEnum):
    """Which protocol a group speaks; Kafka's names of a group's type."""

    CLASSIC = "classic"
    CONSUMER = "consumer"
    SHARE = "share"


@dataclass(slots=True)
class GroupMetadata:
    group: ClassicGroup
    """Without members while the group speaks the consumer protocol."""
    consumer: ConsumerGroup | None = None
    """The group while it speaks the consumer protocol (KIP-848)."""
    share: ShareGroup | None = None
    """The group if it is a share group (KIP-932); its type never changes."""
    offsets: dict[TopicPartition, CommittedOffset] = field(default_factory=dict)
    pending: PendingOffsets = field(default_factory=PendingOffsets)
    """Committed in transactions that are open."""
    instances: dict[str, Instance] = field(default_factory=dict)
    expires_ms: dict[str, int] = field(default_factory=dict)
    """When each instance goes unless it is heard of."""

    @property
    def modern(self) -> ConsumerGroup | ShareGroup | None:
        """None for a classic group."""
        return self.consumer if self.share is None else self.share

    @property
    def kind(self) -> Kind:
        if self.share is not None:
            return Kind.SHARE
        return Kind.CLASSIC if self.consumer is None else Kind.CONSUMER

    @property
    def state(self) -> str:
        """Kafka's name of it."""
        return self.group.phase if self.modern is None else self.modern.state

    @property
    def protocol_type(self) -> str:
        if self.share is not None:
            return SHARE_PROTOCOL
        return (self.group.protocol_type or "") if self.consumer is None else CONSUMER_PROTOCOL

    @property
    def member_ids(self) -> AbstractSet[str]:
        return self.group.members.keys() if self.modern is None else self.modern.members.keys()

    @property
    def common_protocols(self) -> AbstractSet[str] | None:
        """The assignors of the classic protocol that all of its members support; None without members."""
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
        is_used = group.members or group.pending or self.offsets or self.instances or self.modern is not None
        return not (is_used or self.pending) and group.protocol_type is None

    @property
    def exists(self) -> bool:
        return not self.is_idle and self.group.phase is not Phase.DEAD

    def group_tombstones(self) -> list[GroupRecord]:
        """What deletes the group, without its offsets."""
        if self.modern is None:
            return [GroupRecord(GroupKey(self.group.group_id), None)]
        return [GroupRecord(key, None) for key in self.modern.tombstones()]

    def apply(self, record: GroupRecord, *, now_ms: int, is_replay: bool) -> None:
        match record.key, record.value:
            case OffsetKey(_, topic, partition), CommittedOffset() as offset:
                self.offsets[topic, partition] = offset
                if self.pending:
                    self.pending.overtake((topic, partition))
            case OffsetKey(_, topic, partition), None:
                self.offsets.pop((topic, partition), None)
                self.pending.remove((topic, partition))
            case GroupKey(group_id), StoredGroup() as stored:
                if is_replay:
                    self.group = restored(group_id, stored, now_ms=now_ms)
                    # Kafka 3.9 skips records of the consumer protocol, and writes this one behind them.
                    self.consumer = None
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
            case ShareEpochKey(), None:
                self.share = None
            case key, value if is_replay and isinstance(key, ShareKey):
                assert value is None or isinstance(value, ShareValue), record
                if self.share is None and value is not None:
                    self.share = ShareGroup(group_id=key.group)
                if self.share is not None:
                    self.share.apply(key, value)
            case key, value if is_replay and isinstance(key, ConsumerKey):
                assert value is None or isinstance(value, ConsumerValue), record
                self._replay_consumer(key, value)

    def _replay_consumer(self, key: ConsumerKey, value: ConsumerValue | None) -> None:
        """What was decided here, the decision has applied to a copy of its own, which has become the group."""
        if self.consumer is None and value is not None:
            self.consumer = ConsumerGroup(group_id=key.group)
        if self.consumer is not None:
            self.consumer.apply(key, value)

    def apply_in_transaction(self, producer_id: int, record: GroupRecord, *, now_ms: int, is_replay: bool) -> None:
        """Apply a record of a producer's transaction: only offsets wait for its marker, as in Kafka."""
        match record.key, record.value:
            case OffsetKey(_, topic, partition), CommittedOffset() as offset:
                self.pending.put(producer_id, (topic, partition), offset)
            case _:
                self.apply(record, now_ms=now_ms, is_replay=is_replay)

    def end_transaction(self, producer_id: int, *, is_commit: bool) -> None:
        self.offsets.update(self.pending.end(producer_id, is_commit=is_commit))

    def offset_rows(
        self, partitions: tuple[TopicPartition, ...] | None = None, *, requires_stable: bool = False
    ) -> tuple[OffsetOfGroup, ...]:
        """Partitions without an offset have -1; without a question, all that have one. `requires_stable`: those with
        pending offsets have none, and say so (KIP-447)."""
        asked = sorted(self.offsets) if partitions is None else partitions
        if requires_stable and self.pending:
            return tuple(_unstable(key) if key in self.pending else _row(key, self.offsets.get(key)) for key in asked)
        return tuple(_row(key, self.offsets.get(key)) for key in asked)

    @property
    def stable_offsets(self) -> Mapping[TopicPartition, CommittedOffset]:
        """Those that no open transaction may change: the others do not expire."""
        if not self.pending:
            return self.offsets
        return {key: each for key, each in self.offsets.items() if key not in self.pending}

    @property
    def partitions_with_offsets(self) -> list[TopicPartition]:
        """Also with pending ones alone."""
        return [*self.offsets, *(key for key in self.pending if key not in self.offsets)]

    def next_deadline_ms(self) -> int:
        protocol_ms = self.group.next_deadline_ms() if self.modern is None else self.modern.next_deadline_ms()
        return min([protocol_ms, *self.expires_ms.values()])


def _row(key: TopicPartition, offset: CommittedOffset | None) -> OffsetOfGroup:
    if offset is None:
        return OffsetOfGroup(*key, UNKNOWN_OFFSET, "", -1)
    return OffsetOfGroup(*key, offset.offset, offset.metadata, offset.leader_epoch)


def _unstable(key: TopicPartition) -> OffsetOfGroup:
    return OffsetOfGroup(*key, UNKNOWN_OFFSET, "", -1, is_unstable=True)
