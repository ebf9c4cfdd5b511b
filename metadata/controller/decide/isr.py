"""ISR changes proposed by leaders (AlterPartition, KIP-497): compare-and-set on both epochs (I5, I6, I9, KIP-903)."""

from __future__ import annotations

from kraft.protocol.errors import (
    FencedLeaderEpoch,
    IneligibleReplica,
    InvalidRequest,
    InvalidUpdateVersion,
    NewLeaderElected,
    NotController,
    UnknownTopicId,
    UnknownTopicOrPartition,
)
from metadata.controller.decide.changes import change_partition
from metadata.controller.decide.decision import ControllerState, Decision
from metadata.controller.requests import AlterPartition, ErrorDetail, IsrMember, PartitionAlteration
from metadata.image import PartitionImage, TopicIdPartition
from metadata.records import LeaderRecovery, PartitionChangeRecord, Reason, Record


def alter_partition(controller: ControllerState, request: AlterPartition) -> Decision:
    """Change ISRs. Raises StaleBrokerEpoch 77 for the request as a whole."""
    controller.broker_at_epoch(request.broker_id, request.broker_epoch)
    records: list[Record] = []
    reply: dict[TopicIdPartition, PartitionImage | ErrorDetail] = {}
    for alteration in request.alterations:
        key = TopicIdPartition(alteration.topic_id, alteration.partition)
        if key in reply:
            raise InvalidRequest(f"partition {key} is named twice in one request")
        old = _find(controller, alteration)
        refusal = old if isinstance(old, ErrorDetail) else _refusal(controller, request.broker_id, alteration, old)
        if refusal is not None:
            reply[key] = refusal
            continue
        assert isinstance(old, PartitionImage), old
        record = _change(controller, alteration, old)
        if record is not None:
            records.append(record)
        reply[key] = _outcome(controller, request.broker_id, old, record)
    return Decision(liveness=controller.liveness, records=tuple(records), reply=reply)


def _find(controller: ControllerState, alteration: PartitionAlteration) -> PartitionImage | ErrorDetail:
    topic = controller.image.topics.get(alteration.topic_id)
    if topic is None:
        return ErrorDetail(UnknownTopicId, f"no topic has the id {alteration.topic_id}")
    partition = topic.partitions.get(alteration.partition)
    if partition is None:
        return ErrorDetail(UnknownTopicOrPartition, f"topic {topic.name} has no partition {alteration.partition}")
    return partition


def _refusal(
    controller: ControllerState, sender: int, alteration: PartitionAlteration, old: PartitionImage
) -> ErrorDetail | None:
    return (
        _epoch_refusal(sender, alteration, old)
        or _shape_refusal(alteration, old)
        or _member_refusal(controller, alteration.new_isr, old)
    )


def _epoch_refusal(sender: int, alteration: PartitionAlteration, old: PartitionImage) -> ErrorDetail | None:
    """Check the epochs in Kafka's order (I5)."""
    ours, theirs = (old.leader_epoch, old.partition_epoch), (alteration.leader_epoch, alteration.partition_epoch)
    text = f"(leader epoch, partition epoch) is {ours}, the request has {theirs}"
    if theirs[0] > ours[0] or theirs[1] > ours[1]:
        return ErrorDetail(NotController, f"the sender knows more than this controller: {text}")
    if theirs[0] < ours[0]:
        return ErrorDetail(FencedLeaderEpoch, text)
    if sender != old.leader:
        return ErrorDetail(InvalidRequest, f"broker {sender} does not lead this partition, broker {old.leader} does")
    if theirs[1] < ours[1]:
        return ErrorDetail(InvalidUpdateVersion, text)
    return None


def _shape_refusal(alteration: PartitionAlteration, old: PartitionImage) -> ErrorDetail | None:
    isr = [member.broker_id for member in alteration.new_isr]
    if len(set(isr)) != len(isr) or not set(isr) <= set(old.replicas):
        return ErrorDetail(InvalidRequest, f"ISR {isr} is not a subset of the replicas {list(old.replicas)}")
    if old.leader not in isr:
        return ErrorDetail(InvalidRequest, f"ISR {isr} lacks the leader {old.leader}")
    if old.leader_recovery is LeaderRecovery.RECOVERING and not alteration.recovered and len(isr) > 1:
        return ErrorDetail(InvalidRequest, f"ISR {isr} may not grow before the leader has recovered (KIP-704)")
    return None


def _member_refusal(
    controller: ControllerState, members: tuple[IsrMember, ...], partition: PartitionImage
) -> ErrorDetail | None:
    """I6, KIP-903: a rebooted replica must not join under its old epoch. A read-only leader that leads because no other
    replica can may add a member that can replace it."""
    problems = []
    for member in members:
        broker = controller.image.brokers.get(member.broker_id)
        if broker is None:
            problems.append(f"{member.broker_id} is not registered")
        elif broker.fenced:
            problems.append(f"{member.broker_id} is fenced")
        elif broker.in_controlled_shutdown:
            problems.append(f"{member.broker_id} is shutting down")
        elif member.broker_epoch not in (-1, broker.broker_epoch):
            problems.append(f"{member.broker_id} has epoch {broker.broker_epoch}, not {member.broker_epoch}")
        elif member.broker_id != partition.leader and controller.has_failed(member.broker_id, partition):
            problems.append(f"the log of {member.broker_id} has failed")
    return ErrorDetail(IneligibleReplica, "; ".join(problems)) if problems else None


def _change(
    controller: ControllerState, alteration: PartitionAlteration, old: PartitionImage
) -> PartitionChangeRecord | None:
    proposed = {member.broker_id for member in alteration.new_isr}
    kept = [member for member in old.isr if member in proposed]
    isr = (*kept, *(member.broker_id for member in alteration.new_isr if member.broker_id not in old.isr))
    recovery = LeaderRecovery.RECOVERED if alteration.recovered else None
    if len(isr) == len(old.isr) == len(kept):
        reason = Reason.RECOVERED
    else:
        reason = Reason.ISR_EXPANDED if len(isr) > len(kept) else Reason.ISR_SHRUNK
    return change_partition(old, active=controller.eligible(old), reason=reason, isr=isr, recovery=recovery)


def _outcome(
    controller: ControllerState, sender: int, old: PartitionImage, record: PartitionChangeRecord | None
) -> PartitionImage | ErrorDetail:
    """I9: the change that completes a reassignment may elect another leader than its sender: made, but with an
    error."""
    if record is None:
        return old
    if record.leader is not None and record.leader != sender:
        return ErrorDetail(NewLeaderElected, f"the change was made, and replica {record.leader} leads now")
    return old.changed_by(record)
