"""Idempotent and transactional producers of the partitions here, and the verification of their transactions."""

from __future__ import annotations

from collections.abc import Sequence

from metadata.image import TopicIdPartition
from replication.manager.registry import Registry
from replication.producers.origin import Verification
from replication.producers.state import Producer, ProducerLimits


class Producers:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def get(self, partition: TopicIdPartition, producer_id: int) -> Producer | None:
        """A local leader's state of a producer. Raises KafkaError, as `begin_verification`."""
        replica, _state = self._registry.leader_or_raise(partition)
        return replica.log.producer_states.get(producer_id)

    def all_of(self, partition: TopicIdPartition) -> Sequence[tuple[int, Producer]]:
        """A local replica's state of all producers, whether it leads or not, as in Kafka's DescribeProducers. Raises
        KafkaError."""
        return self._registry.replica_or_raise(partition).log.producer_states.items()

    def begin_verification(
        self, partition: TopicIdPartition, producer_id: int, *, epoch: int, sequence: int, raises_epoch: bool
    ) -> Verification | None:
        """The guard of a client's first transactional append, for use after the coordinator has confirmed that the
        partition is in the transaction (KIP-890); None where it is open here already.

        Raises InvalidProducerEpoch 47, and the refusals of a partition without a leader here."""
        replica, _state = self._registry.leader_or_raise(partition)
        return replica.log.producer_states.begin_verification(
            producer_id,
            epoch=epoch,
            sequence=sequence,
            raises_epoch=raises_epoch,
            limits=ProducerLimits.of(self._registry.settings()),
            now_ms=self._registry.clock.wall_ms(),
        )

    def is_open(self, partition: TopicIdPartition, producer_id: int, *, epoch: int) -> bool:
        """Whether a transaction of this epoch is open. Raises as `begin_verification`."""
        replica, _state = self._registry.leader_or_raise(partition)
        return replica.log.producer_states.is_open(producer_id, epoch=epoch)

    def is_verified(self, partition: TopicIdPartition, producer_id: int, verification: Verification) -> bool:
        """Whether the verification is still valid; where this broker does not lead any more, the append is refused
        anyway."""
        replica = self._registry.replicas.get(partition)
        return replica is None or replica.log.producer_states.verification(producer_id) is verification
