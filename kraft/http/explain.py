"""GET /kraft/explain/...: why something is as it is; GET /kraft/evidence: what one node knows of it."""

from __future__ import annotations

from typing import Final, Protocol

import msgspec
from aiohttp import web

from kraft.broker.permissions import Permissions
from kraft.explain.clients import explain_client
from kraft.explain.explanation import Explanation
from kraft.explain.facts import Found, NodeEvidence
from kraft.explain.nodes import explain_node
from kraft.explain.partition import explain_partition
from kraft.explain.record import explain_record
from kraft.http.endpoint import Body, Call, Handler, Parameter, Route
from kraft.http.errors import BAD_REQUEST, PARTITION_NOT_FOUND, TOPIC_NOT_FOUND, HttpError
from kraft.http.events import described_events
from kraft.http.limits import Slots
from kraft.http.parameters import TOPIC_PATTERN, integer, parse_integer, topic_in_query
from kraft.http.responses import plain_json
from kraft.protocol.media_types import PLAIN_JSON
from kraft.protocol.primitives import INT32_MAX, INT64_MAX
from metadata.acls import AclOperation, AclResource

EXPLANATIONS_MAX: Final = 16
"""Explanations that a node makes at once: each asks every node."""
_QUERY: Final = (
    Parameter(name="topic", description="The topic.", schema={"type": "string", "pattern": TOPIC_PATTERN}),
    Parameter(
        name="partition",
        description="Number of the partition.",
        schema={"type": "integer", "minimum": 0, "maximum": INT32_MAX, "default": 0},
    ),
)


class OwnEvidence(Protocol):
    def __call__(self, topic: str | None = None, partition: int = 0, /) -> NodeEvidence:
        """What this node knows of itself, and of a partition."""
        ...


class Explainer(Protocol):
    async def find(self, topic: str | None = None, partition: int = 0) -> Found:
        """What all nodes know."""
        ...


class ExplainHandlers:
    def __init__(self, own: OwnEvidence, explainer: Explainer) -> None:
        self._own = own
        self._explainer = explainer
        self._slots = Slots(lambda: EXPLANATIONS_MAX, what="explanations")

    async def evidence(self, call: Call) -> web.Response:
        """200 with what this node knows; of a partition if `topic` names one. Raises HttpError 40002, and the error of
        Kafka where the caller may not describe the topic."""
        topic = topic_in_query(call)
        if topic is not None and call.permissions is not None:
            call.permissions.check(AclOperation.DESCRIBE, AclResource.TOPIC, topic)
        return plain_json(_described(call.permissions, self._own(topic, integer(call, "partition", default=0))))

    async def partition(self, call: Call) -> web.Response:
        """Raises HttpError 40401, 40402 for what no node that answers knows."""
        found = await self._found(call)
        return plain_json(explain_partition(found, topic=call.topic, partition=call.partition))

    async def record(self, call: Call) -> web.Response:
        """Raises what `partition` raises, and HttpError 40002 for what is no offset."""
        offset = parse_integer(call.path["offset"], "offset", high=INT64_MAX)
        found = await self._found(call)
        return plain_json(explain_record(found, topic=call.topic, partition=call.partition, offset=offset))

    async def _found(self, call: Call) -> Found:
        topic, number = call.topic, call.partition
        with self._slots:
            found = await self._find(call, topic, number)
        if not any(each.partition is not None or each.awaits for each in found.nodes.values()):
            asked = f"none of the nodes {', '.join(map(str, sorted(found.nodes)))} knows"
            if call.context.gateway.image.topic(topic) is None:
                raise HttpError(TOPIC_NOT_FOUND, f"Topic not found. {asked} a topic {topic!r}")
            raise HttpError(PARTITION_NOT_FOUND, f"Partition not found. {asked} partition {number} of {topic!r}")
        return found

    async def _find(self, call: Call, topic: str | None = None, partition: int = 0) -> Found:
        """What all nodes know, as far as the caller may."""
        found, may = await self._explainer.find(topic, partition), call.permissions
        nodes = {node_id: _described(may, each) for node_id, each in found.nodes.items()}
        return msgspec.structs.replace(found, nodes=nodes)

    async def node(self, call: Call) -> web.Response:
        """Raises HttpError 404 for a node that cluster.toml does not have."""
        node, nodes = parse_integer(call.path["broker_id"], "broker_id"), call.context.gateway.nodes
        if node not in nodes:
            raise HttpError(404, f"cluster.toml has no node {node}; it has {', '.join(map(str, sorted(nodes)))}")
        with self._slots:
            found = await self._find(call)
        return plain_json(explain_node(found, node))

    async def client(self, call: Call) -> web.Response:
        """A client by its user, its client.id or its address; one that nothing is known of is answered, too."""
        with self._slots:
            found = await self._find(call)
        return plain_json(explain_client(found, call.path["client"]))


def _described(may: Permissions | None, found: NodeEvidence) -> NodeEvidence:
    """Without events and texts that name topics which one may not describe."""
    if may is None:
        return found
    return msgspec.structs.replace(
        found,
        events=described_events(may, found.events),
        clients=described_events(may, found.clients),
        failed_directories=dict.fromkeys(found.failed_directories, "it has failed"),
    )


def explain_routes(own: OwnEvidence, explainer: Explainer) -> tuple[Route, ...]:
    """The routes. They answer without a quorum: what a node knows then is what has to be explained."""
    h = ExplainHandlers(own, explainer)

    def get(path: str, handler: Handler, summary: str, model: type, errors: tuple[int, ...], **more: object) -> Route:
        return Route(
            method="GET", path=path, handler=handler, summary=summary, tag="node", errors=errors, answers_early=True,
            answers={200: Body(content={PLAIN_JSON: model})}, **more,  # type: ignore[arg-type]
        )  # fmt: skip

    return (
        get("/kraft/evidence", h.evidence, "What this node knows of itself and of one partition.", NodeEvidence,
            (BAD_REQUEST,), query=_QUERY, name="node_evidence"),
        get("/kraft/explain/partition/{topic}/{partition}", h.partition, "Why a partition is as it is.", Explanation,
            (TOPIC_NOT_FOUND, PARTITION_NOT_FOUND, 503), name="node_explain_partition"),
        get("/kraft/explain/record/{topic}/{partition}/{offset}", h.record, "What became of a record.", Explanation,
            (BAD_REQUEST, TOPIC_NOT_FOUND, PARTITION_NOT_FOUND, 503), name="node_explain_record"),
        get("/kraft/explain/node/{broker_id}", h.node, "Why a node is as it is.", Explanation, (404, 503),
            name="node_explain_node"),
        get("/kraft/explain/client/{client}", h.client, "Why a client is refused or throttled.", Explanation, (503,),
            name="node_explain_client"),
    )  # fmt: skip
