"""The records of groups of the consumer protocol (KIP-848), byte for byte Kafka's.

Keys: int16 version, then group, and member or pattern where the record belongs to one; strings are an int16 length
and UTF-8. Values: int16 version 0, then flexible fields (KIP-482): lengths are unsigned varints and one too high, null
is 0, and each structure ends with its tagged fields.

    3  group               epoch int32, [tag 0: metadata hash int64]
    4  group               nothing any more: Kafka before 4.1 kept the topics here, so only its tombstone is written
    5  group, member       instance, rack, client id, host, topics, pattern, rebalance timeout int32, assignor,
                           [tag 0: null, or session timeout int32 and protocols of a member of the classic protocol]
    6  group               epoch of the target assignment int32
    7  group, member       target assignment: topic id and partitions of each topic
    8  group, member       member epoch, previous epoch int32, state int8, assigned, to be revoked; as in 7 with
                           [tag 0: the epoch in which each partition was assigned] (KIP-1251)
    16 group, pattern      topics, version int64, timestamp int64

Kafka's reader takes an absent tag 0 of key 5 for an empty structure, so for a member of the classic protocol: null
has to be written out.
Source: ConsumerGroup*Key.json and ConsumerGroup*Value.json of the group coordinator, 4.3.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

from kraft.coordinators.groups.subscriptions import Protocols
from kraft.protocol.varints import varint, varint_at
from metadata.image import TopicIdPartition

T = TypeVar("T")

_SHORT = struct.Struct(">h")
_INT = struct.Struct(">i")
_LONG = struct.Struct(">q")
_BYTE = struct.Struct(">b")
_NO_TAGS = varint(0)
_NULL = varint(0)

Partitions: TypeAlias = frozenset[TopicIdPartition]
AssignmentEpochs: TypeAlias = Mapping[TopicIdPartition, int]
"""Partitions, and the epoch of the target assignment in which each was given to its member."""


# --- keys -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EpochKey:
    group: str


@dataclass(frozen=True, slots=True)
class PartitionMetadataKey:
    group: str


@dataclass(frozen=True, slots=True)
class MemberKey:
    group: str
    member: str


@dataclass(frozen=True, slots=True)
class TargetEpochKey:
    group: str


@dataclass(frozen=True, slots=True)
class TargetKey:
    group: str
    member: str


@dataclass(frozen=True, slots=True)
class CurrentKey:
    group: str
    member: str


@dataclass(frozen=True, slots=True)
class PatternKey:
    group: str
    pattern: str


ConsumerKey: TypeAlias = (
    EpochKey | PartitionMetadataKey | MemberKey | TargetEpochKey | TargetKey | CurrentKey | PatternKey
)

# --- values ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEpoch:
    epoch: int
    metadata_hash: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTopics:
    """What Kafka before 4.1 knew of the topics of a group. Not read: that there is such a record is all that counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicSupport:
    """The fields of a member that speaks the classic protocol."""

    session_timeout_ms: int
    protocols: Protocols


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredConsumer:
    instance_id: str | None = None
    rack_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    topics: frozenset[str] = frozenset()
    pattern: str | None = None
    rebalance_timeout_ms: int = -1
    assignor: str | None = None
    classic: ClassicSupport | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTargetEpoch:
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTarget:
    partitions: Partitions


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCurrent:
    member_epoch: int
    previous_epoch: int
    state: int
    assigned: AssignmentEpochs = field(default_factory=lambda: MappingProxyType({}))
    revoking: AssignmentEpochs = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPattern:
    topics: frozenset[str]
    version: int
    """Offset of the metadata that was looked at."""
    timestamp: int


ConsumerValue: TypeAlias = (
    StoredEpoch | StoredTopics | StoredConsumer | StoredTargetEpoch | StoredTarget | StoredCurrent | StoredPattern
)


# --- written --------------------------------------------------------------------------------------------------------


def encode_consumer_key(key: ConsumerKey) -> bytes:
    number = _NUMBERS[type(key)]
    match key:
        case (
            MemberKey(group, second) | TargetKey(group, second) | CurrentKey(group, second) | PatternKey(group, second)
        ):
            return _SHORT.pack(number) + _old_text(group) + _old_text(second)
        case _:
            return _SHORT.pack(number) + _old_text(key.group)


