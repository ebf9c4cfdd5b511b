"""A REST consumer as its group's coordinator keeps it: what it wants, where it stands, what it was served last.

Frozen; the JSON of it is the value of its record. A batch is a set of ranges: asked for again it is read again, so a
lost answer loses nothing. Going on to the next number acknowledges it; auto-commit commits acknowledged positions.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from kraft.coordinators.groups.records import GroupRecord, InstanceKey, MalformedRecord, decode_record
from kraft.coordinators.groups.requests import Epoch, InstanceConfig, Range
from kraft.protocol.primitives import TopicPartition

Position = tuple[str, int, int]


class Instance(Struct, frozen=True, kw_only=True):
    group: str
    name: str
    nonce: str
    config: InstanceConfig
    owner: str = ""
    """The principal that has made it, `User:alice`; empty: everybody's."""
    host: str = ""
    """The address from which it was made, for ACLs that are about hosts."""
    member_id: str = ""
    topics: tuple[str, ...] = ()
    pattern: str | None = None
    manual: tuple[TopicPartition, ...] | None = None
    """Partitions that the client assigned itself."""
    owned: tuple[TopicPartition, ...] = ()
    """Partitions that the group assigned."""
    positions: tuple[Position, ...] = ()
    served: int = 0
    """Number of the batch served last."""
    batch: tuple[Range, ...] = ()
    """Its ranges, until it is acknowledged."""
    generation: int = 0
    epochs: tuple[Epoch, ...] = ()
    """In which its partitions were read last."""

    @property
    def is_subscribed(self) -> bool:
        return bool(self.topics) or self.pattern is not None

    @property
    def partitions(self) -> tuple[TopicPartition, ...]:
        return self.owned if self.manual is None else self.manual

    @property
    def position_of(self) -> dict[TopicPartition, int]:
        return {(topic, partition): offset for topic, partition, offset in self.positions}

    @property
    def epoch_of(self) -> dict[TopicPartition, int]:
        return {(topic, partition): epoch for topic, partition, epoch in self.epochs}

    @property
    def acknowledged(self) -> dict[TopicPartition, int]:
        """Positions before the batch that is not acknowledged yet."""
        unsure = {(topic, partition): first for topic, partition, first, _ in self.batch}
        return self.position_of | unsure

    def changed(self, **fields: object) -> Instance:
        changed: Instance = msgspec.structs.replace(self, **fields)
        return changed

    def with_partitions(self, owned: Iterable[TopicPartition]) -> Instance:
        """The group has a new assignment: positions and the batch go with the partitions that went."""
        kept = frozenset(owned)
        return self.changed(
            owned=tuple(sorted(kept)),
            positions=tuple(each for each in self.positions if each[:2] in kept),
            batch=tuple(each for each in self.batch if each[:2] in kept),
            epochs=tuple(each for each in self.epochs if each[:2] in kept),
            generation=self.generation + 1,
        )

    def with_positions(self, positions: dict[TopicPartition, int]) -> Instance:
        """A seek: what was served is settled by it."""
        return self.changed(
            positions=_sorted(self.position_of | positions),
            batch=tuple(each for each in self.batch if each[:2] not in positions),
            epochs=tuple(each for each in self.epochs if each[:2] not in positions),
            generation=self.generation + 1,
        )

    def with_batch(self, number: int, ranges: tuple[Range, ...], epochs: tuple[Epoch, ...] = ()) -> Instance:
        ends = {(topic, partition): end for topic, partition, _, end in ranges}
        batch = tuple(each for each in ranges if each[2] < each[3])
        newest = self.epoch_of | {each[:2]: each[2] for each in epochs if each[:2] in ends}
        return self.changed(
            positions=_sorted(self.position_of | ends), served=number, batch=batch, epochs=_sorted(newest)
        )

    def record(self) -> GroupRecord:
        return GroupRecord(InstanceKey(self.group, self.name), msgspec.json.encode(self))

    def tombstone(self) -> GroupRecord:
        return GroupRecord(InstanceKey(self.group, self.name), None)


def _sorted(positions: dict[TopicPartition, int]) -> tuple[Position, ...]:
    return tuple((topic, partition, offset) for (topic, partition), offset in sorted(positions.items()))


def decode_group_record(key: bytes, value: bytes | None) -> GroupRecord | None:
    """A record of a group or of one of its REST consumers. None for what is not ours. Raises MalformedRecord."""
    decoded = decode_record(key, value)
    if decoded is not None and isinstance(decoded.key, InstanceKey) and isinstance(decoded.value, bytes):
        decode_instance(decoded.value)
    return decoded


_decoder = msgspec.json.Decoder(Instance)


def decode_instance(data: bytes) -> Instance:
    """Raises MalformedRecord."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRecord(f"no REST instance: {error}") from error
