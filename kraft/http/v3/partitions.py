"""v3 partitions, their offsets and their replicas."""

from __future__ import annotations

from aiohttp import web

from kraft.http.endpoint import Call, Parameter
from kraft.http.errors import BAD_REQUEST, HttpError
from kraft.http.parameters import ISOLATION_LEVEL, is_read_committed
from kraft.http.v3 import models
from kraft.http.v3.envelope import Document, answer, crn, listing, related, resource, route
from metadata.image import PartitionImage, TopicImage
from replication.requests import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP

EARLIEST_AND_LATEST = "earliest_and_latest"


def find_partition(call: Call) -> tuple[TopicImage, PartitionImage]:
    """Topic and partition of the path. Raises HttpError 40403 for the topic, 404 for the partition."""
    topic = call.context.topic_or_raise(call.topic)
    partition = topic.partitions.get(call.partition)
    if partition is None:
        raise HttpError(404, f"Partition {call.partition} of topic {topic.name} cannot be found.")
    return topic, partition


def partition_document(call: Call, topic: str, partition: PartitionImage) -> Document:
    """KafkaPartition: leader (-1: none), epochs, ISR and assignment, by broker id."""
    path = ("topics", topic, "partitions", partition.partition)
    return resource(
        call,
        "KafkaPartition",
        path,
        crn(call, topic=topic, partition=partition.partition),
        {
            "topic_name": topic,
            "partition_id": partition.partition,
            "leader": related(call, *path, "replicas", partition.leader) if partition.has_leader else None,
            "replicas": related(call, *path, "replicas"),
            "reassignment": related(call, *path, "reassignment"),
            "leader_id": partition.leader,
            "leader_epoch": partition.leader_epoch,
            "partition_epoch": partition.partition_epoch,
            "isr": list(partition.isr),
            "assignment": list(partition.replicas),
            "leader_recovery": partition.leader_recovery.value,
        },
    )


def replica(call: Call, topic: str, partition: PartitionImage, broker_id: int) -> Document:
    """KafkaReplica: whether this broker leads the partition, and whether it is in the ISR."""
    return resource(
        call,
        "KafkaReplica",
        ("topics", topic, "partitions", partition.partition, "replicas", broker_id),
        crn(call, topic=topic, partition=partition.partition, replica=broker_id),
        {
            "topic_name": topic,
            "partition_id": partition.partition,
            "broker_id": broker_id,
            "is_leader": broker_id == partition.leader,
            "is_in_sync": broker_id in partition.isr,
            "broker": related(call, "brokers", broker_id),
        },
    )


async def list_partitions(call: Call) -> web.Response:
    """200 with all partitions of a topic. Raises HttpError 40403."""
    topic = call.context.topic_or_raise(call.topic)
    documents = (partition_document(call, topic.name, partition) for partition in topic.partitions.values())
    return answer(listing(call, "KafkaPartitionList", ("topics", topic.name, "partitions"), documents))


async def get_partition(call: Call) -> web.Response:
    """200 with one partition. Raises HttpError 404."""
    topic, partition = find_partition(call)
    return answer(partition_document(call, topic.name, partition))


async def get_offset(call: Call) -> web.Response:
    """ListOffsets: 200 with `earliest_offset`, the log start offset, and `latest_offset`, the high watermark; of
    read_committed the last stable offset. Raises HttpError 404, and NotLeaderOrFollower 6 while nobody leads."""
    kind = call.request.query.get("offset_type", EARLIEST_AND_LATEST)
    if kind != EARLIEST_AND_LATEST:
        raise HttpError(BAD_REQUEST, f"offset_type={kind} is not known; it is {EARLIEST_AND_LATEST}")
    is_committed = is_read_committed(call)
    topic, partition = find_partition(call)
    which, _ = call.context.find_partition(topic.name, partition.partition)
    earliest = await call.context.gateway.list_offset(which, EARLIEST_TIMESTAMP)
    latest = await call.context.gateway.list_offset(which, LATEST_TIMESTAMP, is_read_committed=is_committed)
    return answer(
        resource(
            call,
            "KafkaPartitionWithOffsets",
            ("topics", topic.name, "partitions", partition.partition, "offset"),
            f"{crn(call, topic=topic.name, partition=partition.partition)}/offset_type={kind}",
            {
                "topic_name": topic.name,
                "partition_id": partition.partition,
                "earliest_offset": earliest.offset,
                "latest_offset": latest.offset,
            },
        )
    )


async def list_replicas(call: Call) -> web.Response:
    """200 with all replicas of a partition, in the order of its assignment. Raises HttpError 404."""
    topic, partition = find_partition(call)
    documents = (replica(call, topic.name, partition, broker) for broker in partition.replicas)
    path = ("topics", topic.name, "partitions", partition.partition, "replicas")
    return answer(listing(call, "KafkaReplicaList", path, documents))


async def get_replica(call: Call) -> web.Response:
    """200 with the replica on one broker. Raises HttpError 404."""
    topic, partition = find_partition(call)
    text = call.path["broker_id"]
    found = next((broker for broker in partition.replicas if str(broker) == text), None)
    if found is None:
        raise HttpError(404, f"Broker {text} has no replica of {topic.name}-{partition.partition}.")
    return answer(replica(call, topic.name, partition, found))


_ONE = "/topics/{topic}/partitions/{partition}"
_TYPE = Parameter(
    name="offset_type",
    description="Which offsets.",
    schema={"type": "string", "enum": [EARLIEST_AND_LATEST], "default": EARLIEST_AND_LATEST},
)

ROUTES = (
    route(
        "GET",
        "/topics/{topic}/partitions",
        list_partitions,
        "Partitions of a topic.",
        models.Listing[models.Partition],
        errors=(40403,),
    ),
    route("GET", _ONE, get_partition, "One partition.", models.Partition, errors=(40403,)),
    route(
        "GET",
        _ONE + "/offset",
        get_offset,
        "First offset and high watermark.",
        models.Offset,
        query=(_TYPE, ISOLATION_LEVEL),
        errors=(40002, 40403, 50302),
    ),
    route(
        "GET",
        _ONE + "/replicas",
        list_replicas,
        "Replicas of a partition.",
        models.Listing[models.Replica],
        errors=(40403,),
    ),
    route("GET", _ONE + "/replicas/{broker_id}", get_replica, "One replica.", models.Replica, errors=(40403,)),
)
