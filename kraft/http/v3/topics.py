"""v3 topics: list, create, describe, delete, grow."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from kraft.http.endpoint import Call, Parameter
from kraft.http.errors import BAD_REQUEST, PAYLOAD, HttpError
from kraft.http.parameters import flag
from kraft.http.v3 import models
from kraft.http.v3.envelope import (
    Document,
    answer,
    crn,
    listing,
    no_content,
    raise_refusal,
    related,
    resource,
    route,
    url,
)
from metadata.acls import OPERATIONS, AclResource
from metadata.controller.requests import (
    CreatePartitions,
    CreateTopics,
    DeleteTopics,
    NewPartitions,
    NewTopic,
    TopicCreated,
)
from metadata.image import TopicImage
from metadata.internal_topics import INTERNAL_TOPICS


def topic_document(
    call: Call, name: str, *, topic_id: str | None, partitions: int, replication_factor: int
) -> Document:
    """KafkaTopic, with links to its partitions and configs. `topic_id`: null for one that was only validated."""
    path = ("topics", name)
    return resource(
        call,
        "KafkaTopic",
        path,
        crn(call, topic=name),
        {
            "topic_name": name,
            "is_internal": name in INTERNAL_TOPICS,
            "replication_factor": replication_factor,
            "partitions_count": partitions,
            "partitions": related(call, *path, "partitions"),
            "configs": related(call, *path, "configs"),
            "partition_reassignments": related(call, *path, "partitions", "-", "reassignment"),
            "authorized_operations": [],
            "topic_id": topic_id,
        },
    )


def _document(call: Call, topic: TopicImage, *, partitions: int | None = None) -> Document:
    return topic_document(
        call,
        topic.name,
        topic_id=str(topic.topic_id),
        partitions=partitions or len(topic.partitions),
        replication_factor=topic.replication_factor,
    )


async def list_topics(call: Call) -> web.Response:
    """200 with all topics, internal ones too, by name."""
    operations = _asked_operations(call)
    topics = call.context.gateway.image.topics_by_name.values()
    rows = (_document(call, topic) | {"authorized_operations": operations(topic.name)} for topic in topics)
    return answer(listing(call, "KafkaTopicList", ("topics",), rows))


async def get_topic(call: Call) -> web.Response:
    """200 with one topic. Raises HttpError 40403."""
    operations = _asked_operations(call)
    topic = call.context.topic_or_raise(call.topic)
    return answer(_document(call, topic) | {"authorized_operations": operations(topic.name)})


def _asked_operations(call: Call) -> Callable[[str], list[str]]:
    """Returns what the principal may do with a topic, where the request asks for it (KIP-430); all operations without
    an authorizer."""
    if not flag(call, _OPERATIONS.name):
        return lambda _: []
    may, operations = call.permissions, OPERATIONS[AclResource.TOPIC]
    if may is None:
        return lambda _: [each.name for each in operations]
    return lambda name: [each.name for each in operations if may.silently(each, AclResource.TOPIC, name)]


async def create_topic(call: Call) -> web.Response:
    """CreateTopics of one topic: 201 and its document, 200 where it was only validated. Raises the KafkaError that the
    controller refuses it with, such as TopicAlreadyExists 36 or InvalidReplicationFactor 38."""
    asked = call.model(models.NewTopic)
    is_made = not (asked.validate_only or flag(call, "validate_only"))
    outcomes = await call.context.control(CreateTopics(topics=(_new_topic(asked),), validate_only=not is_made))
    created = outcomes[asked.topic_name]
    raise_refusal(created)
    assert isinstance(created, TopicCreated), created
    document = topic_document(
        call,
        asked.topic_name,
        topic_id=str(created.topic_id) if is_made else None,
        partitions=created.partitions,
        replication_factor=created.replication_factor,
    )
    if not is_made:
        return answer(document)
    return answer(document, status=201, location=url(call, "topics", asked.topic_name))


def _new_topic(asked: models.NewTopic) -> NewTopic:
    if not asked.topic_name:
        raise HttpError(PAYLOAD, "topic_name is empty; it is 1 to 249 characters of a-z A-Z 0-9 . _ -")
    assignment = asked.replicas_assignments
    if assignment is not None and (asked.partitions_count or asked.replication_factor):
        raise HttpError(BAD_REQUEST, "send replicas_assignments or partitions_count and replication_factor, not both")
    return NewTopic(
        name=asked.topic_name,
        partitions=asked.partitions_count or -1,
        replication_factor=asked.replication_factor or -1,
        assignment=None if assignment is None else {number: tuple(ids) for number, ids in assignment.items()},
        configs={config.name: config.value for config in asked.configs or () if config.value is not None},
    )


async def delete_topic(call: Call) -> web.Response:
    """DeleteTopics of one topic: 204. Raises HttpError 40403."""
    name = call.context.topic_or_raise(call.topic).name
    outcomes = await call.context.control(DeleteTopics(topics=(name,)))
    raise_refusal(outcomes[name])
    return no_content()


async def grow_topic(call: Call) -> web.Response:
    """CreatePartitions: 200 with the topic as it is then. Raises HttpError 40403, InvalidPartitions 37 for no more than
    it has."""
    topic = call.context.topic_or_raise(call.topic)
    asked = call.model(models.PartitionsCount)
    new = NewPartitions(topic=topic.name, count=asked.partitions_count)
    outcomes = await call.context.control(CreatePartitions(topics=(new,), validate_only=asked.validate_only))
    raise_refusal(outcomes[topic.name])
    shown = len(topic.partitions) if asked.validate_only else asked.partitions_count
    return answer(_document(call, topic, partitions=shown))


_VALIDATE = Parameter(
    name="validate_only", description="Check, change nothing.", schema={"type": "boolean", "default": False}
)
_OPERATIONS = Parameter(
    name="include_authorized_operations",
    description="List the operations that the client may do with each topic (KIP-430).",
    schema={"type": "boolean"},
)
_ONE = "/topics/{topic}"
_CHANGE = (40002, 50302, 50401)

ROUTES = (
    route(
        "GET",
        "/topics",
        list_topics,
        "List topics.",
        models.Listing[models.Topic],
        query=(_OPERATIONS,),
        errors=(40002,),
    ),
    route(
        "POST",
        "/topics",
        create_topic,
        "Create a topic; 200 when only validated.",
        models.Topic,
        body=models.NewTopic,
        status=201,
        also={200: models.Topic},
        query=(_VALIDATE,),
        errors=(*_CHANGE, 42206),
    ),
    route("GET", _ONE, get_topic, "One topic.", models.Topic, errors=(40002, 40403), query=(_OPERATIONS,)),
    route("DELETE", _ONE, delete_topic, "Delete a topic.", errors=(*_CHANGE, 40403)),
    route(
        "PATCH",
        _ONE,
        grow_topic,
        "Add partitions: their total number afterwards.",
        models.Topic,
        body=models.PartitionsCount,
        errors=(*_CHANGE, 40403),
    ),
)
