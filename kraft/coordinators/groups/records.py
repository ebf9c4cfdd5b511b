"""The records of `__consumer_offsets`, byte for byte Kafka's, and one key type of our own.

Keys: int16 version, then for 0 and 1 (offset) group, topic, partition int32; for 2 (group) group. Strings are an
int16 length and UTF-8. Offset value, version 3: offset int64, leader epoch int32, metadata, commit timestamp int64; one
with a time of its own when it expires is version 1: no leader epoch, and that time as int64 at the end. Version 4, of
Kafka from 4.1 on, is read too: the metadata is a compact string, and a tagged field has the topic's id.
Group value, version 3: protocol type, generation int32, protocol, leader, state timestamp int64, and an array of
members: id, instance id, client id, host, rebalance timeout int32, session timeout int32, subscription and assignment
as bytes (int32 length). Keys 3 to 8 and 16 are those of the consumer protocol: `consumer_records`; 10 to 15 those of
share groups: `share_records`. Ours, key version 32000: group and REST instance; its value is version 0 and JSON:
Kafka's tools skip keys whose version they do not know. A record without a value is a tombstone.
Source: OffsetCommitKey/Value.json, GroupMetadataKey/Value.json of the group coordinator.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from kraft.coordinators.groups.consumer_records import (
    CONSUMER_KEYS,
    ConsumerKey,
    ConsumerValue,
    decode_consumer_key,
    decode_consumer_value,
    encode_consumer_key,
    encode_consumer_value,
)
from kraft.coordinators.groups.share_records import (
    SHARE_KEYS,
    ShareKey,
    ShareValue,
    decode_share_key,
    decode_share_value,
    encode_share_key,
    encode_share_value,
)
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.errors import InvalidCommitOffsetSize
from kraft.protocol.varints import varint_at
from kraft.values import value
from metadata.internal_topics import OFFSETS_BATCH_BYTES_MAX, OFFSETS_TOPIC

OFFSET_KEY = 1
GROUP_KEY = 2
INSTANCE_KEY = 32_000
VALUE_VERSION = 3
GROUP_VERSION_MIN = 3
"""Older ones come from brokers before 2.4; their bytes are laid out differently and are skipped."""
EXPIRING_VERSION = 1
LEADER_EPOCHS_FROM = 3
OFFSET_FLEXIBLE_FROM = 4
OFFSET_VERSION_MAX = 4
NO_EXPIRY = -1

_SHORT = struct.Struct(">h")
_INT = struct.Struct(">i")
_LONG = struct.Struct(">q")
_NO_TEXT = _SHORT.pack(-1)
"""A text that is null."""


class MalformedRecord(ValueError):
    """A key or value that does not have the layout of its version."""


@dataclass(frozen=True, slots=True)
class OffsetKey:
    group: str
    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class GroupKey:
    group: str


@dataclass(frozen=True, slots=True)
class InstanceKey:
    group: str
    instance: str


Key: TypeAlias = OffsetKey | GroupKey | InstanceKey | ConsumerKey | ShareKey


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedOffset:
    offset: int
    leader_epoch: int = -1
    metadata: str = ""
    commit_timestamp: int = 0
    expire_timestamp: int = NO_EXPIRY
    """Set by a commit with a retention time (OffsetCommit 2 to 4)."""


class StoredMember(NamedTuple):
    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    subscription: bytes
    assignment: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredGroup:
    protocol_type: str
    generation: int
    protocol: str | None
    leader: str | None
    state_timestamp: int
    members: tuple[StoredMember, ...]


Value: TypeAlias = CommittedOffset | StoredGroup | ConsumerValue | ShareValue | bytes


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """One change, before it is bytes; `value` None is a tombstone. An instance's value is its JSON."""

    key: Key
    value: Value | None


@value()
class TransactionalRecord:
    """A record in a producer's transaction: an offset of it is pending until the marker."""

    producer_id: int
    record: GroupRecord


@value()
class TransactionEnded:
    """A marker in the partition."""

    producer_id: int
    is_commit: bool


Entry: TypeAlias = GroupRecord | TransactionalRecord | TransactionEnded
"""One entry of the log, as it is applied."""


