"""The records of share groups (KIP-932) in `__consumer_offsets`, byte for byte Kafka's.

Keys: int16 version, then the group, and the member where the record belongs to one. Values: int16 version 0, then the
generated message of the record (`ShareGroup*Value`).

    10 group, member   rack, client id and host, subscribed topics
    11 group           epoch, and the metadata hash of its topics
    12 group           epoch of the target assignment, and when it was computed
    13 group, member   target assignment
    14 group, member   member epoch, previous epoch, state, assigned partitions
    15 group           share partitions whose state is being initialised, is initialised, is being deleted
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from kraft.coordinators.groups.consumer_records import Partitions
from kraft.protocol import codec
from kraft.protocol.encoding import REFUSALS, TopLevel
from kraft.protocol.messages import share_group_current_member_assignment_value as current_
from kraft.protocol.messages import share_group_state_partition_metadata_value as states_
from kraft.protocol.messages import share_group_target_assignment_member_value as target_
from kraft.protocol.messages.share_group_member_metadata_value import ShareGroupMemberMetadataValueData
from kraft.protocol.messages.share_group_metadata_value import ShareGroupMetadataValueData
from kraft.protocol.messages.share_group_target_assignment_metadata_value import (
    ShareGroupTargetAssignmentMetadataValueData,
)
from metadata.image import TopicIdPartition

_VERSION = struct.Struct(">h")
VALUE_VERSION = 0


# --- keys -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ShareMemberKey:
    group: str
    member: str


@dataclass(frozen=True, slots=True)
class ShareEpochKey:
    group: str


@dataclass(frozen=True, slots=True)
class ShareTargetEpochKey:
    group: str


@dataclass(frozen=True, slots=True)
class ShareTargetKey:
    group: str
    member: str


@dataclass(frozen=True, slots=True)
class ShareCurrentKey:
    group: str
    member: str


@dataclass(frozen=True, slots=True)
class ShareStatesKey:
    group: str


ShareKey: TypeAlias = (
    ShareMemberKey | ShareEpochKey | ShareTargetEpochKey | ShareTargetKey | ShareCurrentKey | ShareStatesKey
)

# --- values ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredShareMember:
    rack_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    topics: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredShareEpoch:
    epoch: int
    metadata_hash: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredShareTargetEpoch:
    epoch: int
    timestamp: int = 0
    """Wall time at which the assignment was computed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredShareTarget:
    partitions: Partitions


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredShareCurrent:
    member_epoch: int
    previous_epoch: int
    assigned: Partitions = frozenset()


class TopicStates(NamedTuple):
    """The share partitions of a topic that are in one state. The name stays when the topic is deleted."""

    name: str
    partitions: frozenset[int]


TopicStatesById: TypeAlias = Mapping[UUID, TopicStates]
NO_TOPICS: TopicStatesById = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredShareStates:
    """Where each share partition of the group stands at the share coordinator."""

    initializing: TopicStatesById = field(default_factory=lambda: NO_TOPICS)
    initialized: TopicStatesById = field(default_factory=lambda: NO_TOPICS)
    deleting: Mapping[UUID, str] = field(default_factory=lambda: MappingProxyType({}))
    """Topic id -> name."""


ShareValue: TypeAlias = (
    StoredShareMember
    | StoredShareEpoch
    | StoredShareTargetEpoch
    | StoredShareTarget
    | StoredShareCurrent
    | StoredShareStates
)


# --- written --------------------------------------------------------------------------------------------------------


def encode_share_key(key: ShareKey) -> bytes:
    fields = [getattr(key, name).encode() for name in key.__slots__]
    return _VERSION.pack(_NUMBERS[type(key)]) + b"".join(_VERSION.pack(len(text)) + text for text in fields)


def encode_share_value(value: ShareValue) -> bytes:
    return _VERSION.pack(VALUE_VERSION) + b"".join(codec.encode_body(_message(value), VALUE_VERSION))


def _message(value: ShareValue) -> TopLevel:
    match value:
        case StoredShareMember():
            return ShareGroupMemberMetadataValueData.make(
                rack_id=value.rack_id,
                client_id=value.client_id,
                client_host=value.client_host,
                subscribed_topic_names=sorted(value.topics),
            )
        case StoredShareEpoch():
            return ShareGroupMetadataValueData.make(epoch=value.epoch, metadata_hash=value.metadata_hash)
        case StoredShareTargetEpoch():
            return ShareGroupTargetAssignmentMetadataValueData.make(
                assignment_epoch=value.epoch, assignment_timestamp=value.timestamp
            )
        case StoredShareTarget():
            topics = [
                target_.TopicPartition.make(topic_id=topic_id, partitions=numbers)
                for topic_id, numbers in by_topic(value.partitions).items()
            ]
            return target_.ShareGroupTargetAssignmentMemberValueData.make(topic_partitions=topics)
        case StoredShareCurrent():
            assigned = [
                current_.TopicPartitions.make(topic_id=topic_id, partitions=numbers)
                for topic_id, numbers in by_topic(value.assigned).items()
            ]
            return current_.ShareGroupCurrentMemberAssignmentValueData.make(
                member_epoch=value.member_epoch,
                previous_member_epoch=value.previous_epoch,
                assigned_partitions=assigned,
            )
        case StoredShareStates():
            return states_.ShareGroupStatePartitionMetadataValueData.make(
                initializing_topics=_states(value.initializing),
                initialized_topics=_states(value.initialized),
                deleting_topics=[
                    states_.TopicInfo.make(topic_id=topic_id, topic_name=name)
                    for topic_id, name in sorted(value.deleting.items())
                ],
            )


