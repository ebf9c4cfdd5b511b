"""Replica lists that a client has written: their checks, and the first state of a partition made from them."""

from __future__ import annotations

from uuid import UUID

from kraft.protocol.errors import InvalidReplicaAssignment
from metadata.controller.decide.decision import ControllerState
from metadata.records import PartitionRecord


def check_assignment(controller: ControllerState, replicas: tuple[int, ...], *, replication_factor: int | None) -> None:
    """Check a replica list. Raises InvalidReplicaAssignment 39."""
    text = list(replicas)
    if not replicas:
        raise InvalidReplicaAssignment("an assignment needs at least one replica")
    if len(set(replicas)) != len(replicas):
        raise InvalidReplicaAssignment(f"assignment {text} names a broker twice")
    unknown = [replica for replica in replicas if replica not in controller.image.brokers]
    if unknown:
        known = sorted(controller.image.brokers)
        raise InvalidReplicaAssignment(f"assignment {text} names {unknown}, which are not registered; {known} are")
    if replication_factor is not None and len(replicas) != replication_factor:
        raise InvalidReplicaAssignment(
            f"assignment {text} has {len(replicas)} replica(s), the other partitions have {replication_factor}"
        )


def new_partition(
    controller: ControllerState, *, topic_id: UUID, index: int, replicas: tuple[int, ...]
) -> PartitionRecord:
    """A new partition whose ISR is its live replicas. Raises InvalidReplicaAssignment 39 when none is alive."""
    isr = tuple(replica for replica in replicas if replica in controller.active)
    if not isr:
        raise InvalidReplicaAssignment(
            f"all brokers {list(replicas)} of partition {index} are fenced or shutting down: nobody could lead it"
        )
    return PartitionRecord(topic_id=topic_id, partition=index, replicas=replicas, isr=isr, leader=isr[0])
