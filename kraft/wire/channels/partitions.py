"""ElectLeaders (43, KIP-460), AlterPartitionReassignments (45, KIP-455) and AlterPartition (56, KIP-497), as nodes ask
them of the active controller."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from kraft.protocol import apis
from kraft.protocol.messages import alter_partition_request, alter_partition_response
from kraft.protocol.messages.alter_partition_reassignments_request import (
    AlterPartitionReassignmentsRequestData,
    ReassignablePartition,
    ReassignableTopic,
)
from kraft.protocol.messages.alter_partition_reassignments_response import AlterPartitionReassignmentsResponseData
from kraft.protocol.messages.alter_partition_request import AlterPartitionRequestData, BrokerState
from kraft.protocol.messages.alter_partition_response import AlterPartitionResponseData
from kraft.protocol.messages.elect_leaders_request import ElectLeadersRequestData, TopicPartitions
from kraft.protocol.messages.elect_leaders_response import ElectLeadersResponseData
from kraft.wire.error_details import to_detail
from kraft.wire.grouping import by_topic, group
from kraft.wire.rpc import Rpc
from kraft.wire.terms import PREFERRED, RECOVERED, RECOVERING, UNCLEAN
from metadata.controller.requests import (
    AlterPartition,
    AlterReassignments,
    ElectLeaders,
    ErrorDetail,
    PartitionAlteration,
)
from metadata.image import PartitionImage, TopicIdPartition
from metadata.records import LeaderRecovery, UncleanElectionReport

Details = Mapping[tuple[str, int], ErrorDetail | None]


# --- ElectLeaders -------------------------------------------------------------------------------------------------


def _elect_request(request: ElectLeaders, timeout_ms: int) -> ElectLeadersRequestData:
    topics = None
    if request.partitions is not None:
        topics = tuple(
            TopicPartitions.make(topic=name, partitions=tuple(partition for _, partition in items))
            for name, items in group(request.partitions, lambda item: item[0]).items()
        )
    return ElectLeadersRequestData.make(
        election_type=PREFERRED if request.election == "preferred" else UNCLEAN,
        topic_partitions=topics,
        timeout_ms=timeout_ms,
    )


def _election_results(request: ElectLeaders, message: ElectLeadersResponseData) -> Details:
    return {
        (result.topic, item.partition_id): to_detail(item.error_code, item.error_message)
        for result in message.replica_election_results
        for item in result.partition_result
    }


ELECT_LEADERS: Rpc[
    ElectLeaders,
    Details,
    ElectLeadersRequestData,
    ElectLeadersResponseData,
] = Rpc(
    api=apis.ELECT_LEADERS,
    response=ElectLeadersResponseData,
    to_request=_elect_request,
    from_reply=_election_results,
)


# --- AlterPartitionReassignments ------------------------------------------------------------------------------------


def _reassign_request(request: AlterReassignments, timeout_ms: int) -> AlterPartitionReassignmentsRequestData:
    return AlterPartitionReassignmentsRequestData.make(
        timeout_ms=timeout_ms,
        allow_replication_factor_change=request.allow_replication_factor_change,
        topics=tuple(
            ReassignableTopic.make(
                name=name,
                partitions=tuple(
                    ReassignablePartition.make(partition_index=item.partition, replicas=item.replicas) for item in items
                ),
            )
            for name, items in group(request.reassignments, lambda item: item.topic).items()
        ),
    )


def _reassignment_results(request: AlterReassignments, message: AlterPartitionReassignmentsResponseData) -> Details:
    return {
        (topic.name, item.partition_index): to_detail(item.error_code, item.error_message)
        for topic in message.responses
        for item in topic.partitions
    }


REASSIGNMENTS: Rpc[
    AlterReassignments,
    Details,
    AlterPartitionReassignmentsRequestData,
    AlterPartitionReassignmentsResponseData,
] = Rpc(
    api=apis.ALTER_PARTITION_REASSIGNMENTS,
    response=AlterPartitionReassignmentsResponseData,
    to_request=_reassign_request,
    from_reply=_reassignment_results,
)

Altered = Mapping[TopicIdPartition, PartitionImage | ErrorDetail]


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


ALTER_PARTITION: Rpc[
    AlterPartition,
    Altered,
    AlterPartitionRequestData,
    AlterPartitionResponseData,
] = Rpc(
    api=apis.ALTER_PARTITION,
    response=AlterPartitionResponseData,
    to_request=_alter_request,
    from_reply=_altered_partitions,
)