def encode_consumer_value(value: ConsumerValue) -> bytes:
    match value:
        case StoredEpoch():
            body = _INT.pack(value.epoch) + _tagged(_LONG.pack(value.metadata_hash) if value.metadata_hash else None)
        case StoredTopics():
            raise AssertionError("the topics of a group have no record of their own any more")
        case StoredConsumer():
            body = _consumer(value)
        case StoredTargetEpoch():
            body = _INT.pack(value.epoch) + _NO_TAGS
        case StoredTarget():
            body = _topics(value.partitions, lambda _: _NO_TAGS) + _NO_TAGS
        case StoredCurrent():
            body = _INT.pack(value.member_epoch) + _INT.pack(value.previous_epoch) + _BYTE.pack(value.state)
            body += _with_epochs(value.assigned) + _with_epochs(value.revoking) + _NO_TAGS
        case StoredPattern():
            body = _array(map(_text, sorted(value.topics))) + _LONG.pack(value.version) + _LONG.pack(value.timestamp)
            body += _NO_TAGS
    return _SHORT.pack(0) + body


def _consumer(value: StoredConsumer) -> bytes:
    classic = _NULL
    if value.classic is not None:
        protocols = [_text(name) + _sized(data) + _NO_TAGS for name, data in value.classic.protocols]
        classic = varint(1) + _INT.pack(value.classic.session_timeout_ms) + _array(protocols) + _NO_TAGS
    return (
        _text(value.instance_id)
        + _text(value.rack_id)
        + _text(value.client_id)
        + _text(value.client_host)
        + _array(map(_text, sorted(value.topics)))
        + _text(value.pattern)
        + _INT.pack(value.rebalance_timeout_ms)
        + _text(value.assignor)
        + _tagged(classic)
    )


def _topics(partitions: Iterable[TopicIdPartition], tags: Callable[[Sequence[TopicIdPartition]], bytes]) -> bytes:
    by_topic: dict[UUID, list[TopicIdPartition]] = {}
    for each in sorted(partitions):
        by_topic.setdefault(each.topic_id, []).append(each)
    return _array(
        topic_id.bytes + _array(_INT.pack(each.partition) for each in found) + tags(found)
        for topic_id, found in by_topic.items()
    )


def _with_epochs(epochs: AssignmentEpochs) -> bytes:
    return _topics(epochs, lambda found: _tagged(_array(_INT.pack(epochs[each]) for each in found)))


def _tagged(data: bytes | None) -> bytes:
    """Tag 0 is the only one."""
    return _NO_TAGS if data is None else varint(1) + varint(0) + varint(len(data)) + data


def _array(items: Iterable[bytes]) -> bytes:
    found = list(items)
    return varint(len(found) + 1) + b"".join(found)


def _sized(data: bytes) -> bytes:
    return varint(len(data) + 1) + data


def _text(text: str | None) -> bytes:
    return _NULL if text is None else _sized(text.encode())


def _old_text(text: str) -> bytes:
    data = text.encode()
    return _SHORT.pack(len(data)) + data


# --- read -----------------------------------------------------------------------------------------------------------


def decode_consumer_key(number: int, fields: Sequence[str]) -> ConsumerKey:
    """`fields` are the strings behind the number. Raises ValueError when they are not as many as it has."""
    kind = _KINDS[number]
    if len(fields) != len(kind.__slots__):
        raise ValueError(f"{len(fields)} fields in a key of version {number}, which has {len(kind.__slots__)}")
    key: ConsumerKey = kind(*fields)
    return key


def decode_consumer_value(key: ConsumerKey, data: bytes) -> ConsumerValue | None:
    """None for a version that is not ours to read. Raises ValueError."""
    reader = _Reader(memoryview(data))
    try:
        version: int = reader.number(_SHORT)
        if version != 0:
            return None
        return _READERS[type(key)](reader)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"{len(data)} bytes of a {type(key).__name__}: {error}") from error


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def number(self, form: struct.Struct) -> int:
        (value,) = form.unpack_from(self._data, self._at)
        self._at += form.size
        return int(value)

    def varint(self) -> int:
        value, self._at = varint_at(self._data, self._at)
        return value

    def take(self, size: int) -> memoryview:
        if size < 0 or self._at + size > len(self._data):
            raise ValueError(f"a field of {size} bytes does not fit into {len(self._data)} at {self._at}")
        self._at += size
        return self._data[self._at - size : self._at]

    def data(self) -> bytes | None:
        size = self.varint()
        return bytes(self.take(size - 1)) if size else None

    def nullable(self) -> str | None:
        data = self.data()
        return None if data is None else data.decode()

    def text(self) -> str:
        return self.nullable() or ""

    def array(self, item: Callable[[], T]) -> list[T]:
        return [item() for _ in range(max(self.varint() - 1, 0))]

    def tags(self) -> dict[int, _Reader]:
        found = {}
        for _ in range(self.varint()):
            tag, size = self.varint(), self.varint()
            found[tag] = _Reader(self.take(size))
        return found


