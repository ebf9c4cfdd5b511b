"""Committed decisions as events for operators: fenced brokers with the reason, leaders, losses of unclean elections."""

from __future__ import annotations

from collections.abc import Sequence

from metadata.events import Events
from metadata.image import MetadataImage
from metadata.records import (
    BrokerChangeRecord,
    ConfigRecord,
    PartitionChangeRecord,
    Reason,
    Record,
    RegisterBrokerRecord,
    RemoveRouteRecord,
    RemoveTopicRecord,
    RouteRecord,
    TopicRecord,
    UncleanElectionReport,
)


def emit_decision(events: Events, before: MetadataImage, records: Sequence[Record]) -> None:
    """Emit the events of one decision, made on `before`."""
    for position, record in enumerate(records):
        match record:
            case RegisterBrokerRecord():
                events.emit(
                    "broker_registered",
                    broker=record.broker_id,
                    broker_epoch=before.next_offset + position,
                    incarnation=str(record.incarnation_id),
                    kafka=record.kafka,
                    rest=record.rest,
                    rack=record.rack,
                    listeners=record.listeners,
                )
            case BrokerChangeRecord():
                _announce_broker(events, before, record)
            case TopicRecord():
                events.emit("topic_created", topic=record.name, topic_id=str(record.topic_id))
            case RemoveTopicRecord():
                name = before.topics[record.topic_id].name
                events.emit("topic_deleted", topic=name, topic_id=str(record.topic_id))
            case ConfigRecord():
                resource = {"resource_type": record.resource_type, "resource": record.resource_name}
                events.emit("config_changed", **resource, name=record.name, value=record.value)
            case RouteRecord():
                events.emit("route_created", route=record.name, kind=str(record.kind))
            case RemoveRouteRecord():
                events.emit("route_deleted", route=record.name)
            case PartitionChangeRecord():
                _announce_partition(events, before, record)


def _announce_broker(events: Events, before: MetadataImage, record: BrokerChangeRecord) -> None:
    was = before.brokers[record.broker_id]
    if record.fenced != was.fenced:
        event = "broker_fenced" if record.fenced else "broker_unfenced"
    else:
        event = "broker_shutting_down"
    events.emit(event, broker=record.broker_id, broker_epoch=record.broker_epoch, reason=record.reason)


def _announce_partition(events: Events, before: MetadataImage, record: PartitionChangeRecord) -> None:
    topic = before.topics[record.topic_id]
    old = topic.partitions[record.partition]
    new = old.changed_by(record)
    where = {
        "topic": topic.name,
        "topic_id": str(record.topic_id),
        "partition": record.partition,
        "reason": str(record.reason),
    }
    state = {
        "leader": new.leader,
        "leader_epoch": new.leader_epoch,
        "isr": list(new.isr),
        "partition_epoch": new.partition_epoch,
    }
    if new.leader != old.leader:
        events.emit(
            "leader_elected",
            **where,
            old_leader=old.leader,
            old_leader_epoch=old.leader_epoch,
            **state,
        )
    if set(new.isr) != set(old.isr):
        events.emit("isr_changed", **where, old_isr=list(old.isr), **state)
    if new.replicas != old.replicas or new.is_reassigning != old.is_reassigning:
        events.emit(
            "replicas_changed",
            **where,
            replicas=list(new.replicas),
            adding=list(new.adding_replicas),
            removing=list(new.removing_replicas),
        )
    if record.unclean is not None and record.reason is Reason.UNCLEAN_ELECTION:
        lost = _given_up(record.unclean)
        answers = {str(broker): list(answer) for broker, answer in record.unclean.answers.items()}
        events.emit(
            "unclean_election",
            **where,
            leader=new.leader,
            leader_epoch=new.leader_epoch,
            answers=answers,
            log_end_offset=record.unclean.log_end_offset,
            high_watermark_known=record.unclean.high_watermark_known,
            given_up=lost,
        )


def _given_up(report: UncleanElectionReport) -> list[int] | None:
    """[first offset, offset after the last] of records below a known high watermark that are lost; None: not known."""
    if report.log_end_offset < 0 or report.high_watermark_known < 0:
        return None
    return [report.log_end_offset, max(report.log_end_offset, report.high_watermark_known)]
