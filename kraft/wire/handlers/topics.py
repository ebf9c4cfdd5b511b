"""CreateTopics (19), DeleteTopics (20) and CreatePartitions (37) for clients.

The active controller decides, whichever node is asked (`Gateway.control`), and the answer goes out when this node has
seen what was done: who asks it next finds the topic. Faults that the controller's request cannot express are found
here, before anything is sent. Source: Kafka's ControllerApis and ReplicationControlManager.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from kraft.broker.configs import new_topic_configs
from kraft.broker.gateway import Gateway
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
from kraft.wire.handlers.broker import ClientBroker
from kraft.wire.handlers.config_sources import SOURCES
from kraft.wire.messages.common import detail_code, detail_message
from kraft.wire.messages.topics import CREATE_PARTITIONS
from metadata.controller.requests import CreateTopics, DeleteTopics, ErrorDetail, NewTopic, TopicCreated


def apis(broker: ClientBroker) -> Sequence[ApiHandler]:
    handlers = _Topics(broker.gateway)
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
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

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
            decided = await self._gateway.control(request, timeout_ms=max(1, message.timeout_ms))
            outcomes.update(decided)
        return CreateTopicsResponseData.make(topics=[self._created(name, outcomes[name]) for name in times])

    def _created(self, name: str, outcome: TopicCreated | ErrorDetail) -> CreatableTopicResult:
        if isinstance(outcome, ErrorDetail):
            return CreatableTopicResult.make(name=name, error_code=outcome.error.code, error_message=outcome.message)
        return CreatableTopicResult.make(
            name=name,
            topic_id=outcome.topic_id,
            error_message=None,
            num_partitions=outcome.partitions,
            replication_factor=outcome.replication_factor,
            configs=[
                CreatableTopicConfigs.make(
                    name=entry.name,
                    value=entry.value,
                    read_only=entry.is_read_only,
                    config_source=SOURCES[entry.source],
                )
                for entry in new_topic_configs(self._gateway, outcome.configs)
            ],
        )

    # --- DeleteTopics -----------------------------------------------------------------------------------------

    async def delete(self, call: Call[DeleteTopicsRequestData]) -> DeleteTopicsResponseData:
        """By name up to version 5, by name or id from version 6 on (KIP-516)."""
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
            outcomes = await self._gateway.control(request, timeout_ms=max(1, message.timeout_ms))
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
        return DeleteTopicsResponseData.make(responses=results)

    def _names(self, topic: str | UUID) -> tuple[str | None, UUID]:
        """Name and id: what was asked, and the other as far as this node knew it before the deletion."""
        image = self._gateway.image
        if isinstance(topic, str):
            return topic, image.topic_ids.get(topic, ZERO_UUID)
        found = image.topics.get(topic)
        return (None if found is None else found.name), topic

    # --- CreatePartitions -------------------------------------------------------------------------------------

    async def grow(self, call: Call[CreatePartitionsRequestData]) -> CreatePartitionsResponseData:
        request = CREATE_PARTITIONS.requested(call.message)
        outcomes = await self._gateway.control(request, timeout_ms=max(1, call.message.timeout_ms))
        return CREATE_PARTITIONS.to_reply(request, outcomes)


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
            CreatableTopicResult.make(name=name, error_code=error.code, error_message=error.message) for name in names
        ]
    )


def _refuse_deletion(message: DeleteTopicsRequestData, version: int, error: KafkaError) -> DeleteTopicsResponseData:
    named = [(name, ZERO_UUID) for name in message.topic_names]
    return DeleteTopicsResponseData.make(
        responses=[
            DeletableTopicResult.make(name=name, topic_id=topic_id, error_code=error.code, error_message=error.message)
            for name, topic_id in [*named, *((topic.name, topic.topic_id) for topic in message.topics)]
        ]
    )


def _refuse_growth(
    message: CreatePartitionsRequestData, version: int, error: KafkaError
) -> CreatePartitionsResponseData:
    names = dict.fromkeys(topic.name for topic in message.topics)
    return CreatePartitionsResponseData.make(
        results=[
            CreatePartitionsTopicResult.make(name=name, error_code=error.code, error_message=error.message)
            for name in names
        ]
    )
