"""The promise of dead letters: each record that a share group gave up has one, and no leader writes it twice.

The leader after one that was killed may write a letter again, as in Kafka. One that could not be written is an event,
and counts as written here. What a lost acknowledgement leaves uncertain needs no letter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kraft.coordinators.shares.leader import ShareLeader
from kraft.coordinators.shares.state import ShareKey
from kraft.protocol.batches.records import read_batches
from metadata.image import TopicIdPartition
from replication.shares.partition import DeadLetters, SharePartition
from tests.simulation.log_bytes import bytes_from
from tests.simulation.queue_plan import DEAD_LETTERS, TOPIC

if TYPE_CHECKING:
    from tests.simulation.oracle import Oracle


class DeadLetterOracle:
    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._keys: dict[SharePartition, ShareKey] = {}
        self._by_leader: dict[SharePartition, set[int]] = {}
        """The offsets that are done with, by what one leader knows."""
        self._lost: set[tuple[ShareKey, int]] = set()

    def leads(self, leader: ShareLeader) -> None:
        self._keys[leader.partition] = leader.key

    def written(self, partition: SharePartition, letters: DeadLetters, lost: frozenset[int]) -> None:
        """A leader is done with these."""
        key, known = self._keys[partition], self._by_leader.setdefault(partition, set())
        for offset in range(letters.first_offset, letters.last_offset + 1):
            self._oracle.check(
                offset not in known,
                f"queue {key.group}: one leader has written the dead letter of offset {offset} twice",
            )
            known.add(offset)
            self._oracle.count(f"queue: dead letter {'lost' if offset in lost else 'written'}")
            if offset in lost:
                self._lost.add((key, offset))

    def of(self, key: ShareKey) -> set[int] | None:
        """The offsets that have a letter, or an event instead. None: the topic for dead letters
        may have lost some."""
        topic = self._oracle.image.topic(DEAD_LETTERS)
        assert topic is not None
        found = {offset for lost_key, offset in self._lost if lost_key == key}
        for partition in topic.partitions.values():
            where = TopicIdPartition(topic.topic_id, partition.partition)
            replica = self._oracle.replica(partition.leader, where) if partition.has_leader else None
            if replica is None or self._oracle.promise.may_lose(where):
                return None
            data = bytes_from(replica, replica.log.log_start_offset)
            for record in read_batches(data):
                headers = {name: (value or b"").decode() for name, value in record.headers}
                named = [headers[f"__dlq.errors.{name}"] for name in ("group", "topic", "partition")]
                if named == [key.group, TOPIC, str(key.partition)]:
                    found.add(int(headers["__dlq.errors.offset"]))
        return found
