"""CreateTopics (19), DeleteTopics (20) and CreatePartitions (37)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from kraft.protocol import apis
from kraft.protocol.encoding import ZERO_UUID
from kraft.protocol.errors import InvalidRequest
from kraft.protocol.messages.create_partitions_request import (
    CreatePartitionsAssignment,
    CreatePartitionsRequestData,
    CreatePartitionsTopic,
)
from kraft.protocol.messages.create_partitions_response import CreatePartitionsResponseData, CreatePartitionsTopicResult
from kraft.protocol.messages.create_topics_request import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequestData,
)
from kraft.protocol.messages.create_topics_response import (
    CreatableTopicConfigs,
    CreatableTopicResult,
    CreateTopicsResponseData,
)
from kraft.protocol.messages.delete_topics_request import DeleteTopicsRequestData, DeleteTopicState
from kraft.protocol.messages.delete_topics_response import DeletableTopicResult, DeleteTopicsResponseData
from kraft.wire.messages.common import ServedRpc, detail_code, detail_message, to_detail
from metadata.controller.requests import (
    CreatePartitions,
    CreateTopics,
    DeleteTopics,
    ErrorDetail,
    NewPartitions,
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


def _create(message: CreateTopicsRequestData) -> CreateTopics:
    return CreateTopics(
        topics=tuple(
            NewTopic(
                name=topic.name,
                partitions=topic.num_partitions,
                replication_factor=topic.replication_factor,
                assignment={item.partition_index: tuple(item.broker_ids) for item in topic.assignments} or None,
                configs={item.name: item.value or "" for item in topic.configs},
            )
            for topic in message.topics
        ),
        validate_only=message.validate_only,
    )


def _create_response(
    outcomes: Mapping[str, TopicCreated | ErrorDetail | int],
) -> CreateTopicsResponseData:
    return CreateTopicsResponseData.make(
        topics=tuple(_creatable_result(name, outcome) for name, outcome in outcomes.items()),
    )


def _creatable_result(name: str, outcome: TopicCreated | ErrorDetail | int) -> CreatableTopicResult:
    if not isinstance(outcome, TopicCreated):
        code = outcome if isinstance(outcome, int) else outcome.error.code
        return CreatableTopicResult.make(
            name=name,
            error_code=code,
            error_message=detail_message(outcome),
            configs=None,
        )
    return CreatableTopicResult.make(
        name=name,
        topic_id=outcome.topic_id,
        error_code=0,
        error_message=None,
        num_partitions=outcome.partitions,
        replication_factor=outcome.replication_factor,
        configs=tuple(
            CreatableTopicConfigs.make(name=key, value=value, read_only=False, is_sensitive=False)
            for key, value in outcome.configs.items()
        ),
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


CREATE_TOPICS: ServedRpc[
    CreateTopics,
    Mapping[str, TopicCreated | ErrorDetail],
    CreateTopicsRequestData,
    CreateTopicsResponseData,
] = ServedRpc(
    api=apis.CREATE_TOPICS,
    response=CreateTopicsResponseData,
    to_request=_create_request,
    from_request=_create,
    to_reply=lambda request, reply: _create_response(reply),
    from_reply=_created,
    refuse=lambda message, code: _create_response({topic.name: code for topic in message.topics}),
)


# --- DeleteTopics -------------------------------------------------------------------------------------------------


def _delete_request(request: DeleteTopics, timeout_ms: int) -> DeleteTopicsRequestData:
    return DeleteTopicsRequestData.make(
        topics=tuple(DeleteTopicState.make(name=_name(topic), topic_id=_id(topic)) for topic in request.topics),
        timeout_ms=timeout_ms,
    )


def _name(topic: str | UUID) -> str | None:
    return topic if isinstance(topic, str) else None


def _id(topic: str | UUID) -> UUID:
    return ZERO_UUID if isinstance(topic, str) else topic


def _topic_of(item: DeleteTopicState | DeletableTopicResult) -> str | UUID:
    if item.name is None and item.topic_id == ZERO_UUID:
        raise InvalidRequest("a topic to delete has a name or an id")
    return item.topic_id if item.name is None else item.name


def _delete_response(
    outcomes: Mapping[str | UUID, tuple[int, str | None]],
) -> DeleteTopicsResponseData:
    return DeleteTopicsResponseData.make(
        responses=tuple(
            DeletableTopicResult.make(name=_name(topic), topic_id=_id(topic), error_code=code, error_message=message)
            for topic, (code, message) in outcomes.items()
        ),
    )


def _deleted(request: DeleteTopics, message: DeleteTopicsResponseData) -> Mapping[str | UUID, ErrorDetail | None]:
    return {_topic_of(item): to_detail(item.error_code, item.error_message) for item in message.responses}


DELETE_TOPICS: ServedRpc[
    DeleteTopics,
    Mapping[str | UUID, ErrorDetail | None],
    DeleteTopicsRequestData,
    DeleteTopicsResponseData,
] = ServedRpc(
    api=apis.DELETE_TOPICS,
    response=DeleteTopicsResponseData,
    to_request=_delete_request,
    from_request=lambda message: DeleteTopics(topics=tuple(_topic_of(item) for item in message.topics)),
    to_reply=lambda request, reply: _delete_response(
        {topic: (detail_code(detail), detail_message(detail)) for topic, detail in reply.items()}
    ),
    from_reply=_deleted,
    refuse=lambda message, code: _delete_response({_topic_of(item): (code, None) for item in message.topics}),
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


def _grow(message: CreatePartitionsRequestData) -> CreatePartitions:
    return CreatePartitions(
        topics=tuple(
            NewPartitions(
                topic=item.name,
                count=item.count,
                assignments=None if item.assignments is None else tuple(tuple(a.broker_ids) for a in item.assignments),
            )
            for item in message.topics
        ),
        validate_only=message.validate_only,
    )


def _grow_response(
    outcomes: Mapping[str, tuple[int, str | None]],
) -> CreatePartitionsResponseData:
    return CreatePartitionsResponseData.make(
        results=tuple(
            CreatePartitionsTopicResult.make(name=name, error_code=code, error_message=message)
            for name, (code, message) in outcomes.items()
        ),
    )


CREATE_PARTITIONS: ServedRpc[
    CreatePartitions,
    Mapping[str, ErrorDetail | None],
    CreatePartitionsRequestData,
    CreatePartitionsResponseData,
] = ServedRpc(
    api=apis.CREATE_PARTITIONS,
    response=CreatePartitionsResponseData,
    to_request=_grow_request,
    from_request=_grow,
    to_reply=lambda request, reply: _grow_response(
        {name: (detail_code(detail), detail_message(detail)) for name, detail in reply.items()}
    ),
    from_reply=lambda request, message: {
        item.name: to_detail(item.error_code, item.error_message) for item in message.results
    },
    refuse=lambda message, code: _grow_response({item.name: (code, None) for item in message.topics}),
)
