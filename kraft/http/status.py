"""What operators ask first: is the node alive, is it ready, and how is the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel

from kraft import __version__
from kraft.broker.gateway import Gateway, NodeInfo
from kraft.http.docs.pages import HTML, index_page
from kraft.http.endpoint import Body, Call, Route
from kraft.http.responses import plain_json
from kraft.protocol.media_types import PLAIN_JSON
from metadata.image import MetadataImage
from metadata.records import NO_LEADER

PROMETHEUS_TEXT = "text/plain; version=0.0.4"
CONTROLLER = "controller"

State = Literal["active", "fenced", "shutting down", "down", "controller"]


class NodeStatus(BaseModel):
    id: int
    roles: list[str]
    rest: str
    kafka: str
    quorum: str | None
    rack: str | None
    state: State


class PartitionTotals(BaseModel):
    total: int
    under_replicated: int
    offline: int
    under_min_isr: int


class KafkaClients(BaseModel):
    listener: str
    software: str
    version: str
    connections: int


class ClusterStatus(BaseModel):
    cluster_id: str
    node_id: int
    controller_id: int
    controller_epoch: int
    metadata_offset: int
    nodes: list[NodeStatus]
    partitions: PartitionTotals
    topics: int
    kafka_clients: list[KafkaClients]
    """Clients of this node that send their name, and the number of their connections."""
    awaits: str | None
    """What this node waits for before it takes part; null when it does. Until its metadata has caught up with the
    quorum, all the rest is as old as its own files."""


class Health(BaseModel):
    status: str
    reason: str | None = None


class Uptime(BaseModel):
    process_uptime_sec: int
    kraft_version: str


class Index(BaseModel):
    name: str
    cluster_id: str
    node_id: int
    links: dict[str, str]


def node_state(node: NodeInfo, image: MetadataImage) -> State:
    """The state of a node of cluster.toml. A broker that is not registered is down."""
    if "broker" not in node.roles:
        return "controller"
    broker = image.brokers.get(node.node_id)
    if broker is None:
        return "down"
    if broker.in_controlled_shutdown:
        return "shutting down"
    return "fenced" if broker.fenced else "active"


def partition_totals(gateway: Gateway) -> PartitionTotals:
    """Counts of partitions, and of those that are under-replicated, under min.insync.replicas or offline."""
    total = under_replicated = offline = under_min_isr = 0
    for topic in gateway.image.topics.values():
        min_isr = gateway.topic_settings(topic.name).min_insync_replicas
        for partition in topic.partitions.values():
            total += 1
            under_replicated += partition.is_under_replicated
            offline += not partition.has_leader
            under_min_isr += len(partition.isr) < min(min_isr, len(partition.replicas))
    return PartitionTotals(total=total, under_replicated=under_replicated, offline=offline, under_min_isr=under_min_isr)


def partition_gauges(gateway: Gateway) -> dict[str, float]:
    """Gauges of /metrics that the image alone answers."""
    totals = partition_totals(gateway)
    leaders = sum(partition.leader == gateway.node_id for partition in gateway.image.all_partitions())
    return {
        "partitions": totals.total,
        "partitions_led": leaders,
        "partitions_under_replicated": totals.under_replicated,
        "partitions_offline": totals.offline,
        "partitions_under_min_isr": totals.under_min_isr,
        "metadata_offset": gateway.image.offset,
        "is_active_controller": float(gateway.controller_id == gateway.node_id),
        "controller_known": float(gateway.controller_id != NO_LEADER),
    }


def cluster_status(
    gateway: Gateway, awaits: str = "", kafka_clients: Mapping[tuple[str, str, str], int] | None = None
) -> ClusterStatus:
    """The status of the cluster as this node knows it: nodes, the quorum's leader, partitions. `awaits` is what this
    node waits for, `kafka_clients` counts its Kafka clients by listener, software and version.
    """
    image = gateway.image
    nodes = [
        NodeStatus(
            id=node.node_id,
            roles=list(node.roles),
            rest=node.rest,
            kafka=node.kafka,
            quorum=node.quorum,
            rack=node.rack,
            state=node_state(node, image),
        )
        for _, node in sorted(gateway.nodes.items())
    ]
    return ClusterStatus(
        cluster_id=gateway.cluster_id,
        node_id=gateway.node_id,
        controller_id=gateway.controller_id,
        controller_epoch=image.controller_epoch,
        metadata_offset=image.offset,
        nodes=nodes,
        partitions=partition_totals(gateway),
        topics=len(image.topics),
        kafka_clients=[
            KafkaClients(listener=listener, software=software, version=version, connections=connections)
            for (listener, software, version), connections in (kafka_clients or {}).items()
        ],
        awaits=awaits or None,
    )


async def status(call: Call) -> web.Response:
    """200 with what this node believes of the whole cluster: its quorum, nodes and partitions (`ClusterStatus`)."""
    context = call.context
    found = cluster_status(context.gateway, context.awaiting.service(), context.kafka_clients())
    return plain_json(found.model_dump())


async def healthz(call: Call) -> web.Response:
    """200 for as long as the process answers at all; `reason` names what it waits for before it serves."""
    reason = call.context.awaiting.service()
    return plain_json({"status": "ok", "reason": reason} if reason else {"status": "ok"})


async def readyz(call: Call) -> web.Response:
    """200 when the node serves, 503 with the `reason` until then: for probes of load balancers."""
    reason = call.context.awaiting.service()
    if not reason:
        return plain_json({"status": "ready"})
    return plain_json({"status": "not ready", "reason": reason}, status=503)


async def health(call: Call) -> web.Response:
    """The health check of Karapace: uptime and version."""
    uptime_ms = call.context.clock.monotonic_ms() - call.context.started_ms
    return plain_json({"process_uptime_sec": uptime_ms // 1000, "kraft_version": __version__})


async def metrics(call: Call) -> web.Response:
    """200 in Prometheus' text format, of this node alone."""
    call.context.metrics.bodies_bytes.set(call.context.bodies.used)
    headers = {"Content-Type": f"{PROMETHEUS_TEXT}; charset=utf-8"}
    return web.Response(body=call.context.metrics.exposition(), headers=headers)


