"""Moving partitions to other brokers (AlterPartitionReassignments, KIP-455): add, wait, remove; or cancel (S8, I9).

While a partition moves, its replicas are the target followed by the replicas to be removed. `change_partition`
completes the move as soon as all added replicas are in the ISR, here or in a later AlterPartition.
"""

from __future__ import annotations

from collections import Counter

from kraft.protocol.errors import (
    InvalidReplicaAssignment,
    InvalidReplicationFactor,
    InvalidRequest,
    KafkaError,
    NoReassignmentInProgress,
    UnknownTopicOrPartition,
)
from metadata.controller.decide.assignments import check_assignment
from metadata.controller.decide.changes import change_partition
from metadata.controller.decide.decision import ControllerState, Decision
from metadata.controller.requests import AlterReassignments, ErrorDetail, PartitionReassignment
from metadata.image import PartitionImage
from metadata.records import PartitionChangeRecord, Reason


def alter_reassignments(controller: ControllerState, request: AlterReassignments) -> Decision:
    names = Counter((wanted.topic, wanted.partition) for wanted in request.reassignments)
    records: list[PartitionChangeRecord] = []
    reply: dict[tuple[str, int], ErrorDetail | None] = {}
    for wanted in request.reassignments:
        key = (wanted.topic, wanted.partition)
        try:
            if names[key] > 1:
                raise InvalidRequest(f"partition {wanted.topic}-{wanted.partition} is named twice in one request")
            record = _reassign(controller, wanted, allow_factor_change=request.allow_replication_factor_change)
        except KafkaError as error:
            reply[key] = ErrorDetail(type(error), error.message)
            continue
        reply[key] = None
        if record is not None:
            records.append(record)
    return Decision(liveness=controller.liveness, records=tuple(records), is_atomic=True, reply=reply)


def _reassign(
    controller: ControllerState, wanted: PartitionReassignment, *, allow_factor_change: bool
) -> PartitionChangeRecord | None:
    topic = controller.image.topic(wanted.topic)
    partition = None if topic is None else topic.partitions.get(wanted.partition)
    if partition is None:
        raise UnknownTopicOrPartition(f"there is no partition {wanted.topic}-{wanted.partition}")
    if wanted.replicas is None:
        return _cancel(controller, partition)
    check_assignment(controller, wanted.replicas, replication_factor=None)
    target_size = len(_without(partition.replicas, partition.removing_replicas))
    if not allow_factor_change and len(wanted.replicas) != target_size:
        raise InvalidReplicationFactor(
            f"partition {wanted.topic}-{wanted.partition} has {target_size} replica(s), the target "
            f"{list(wanted.replicas)} has {len(wanted.replicas)}, and the request allows no other number"
        )
    return _start(controller, partition, wanted.replicas)


def _start(
    controller: ControllerState, partition: PartitionImage, target: tuple[int, ...]
) -> PartitionChangeRecord | None:
    current = _without(partition.replicas, partition.adding_replicas)
    adding = _without(target, current)
    removing = _without(current, target)
    replicas = (*target, *removing)
    isr = tuple(member for member in partition.isr if member in replicas)
    if not isr:
        raise InvalidReplicaAssignment(
            f"replacing the reassignment under way by {list(target)} would drop all of the ISR {list(partition.isr)}"
        )
    return change_partition(
        partition,
        active=controller.eligible(partition),
        reason=Reason.REASSIGNMENT_STARTED,
        isr=isr,
        replicas=replicas,
        adding=adding,
        removing=removing,
    )


def _cancel(controller: ControllerState, partition: PartitionImage) -> PartitionChangeRecord | None:
    if not partition.is_reassigning:
        raise NoReassignmentInProgress("there is no reassignment to cancel")
    isr = _without(partition.isr, partition.adding_replicas)
    if not isr:
        raise InvalidReplicaAssignment(
            f"cancelling would need an unclean election: the whole ISR {list(partition.isr)} is being added"
        )
    return change_partition(
        partition,
        active=controller.eligible(partition),
        reason=Reason.REASSIGNMENT_CANCELLED,
        isr=isr,
        replicas=_without(partition.replicas, partition.adding_replicas),
        adding=(),
        removing=(),
    )


def _without(ids: tuple[int, ...], dropped: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(id_ for id_ in ids if id_ not in dropped)
