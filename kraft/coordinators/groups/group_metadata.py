"""All that a coordinator knows of one group; `apply` is the one place where records become state.

Applied alike when a record was decided and when it is replayed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kraft.coordinators.groups.answers import OffsetOfGroup
from kraft.coordinators.groups.instance import Instance, decode_instance
from kraft.coordinators.groups.records import (
    CommittedOffset,
    GroupKey,
    GroupRecord,
    InstanceKey,
    OffsetKey,
    StoredGroup,
)
from kraft.coordinators.groups.state import Group, Phase, restored
from kraft.coordinators.groups.subscriptions import TopicPartition

UNKNOWN_OFFSET = -1


@dataclass(slots=True)
class GroupMetadata:
    group: Group
    offsets: dict[TopicPartition, CommittedOffset] = field(default_factory=dict)
    instances: dict[str, Instance] = field(default_factory=dict)
    expires_ms: dict[str, int] = field(default_factory=dict)
    """When each instance goes unless it is heard of."""

    @property
    def is_idle(self) -> bool:
        """Nothing would be lost by forgetting it."""
        group = self.group
        return not (group.members or group.pending or self.offsets or self.instances) and group.protocol_type is None

    @property
    def exists(self) -> bool:
        return not self.is_idle and self.group.phase is not Phase.DEAD

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
                self.group = Group(group_id=group_id)
            case InstanceKey(_, name), bytes() as data:
                instance = decode_instance(data)
                self.instances[name] = instance
                self.expires_ms[name] = now_ms + instance.config.timeout_ms
            case InstanceKey(_, name), None:
                self.instances.pop(name, None)
                self.expires_ms.pop(name, None)

    def offset_rows(self, partitions: tuple[TopicPartition, ...] | None = None) -> tuple[OffsetOfGroup, ...]:
        """Partitions without an offset have -1; without a question, all that have one."""
        asked = sorted(self.offsets) if partitions is None else partitions
        return tuple(_row(key, self.offsets.get(key)) for key in asked)

    def next_deadline_ms(self) -> int:
        return min([self.group.next_deadline_ms(), *self.expires_ms.values()])


def _row(key: TopicPartition, offset: CommittedOffset | None) -> OffsetOfGroup:
    if offset is None:
        return OffsetOfGroup(*key, UNKNOWN_OFFSET, "", -1)
    return OffsetOfGroup(*key, offset.offset, offset.metadata, offset.leader_epoch)
