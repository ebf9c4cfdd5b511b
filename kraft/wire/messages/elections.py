"""ElectLeaders (43, KIP-460) and AlterPartitionReassignments (45, KIP-455)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from kraft.protocol import apis
from kraft.protocol.errors import InvalidRequest
from kraft.protocol.messages.alter_partition_reassignments_request import (
    AlterPartitionReassignmentsRequestData,
    ReassignablePartition,
    ReassignableTopic,
)
from kraft.protocol.messages.alter_partition_reassignments_response import (
    AlterPartitionReassignmentsResponseData,
    ReassignablePartitionResponse,
    ReassignableTopicResponse,
)
from kraft.protocol.messages.elect_leaders_request import ElectLeadersRequestData, TopicPartitions
from kraft.protocol.messages.elect_leaders_response import (
    ElectLeadersResponseData,
    PartitionResult,
    ReplicaElectionResult,
)
from kraft.wire.messages.common import ServedRpc, detail_code, detail_message, group, to_detail
from metadata.controller.requests import AlterReassignments, ElectLeaders, ErrorDetail, PartitionReassignment

Details = Mapping[tuple[str, int], ErrorDetail | None]

PREFERRED, UNCLEAN = 0, 1


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


def _elect(message: ElectLeadersRequestData) -> ElectLeaders:
    elections: dict[int, Literal["preferred", "unclean"]] = {PREFERRED: "preferred", UNCLEAN: "unclean"}
    if message.election_type not in elections:
        raise InvalidRequest(f"election type {message.election_type}; 0 (preferred) and 1 (unclean) exist")
    partitions = None
    if message.topic_partitions is not None:
        partitions = tuple(
            (str(topic.topic), int(partition)) for topic in message.topic_partitions for partition in topic.partitions
        )
    return ElectLeaders(election=elections[message.election_type], partitions=partitions)


def _elected(code: int, reply: Details) -> ElectLeadersResponseData:
    return ElectLeadersResponseData.make(
        error_code=code,
        replica_election_results=tuple(
            ReplicaElectionResult.make(
                topic=name,
                partition_result=tuple(
                    PartitionResult.make(
                        partition_id=key[1],
                        error_code=detail_code(reply[key]),
                        error_message=detail_message(reply[key]),
                    )
                    for key in keys
                ),
            )
            for name, keys in group(reply, lambda key: key[0]).items()
        ),
    )


def _election_results(request: ElectLeaders, message: ElectLeadersResponseData) -> Details:
    return {
        (result.topic, item.partition_id): to_detail(item.error_code, item.error_message)
        for result in message.replica_election_results
        for item in result.partition_result
    }


ELECT_LEADERS: ServedRpc[
    ElectLeaders,
    Details,
    ElectLeadersRequestData,
    ElectLeadersResponseData,
] = ServedRpc(
    api=apis.ELECT_LEADERS,
    response=ElectLeadersResponseData,
    to_request=_elect_request,
    from_request=_elect,
    to_reply=lambda request, reply: _elected(0, reply),
    from_reply=_election_results,
    refuse=lambda message, code: _elected(code, {}),
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


def _reassign(
    message: AlterPartitionReassignmentsRequestData,
) -> AlterReassignments:
    return AlterReassignments(
        reassignments=tuple(
            PartitionReassignment(
                topic=topic.name,
                partition=item.partition_index,
                replicas=None if item.replicas is None else tuple(item.replicas),
            )
            for topic in message.topics
            for item in topic.partitions
        ),
        allow_replication_factor_change=message.allow_replication_factor_change,
    )


def _reassigned(code: int, reply: Details) -> AlterPartitionReassignmentsResponseData:
    return AlterPartitionReassignmentsResponseData.make(
        error_code=code,
        error_message=None,
        responses=tuple(
            ReassignableTopicResponse.make(
                name=name,
                partitions=tuple(
                    ReassignablePartitionResponse.make(
                        partition_index=key[1],
                        error_code=detail_code(reply[key]),
                        error_message=detail_message(reply[key]),
                    )
                    for key in keys
                ),
            )
            for name, keys in group(reply, lambda key: key[0]).items()
        ),
    )


def _reassignment_results(request: AlterReassignments, message: AlterPartitionReassignmentsResponseData) -> Details:
    return {
        (topic.name, item.partition_index): to_detail(item.error_code, item.error_message)
        for topic in message.responses
        for item in topic.partitions
    }


REASSIGNMENTS: ServedRpc[
    AlterReassignments,
    Details,
    AlterPartitionReassignmentsRequestData,
    AlterPartitionReassignmentsResponseData,
] = ServedRpc(
    api=apis.ALTER_PARTITION_REASSIGNMENTS,
    response=AlterPartitionReassignmentsResponseData,
    to_request=_reassign_request,
    from_request=_reassign,
    to_reply=lambda request, reply: _reassigned(0, reply),
    from_reply=_reassignment_results,
    refuse=lambda message, code: _reassigned(code, {}),
)
