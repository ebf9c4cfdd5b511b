"""What may be lost at each time of a run: the nodes that have lost data, and the eras of partitions.

When every member of an ISR has lost unsynced data, or an unclean election has chosen a leader, a new era of the
partition begins (see `eras`), and what was acknowledged before it may be lost. The promise itself: docs/simulation.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kraft.protocol.errors import CorruptMessage, KafkaStorageError
from metadata.image import PartitionImage, TopicIdPartition
from replication.partition.replica import Replica
from tests.simulation.eras import Eras

if TYPE_CHECKING:
    from tests.simulation.oracle import Oracle

READ_BYTES = 1 << 20


@contextmanager
def unnoticed(log: Any) -> Iterator[None]:
    """Damage stays for the product to find: reads of the oracle do not reveal it."""
    availability = log._availability
    original, was_damaged = availability._on_damage, availability.is_damaged
    availability._on_damage = lambda *_: None
    try:
        yield
    finally:
        availability._on_damage, availability.is_damaged = original, was_damaged


class Promise:
    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self.eras = Eras()
        """An unclean election begins one, and the loss of a whole ISR's data."""
        self.excused: dict[TopicIdPartition, str] = {}
        """Partitions whose whole ISR has lost data, a damaged log among it."""
        self.rotten: set[int] = set()
        """Nodes in whose logs a bit has flipped, or whose logs were wiped."""
        self.damaged: dict[TopicIdPartition, set[int]] = {}
        """Nodes whose log of a partition holds a flipped bit, until it reads well again."""
        self._lost_us: dict[int, int] = {}
        """When a node last lost unsynced data."""
        self._lossy: dict[TopicIdPartition, set[int]] = {}
        self._left_at: dict[tuple[TopicIdPartition, int], int] = {}
        """Replicas that left an ISR after losing data, or left the assignment, with the partition epoch of that change,
        which an older leader does not know yet."""

    # --- what happened ------------------------------------------------------------------------------------------

    def power_lost(self, node_id: int) -> None:
        """What the node had not synced is gone, in part or wholly; topics with flush.messages=1 had synced it."""
        self._oracle.count("power lost")
        self._lose(node_id, all_partitions=False)

    def disk_lost(self, node_id: int) -> None:
        self.rotten.add(node_id)
        self._lose(node_id, all_partitions=True)

    def rotted(self, node_id: int, key: TopicIdPartition) -> None:
        """A bit flipped in this log (an index can be made again). Nobody needs to notice before it is read."""
        self.rotten.add(node_id)
        self.damaged.setdefault(key, set()).add(node_id)
        partition = self._oracle.image.partition(key.topic_id, key.partition)
        if partition is not None and node_id in partition.isr:
            self._lossy.setdefault(key, set()).add(node_id)
            self._maybe_excuse(key, partition)

    def _lose(self, node_id: int, *, all_partitions: bool) -> None:
        self._lost_us[node_id] = self._oracle.cluster.world.loop.now_us
        image = self._oracle.image
        for topic in image.topics.values():
            if not all_partitions and image.config("topic", topic.name).get("flush.messages") == "1":
                continue
            for partition in topic.partitions.values():
                if node_id in partition.isr:
                    key = TopicIdPartition(partition.topic_id, partition.partition)
                    self._lossy.setdefault(key, set()).add(node_id)
                    self._maybe_excuse(key, partition)

    def registered(self, broker_id: int) -> None:
        """It has registered since it lost data. Where it is in an ISR still, as the last one, its log is what counts,
        and was cut before it leads again, in a later epoch."""
        for lossy in self._lossy.values():
            lossy.discard(broker_id)

    def began_to_lead(self, node_id: int, key: TopicIdPartition) -> None:
        """The last of its ISR: what it has now is what there is."""
        self._lossy.get(key, set()).discard(node_id)

    def partition_changed(self, key: TopicIdPartition, old: PartitionImage | None, new: PartitionImage) -> None:
        for member in set(() if old is None else old.replicas) - set(new.replicas):
            self._left_at[key, member] = new.partition_epoch
        lossy, damaged = self._lossy.get(key, set()), self.damaged.get(key, set())
        if lossy or damaged:
            for member in (lossy | damaged) - set(new.isr):
                self._left_at[key, member] = new.partition_epoch
            lossy &= set(new.isr)
            self._maybe_excuse(key, new)

    def _maybe_excuse(self, key: TopicIdPartition, partition: PartitionImage) -> None:
        self.damaged[key] = {each for each in self.damaged.get(key, ()) if self.has_damage(each, key)}
        if not set(partition.isr) <= self._lossy.get(key, set()) | self.damaged[key]:
            return
        if not self.eras.is_before(key, partition.leader_epoch):
            self._oracle.count("whole ISR lost unsynced data")
            self._oracle.note(f"{self._oracle.name(key)}: every member of the ISR {partition.isr} has lost data")
        if self.damaged[key] & set(partition.isr):
            self.excused[key] = f"the whole ISR {partition.isr} has lost data"
        # Who leads next does so in a later epoch, and in a life that began after the loss.
        self.begin_era(key, partition.leader_epoch + 1)

    def begin_era(self, key: TopicIdPartition, leader_epoch: int) -> None:
        """The promise begins again with the leader of this epoch."""
        if self.eras.begin(key, leader_epoch):
            self._oracle.logs.begin_rebuild(key)

    # --- what may be --------------------------------------------------------------------------------------------

    def may_lose_of(self, key: TopicIdPartition, leader_epoch: int) -> bool:
        """May what was acknowledged under acks=all in this epoch be lost?"""
        return self.is_given_up(key) or self.eras.is_before(key, leader_epoch)

    def may_lose(self, key: TopicIdPartition) -> bool:
        """May anything that was acknowledged under acks=all, whenever it was, be lost?"""
        return self.is_given_up(key) or self.eras.has_begun_anew(key)

    def is_given_up(self, key: TopicIdPartition) -> bool:
        return key in self.excused or self._oracle.image.partition(key.topic_id, key.partition) is None

    def is_lossy(self, node_id: int, key: TopicIdPartition) -> bool:
        """Has it lost data that it had in sync, and is it in the ISR all the same?"""
        return node_id in self._lossy.get(key, ())

    def has_left(self, node_id: int, key: TopicIdPartition, *, partition_epoch: int) -> bool:
        """Is it gone since, as somebody who knows this partition epoch cannot know?"""
        return partition_epoch < self._left_at.get((key, node_id), -1)

    def has_lost_within(self, node_id: int, span_us: int) -> bool:
        lost_us = self._lost_us.get(node_id)
        return lost_us is not None and self._oracle.cluster.world.loop.now_us - lost_us < span_us

    def must_agree(self, node_id: int, replica: Replica) -> bool:
        """With what the logs of the others have below their high watermarks."""
        return not self.is_given_up(replica.key) and self.eras.must_agree(node_id, replica)

    def has_damage(self, node_id: int, key: TopicIdPartition) -> bool:
        """The last known state of a log that cannot be read now."""
        replica = self._oracle.replica(node_id, key)
        if replica is None:
            return True
        log, offset = replica.log, replica.log.log_start_offset
        with unnoticed(log):
            while offset < log.log_end_offset:
                try:
                    read = log.read(offset, bytes_max=READ_BYTES, upper_bound=log.log_end_offset)
                except (CorruptMessage, KafkaStorageError):
                    return True
                offset = read.next_offset if len(read.data) else log.log_end_offset
        return False