def by_topic(partitions: Iterable[TopicIdPartition]) -> dict[UUID, list[int]]:
    found: dict[UUID, list[int]] = {}
    for each in sorted(partitions):
        found.setdefault(each.topic_id, []).append(each.partition)
    return found


def _states(topics: TopicStatesById) -> list[states_.TopicPartitionsInfo]:
    return [
        states_.TopicPartitionsInfo.make(topic_id=topic_id, topic_name=name, partitions=sorted(numbers))
        for topic_id, (name, numbers) in sorted(topics.items())
    ]


# --- read -----------------------------------------------------------------------------------------------------------


def decode_share_key(number: int, fields: Sequence[str]) -> ShareKey:
    """`fields` are the strings behind the number. Raises ValueError when they are not as many as it has."""
    kind = _KINDS[number]
    if len(fields) != len(kind.__slots__):
        raise ValueError(f"{len(fields)} fields in a key of version {number}, which has {len(kind.__slots__)}")
    key: ShareKey = kind(*fields)
    return key


def decode_share_value(key: ShareKey, data: bytes) -> ShareValue | None:
    """None for a version that is not ours to read. Raises ValueError."""
    kind, stored = _READERS[type(key)]
    try:
        (version,) = _VERSION.unpack_from(data)
        if version not in kind.VERSIONS:
            return None
        return stored(codec.decode_body(kind, version, memoryview(data), _VERSION.size))
    except (*REFUSALS, codec.Malformed) as error:
        raise ValueError(f"{kind.__name__}: {error}") from error


def _partitions(topics: Iterable[Any]) -> Partitions:
    return frozenset(TopicIdPartition(topic.topic_id, number) for topic in topics for number in topic.partitions)


def _read_current(found: current_.ShareGroupCurrentMemberAssignmentValueData) -> StoredShareCurrent:
    """Kafka's members have one state, STABLE 0: they give up at once what is another's."""
    return StoredShareCurrent(
        member_epoch=found.member_epoch,
        previous_epoch=found.previous_member_epoch,
        assigned=_partitions(found.assigned_partitions),
    )


def _read_states(found: states_.ShareGroupStatePartitionMetadataValueData) -> StoredShareStates:
    def topics(infos: Iterable[states_.TopicPartitionsInfo]) -> TopicStatesById:
        return MappingProxyType(
            {each.topic_id: TopicStates(each.topic_name, frozenset(each.partitions)) for each in infos}
        )

    return StoredShareStates(
        initializing=topics(found.initializing_topics),
        initialized=topics(found.initialized_topics),
        deleting=MappingProxyType({each.topic_id: each.topic_name for each in found.deleting_topics}),
    )


_KINDS: Mapping[int, Any] = {
    10: ShareMemberKey,
    11: ShareEpochKey,
    12: ShareTargetEpochKey,
    13: ShareTargetKey,
    14: ShareCurrentKey,
    15: ShareStatesKey,
}
_NUMBERS: Mapping[type, int] = {kind: number for number, kind in _KINDS.items()}
SHARE_KEYS = frozenset(_KINDS)
"""Key versions."""

_READERS: Mapping[type, tuple[type[TopLevel], Callable[[Any], ShareValue]]] = {
    ShareMemberKey: (
        ShareGroupMemberMetadataValueData,
        lambda found: StoredShareMember(
            rack_id=found.rack_id,
            client_id=found.client_id,
            client_host=found.client_host,
            topics=frozenset(found.subscribed_topic_names),
        ),
    ),
    ShareEpochKey: (
        ShareGroupMetadataValueData,
        lambda found: StoredShareEpoch(epoch=found.epoch, metadata_hash=found.metadata_hash),
    ),
    ShareTargetEpochKey: (
        ShareGroupTargetAssignmentMetadataValueData,
        lambda found: StoredShareTargetEpoch(epoch=found.assignment_epoch, timestamp=found.assignment_timestamp),
    ),
    ShareTargetKey: (
        target_.ShareGroupTargetAssignmentMemberValueData,
        lambda found: StoredShareTarget(partitions=_partitions(found.topic_partitions)),
    ),
    ShareCurrentKey: (current_.ShareGroupCurrentMemberAssignmentValueData, _read_current),
    ShareStatesKey: (states_.ShareGroupStatePartitionMetadataValueData, _read_states),
}
