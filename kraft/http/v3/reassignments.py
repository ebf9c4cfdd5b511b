"""v3 reassignments: Confluent's reads, and ours to start (POST) and cancel (DELETE) one (S8, I9)."""

from __future__ import annotations

from collections.abc import Iterable

from aiohttp import web

from kraft.http.endpoint import Call
from kraft.http.errors import HttpError
from kraft.http.v3 import models
from kraft.http.v3.envelope import Document, answer, crn, listing, no_content, raise_refusal, related, resource, route
from kraft.http.v3.partitions import find_partition
from metadata.controller.requests import AlterReassignments, PartitionReassignment
from metadata.image import PartitionImage, TopicImage


def _document(call: Call, topic: str, partition: PartitionImage) -> Document:
    path = ("topics", topic, "partitions", partition.partition)
    return resource(
        call,
        "KafkaReassignment",
        (*path, "reassignment"),
        f"{crn(call, topic=topic, partition=partition.partition)}/reassignment",
        {
            "topic_name": topic,
            "partition_id": partition.partition,
            "adding_replicas": list(partition.adding_replicas),
            "removing_replicas": list(partition.removing_replicas),
            "replicas": related(call, *path, "replicas"),
        },
    )


def _listing(call: Call, shown: str, topics: Iterable[TopicImage]) -> web.Response:
    documents = (
        _document(call, topic.name, partition)
        for topic in topics
        for partition in topic.partitions.values()
        if partition.is_reassigning
    )
    path = ("topics", shown, "partitions", "-", "reassignment")
    return answer(listing(call, "KafkaReassignmentList", path, documents))


async def list_all_reassignments(call: Call) -> web.Response:
    """ListPartitionReassignments: 200 with those that are under way in all topics."""
    return _listing(call, "-", call.context.gateway.image.topics_by_name.values())


async def list_topic_reassignments(call: Call) -> web.Response:
    """The same of one topic. Raises HttpError 40403."""
    return _listing(call, call.topic, [call.context.topic_or_raise(call.topic)])


async def get_reassignment(call: Call) -> web.Response:
    """200 with adding and removing replicas of one partition. Raises HttpError 404 where none is under way."""
    topic, partition = find_partition(call)
    if not partition.is_reassigning:
        raise HttpError(404, f"No reassignment of {topic.name}-{partition.partition} is under way.")
    return answer(_document(call, topic.name, partition))


async def start_reassignment(call: Call) -> web.Response:
    """AlterPartitionReassignments: 204 when it has begun; followers catch up after that. Raises HttpError 404,
    InvalidReplicaAssignment 39."""
    topic, partition = find_partition(call)
    replicas = tuple(call.model(models.NewReassignment).replicas)
    await _reassign(call, topic.name, partition.partition, replicas)
    return no_content()


async def cancel_reassignment(call: Call) -> web.Response:
    """204; the partition keeps the replicas that it had. Raises HttpError 404, NoReassignmentInProgress 85."""
    topic, partition = find_partition(call)
    await _reassign(call, topic.name, partition.partition, None)
    return no_content()


async def _reassign(call: Call, topic: str, partition: int, replicas: tuple[int, ...] | None) -> None:
    asked = PartitionReassignment(topic=topic, partition=partition, replicas=replicas)
    outcomes = await call.context.control(AlterReassignments(reassignments=(asked,)))
    raise_refusal(outcomes[(topic, partition)])


_ONE = "/topics/{topic}/partitions/{partition}/reassignment"
_LIST = models.Listing[models.Reassignment]
_ERRORS = (40002, 40403, 50302, 50401)

ROUTES = (
    route("GET", "/topics/-/partitions/-/reassignment", list_all_reassignments, "Reassignments under way.", _LIST),
    route(
        "GET",
        "/topics/{topic}/partitions/-/reassignment",
        list_topic_reassignments,
        "Reassignments of a topic.",
        _LIST,
        errors=(40403,),
    ),
    route("GET", _ONE, get_reassignment, "The reassignment under way.", models.Reassignment, errors=(40403,)),
    route(
        "POST",
        _ONE,
        start_reassignment,
        "Move a partition to other replicas.",
        body=models.NewReassignment,
        errors=_ERRORS,
    ),
    route("DELETE", _ONE, cancel_reassignment, "Cancel the reassignment.", errors=_ERRORS),
)
