"""CreateTopics (19), DeleteTopics (20) and CreatePartitions (37).

The active controller decides (`kraft.wire.handlers.control`). Faults that the controller's request cannot express are
found here, before anything is sent. Source: Kafka's ControllerApis and ReplicationControlManager.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from kraft.broker.configs import DYNAMIC_TOPIC, new_topic_configs
from kraft.broker.gateway import Gateway
from kraft.broker.mutations import noted_wait_ms
from kraft.protocol.encoding import ZERO_UUID
from kraft.protocol.errors import InvalidConfig, InvalidReplicaAssignment, InvalidRequest, KafkaError
from kraft.protocol.messages.create_partitions_request import CreatePartitionsRequestData
from kraft.protocol.messages.create_partitions_response import CreatePartitionsResponseData, CreatePartitionsTopicResult
from kraft.protocol.messages.create_topics_request import CreatableTopic, CreateTopicsRequestData
from kraft.protocol.messages.create_topics_response import (
    CreatableTopicConfigs,
    CreatableTopicResult,
    CreateTopicsResponseData,
)
from kraft.protocol.messages.delete_topics_request import DeleteTopicsRequestData, DeleteTopicState
from kraft.protocol.messages.delete_topics_response import DeletableTopicResult, DeleteTopicsResponseData
from kraft.wire.api_handler import ApiHandler, Call
from kraft.wire.error_details import detail_code, detail_message, refusal_message
from kraft.wire.handlers.config_sources import SOURCES
from kraft.wire.handlers.control import Control
from kraft.wire.node_parts import NodeParts
from metadata.controller.requests import (
    CreatePartitions,
    CreateTopics,
    DeleteTopics,
    ErrorDetail,
    NewPartitions,
    NewTopic,
    TopicCreated,
)


def apis(parts: NodeParts) -> Sequence[ApiHandler]:
    handlers = _Topics(parts)
    return (
        ApiHandler(
            request=CreateTopicsRequestData,
            response=CreateTopicsResponseData,
            handle=handlers.create,
            refuse=_refuse_creation,
        ),
        ApiHandler(
            request=DeleteTopicsRequestData,
            response=DeleteTopicsResponseData,
            handle=handlers.delete,
            refuse=_refuse_deletion,
        ),
        ApiHandler(
            request=CreatePartitionsRequestData,
            response=CreatePartitionsResponseData,
            handle=handlers.grow,
            refuse=_refuse_growth,
        ),
    )


class _Topics:
    def __init__(self, parts: NodeParts) -> None:
        self._gateway: Gateway = parts.gateway
        self._control = Control(parts)

    # --- CreateTopics -----------------------------------------------------------------------------------------

    async def create(self, call: Call[CreateTopicsRequestData]) -> CreateTopicsResponseData:
        message = call.message
        times = Counter(topic.name for topic in message.topics)
        outcomes: dict[str, TopicCreated | ErrorDetail] = {}
        asked: list[NewTopic] = []
        for topic in message.topics:
            problem = _problem(topic, times[topic.name])
            if problem is None:
                asked.append(_new_topic(topic))
            else:
                outcomes[topic.name] = problem
        if asked:
            request = CreateTopics(topics=tuple(asked), validate_only=message.validate_only)
            decided = await self._control.ask(call, request, timeout_ms=message.timeout_ms)
            outcomes.update(decided)
        configs = _own_configs if call.is_from_node else self._all_configs
        return CreateTopicsResponseData.make(
            throttle_time_ms=noted_wait_ms(), topics=[_created(name, outcomes[name], configs) for name in times]
        )

    def _all_configs(self, overrides: Mapping[str, str]) -> list[CreatableTopicConfigs]:
        return [
            CreatableTopicConfigs.make(
                name=entry.name, value=entry.value, read_only=entry.is_read_only, config_source=SOURCES[entry.source]
            )
            for entry in new_topic_configs(self._gateway, overrides)
        ]

    # --- DeleteTopics -----------------------------------------------------------------------------------------

    async def delete(self, call: Call[DeleteTopicsRequestData]) -> DeleteTopicsResponseData:
        """DeleteTopics: by name up to version 5, by name or id from version 6 on (KIP-516)."""
        message = call.message
        results: list[DeletableTopicResult] = []
        asked: list[str | UUID] = list(message.topic_names)
        for topic in message.topics:
            if (topic.name is None) == (topic.topic_id == ZERO_UUID):
                results.append(_nameless(topic))
            else:
                asked.append(topic.topic_id if topic.name is None else topic.name)
        known = {topic: self._names(topic) for topic in asked}
        if asked:
            request = DeleteTopics(topics=tuple(asked))
            outcomes = await self._control.ask(call, request, timeout_ms=message.timeout_ms)
            for named, (name, topic_id) in known.items():
                detail = outcomes[named]
                results.append(
                    DeletableTopicResult.make(
                        name=name,
                        topic_id=topic_id,
                        error_code=detail_code(detail),
                        error_message=detail_message(detail),
                    )
                )
        return DeleteTopicsResponseData.make(throttle_time_ms=noted_wait_ms(), responses=results)

    def _names(self, topic: str | UUID) -> tuple[str | None, UUID]:
        """Name and id: what was asked, and the other as far as this node knew it before the deletion."""
        image = self._gateway.image
        if isinstance(topic, str):
            return topic, image.topic_ids.get(topic, ZERO_UUID)
        found = image.topics.get(topic)
        return (None if found is None else found.name), topic

    # --- CreatePartitions -------------------------------------------------------------------------------------

    async def grow(self, call: Call[CreatePartitionsRequestData]) -> CreatePartitionsResponseData:
        message = call.message
        request = CreatePartitions(
            topics=tuple(
                NewPartitions(
                    topic=topic.name,
                    count=topic.count,
                    assignments=None
                    if topic.assignments is None
                    else tuple(tuple(each.broker_ids) for each in topic.assignments),
                )
                for topic in message.topics
            ),
            validate_only=message.validate_only,
        )
        outcomes = await self._control.ask(call, request, timeout_ms=message.timeout_ms)
        return CreatePartitionsResponseData.make(
            throttle_time_ms=noted_wait_ms(),
            results=[
                CreatePartitionsTopicResult.make(
                    name=name, error_code=detail_code(detail), error_message=detail_message(detail)
                )
                for name, detail in outcomes.items()
            ],
        )


# --- CreateTopics ---------------------------------------------------------------------------------------------------


def _created(
    name: str,
    outcome: TopicCreated | ErrorDetail,
    configs: Callable[[Mapping[str, str]], Sequence[CreatableTopicConfigs]],
) -> CreatableTopicResult:
    if isinstance(outcome, ErrorDetail):
        return CreatableTopicResult.make(
            name=name, error_code=detail_code(outcome), error_message=detail_message(outcome)
        )
    return CreatableTopicResult.make(
        name=name,
        topic_id=outcome.topic_id,
        error_message=None,
        num_partitions=outcome.partitions,
        replication_factor=outcome.replication_factor,
        configs=configs(outcome.configs),
    )


def _own_configs(overrides: Mapping[str, str]) -> list[CreatableTopicConfigs]:
    """Those of the topic itself: the node that asked has the defaults, too, and is not made to wait for all of them."""
    source = SOURCES[DYNAMIC_TOPIC]
    return [
        CreatableTopicConfigs.make(name=name, value=value, config_source=source) for name, value in overrides.items()
    ]


def _problem(topic: CreatableTopic, times: int) -> ErrorDetail | None:
    """Why a topic cannot be asked for: `NewTopic` has no place for these."""
    if times > 1:
        return ErrorDetail(InvalidRequest, f"topic {topic.name!r} is named twice in one request")
    nulls = [config.name for config in topic.configs if config.value is None]
    if nulls:
        return ErrorDetail(InvalidConfig, f"null is no value of a new topic's settings: {', '.join(nulls)}")
    placed = Counter(item.partition_index for item in topic.assignments)
    twice = [partition for partition, count in placed.items() if count > 1]
    if twice:
        return ErrorDetail(InvalidReplicaAssignment, f"partitions {twice} of topic {topic.name!r} are assigned twice")
    return None


def _new_topic(topic: CreatableTopic) -> NewTopic:
    return NewTopic(
        name=topic.name,
        partitions=topic.num_partitions,
        replication_factor=topic.replication_factor,
        assignment={item.partition_index: tuple(item.broker_ids) for item in topic.assignments} or None,
        configs={config.name: config.value for config in topic.configs if config.value is not None},
    )


def _nameless(topic: DeleteTopicState) -> DeletableTopicResult:
    what = "neither its name nor its id is" if topic.name is None else "only one of name and id may be"
    return DeletableTopicResult.make(
        name=topic.name,
        topic_id=topic.topic_id,
        error_code=InvalidRequest.code,
        error_message=f"a topic to delete is named by its name or its id; {what} given",
    )


def _refuse_creation(message: CreateTopicsRequestData, version: int, error: KafkaError) -> CreateTopicsResponseData:
    names = dict.fromkeys(topic.name for topic in message.topics)
    return CreateTopicsResponseData.make(
        topics=[
            CreatableTopicResult.make(name=name, error_code=error.code, error_message=refusal_message(error))
            for name in names
        ]
    )


def _refuse_deletion(message: DeleteTopicsRequestData, version: int, error: KafkaError) -> DeleteTopicsResponseData:
    named = [(name, ZERO_UUID) for name in message.topic_names]
    return DeleteTopicsResponseData.make(
        responses=[
            DeletableTopicResult.make(
                name=name, topic_id=topic_id, error_code=error.code, error_message=refusal_message(error)
            )
            for name, topic_id in [*named, *((topic.name, topic.topic_id) for topic in message.topics)]
        ]
    )


def _refuse_growth(
    message: CreatePartitionsRequestData, version: int, error: KafkaError
) -> CreatePartitionsResponseData:
    names = dict.fromkeys(topic.name for topic in message.topics)
    return CreatePartitionsResponseData.make(
        results=[
            CreatePartitionsTopicResult.make(name=name, error_code=error.code, error_message=refusal_message(error))
            for name in names
        ]
    )