class TransactionOf(NamedTuple):
    """Whose transaction a batch is part of."""

    producer_id: int
    producer_epoch: int


def encode_key(key: Key) -> bytes:
    match key:
        case OffsetKey(group, topic, partition):
            return _SHORT.pack(OFFSET_KEY) + _text(group) + _text(topic) + _INT.pack(partition)
        case GroupKey(group):
            return _SHORT.pack(GROUP_KEY) + _text(group)
        case InstanceKey(group, instance):
            return _SHORT.pack(INSTANCE_KEY) + _text(group) + _text(instance)
        case _ if isinstance(key, ConsumerKey):
            return encode_consumer_key(key)
        case _:
            return encode_share_key(key)


def encode_value(value: Value | None) -> bytes | None:
    match value:
        case None:
            return None
        case CommittedOffset() if value.expire_timestamp != NO_EXPIRY:
            return (
                _SHORT.pack(EXPIRING_VERSION)
                + _LONG.pack(value.offset)
                + _text(value.metadata)
                + _LONG.pack(value.commit_timestamp)
                + _LONG.pack(value.expire_timestamp)
            )
        case CommittedOffset():
            return (
                _SHORT.pack(VALUE_VERSION)
                + _LONG.pack(value.offset)
                + _INT.pack(value.leader_epoch)
                + _text(value.metadata)
                + _LONG.pack(value.commit_timestamp)
            )
        case StoredGroup():
            head = _SHORT.pack(VALUE_VERSION) + _text(value.protocol_type) + _INT.pack(value.generation)
            head += _text(value.protocol) + _text(value.leader) + _LONG.pack(value.state_timestamp)
            return head + _INT.pack(len(value.members)) + b"".join(map(_member, value.members))
        case bytes():
            return _SHORT.pack(0) + value
        case _ if isinstance(value, ConsumerValue):
            return encode_consumer_value(value)
        case _:
            return encode_share_value(value)


def decode_record(key: bytes, value: bytes | None) -> GroupRecord | None:
    """None for a key or value version that is not ours to read. Raises MalformedRecord."""
    reader = _Reader(key)
    version = reader.short()
    if version in (0, OFFSET_KEY):
        offset_key = OffsetKey(reader.text(), reader.text(), reader.integer())
        return _with_value(offset_key, value, _read_offset)
    if version == GROUP_KEY:
        return _with_value(GroupKey(reader.text()), value, _read_group)
    if version == INSTANCE_KEY:
        instance = InstanceKey(reader.text(), reader.text())
        return GroupRecord(instance, None if value is None else value[_SHORT.size :])
    if version in CONSUMER_KEYS or version in SHARE_KEYS:
        return _decode_modern(version, reader, value)
    return None


def _decode_modern(version: int, reader: _Reader, value: bytes | None) -> GroupRecord | None:
    fields = []
    while not reader.is_at_end:
        fields.append(reader.text())
    try:
        key: ConsumerKey | ShareKey
        decoded: ConsumerValue | ShareValue | None = None
        if version in SHARE_KEYS:
            key = share = decode_share_key(version, fields)
            decoded = None if value is None else decode_share_value(share, value)
        else:
            key = consumer = decode_consumer_key(version, fields)
            decoded = None if value is None else decode_consumer_value(consumer, value)
    except ValueError as error:
        raise MalformedRecord(str(error)) from error
    return None if decoded is None and value is not None else GroupRecord(key, decoded)


def _with_value(key: Key, value: bytes | None, read: Callable[[_Reader, int], Value | None]) -> GroupRecord | None:
    if value is None:
        return GroupRecord(key, None)
    reader = _Reader(value)
    found = read(reader, reader.short())
    return None if found is None else GroupRecord(key, found)


def _read_offset(reader: _Reader, version: int) -> CommittedOffset | None:
    if version > OFFSET_VERSION_MAX:
        return None
    return CommittedOffset(
        offset=reader.long(),
        leader_epoch=reader.integer() if version >= LEADER_EPOCHS_FROM else -1,
        metadata=reader.compact_text() if version >= OFFSET_FLEXIBLE_FROM else reader.text(),
        commit_timestamp=reader.long(),
        expire_timestamp=reader.long() if version == EXPIRING_VERSION else NO_EXPIRY,
    )


