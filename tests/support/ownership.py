"""The owners of partitions by the log of a group: the coordinator's own record, batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from kraft.coordinators.groups.instance import Instance, decode_instance
from kraft.coordinators.groups.records import (
    CommittedOffset,
    GroupKey,
    GroupRecord,
    InstanceKey,
    OffsetKey,
    StoredGroup,
    decode_record,
)
from kraft.coordinators.groups.subscriptions import decode_assignment
from kraft.protocol.batches.header import whole_batches
from kraft.protocol.batches.records import read_batches
from kraft.protocol.primitives import Buffer

TopicPartition = tuple[str, int]


@dataclass
class Ownership:
    """The group as its log leaves it, and what was wrong on the way."""

    group: str
    generations: list[int] = field(default_factory=list)
    committed: dict[TopicPartition, int] = field(default_factory=dict)
    served: list[tuple[str, TopicPartition, int, int]] = field(default_factory=list)
    """(instance, partition, first offset, offset after the last) of each batch."""
    violations: list[str] = field(default_factory=list)
    _instances: dict[str, Instance] = field(default_factory=dict)

    def follow(self, batches: Iterable[list[GroupRecord]]) -> Ownership:
        for number, batch in enumerate(batches):
            for record in batch:
                self._take(record, where=f"batch {number}")
            self._check(where=f"batch {number}")
        return self

    def _take(self, record: GroupRecord, *, where: str) -> None:
        match record.key, record.value:
            case OffsetKey(_, topic, partition), CommittedOffset() as offset:
                self.committed[topic, partition] = offset.offset
            case GroupKey(_), StoredGroup() as stored:
                self._take_group(stored, where=where)
            case InstanceKey(_, name), bytes() as data:
                instance, known = decode_instance(data), self._instances.get(name)
                if known is None or instance.served != known.served:
                    self.served += [(name, (each[0], each[1]), each[2], each[3]) for each in instance.batch]
                self._instances[name] = instance
            case InstanceKey(_, name), None:
                self._instances.pop(name, None)

    def _take_group(self, stored: StoredGroup, *, where: str) -> None:
        if self.generations and stored.generation < self.generations[-1]:
            self.violations.append(f"{where}: generation {stored.generation} after {self.generations[-1]}")
        self.generations.append(stored.generation)
        assigned = [each for member in stored.members for each in decode_assignment(member.assignment)]
        twice = [partition for partition, count in Counter(assigned).items() if count > 1]
        if twice:
            self.violations.append(f"{where}: generation {stored.generation} gives {twice} to two members")

    def _check(self, *, where: str) -> None:
        owned = Counter(each for instance in self._instances.values() for each in instance.owned)
        twice = [partition for partition, count in owned.items() if count > 1]
        if twice:
            self.violations.append(f"{where}: {twice} have two owners")
        for instance in self._instances.values():
            foreign = [each for each in instance.batch if each[:2] not in instance.partitions]
            if foreign:
                self.violations.append(f"{where}: {instance.name} was served {foreign} of {instance.partitions}")


def batches_of(data: Buffer, group: str) -> Iterator[list[GroupRecord]]:
    for position, header in whole_batches(data):
        found = []
        for record in read_batches(data[position : position + header.size]):
            decoded = None if record.key is None else decode_record(record.key, record.value)
            if decoded is not None and decoded.key.group == group:
                found.append(decoded)
        yield found