def _read_epoch(reader: _Reader) -> StoredEpoch:
    epoch, tags = reader.number(_INT), reader.tags()
    return StoredEpoch(epoch=epoch, metadata_hash=tags[0].number(_LONG) if 0 in tags else 0)


def _read_consumer(reader: _Reader) -> StoredConsumer:
    instance_id, rack_id, client_id, client_host = reader.nullable(), reader.nullable(), reader.text(), reader.text()
    topics, pattern = frozenset(reader.array(reader.text)), reader.nullable()
    rebalance_timeout_ms, assignor = reader.number(_INT), reader.nullable()
    tags = reader.tags()
    classic = ClassicSupport(session_timeout_ms=0, protocols=())
    return StoredConsumer(
        instance_id=instance_id,
        rack_id=rack_id,
        client_id=client_id,
        client_host=client_host,
        topics=topics,
        pattern=pattern,
        rebalance_timeout_ms=rebalance_timeout_ms,
        assignor=assignor,
        classic=_read_classic(tags[0]) if 0 in tags else classic,
    )


def _read_classic(reader: _Reader) -> ClassicSupport | None:
    if not reader.varint():
        return None

    def protocol() -> tuple[str, bytes]:
        name, data = reader.text(), reader.data() or b""
        reader.tags()
        return name, data

    return ClassicSupport(session_timeout_ms=reader.number(_INT), protocols=tuple(reader.array(protocol)))


def _read_topics(reader: _Reader) -> list[tuple[list[TopicIdPartition], dict[int, _Reader]]]:
    def topic() -> tuple[list[TopicIdPartition], dict[int, _Reader]]:
        topic_id = UUID(bytes=bytes(reader.take(16)))
        numbers = reader.array(lambda: reader.number(_INT))
        return [TopicIdPartition(topic_id, number) for number in numbers], reader.tags()

    return reader.array(topic)


def _read_target(reader: _Reader) -> StoredTarget:
    partitions = frozenset(each for found, _ in _read_topics(reader) for each in found)
    reader.tags()
    return StoredTarget(partitions=partitions)


def _read_target_epoch(reader: _Reader) -> StoredTargetEpoch:
    epoch = reader.number(_INT)
    reader.tags()
    return StoredTargetEpoch(epoch=epoch)


def _read_current(reader: _Reader) -> StoredCurrent:
    member_epoch, previous_epoch, state = reader.number(_INT), reader.number(_INT), reader.number(_BYTE)

    def epochs() -> AssignmentEpochs:
        found: dict[TopicIdPartition, int] = {}
        for partitions, tags in _read_topics(reader):
            known = tags[0].array(lambda of=tags[0]: of.number(_INT)) if 0 in tags else []  # type: ignore[misc]
            if len(known) != len(partitions):  # Kafka before 4.3 wrote none
                known = [max(member_epoch, 0)] * len(partitions)
            found.update(zip(partitions, known, strict=True))
        return found

    assigned, revoking = epochs(), epochs()
    reader.tags()
    return StoredCurrent(
        member_epoch=member_epoch,
        previous_epoch=previous_epoch,
        state=state,
        assigned=assigned,
        revoking=revoking,
    )


def _read_pattern(reader: _Reader) -> StoredPattern:
    topics = frozenset(reader.array(reader.text))
    version, timestamp = reader.number(_LONG), reader.number(_LONG)
    reader.tags()
    return StoredPattern(topics=topics, version=version, timestamp=timestamp)


_KINDS: Mapping[int, Any] = {
    3: EpochKey,
    4: PartitionMetadataKey,
    5: MemberKey,
    6: TargetEpochKey,
    7: TargetKey,
    8: CurrentKey,
    16: PatternKey,
}
_NUMBERS: Mapping[type, int] = {kind: number for number, kind in _KINDS.items()}
CONSUMER_KEYS = frozenset(_KINDS)
"""Key versions."""

_READERS: Mapping[type, Callable[[_Reader], ConsumerValue]] = {
    EpochKey: _read_epoch,
    PartitionMetadataKey: lambda reader: StoredTopics(),
    MemberKey: _read_consumer,
    TargetEpochKey: _read_target_epoch,
    TargetKey: _read_target,
    CurrentKey: _read_current,
    PatternKey: _read_pattern,
}