_LINKS = {
    "topics": "/topics",
    "clusters": "/v3/clusters",
    "status": "/kraft/status",
    "docs": "/docs",
    "openapi": "/openapi.json",
    "metrics": "/metrics",
    "health": "/healthz",
    "ready": "/readyz",
}


_PLACES = {
    "/console": "the cluster as it lives: nodes, links, partitions",
    "/docs": "the API: to read, and to try",
    "/openapi.json": "the API as an OpenAPI 3.1 document",
    "/kraft/status": "nodes, controller and partitions as this node knows them",
    "/v3/clusters": "the cluster in the v3 dialect",
    "/topics": "topics in the v2 dialect",
    "/metrics": "metrics for Prometheus",
    "/healthz": "the process answers, and what it waits for",
    "/readyz": "the node takes requests, or why not",
}


async def index(call: Call) -> web.Response:
    """200 with the node's name and its links: JSON, or a page for a browser (`Accept: text/html`)."""
    gateway = call.context.gateway
    if "text/html" in (call.accept or ""):
        return index_page(call, _PLACES)
    return plain_json({"name": "kraft", "cluster_id": gateway.cluster_id, "node_id": gateway.node_id, "links": _LINKS})


def _get(path: str, handler: Any, summary: str, model: Any, media: str = PLAIN_JSON, *, alias: str = "") -> Route:
    """`alias`: the name of a route that only other proxies' clients know."""
    answers = {200: Body(content={media: model, **({HTML: None} if handler is index else {})})}
    if handler is readyz:
        answers[503] = Body(content={media: model}, description="Not ready, and why.")
    return Route(method="GET", path=path, handler=handler, summary=summary, tag="node", answers=answers, name=alias,
                 is_alias=bool(alias), answers_early=True)  # fmt: skip


ROUTES: tuple[Route, ...] = (
    _get("/", index, "Where to go from here.", Index),
    _get("/healthz", healthz, "The process answers.", Health),
    _get("/readyz", readyz, "The node takes requests.", Health),
    _get("/healthy", healthz, "As /healthz, for Strimzi's clients.", Health, alias="node_healthy"),
    _get("/ready", readyz, "As /readyz, for Strimzi's clients.", Health, alias="node_ready"),
    _get("/status/ready", readyz, "As /readyz, for Redpanda's clients.", Health, alias="node_status_ready"),
    _get("/_health", health, "Uptime and version, for Karapace's clients.", Uptime, alias="node_uptime"),
    _get("/metrics", metrics, "Metrics in Prometheus text.", None, PROMETHEUS_TEXT),
    _get("/kraft/status", status, "Nodes, controller and partitions as this node knows them.", ClusterStatus),
)
