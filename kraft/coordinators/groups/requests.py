"""What a coordinator is asked, in one form for every door, and for the way of REST requests between nodes.

Each request names its group; the union is tagged, encoded as MessagePack by `encode` and decoded strictly.
"""

from __future__ import annotations

from typing import ClassVar, TypeAlias

import msgspec
from msgspec import Struct

from kraft.protocol.errors import InvalidRequest
from kraft.protocol.primitives import TopicPartition
from metadata.decode_errors import DECODE_ERRORS

Range: TypeAlias = tuple[str, int, int, int]
"""Topic, partition, first offset, offset after the last; -1 for an end that is not known yet."""
Epoch: TypeAlias = tuple[str, int, int]
"""Topic, partition, leader epoch in which it was read last (KIP-320)."""


class _Request(Struct, frozen=True, kw_only=True, tag=True, forbid_unknown_fields=True):
    group: str
    is_repeatable: ClassVar[bool] = True
    """Asking twice does no more than asking once, so that it may be sent again when its answer was lost."""


class JoinShareGroup(_Request, frozen=True, kw_only=True):
    """A receiver over REST, which is no member for longer than this: the group knows its topics then, and initializes
    their share partitions."""

    member_id: str
    topics: tuple[str, ...]


# --- the classic protocol -----------------------------------------------------------------------------------


class JoinGroup(_Request, frozen=True, kw_only=True):
    member_id: str = ""
    instance_id: str | None = None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: tuple[tuple[str, bytes], ...]
    is_known_required: bool = True
    can_skip_assignment: bool = True
    is_repeatable: ClassVar[bool] = False


class SyncGroup(_Request, frozen=True, kw_only=True):
    member_id: str
    generation: int
    instance_id: str | None = None
    protocol_type: str | None = None
    protocol: str | None = None
    assignments: tuple[tuple[str, bytes], ...] = ()


class HeartbeatGroup(_Request, frozen=True, kw_only=True):
    member_id: str
    generation: int
    instance_id: str | None = None


class LeaveGroup(_Request, frozen=True, kw_only=True):
    member_id: str = ""
    instance_id: str | None = None


class OffsetToCommit(Struct, frozen=True, array_like=True):
    topic: str
    partition: int
    offset: int
    metadata: str = ""
    leader_epoch: int = -1


class CommitOffsets(_Request, frozen=True, kw_only=True):
    member_id: str = ""
    generation: int = -1
    instance_id: str | None = None
    knows_epochs: bool = True
    """The request is of a version that members of the consumer protocol may use: 9 and on."""
    retention_ms: int = -1
    """How long these offsets are kept, instead of offsets.retention.minutes; -1: not said (OffsetCommit 2 to 4 may)."""
    offsets: tuple[OffsetToCommit, ...]
    follows: OffsetToCommit | None = None
    """Ours: what the group has for the first one of them, or nothing is written; offset -1: it has nothing."""


class CommitInTransaction(_Request, frozen=True, kw_only=True):
    """TxnOffsetCommit: the offsets count when the transaction is committed, and never when it is aborted."""

    transactional_id: str
    producer_id: int
    producer_epoch: int
    adds_partition: bool
    """The group need not have been added to the transaction before: this does it (KIP-890)."""
    knows_abortable: bool = True
    """The client knows TRANSACTION_ABORTABLE 120; before it gets INVALID_TXN_STATE 48."""
    member_id: str = ""
    generation: int = -1
    instance_id: str | None = None
    offsets: tuple[OffsetToCommit, ...]


class FetchOffsets(_Request, frozen=True, kw_only=True):
    partitions: tuple[TopicPartition, ...] | None = None
    """None: all that the group has."""
    member_id: str | None = None
    member_epoch: int = -1
    """The epoch of the member that asks has to be the current one (KIP-848); None and -1: any client may ask."""
    requires_stable: bool = False
    """Offsets that an open transaction may change are not returned (KIP-447)."""


# --- administration -----------------------------------------------------------------------------------------


class DescribeGroup(_Request, frozen=True, kw_only=True):
    pass


class ListGroups(_Request, frozen=True, kw_only=True):
    """The groups of one node; `group` is empty."""


class DeleteGroup(_Request, frozen=True, kw_only=True):
    pass


class DeleteOffsets(_Request, frozen=True, kw_only=True):
    partitions: tuple[TopicPartition, ...]