def _read_group(reader: _Reader, version: int) -> StoredGroup | None:
    if version < GROUP_VERSION_MIN:
        return None
    return StoredGroup(
        protocol_type=reader.text(),
        generation=reader.integer(),
        protocol=reader.nullable(),
        leader=reader.nullable(),
        state_timestamp=reader.long(),
        members=tuple(_read_member(reader) for _ in range(reader.integer())),
    )


def _read_member(reader: _Reader) -> StoredMember:
    return StoredMember(
        member_id=reader.text(),
        instance_id=reader.nullable(),
        client_id=reader.text(),
        client_host=reader.text(),
        rebalance_timeout_ms=reader.integer(),
        session_timeout_ms=reader.integer(),
        subscription=reader.data(),
        assignment=reader.data(),
    )


def _member(member: StoredMember) -> bytes:
    member_id, instance_id, client_id, client_host, rebalance_ms, session_ms, subscription, assignment = member
    name = member_id.encode()
    return b"".join(
        (
            _SHORT.pack(len(name)),
            name,
            _NO_TEXT if instance_id is None else _text(instance_id),
            _shared(client_id, client_host, rebalance_ms, session_ms),
            _INT.pack(len(subscription)),
            subscription,
            _INT.pack(len(assignment)),
            assignment,
        )
    )


@lru_cache(maxsize=64)
def _shared(client_id: str, client_host: str, rebalance_timeout_ms: int, session_timeout_ms: int) -> bytes:
    """What most members of a group have in common."""
    return _text(client_id) + _text(client_host) + _INT.pack(rebalance_timeout_ms) + _INT.pack(session_timeout_ms)


def _text(text: str | None) -> bytes:
    if text is None:
        return _SHORT.pack(-1)
    data = text.encode()
    return _SHORT.pack(len(data)) + data


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_at_end(self) -> bool:
        return self._at >= len(self._data)

    def _number(self, form: struct.Struct) -> int:
        try:
            (value,) = form.unpack_from(self._data, self._at)
        except struct.error as error:
            raise MalformedRecord(f"{len(self._data)} bytes end within a number") from error
        self._at += form.size
        return int(value)

    def short(self) -> int:
        return self._number(_SHORT)

    def integer(self) -> int:
        return self._number(_INT)

    def long(self) -> int:
        return self._number(_LONG)

    def _take(self, size: int) -> bytes:
        if size < 0 or self._at + size > len(self._data):
            raise MalformedRecord(f"a field of {size} bytes does not fit into {len(self._data)} at {self._at}")
        self._at += size
        return self._data[self._at - size : self._at]

    def nullable(self) -> str | None:
        size = self.short()
        return None if size < 0 else self._take(size).decode("utf-8", "replace")

    def text(self) -> str:
        return self.nullable() or ""

    def compact_text(self) -> str:
        try:
            size, self._at = varint_at(memoryview(self._data), self._at)
        except (IndexError, ValueError) as error:
            raise MalformedRecord(f"{len(self._data)} bytes end within a length: {error}") from error
        return self._take(size - 1).decode("utf-8", "replace")

    def data(self) -> bytes:
        return self._take(self.integer())


def encode_batch(
    records: Sequence[GroupRecord],
    *,
    timestamp_ms: int,
    bytes_max: int = OFFSETS_BATCH_BYTES_MAX,
    transaction: TransactionOf | None = None,
) -> bytes:
    """Raises InvalidCommitOffsetSize 28 for more than `bytes_max`."""
    new = [NewRecord(encode_key(record.key), encode_value(record.value), [], timestamp_ms) for record in records]
    if transaction is None:
        batch = build_batch(new)
    else:
        batch = build_batch(
            new,
            producer_id=transaction.producer_id,
            producer_epoch=transaction.producer_epoch,
            is_transactional=True,
        )
    if len(batch) > bytes_max:
        raise InvalidCommitOffsetSize(
            f"the change of group {records[0].key.group!r} takes {len(batch)} bytes, a batch of {OFFSETS_TOPIC} "
            f"at most {bytes_max} (its max.message.bytes and segment.bytes)"
        )
    return batch
