"""CreateTopics (19), DeleteTopics (20) and CreatePartitions (37), as nodes ask them of the active controller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from kraft.protocol import apis
from kraft.protocol.messages.create_partitions_request import (
    CreatePartitionsAssignment,
    CreatePartitionsRequestData,
    CreatePartitionsTopic,
)
from kraft.protocol.messages.create_partitions_response import CreatePartitionsResponseData
from kraft.protocol.messages.create_topics_request import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequestData,
)
from kraft.protocol.messages.create_topics_response import CreateTopicsResponseData
from kraft.protocol.messages.delete_topics_request import DeleteTopicsRequestData, DeleteTopicState
from kraft.protocol.messages.delete_topics_response import DeleteTopicsResponseData
from kraft.wire.error_details import to_detail
from kraft.wire.rpc import Rpc
from metadata.controller.requests import (
    CreatePartitions,
    CreateTopics,
    DeleteTopics,
    ErrorDetail,
    NewTopic,
    TopicCreated,
)

# --- CreateTopics -------------------------------------------------------------------------------------------------


def _create_request(request: CreateTopics, timeout_ms: int) -> CreateTopicsRequestData:
    return CreateTopicsRequestData.make(
        topics=tuple(_creatable(topic) for topic in request.topics),
        timeout_ms=timeout_ms,
        validate_only=request.validate_only,
    )


def _creatable(topic: NewTopic) -> CreatableTopic:
    return CreatableTopic.make(
        name=topic.name,
        num_partitions=topic.partitions,
        replication_factor=topic.replication_factor,
        assignments=tuple(
            CreatableReplicaAssignment.make(partition_index=partition, broker_ids=replicas)
            for partition, replicas in (topic.assignment or {}).items()
        ),
        configs=tuple(CreatableTopicConfig.make(name=name, value=value) for name, value in topic.configs.items()),
    )


def _created(request: CreateTopics, message: CreateTopicsResponseData) -> Mapping[str, TopicCreated | ErrorDetail]:
    return {
        result.name: to_detail(result.error_code, result.error_message)
        or TopicCreated(
            topic_id=result.topic_id,
            partitions=result.num_partitions,
            replication_factor=result.replication_factor,
            configs={item.name: item.value or "" for item in result.configs or ()},
        )
        for result in message.topics
    }


CREATE_TOPICS: Rpc[
    CreateTopics, Mapping[str, TopicCreated | ErrorDetail], CreateTopicsRequestData, CreateTopicsResponseData
] = Rpc(
    api=apis.CREATE_TOPICS,
    response=CreateTopicsResponseData,
    to_request=_create_request,
    from_reply=_created,
)


# --- DeleteTopics -------------------------------------------------------------------------------------------------


def _delete_request(request: DeleteTopics, timeout_ms: int) -> DeleteTopicsRequestData:
    return DeleteTopicsRequestData.make(
        topics=tuple(
            DeleteTopicState.make(name=topic)
            if isinstance(topic, str)
            else DeleteTopicState.make(name=None, topic_id=topic)
            for topic in request.topics
        ),
        timeout_ms=timeout_ms,
    )


def _deleted(request: DeleteTopics, message: DeleteTopicsResponseData) -> Mapping[str | UUID, ErrorDetail | None]:
    """An answer has name and id of a topic, whichever was asked."""
    asked = frozenset(request.topics)
    return {
        item.topic_id if item.name is None or item.topic_id in asked else item.name: to_detail(
            item.error_code, item.error_message
        )
        for item in message.responses
    }


DELETE_TOPICS: Rpc[
    DeleteTopics, Mapping[str | UUID, ErrorDetail | None], DeleteTopicsRequestData, DeleteTopicsResponseData
] = Rpc(
    api=apis.DELETE_TOPICS,
    response=DeleteTopicsResponseData,
    to_request=_delete_request,
    from_reply=_deleted,
)


# --- CreatePartitions ---------------------------------------------------------------------------------------------


def _grow_request(request: CreatePartitions, timeout_ms: int) -> CreatePartitionsRequestData:
    return CreatePartitionsRequestData.make(
        topics=tuple(
            CreatePartitionsTopic.make(name=item.topic, count=item.count, assignments=_assignments(item.assignments))
            for item in request.topics
        ),
        timeout_ms=timeout_ms,
        validate_only=request.validate_only,
    )


def _assignments(
    assignments: tuple[tuple[int, ...], ...] | None,
) -> Sequence[CreatePartitionsAssignment] | None:
    if assignments is None:
        return None
    return tuple(CreatePartitionsAssignment.make(broker_ids=replicas) for replicas in assignments)


CREATE_PARTITIONS: Rpc[
    CreatePartitions, Mapping[str, ErrorDetail | None], CreatePartitionsRequestData, CreatePartitionsResponseData
] = Rpc(
    api=apis.CREATE_PARTITIONS,
    response=CreatePartitionsResponseData,
    to_request=_grow_request,
    from_reply=lambda request, message: {
        item.name: to_detail(item.error_code, item.error_message) for item in message.results
    },
)