class ResetOffsets(_Request, frozen=True, kw_only=True):
    """A commit from outside, to a group without members."""

    offsets: tuple[OffsetToCommit, ...]


# --- share groups -------------------------------------------------------------------------------------------


class DescribeShareOffsets(_Request, frozen=True, kw_only=True):
    """DescribeShareGroupOffsets (90)."""

    partitions: tuple[TopicPartition, ...] | None = None
    """None: all that have a state."""


class ResetShareOffsets(_Request, frozen=True, kw_only=True):
    """AlterShareGroupOffsets (91): a group without members, or a new one, begins at these offsets."""

    offsets: tuple[tuple[str, int, int], ...]
    """Topic, partition, offset."""


class DeleteShareOffsets(_Request, frozen=True, kw_only=True):
    """DeleteShareGroupOffsets (92): a group without members forgets these topics."""

    topics: tuple[str, ...]


# --- REST consumers -----------------------------------------------------------------------------------------


class InstanceConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: str = "binary"
    reset: str = "latest"
    """earliest, latest or none."""
    auto_commit: bool = True
    fetch_bytes_min: int = 1
    request_timeout_ms: int = 1_000
    timeout_ms: int = 300_000
    """Idle for longer, it goes."""
    is_read_committed: bool = False


class CreateInstance(_Request, frozen=True, kw_only=True):
    instance: str
    nonce: str
    """Distinguishes a repetition of this request from another consumer of the same name."""
    config: InstanceConfig
    owner: str = ""
    """The principal that asks, `User:alice`; empty without one."""
    host: str = ""
    """The address from which it asks."""


class _InstanceRequest(_Request, frozen=True, kw_only=True):
    instance: str
    owner: str = ""
    """The principal that asks. An instance of another one is not there for it."""


class DeleteInstance(_InstanceRequest, frozen=True, kw_only=True):
    pass


class DescribeInstance(_InstanceRequest, frozen=True, kw_only=True):
    pass


class Subscribe(_InstanceRequest, frozen=True, kw_only=True):
    """Neither topics nor a pattern: no subscription and no assignment any more."""

    topics: tuple[str, ...] = ()
    pattern: str | None = None


class AssignInstance(_InstanceRequest, frozen=True, kw_only=True):
    partitions: tuple[TopicPartition, ...]


class Seek(_InstanceRequest, frozen=True, kw_only=True):
    positions: tuple[tuple[str, int, int], ...]


class BeginPoll(_InstanceRequest, frozen=True, kw_only=True):
    number: int | None = None
    """The number of the batch to read; None: the next one, and the batch before is acknowledged."""
    wait_ms: int
    """For an assignment, while the group rebalances."""
    reads_ms: int = 0
    """How long the read may wait for records; below 0: as long as the instance's requests may take."""


class EndPoll(_InstanceRequest, frozen=True, kw_only=True):
    number: int
    generation: int
    ranges: tuple[Range, ...]
    epochs: tuple[Epoch, ...] = ()


class CommitInstance(_InstanceRequest, frozen=True, kw_only=True):
    offsets: tuple[OffsetToCommit, ...] | None = None
    """None: everything that was read."""


class CommitInstanceInTransaction(_InstanceRequest, frozen=True, kw_only=True):
    """The same for what counts when a transaction is committed: see `CommitInTransaction`."""

    transactional_id: str
    producer_id: int
    producer_epoch: int
    offsets: tuple[OffsetToCommit, ...] | None = None


InstanceRequest: TypeAlias = (
    DeleteInstance | DescribeInstance | Subscribe | AssignInstance | Seek | BeginPoll | EndPoll | CommitInstance
)
Request: TypeAlias = (
    JoinShareGroup
    | JoinGroup
    | SyncGroup
    | HeartbeatGroup
    | LeaveGroup
    | CommitOffsets
    | CommitInTransaction
    | FetchOffsets
    | DescribeGroup
    | ListGroups
    | DeleteGroup
    | DeleteOffsets
    | ResetOffsets
    | DescribeShareOffsets
    | ResetShareOffsets
    | DeleteShareOffsets
    | CommitInstanceInTransaction
    | CreateInstance
    | InstanceRequest
)


encode = msgspec.msgpack.Encoder().encode
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)


def decode_request(data: bytes) -> Request:
    """Raises InvalidRequest 42."""
    try:
        return _requests.decode(data)
    except DECODE_ERRORS as error:
        raise InvalidRequest(f"no request to a group coordinator: {error}") from error
