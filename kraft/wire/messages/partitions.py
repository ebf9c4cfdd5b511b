"""AlterPartition (56, KIP-497): a leader changes its ISR, and learns what the controller committed."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from kraft.protocol import apis
from kraft.protocol.messages import alter_partition_request, alter_partition_response
from kraft.protocol.messages.alter_partition_request import AlterPartitionRequestData, BrokerState
from kraft.protocol.messages.alter_partition_response import AlterPartitionResponseData
from kraft.wire.messages.common import ServedRpc, by_topic, to_detail
from metadata.controller.requests import (
    AlterPartition,
    ErrorDetail,
    IsrMember,
    PartitionAlteration,
)
from metadata.image import PartitionImage, TopicIdPartition
from metadata.records import LeaderRecovery, UncleanElectionReport

Altered = Mapping[TopicIdPartition, PartitionImage | ErrorDetail]

RECOVERED, RECOVERING = 0, 1


# --- AlterPartition -----------------------------------------------------------------------------------------------


def _alter_request(request: AlterPartition, timeout_ms: int) -> AlterPartitionRequestData:
    return AlterPartitionRequestData.make(
        broker_id=request.broker_id,
        broker_epoch=request.broker_epoch,
        topics=[
            alter_partition_request.TopicData.make(topic_id=topic_id, partitions=[_alteration(item) for item in items])
            for topic_id, items in by_topic(request.alterations)
        ],
    )


def _alteration(item: PartitionAlteration) -> alter_partition_request.PartitionData:
    return alter_partition_request.PartitionData.make(
        partition_index=item.partition,
        leader_epoch=item.leader_epoch,
        new_isr_with_epochs=tuple(
            BrokerState.make(broker_id=member.broker_id, broker_epoch=member.broker_epoch) for member in item.new_isr
        ),
        leader_recovery_state=RECOVERED if item.recovered else RECOVERING,
        partition_epoch=item.partition_epoch,
    )


def _alter(message: AlterPartitionRequestData) -> AlterPartition:
    return AlterPartition(
        broker_id=message.broker_id,
        broker_epoch=message.broker_epoch,
        alterations=tuple(
            PartitionAlteration(
                topic_id=topic.topic_id,
                partition=item.partition_index,
                leader_epoch=item.leader_epoch,
                partition_epoch=item.partition_epoch,
                new_isr=tuple(
                    IsrMember(broker_id=member.broker_id, broker_epoch=member.broker_epoch)
                    for member in item.new_isr_with_epochs
                ),
                recovered=item.leader_recovery_state == RECOVERED,
            )
            for topic in message.topics
            for item in topic.partitions
        ),
    )


def _alter_reply(request: AlterPartition, reply: Altered) -> AlterPartitionResponseData:
    return AlterPartitionResponseData.make(
        error_code=0,
        topics=[
            alter_partition_response.TopicData.make(
                topic_id=topic_id, partitions=[_altered(key.partition, reply[key]) for key in keys]
            )
            for topic_id, keys in by_topic(tuple(reply))
        ],
    )


def _altered(partition: int, outcome: PartitionImage | ErrorDetail) -> alter_partition_response.PartitionData:
    if isinstance(outcome, ErrorDetail):
        return alter_partition_response.PartitionData.make(
            partition_index=partition,
            error_code=outcome.error.code,
            leader_id=-1,
            leader_epoch=-1,
            partition_epoch=-1,
            error_message=outcome.message,
        )
    return alter_partition_response.PartitionData.make(
        partition_index=partition,
        error_code=0,
        leader_id=outcome.leader,
        leader_epoch=outcome.leader_epoch,
        isr=outcome.isr,
        leader_recovery_state=RECOVERED if outcome.leader_recovery is LeaderRecovery.RECOVERED else RECOVERING,
        partition_epoch=outcome.partition_epoch,
        replicas=outcome.replicas,
        adding_replicas=outcome.adding_replicas,
        removing_replicas=outcome.removing_replicas,
        unclean="" if outcome.unclean is None else outcome.unclean.model_dump_json(),
    )


def _altered_partitions(request: AlterPartition, message: AlterPartitionResponseData) -> Altered:
    return {
        TopicIdPartition(topic.topic_id, item.partition_index): _committed(topic.topic_id, item)
        for topic in message.topics
        for item in topic.partitions
    }


def _committed(topic_id: UUID, item: alter_partition_response.PartitionData) -> PartitionImage | ErrorDetail:
    detail = to_detail(item.error_code, item.error_message)
    if detail is not None:
        return detail
    recovered = item.leader_recovery_state == RECOVERED
    return PartitionImage(
        topic_id=topic_id,
        partition=item.partition_index,
        replicas=tuple(item.replicas),
        isr=tuple(item.isr),
        leader=item.leader_id,
        leader_epoch=item.leader_epoch,
        partition_epoch=item.partition_epoch,
        adding_replicas=tuple(item.adding_replicas),
        removing_replicas=tuple(item.removing_replicas),
        leader_recovery=LeaderRecovery.RECOVERED if recovered else LeaderRecovery.RECOVERING,
        unclean=UncleanElectionReport.model_validate_json(item.unclean) if item.unclean else None,
    )


def _alter_refused(message: AlterPartitionRequestData, code: int) -> AlterPartitionResponseData:
    return AlterPartitionResponseData.make(error_code=code, topics=())


ALTER_PARTITION: ServedRpc[
    AlterPartition,
    Altered,
    AlterPartitionRequestData,
    AlterPartitionResponseData,
] = ServedRpc(
    api=apis.ALTER_PARTITION,
    response=AlterPartitionResponseData,
    to_request=_alter_request,
    from_request=_alter,
    to_reply=_alter_reply,
    from_reply=_altered_partitions,
    refuse=_alter_refused,
)
