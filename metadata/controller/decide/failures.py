"""Replicas whose logs have failed: each leaves the ISR and the leadership, as the replicas of a dead broker do.

Source: KIP-858 and B4, per partition instead of per log directory. Every heartbeat names all failed replicas, and the
decision is repeated for each: a new controller, a lost answer and a later ISR need nothing else.
"""

from __future__ import annotations

from metadata.controller.decide.changes import change_partition
from metadata.controller.decide.decision import ControllerState
from metadata.controller.requests import FailedReplicas
from metadata.image import PartitionImage, TopicIdPartition
from metadata.records import NO_LEADER, PartitionChangeRecord, Reason


def leave_failed(controller: ControllerState, broker_id: int, failed: FailedReplicas) -> list[PartitionChangeRecord]:
    """The last ISR member stays, without leading (B4). A log that is only full continues to lead while no other can."""
    records = []
    for key in sorted(failed.offline | failed.read_only, key=_order):
        partition = controller.image.partition(key.topic_id, key.partition)
        if partition is None or (broker_id not in partition.isr and partition.leader != broker_id):
            continue
        eligible = controller.eligible(partition)
        if broker_id in eligible:
            continue
        isr = tuple(member for member in partition.isr if member != broker_id)
        record = change_partition(partition, active=eligible, reason=Reason.REPLICA_FAILED, isr=isr)
        if record is not None:
            records.append(record)
    return records


def elect_recovered(
    controller: ControllerState, before: FailedReplicas, now: FailedReplicas
) -> tuple[list[PartitionChangeRecord], list[PartitionImage]]:
    """Leaders for the partitions that had none until this log worked again, and queries for those that only an unclean
    election can help."""
    records: list[PartitionChangeRecord] = []
    stuck: list[PartitionImage] = []
    for key in sorted(before.offline - now.offline, key=_order):
        partition = controller.image.partition(key.topic_id, key.partition)
        if partition is None or partition.leader != NO_LEADER:
            continue
        eligible = controller.eligible(partition)
        record = change_partition(partition, active=eligible, reason=Reason.REPLICA_RECOVERED)
        if record is not None:
            records.append(record)
        else:
            stuck.append(partition)
    return records, stuck


def _order(key: TopicIdPartition) -> tuple[int, int]:
    return key.topic_id.int, key.partition
