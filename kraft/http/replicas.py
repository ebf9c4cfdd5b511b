"""GET /kraft/partitions: the view of one node, leader or not: its copy of the metadata, and its own replicas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from aiohttp import web
from pydantic import BaseModel

from kraft.broker.gateway import Gateway
from kraft.http.endpoint import Body, Call, Route
from kraft.http.responses import plain_json
from kraft.protocol.media_types import PLAIN_JSON
from metadata.image import TopicIdPartition
from replication.manager.status import ReplicaStatus

Replicas = Callable[[], Mapping[TopicIdPartition, ReplicaStatus]]


class PartitionFacts(BaseModel):
    """One partition in this node's copy of the metadata."""

    topic: str
    topic_id: str
    partition: int
    leader: int
    leader_epoch: int
    partition_epoch: int
    replicas: list[int]
    isr: list[int]
    is_reassigning: bool


class LocalReplica(BaseModel):
    """One replica that this node has, as it is at this moment."""

    topic: str
    topic_id: str
    partition: int
    role: Literal["leader", "follower", "offline"]
    leader_epoch: int
    log_start_offset: int
    log_end_offset: int
    high_watermark: int
    isr: list[int]
    maximal_isr: list[int]


class NodeBelief(BaseModel):
    """What GET /kraft/partitions answers."""

    node_id: int
    metadata_offset: int
    controller_id: int
    controller_epoch: int
    brokers: dict[str, Literal["active", "fenced", "shutting down"]]
    partitions: list[PartitionFacts]
    replicas: list[LocalReplica]


def partition_facts(gateway: Gateway) -> list[PartitionFacts]:
    """Every partition in this node's copy of the metadata."""
    return [
        PartitionFacts(
            topic=topic.name,
            topic_id=str(topic.topic_id),
            partition=number,
            leader=partition.leader,
            leader_epoch=partition.leader_epoch,
            partition_epoch=partition.partition_epoch,
            replicas=list(partition.replicas),
            isr=list(partition.isr),
            is_reassigning=partition.is_reassigning,
        )
        for topic in gateway.image.topics.values()
        for number, partition in topic.partitions.items()
    ]


def local_replica(key: TopicIdPartition, status: ReplicaStatus) -> LocalReplica:
    """One replica of this node, as it is now: its role, its offsets, its ISR."""
    return LocalReplica(
        topic=status.topic,
        topic_id=str(key.topic_id),
        partition=key.partition,
        role="leader" if status.is_leader else "follower",
        leader_epoch=status.leader_epoch,
        log_start_offset=status.log_start_offset,
        log_end_offset=status.log_end_offset,
        high_watermark=status.high_watermark,
        isr=list(status.isr),
        maximal_isr=list(status.maximal_isr),
    )


def node_belief(gateway: Gateway, replicas: Mapping[TopicIdPartition, ReplicaStatus]) -> NodeBelief:
    """Both of them together, for one answer."""
    image = gateway.image
    return NodeBelief(
        node_id=gateway.node_id,
        metadata_offset=image.offset,
        controller_id=gateway.controller_id,
        controller_epoch=image.controller_epoch,
        brokers={
            str(broker.broker_id): "shutting down"
            if broker.in_controlled_shutdown
            else "fenced"
            if broker.fenced
            else "active"
            for broker in image.brokers.values()
        },
        partitions=partition_facts(gateway),
        replicas=[local_replica(key, status) for key, status in replicas.items()],
    )


def replica_routes(replicas: Replicas) -> tuple[Route, ...]:
    """The routes. `replicas` returns the replicas of this node; none on a node that is no broker."""

    async def partitions(call: Call) -> web.Response:
        found, topics = replicas(), call.context.gateway.image.topics
        if call.permissions is not None:
            found = {key: status for key, status in found.items() if key.topic_id in topics}
        belief = node_belief(call.context.gateway, found)
        return plain_json(belief.model_dump())

    return (
        Route(
            method="GET",
            path="/kraft/partitions",
            handler=partitions,
            summary="Partitions as this node knows them, and its own replicas.",
            tag="node",
            answers={200: Body(content={PLAIN_JSON: NodeBelief})},
        ),
    )
