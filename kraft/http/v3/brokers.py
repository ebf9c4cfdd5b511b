"""v3 brokers, and the replicas that each one has."""

from __future__ import annotations

from aiohttp import web

from kraft.http.endpoint import Call
from kraft.http.errors import HttpError
from kraft.http.v3 import models
from kraft.http.v3.envelope import Document, answer, crn, listing, related, resource, route
from kraft.http.v3.partitions import replica
from metadata.image import BrokerImage


def find_broker(call: Call) -> BrokerImage:
    """The broker in the path. Raises HttpError 404."""
    text = call.path["broker_id"]
    is_id = text.isascii() and text.isdigit() and len(text) <= 10
    broker = call.context.gateway.image.brokers.get(int(text)) if is_id else None
    if broker is None:
        raise HttpError(404, f"Broker {text} of cluster {call.context.gateway.cluster_id} cannot be found.")
    return broker


def broker_document(call: Call, broker: BrokerImage) -> Document:
    """KafkaBroker: address of the Kafka port, rack, epoch, and whether it is fenced."""
    host, _, port = broker.kafka.rpartition(":")
    number = broker.broker_id
    return resource(
        call,
        "KafkaBroker",
        ("brokers", number),
        crn(call, broker=number),
        {
            "broker_id": number,
            "host": host,
            "port": int(port),
            "rack": broker.rack,
            "configs": related(call, "brokers", number, "configs"),
            "partition_replicas": related(call, "brokers", number, "partition-replicas"),
            "broker_epoch": broker.broker_epoch,
            "is_fenced": broker.fenced,
            "rest": broker.rest,
        },
    )


async def list_brokers(call: Call) -> web.Response:
    """200 with all registered brokers by id, fenced ones too."""
    brokers = sorted(call.context.gateway.image.brokers.items())
    documents = (broker_document(call, broker) for _, broker in brokers)
    return answer(listing(call, "KafkaBrokerList", ("brokers",), documents))


async def get_broker(call: Call) -> web.Response:
    """200 with one broker. Raises HttpError 404."""
    return answer(broker_document(call, find_broker(call)))


async def list_broker_replicas(call: Call) -> web.Response:
    """200 with every replica that a broker has, by topic and partition. Raises HttpError 404."""
    number = find_broker(call).broker_id
    replicas = (
        replica(call, topic.name, partition, number)
        for topic in call.context.gateway.image.topics_by_name.values()
        for partition in topic.partitions.values()
        if number in partition.replicas
    )
    return answer(listing(call, "KafkaReplicaList", ("brokers", number, "partition-replicas"), replicas))


ROUTES = (
    route("GET", "/brokers", list_brokers, "List brokers.", models.Listing[models.Broker]),
    route("GET", "/brokers/{broker_id}", get_broker, "One broker.", models.Broker),
    route(
        "GET",
        "/brokers/{broker_id}/partition-replicas",
        list_broker_replicas,
        "Replicas on a broker.",
        models.Listing[models.Replica],
    ),
)
