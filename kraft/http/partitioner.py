"""Which partition a record of a request goes to: its own, that of its key, or one partition for all without keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from kraft.protocol.partitioner import partition_of_key
from metadata.image import TopicImage

TOPICS_CACHED_MAX = 10_000
UNPLACED = -1
"""The partition number of a record without key and partition, until a partition is chosen for it."""


class Keyed(Protocol):
    @property
    def key(self) -> bytes | None: ...
    @property
    def partition(self) -> int | None: ...


class Partitioner:
    """Hands out the partitions of keyless requests in turn, those with a leader only (KIP-480, KIP-794)."""

    def __init__(self) -> None:
        self._turns: dict[UUID, tuple[TopicImage, tuple[int, ...], int]] = {}

    def next_for(self, topic: TopicImage) -> int:
        """The partition of the next keyless request; an offline one only when all are."""
        known = self._turns.get(topic.topic_id)
        if known is None or known[0] is not topic:
            if len(self._turns) >= TOPICS_CACHED_MAX:
                self._turns.clear()
            online = tuple(number for number, partition in topic.partitions.items() if partition.has_leader)
            known = (topic, online or tuple(topic.partitions), 0 if known is None else known[2])
        _, available, turn = known
        self._turns[topic.topic_id] = (topic, available, turn + 1)
        return available[turn % len(available)]

    def place(self, topic: TopicImage, records: Sequence[Keyed], *, keyless: int = UNPLACED) -> list[int]:
        """Each record's partition; all keyless records of one request share one: the given one, or whose turn it is."""
        return self.settle(topic, places_of(topic, records, keyless=keyless))

    def settle(self, topic: TopicImage, places: list[int]) -> list[int]:
        """With the partition whose turn it is for what is UNPLACED."""
        if UNPLACED not in places:
            return places
        keyless = self.next_for(topic)
        return [keyless if place == UNPLACED else place for place in places]


def places_of(topic: TopicImage, records: Sequence[Keyed], *, keyless: int = UNPLACED) -> list[int]:
    """What the records themselves say, `keyless` for the rest. Pure: hashing many or long keys is work for a worker."""
    count = len(topic.partitions)
    if count == 1:
        return [0 if record.partition is None else record.partition for record in records]
    places: list[int] = []
    for record in records:
        if record.partition is not None:
            places.append(record.partition)
        elif record.key is not None:
            places.append(partition_of_key(record.key, count))
        else:
            places.append(keyless)
    return places
