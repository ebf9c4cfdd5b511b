"""What a group coordinator answers; refusals are KafkaErrors, or a `Refused` for REST consumers."""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import Struct

from kraft.coordinators.groups.requests import Epoch, InstanceConfig, Range
from kraft.protocol.primitives import TopicPartition


class _Answer(Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    pass


class Taken(_Answer, frozen=True, kw_only=True):
    """Done, and replicated."""


class Refused(_Answer, frozen=True, kw_only=True):
    """A REST consumer's request that cannot be carried out."""

    code: int
    message: str
    kafka_code: int | None = None


class GroupJoined(_Answer, frozen=True, kw_only=True):
    generation: int
    protocol_type: str
    protocol: str
    leader: str
    member_id: str
    members: tuple[tuple[str, str | None, bytes], ...]
    skips_assignment: bool = False


class OffsetsDeleted(_Answer, frozen=True, kw_only=True):
    refused: tuple[TopicPartition, ...] = ()
    """Members are subscribed to their topics (86); all others have no offset any more."""


class GroupSynced(_Answer, frozen=True, kw_only=True):
    protocol_type: str
    protocol: str
    assignment: bytes


class OffsetOfGroup(Struct, frozen=True, array_like=True):
    topic: str
    partition: int
    offset: int
    metadata: str
    leader_epoch: int
    is_unstable: bool = False
    """An open transaction may change it: a request for stable offsets gets the error 88 in its place."""


class GroupOffsets(_Answer, frozen=True, kw_only=True):
    offsets: tuple[OffsetOfGroup, ...]


class ShareOffset(Struct, frozen=True, array_like=True):
    """Where a share group stands in a partition, or the error for it."""

    topic: str
    partition: int
    start_offset: int = -1
    """The first offset that the group may not be done with; -1: nothing was acknowledged yet."""
    leader_epoch: int = 0
    lag: int = -1
    """Records that the group is not done with (KIP-1226); -1: not known."""
    error_code: int = 0
    error_message: str | None = None


class ShareOffsets(_Answer, frozen=True, kw_only=True):
    """One for each partition that was asked for; those of a deletion for each topic, with partition -1."""

    offsets: tuple[ShareOffset, ...]


class MemberDescription(Struct, frozen=True, kw_only=True):
    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    partitions: tuple[TopicPartition, ...]
    metadata: bytes = b""
    """For the protocol that the group has chosen."""
    assignment: bytes = b""
    """The bytes that the leader wrote; for a group of the consumer protocol, the `partitions`."""


class AwaitedMember(Struct, frozen=True, kw_only=True):
    """A member for which the others of its group wait."""

    member_id: str
    client_id: str
    awaited: str
    """What it has to do: `JoinGroup`, `SyncGroup`, a heartbeat, to give up partitions."""


class GroupDescription(_Answer, frozen=True, kw_only=True):
    group: str
    state: str
    protocol_type: str
    protocol: str
    generation: int
    coordinator: int
    members: tuple[MemberDescription, ...]
    offsets: tuple[OffsetOfGroup, ...]
    group_type: str = "classic"
    """`consumer`: of the consumer protocol (KIP-848)."""
    is_mixed: bool = False
    """A group of the consumer protocol has members of the classic one beside others."""
    awaited: tuple[AwaitedMember, ...] = ()
    """While the group rebalances: whom it waits for."""


class GroupListing(Struct, frozen=True, array_like=True):
    group: str
    state: str
    protocol_type: str
    group_type: str = "classic"


class GroupList(_Answer, frozen=True, kw_only=True):
    groups: tuple[GroupListing, ...]


class InstanceDescription(_Answer, frozen=True, kw_only=True):
    config: InstanceConfig
    topics: tuple[str, ...]
    pattern: str | None
    partitions: tuple[TopicPartition, ...]
    """Those that it reads: assigned by the group, or by itself."""


class PollPlan(_Answer, frozen=True, kw_only=True):
    config: InstanceConfig
    number: int
    generation: int
    """Rises whenever the instance's partitions or positions change from outside."""
    is_repeat: bool
    ranges: tuple[Range, ...]
    """What to read, from where; a first offset of -1: by auto.offset.reset. Only a repetition has the end."""
    epochs: tuple[Epoch, ...] = ()
    """A leader of an older epoch does not know what is in range."""


class PollEnded(_Answer, frozen=True, kw_only=True):
    ranges: tuple[Range, ...]
    """What the batch of this number holds; not what was sent if the instance has lost a partition meanwhile."""


Answer: TypeAlias = (
    Taken
    | Refused
    | GroupJoined
    | OffsetsDeleted
    | GroupSynced
    | GroupOffsets
    | ShareOffsets
    | GroupDescription
    | GroupList
    | InstanceDescription
    | PollPlan
    | PollEnded
)

encode = msgspec.msgpack.Encoder().encode
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def decode_answer(data: bytes) -> Answer:
    """Raises one of `DECODE_ERRORS` for what no coordinator of this version answers."""
    return _answers.decode(data)
