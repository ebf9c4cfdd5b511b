"""What members tell each other through the coordinator, which passes it on unread: Kafka's consumer protocol.

Subscription, version 0 to 3: topics, user data; from 1 owned partitions; from 2 generation int32; from 3 rack.
User data of `sticky`: partitions by topic, in its version 1 the generation; of `cooperative-sticky`: the generation.
Assignment, version 0: partitions by topic, user data. Arrays have an int32 length, strings an int16.
Source: ConsumerProtocolSubscription.json, ConsumerProtocolAssignment.json.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from kraft.protocol.primitives import TopicPartition

_SHORT = struct.Struct(">h")
_INT = struct.Struct(">i")

Protocols: TypeAlias = tuple[tuple[str, bytes], ...]
"""Name and metadata of each assignor that a member can do, the most wanted first."""

STICKY = "sticky"
COOPERATIVE = "cooperative-sticky"
ITEMS_MAX = 20_000
"""Topics and partitions in one subscription or assignment that is read: a member may send millions in a MiB. What has
more is passed on, as all of them are, and to the coordinator it is none."""
DECODED_MAX = 1_024
"""Decoded subscriptions that are kept, and assignments: members of a group mostly say the same again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    topics: tuple[str, ...]
    owned: tuple[TopicPartition, ...] = ()
    generation: int = -1
    instance_id: str | None = None


def encode_subscription(subscription: Subscription, protocol: str = "") -> bytes:
    """Version 2, with the user data that Kafka's assignor of this name reads."""
    topics = sorted(subscription.topics)
    head = _SHORT.pack(2) + _INT.pack(len(topics)) + b"".join(map(_text, topics))
    owned, generation = _by_topic(subscription.owned), _INT.pack(subscription.generation)
    user_data = b""
    if protocol == STICKY and subscription.owned:
        user_data = owned + generation
    elif protocol == COOPERATIVE:
        user_data = generation
    return head + _INT.pack(len(user_data) or -1) + user_data + owned + generation


@lru_cache(DECODED_MAX)
def decode_subscription(data: bytes, protocol: str = "") -> Subscription:
    """Raises ValueError for bytes that are none. What a member of `sticky` had is in its user data alone: by its
    protocol it owns nothing when it joins."""
    try:
        return _decode_subscription(data, protocol)
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"no consumer subscription: {error}") from error


def _decode_subscription(data: bytes, protocol: str) -> Subscription:
    reader = _Reader(data)
    version = reader.short()
    topics = tuple(reader.text() for _ in range(reader.count()))
    user_data = reader.data(max(reader.integer(), 0))
    owned = reader.by_topic() if version >= 1 else ()
    generation = reader.integer() if version >= 2 else -1
    if protocol == STICKY:
        owned, generation = _had(user_data)
    elif protocol == COOPERATIVE and generation < 0 and len(user_data) == _INT.size:
        (generation,) = _INT.unpack(user_data)
    return Subscription(topics=topics, owned=owned, generation=generation)


def _had(user_data: bytes) -> tuple[tuple[TopicPartition, ...], int]:
    if not user_data:
        return (), -1
    reader = _Reader(user_data)
    owned = reader.by_topic()
    return owned, -1 if reader.is_at_end else reader.integer()


def version_of(subscription: bytes) -> int:
    """The version in which a member wrote its subscription, and reads its assignment. Raises struct.error."""
    (version,) = _SHORT.unpack_from(subscription)
    return int(version)


def encode_assignment(partitions: Iterable[TopicPartition], *, version: int = 0) -> bytes:
    """All versions have the same layout (ConsumerProtocolAssignment)."""
    return _SHORT.pack(version) + _by_topic(partitions) + _INT.pack(-1)


@lru_cache(DECODED_MAX)
def decode_assignment(data: bytes) -> tuple[TopicPartition, ...]:
    """Empty bytes are an empty assignment. Raises ValueError for bytes that are none."""
    if not data:
        return ()
    try:
        reader = _Reader(data)
        reader.short()
        return reader.by_topic()
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"no consumer assignment: {error}") from error


def assignment_user_data(data: bytes) -> bytes:
    """What an assignor keeps in an assignment for itself. Raises ValueError for bytes that are none."""
    if not data:
        return b""
    try:
        reader = _Reader(data)
        reader.short()
        reader.by_topic()
        return b"" if reader.is_at_end else reader.data(max(reader.integer(), 0))
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"no consumer assignment: {error}") from error


def _by_topic(partitions: Iterable[TopicPartition]) -> bytes:
    topics: dict[str, list[int]] = {}
    for topic, partition in sorted(partitions):
        topics.setdefault(topic, []).append(partition)
    rows = [
        _text(topic) + _INT.pack(len(numbers)) + b"".join(map(_INT.pack, numbers)) for topic, numbers in topics.items()
    ]
    return _INT.pack(len(rows)) + b"".join(rows)


def _text(text: str) -> bytes:
    data = text.encode()
    return _SHORT.pack(len(data)) + data


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._items = 0

    def count(self) -> int:
        """The number of items of an array. Raises ValueError."""
        found = self.integer()
        self._items += max(found, 0)
        if self._items > ITEMS_MAX:
            raise ValueError(f"{self._items} topics and partitions; {ITEMS_MAX} are read")
        return found

    def short(self) -> int:
        (value,) = _SHORT.unpack_from(self._data, self._at)
        self._at += _SHORT.size
        return int(value)

    def integer(self) -> int:
        (value,) = _INT.unpack_from(self._data, self._at)
        self._at += _INT.size
        return int(value)

    @property
    def is_at_end(self) -> bool:
        return self._at >= len(self._data)

    def data(self, size: int) -> bytes:
        if not 0 <= size <= len(self._data) - self._at:
            raise ValueError(f"a field of {size} bytes does not fit into {len(self._data)} at {self._at}")
        self._at += size
        return self._data[self._at - size : self._at]

    def text(self) -> str:
        return self.data(self.short()).decode()

    def by_topic(self) -> tuple[TopicPartition, ...]:
        found: list[TopicPartition] = []
        for _ in range(self.count()):
            topic = self.text()
            found += [(topic, self.integer()) for _ in range(self.count())]
        return tuple(found)
