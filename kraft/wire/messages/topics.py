"""CreateTopics (19), DeleteTopics (20) and CreatePartitions (37)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from kraft.wire import apis, schemas
from kraft.wire.messages.common import Rpc, detail_code, detail_message, to_detail
from metadata.controller.events import (
    CreatePartitions,
    CreateTopics,
    DeleteTopics,
    ErrorDetail,
    NewPartitions,
    NewTopic,
    TopicCreated,
)
from metadata.errors import InvalidRequest

# --- CreateTopics -------------------------------------------------------------------------------------------------


def _create_request(request: CreateTopics, timeout_ms: int) -> Any:
    types = schemas.requests_of(apis.CREATE_TOPICS, apis.CREATE_TOPICS.version)
    return types.CreateTopicsRequest(
        topics=tuple(_creatable(types, topic) for topic in request.topics),
        timeout=timeout_ms,
        validate_only=request.validate_only,
    )


def _creatable(types: Any, topic: NewTopic) -> Any:
    return types.CreatableTopic(
        name=topic.name,
        num_partitions=topic.partitions,
        replication_factor=topic.replication_factor,
        assignments=tuple(
            types.CreatableReplicaAssignment(partition_index=partition, broker_ids=replicas)
            for partition, replicas in (topic.assignment or {}).items()
        ),
        configs=tuple(types.CreatableTopicConfig(name=name, value=value) for name, value in topic.configs.items()),
    )


def _create(message: Any) -> CreateTopics:
    return CreateTopics(
        topics=tuple(
            NewTopic(
                name=topic.name,
                partitions=topic.num_partitions,
                replication_factor=topic.replication_factor,
                assignment={item.partition_index: item.broker_ids for item in topic.assignments} or None,
                configs={item.name: item.value or "" for item in topic.configs},
            )
            for topic in message.topics
        ),
        validate_only=message.validate_only,
    )


def _create_response(outcomes: Mapping[str, TopicCreated | ErrorDetail | int]) -> Any:
    types = schemas.responses_of(apis.CREATE_TOPICS, apis.CREATE_TOPICS.version)
    return types.CreateTopicsResponse(
        throttle_time=schemas.NO_THROTTLE,
        topics=tuple(_creatable_result(types, name, outcome) for name, outcome in outcomes.items()),
    )


def _creatable_result(types: Any, name: str, outcome: TopicCreated | ErrorDetail | int) -> Any:
    if not isinstance(outcome, TopicCreated):
        code = outcome if isinstance(outcome, int) else outcome.error.code
        return types.CreatableTopicResult(
            name=name,
            topic_id=None,
            error_code=code,
            error_message=detail_message(outcome),
            configs=None,
        )
    return types.CreatableTopicResult(
        name=name,
        topic_id=outcome.topic_id,
        error_code=0,
        error_message=None,
        num_partitions=outcome.partitions,
        replication_factor=outcome.replication_factor,
        configs=tuple(
            types.CreatableTopicConfigs(name=key, value=value, read_only=False, is_sensitive=False)
            for key, value in outcome.configs.items()
        ),
    )


def _created(request: CreateTopics, message: Any) -> Mapping[str, TopicCreated | ErrorDetail]:
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


CREATE_TOPICS: Rpc[CreateTopics, Mapping[str, TopicCreated | ErrorDetail]] = Rpc(
    api=apis.CREATE_TOPICS,
    to_request=_create_request,
    from_request=_create,
    to_reply=lambda request, reply: _create_response(reply),
    from_reply=_created,
    refuse=lambda message, code: _create_response({topic.name: code for topic in message.topics}),
)


# --- DeleteTopics -------------------------------------------------------------------------------------------------


def _delete_request(request: DeleteTopics, timeout_ms: int) -> Any:
    types = schemas.requests_of(apis.DELETE_TOPICS, apis.DELETE_TOPICS.version)
    return types.DeleteTopicsRequest(
        topics=tuple(types.DeleteTopicState(**_name_or_id(topic)) for topic in request.topics),
        timeout=timeout_ms,
    )


def _name_or_id(topic: str | UUID) -> dict[str, str | UUID | None]:
    if isinstance(topic, str):
        return {"name": topic, "topic_id": None}
    return {"name": None, "topic_id": topic}


def _topic_of(item: Any) -> str | UUID:
    if item.name is None and item.topic_id is None:
        raise InvalidRequest("a topic to delete has a name or an id")
    topic: str | UUID = item.topic_id if item.name is None else item.name
    return topic


def _delete_response(outcomes: Mapping[str | UUID, tuple[int, str | None]]) -> Any:
    types = schemas.responses_of(apis.DELETE_TOPICS, apis.DELETE_TOPICS.version)
    return types.DeleteTopicsResponse(
        throttle_time=schemas.NO_THROTTLE,
        responses=tuple(
            types.DeletableTopicResult(**_name_or_id(topic), error_code=code, error_message=message)
            for topic, (code, message) in outcomes.items()
        ),
    )


def _deleted(request: DeleteTopics, message: Any) -> Mapping[str | UUID, ErrorDetail | None]:
    return {_topic_of(item): to_detail(item.error_code, item.error_message) for item in message.responses}


DELETE_TOPICS: Rpc[DeleteTopics, Mapping[str | UUID, ErrorDetail | None]] = Rpc(
    api=apis.DELETE_TOPICS,
    to_request=_delete_request,
    from_request=lambda message: DeleteTopics(topics=tuple(_topic_of(item) for item in message.topics)),
    to_reply=lambda request, reply: _delete_response(
        {topic: (detail_code(detail), detail_message(detail)) for topic, detail in reply.items()}
    ),
    from_reply=_deleted,
    refuse=lambda message, code: _delete_response({_topic_of(item): (code, None) for item in message.topics}),
)


# --- CreatePartitions ---------------------------------------------------------------------------------------------


def _grow_request(request: CreatePartitions, timeout_ms: int) -> Any:
    types = schemas.requests_of(apis.CREATE_PARTITIONS, apis.CREATE_PARTITIONS.version)
    return types.CreatePartitionsRequest(
        topics=tuple(
            types.CreatePartitionsTopic(
                name=item.topic, count=item.count, assignments=_assignments(types, item.assignments)
            )
            for item in request.topics
        ),
        timeout=timeout_ms,
        validate_only=request.validate_only,
    )


def _assignments(types: Any, assignments: tuple[tuple[int, ...], ...] | None) -> Any:
    if assignments is None:
        return None
    return tuple(types.CreatePartitionsAssignment(broker_ids=replicas) for replicas in assignments)


def _grow(message: Any) -> CreatePartitions:
    return CreatePartitions(
        topics=tuple(
            NewPartitions(
                topic=item.name,
                count=item.count,
                assignments=None if item.assignments is None else tuple(a.broker_ids for a in item.assignments),
            )
            for item in message.topics
        ),
        validate_only=message.validate_only,
    )


def _grow_response(outcomes: Mapping[str, tuple[int, str | None]]) -> Any:
    types = schemas.responses_of(apis.CREATE_PARTITIONS, apis.CREATE_PARTITIONS.version)
    return types.CreatePartitionsResponse(
        throttle_time=schemas.NO_THROTTLE,
        results=tuple(
            types.CreatePartitionsTopicResult(name=name, error_code=code, error_message=message)
            for name, (code, message) in outcomes.items()
        ),
    )


CREATE_PARTITIONS: Rpc[CreatePartitions, Mapping[str, ErrorDetail | None]] = Rpc(
    api=apis.CREATE_PARTITIONS,
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
