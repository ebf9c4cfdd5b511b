"""When a cluster is whole after the faults: everything led, every ISR full, all replicas equally long and committed."""

from __future__ import annotations

from kraft.chaos.worlds.simulated.world import snapshot_of
from kraft.chaos.worlds.snapshot import PartitionKey, not_in_sync, unsettled
from kraft.protocol.errors import CorruptMessage, KafkaStorageError
from metadata.image import PartitionImage, TopicIdPartition
from replication.partition.replica import Replica
from tests.simulation.log_bytes import bytes_from
from tests.simulation.oracle import Oracle


class Convergence:
    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._cluster = oracle.cluster

    def missing(self) -> str:
        """What is missing until the cluster is whole; empty: nothing. The simulation knows the state of nodes; the
        state of partitions comes from the nodes, as in a run of real nodes."""
        for node in self._cluster.nodes.values():
            if node.node is None:
                return f"node {node.node_id} does not run"
            if node.is_newcomer:
                return f"node {node.node_id} is no voter yet"
            why = node.node.awaiting.service()
            if why:
                return f"node {node.node_id}: {why}"
        snapshot = snapshot_of(self._cluster)
        return not_in_sync(snapshot, is_excused=self._is_stuck) or unsettled(snapshot, is_excused=self._is_stuck)

    def _is_stuck(self, where: PartitionKey) -> bool:
        found = self._oracle.image.topics_by_name[where[0]].partitions[where[1]]
        return self.is_stuck(TopicIdPartition(found.topic_id, found.partition), found)

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
            if node.broker is not None
            for replica in node.broker.replicas._registry.replicas.values()
        ]

    def _reads_well(self, replica: Replica) -> bool:
        try:
            bytes_from(replica, replica.log.log_start_offset)
        except (CorruptMessage, KafkaStorageError):  # the latter: an index led nowhere, and the log went offline
            self._oracle.count("damage was read")
            return False
        return True
