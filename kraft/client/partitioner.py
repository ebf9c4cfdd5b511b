"""Which partition a record goes to: the one it names, murmur2 of its key, or the one in turn (KIP-480, KIP-794). Pure.

Records without a key stay with one partition until it has had batch.size bytes of them, then a random other one with
a leader is next: so batches fill, and all partitions get the same share.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from kraft.client.errors import KraftError
from kraft.client.metadata import TopicMetadata
from kraft.protocol.errors import UnknownTopicOrPartition
from kraft.protocol.partitioner import partition_of_key


@dataclass(slots=True)
class _Turn:
    partition: int
    bytes_left: int


class Partitioner:
    def __init__(self, *, rng: random.Random, batch_size: int) -> None:
        self._rng = rng
        self._bytes = max(batch_size, 1)
        self._turns: dict[str, _Turn] = {}

    def choose(self, topic: TopicMetadata, key: bytes | None, *, size: int, named: int | None = None) -> int:
        """`named`: by the record. Raises KraftError for one that the topic does not have."""
        if named is not None:
            return _existing(topic, named)
        if key is not None:
            return partition_of_key(key, topic.partitions)
        turn = self._turns.get(topic.name)
        if turn is None or turn.bytes_left <= 0 or topic.leaders[turn.partition] < 0:
            turn = self._turns[topic.name] = _Turn(self._next(topic, turn), self._bytes)
        turn.bytes_left -= size
        return turn.partition

    def _next(self, topic: TopicMetadata, last: _Turn | None) -> int:
        others = [number for number in topic.with_leader if last is None or number != last.partition]
        return self._rng.choice(others or topic.with_leader)


def _existing(topic: TopicMetadata, partition: int) -> int:
    if not 0 <= partition < topic.partitions:
        raise KraftError(
            f"topic {topic.name!r} has no partition {partition}; it has {topic.partitions}, from 0",
            code=UnknownTopicOrPartition.code,
        )
    return partition
