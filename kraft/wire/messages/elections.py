"""ElectLeaders (43, KIP-460) and AlterPartitionReassignments (45, KIP-455)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from kraft.wire import apis, schemas
from kraft.wire.messages.common import Rpc, detail_code, detail_message, group, to_detail
from metadata.controller.events import AlterReassignments, ElectLeaders, ErrorDetail, PartitionReassignment
from metadata.errors import InvalidRequest

Details = Mapping[tuple[str, int], ErrorDetail | None]

PREFERRED, UNCLEAN = 0, 1


# --- ElectLeaders -------------------------------------------------------------------------------------------------


def _elect_request(request: ElectLeaders, timeout_ms: int) -> Any:
    types = schemas.requests_of(apis.ELECT_LEADERS, apis.ELECT_LEADERS.version)
    topics = None
    if request.partitions is not None:
        topics = tuple(
            types.TopicPartitions(topic=name, partitions=tuple(partition for _, partition in items))
            for name, items in group(request.partitions, lambda item: item[0]).items()
        )
    return types.ElectLeadersRequest(
        election_type=PREFERRED if request.election == "preferred" else UNCLEAN,
        topic_partitions=topics,
        timeout=timeout_ms,
    )


def _elect(message: Any) -> ElectLeaders:
    elections: dict[int, Literal["preferred", "unclean"]] = {PREFERRED: "preferred", UNCLEAN: "unclean"}
    if message.election_type not in elections:
        raise InvalidRequest(f"election type {message.election_type}; 0 (preferred) and 1 (unclean) exist")
    partitions = None
    if message.topic_partitions is not None:
        partitions = tuple(
            (str(topic.topic), int(partition)) for topic in message.topic_partitions for partition in topic.partitions
        )
    return ElectLeaders(election=elections[message.election_type], partitions=partitions)


def _elected(code: int, reply: Details) -> Any:
    types = schemas.responses_of(apis.ELECT_LEADERS, apis.ELECT_LEADERS.version)
    return types.ElectLeadersResponse(
        throttle_time=schemas.NO_THROTTLE,
        error_code=code,
        replica_election_results=tuple(
            types.ReplicaElectionResult(
                topic=name,
                partition_result=tuple(
                    types.PartitionResult(
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


def _election_results(request: ElectLeaders, message: Any) -> Details:
    return {
        (result.topic, item.partition_id): to_detail(item.error_code, item.error_message)
        for result in message.replica_election_results
        for item in result.partition_result
    }


ELECT_LEADERS: Rpc[ElectLeaders, Details] = Rpc(
    api=apis.ELECT_LEADERS,
    to_request=_elect_request,
    from_request=_elect,
    to_reply=lambda request, reply: _elected(0, reply),
    from_reply=_election_results,
    refuse=lambda message, code: _elected(code, {}),
)


# --- AlterPartitionReassignments ------------------------------------------------------------------------------------


def _reassign_request(request: AlterReassignments, timeout_ms: int) -> Any:
    api = apis.ALTER_PARTITION_REASSIGNMENTS
    types = schemas.requests_of(api, api.version)
    return types.AlterPartitionReassignmentsRequest(
        timeout=timeout_ms,
        topics=tuple(
            types.ReassignableTopic(
                name=name,
                partitions=tuple(
                    types.ReassignablePartition(partition_index=item.partition, replicas=item.replicas)
                    for item in items
                ),
            )
            for name, items in group(request.reassignments, lambda item: item.topic).items()
        ),
    )


def _reassign(message: Any) -> AlterReassignments:
    return AlterReassignments(
        reassignments=tuple(
            PartitionReassignment(topic=topic.name, partition=item.partition_index, replicas=item.replicas)
            for topic in message.topics
            for item in topic.partitions
        )
    )


def _reassigned(code: int, reply: Details) -> Any:
    api = apis.ALTER_PARTITION_REASSIGNMENTS
    types = schemas.responses_of(api, api.version)
    return types.AlterPartitionReassignmentsResponse(
        throttle_time=schemas.NO_THROTTLE,
        error_code=code,
        error_message=None,
        responses=tuple(
            types.ReassignableTopicResponse(
                name=name,
                partitions=tuple(
                    types.ReassignablePartitionResponse(
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


def _reassignment_results(request: AlterReassignments, message: Any) -> Details:
    return {
        (topic.name, item.partition_index): to_detail(item.error_code, item.error_message)
        for topic in message.responses
        for item in topic.partitions
    }


REASSIGNMENTS: Rpc[AlterReassignments, Details] = Rpc(
    api=apis.ALTER_PARTITION_REASSIGNMENTS,
    to_request=_reassign_request,
    from_request=_reassign,
    to_reply=lambda request, reply: _reassigned(0, reply),
    from_reply=_reassignment_results,
    refuse=lambda message, code: _reassigned(code, {}),
)
