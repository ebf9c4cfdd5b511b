"""When a cluster is whole after the faults: everything led, every ISR full, all replicas equally long and committed."""

from __future__ import annotations

from kraft.protocol.errors import CorruptMessage, KafkaStorageError
from metadata.image import PartitionImage, TopicIdPartition
from replication.partition.replica import Replica
from tests.simulation.oracle import Oracle
from tests.simulation.reading import bytes_from


class Wholeness:
    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._cluster = oracle.cluster

    def missing(self) -> str | None:
        """What keeps the cluster from being whole; None when nothing does."""
        image = self._oracle.image
        for node in self._cluster.nodes.values():
            if node.node is None:
                return f"node {node.node_id} does not run"
            if node.node.log.image.offset != image.offset:
                return f"node {node.node_id} is at {node.node.log.image.offset} of {image.offset} in the metadata"
            if node.is_newcomer:
                return f"node {node.node_id} is no voter yet"
            why = node.node.awaiting.service()
            if why:
                return f"node {node.node_id}: {why}"
        for partition in image.all_partitions():
            if (missing := self._partition_missing(partition)) is not None:
                return missing
        return None

    def _partition_missing(self, partition: PartitionImage) -> str | None:
        key = TopicIdPartition(partition.topic_id, partition.partition)
        name = self._oracle.name(key)
        if self.is_stuck(key, partition):
            return None
        if not partition.has_leader or set(partition.isr) != set(partition.replicas) or partition.is_reassigning:
            return f"{name} is {partition}"
        ends = {}
        for node_id in partition.replicas:
            replica = self._oracle.replica(node_id, key)
            if replica is None:
                node = self._cluster.nodes[node_id].node
                assert node is not None and node.replicas is not None  # noqa: PT018
                return f"{name} has no replica on node {node_id}: {node.replicas._registry.offline.get(key)}"
            ends[node_id] = (replica.log.log_end_offset, replica.state.high_watermark)
        if len(set(ends.values())) > 1 or any(end != high_watermark for end, high_watermark in ends.values()):
            return f"{name} has (log end, high watermark) {ends}"
        return None

    def is_stuck(self, key: TopicIdPartition, partition: PartitionImage) -> bool:
        """The one exception: the last log in sync is damaged, and nobody can get past that place."""
        (first, *others) = partition.isr
        is_stuck = (
            not others
            and first in self._oracle.promise.damaged.get(key, ())
            and self._oracle.promise.has_damage(first, key)
        )
        if is_stuck:
            self._oracle.count("the last log in sync is damaged")
            self._oracle.check(
                self._oracle.promise.may_lose(key), f"{self._oracle.name(key)} may not lose anything: {partition}"
            )
        return is_stuck

    def reads_well(self) -> bool:
        """Damage shows where somebody reads: every log is read as a whole."""
        looked = [self._reads_well(replica) for replica in self._replicas()]
        return all(looked)

    def _replicas(self) -> list[Replica]:
        nodes = [node.node for node in self._cluster.nodes.values() if node.node is not None]
        return [
            replica
            for node in nodes
            if node.replicas is not None
            for replica in node.replicas._registry.replicas.values()
        ]

    def _reads_well(self, replica: Replica) -> bool:
        try:
            bytes_from(replica, replica.log.log_start_offset)
        except (CorruptMessage, KafkaStorageError):  # the latter: an index led nowhere, and the log went offline
            self._oracle.count("damage was read")
            return False
        return True
