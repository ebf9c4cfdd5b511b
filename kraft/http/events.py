"""GET /kraft/events: what has happened at one node, from its memory: elections, changes of ISRs, truncations, fencings,
faults, clients that were refused or throttled. The same lines are in its `events.jsonl` and `audit.jsonl`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from kraft.broker.permissions import Permissions
from kraft.events import EventRing, subject_of
from kraft.http.endpoint import Body, Call, Parameter, Route
from kraft.http.errors import BAD_REQUEST
from kraft.http.parameters import TOPIC_PATTERN, integer, topic_in_query
from kraft.http.responses import plain_json
from kraft.protocol.media_types import PLAIN_JSON
from kraft.protocol.primitives import INT32_MAX, INT64_MAX
from metadata.acls import AclOperation, AclResource

NOWHERE: Final = "/"
"""No topic has this name: events of a topic that one may not describe are as those of one that does not exist."""
TEXTS: Final[Mapping[str, Collection[str]]] = {
    "checkpoint_failed": ("reason",),
    "checkpoint_ignored": ("reason",),
    "high_watermark_checkpoint_failed": ("error",),
    "http_request_failed": ("error", "traceback"),
    "log_directory_offline": ("reason",),
    "log_upkeep_failed": ("reason",),
    "replica_move_not_tidied": ("path", "reason"),
    "share_states_not_initialized": ("error",),
    "stop_step_failed": ("error",),
    "transaction_not_completed": ("error",),
}
"""Events of no topic -> fields that may have a topic within a text: the path of a file, the message of an error."""
LIMIT_DEFAULT: Final = 500
LIMIT_MAX: Final = 10_000
_NUMBER: Final = {"type": "integer", "minimum": 0}
_QUERY: Final = (
    Parameter(
        name="since",
        description="Events from this position on, the oldest first: `next` of the answer before. Without it the "
        "newest ones.",
        schema=_NUMBER | {"maximum": INT64_MAX},
    ),
    Parameter(
        name="limit",
        description="Events in the answer at most.",
        schema=_NUMBER | {"maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
    ),
    Parameter(
        name="topic", description="Only events of this topic.", schema={"type": "string", "pattern": TOPIC_PATTERN}
    ),
    Parameter(
        name="partition",
        description="Only events of partitions with this number.",
        schema=_NUMBER | {"maximum": INT32_MAX},
    ),
    Parameter(
        name="event",
        description="Only events with one of these names, separated by commas: `leader_elected,isr_changed`.",
        schema={"type": "string"},
    ),
)


class NodeEvent(BaseModel):
    """One event. Its further fields depend on its name."""

    model_config = ConfigDict(extra="allow")

    position: int
    """Its place in the node's memory, from 0 at the start of the process."""
    at_ms: int
    """On the wall clock of the node."""
    monotonic_us: int
    """On the monotonic clock of the node's machine."""
    node_id: int
    sequence: int
    """Its line in the node's file; `events.jsonl` and `audit.jsonl` count each for itself."""
    event: str


class NodeEvents(BaseModel):
    """What GET /kraft/events answers."""

    node_id: int
    incarnation: str
    """Another one after each start of the node; its positions begin again then."""
    at_ms: int
    """The time of the answer on the wall clock of the node."""
    monotonic_us: int
    next: int
    """`since` of the next request."""
    forgotten: int
    """Events after `since` that the node's memory (`event.ring.bytes`) does not have any more."""
    events: list[NodeEvent]


def names_only(may_describe: Callable[[str], bool], event: Mapping[str, Any]) -> bool:
    """Whether an event names no topic but those that one may describe. An event of the audit has them in fields."""
    subject, _ = subject_of(event)
    named = [subject] if subject else []
    match event["event"]:
        case "refused" if event.get("resource_type") == AclResource.TOPIC.name:
            named.append(str(event["resource"]))
        case "changed":
            topics = event.get("topics")
            if not isinstance(topics, list):
                return False
            named += topics
    return all(map(may_describe, named))


def described_events(may: Permissions | None, events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The events that name no topic which one may not describe, without texts that may have the path of its file.
    `may` None: all, as they are."""
    if may is None:
        return [dict(each) for each in events]

    def may_describe(topic: str) -> bool:
        return may.silently(AclOperation.DESCRIBE, AclResource.TOPIC, topic)

    return [
        {name: value for name, value in each.items() if name not in TEXTS.get(each["event"], ())}
        for each in events
        if names_only(may_describe, each)
    ]


def event_routes(ring: EventRing, *, incarnation: str) -> tuple[Route, ...]:
    """The routes. `incarnation` identifies the process that fills the ring."""

    async def events(call: Call) -> web.Response:
        query = call.request.query
        topic, may = topic_in_query(call), call.permissions
        if may and topic is not None and not may.silently(AclOperation.DESCRIBE, AclResource.TOPIC, topic):
            topic = NOWHERE
        page = ring.read(
            since=integer(call, "since", default=0, high=INT64_MAX) if "since" in query else None,
            limit=integer(call, "limit", default=LIMIT_DEFAULT, high=LIMIT_MAX),
            topic=topic,
            partition=integer(call, "partition", default=0) if "partition" in query else None,
            events=frozenset(filter(None, query.get("event", "").split(","))),
        )
        clock = call.context.clock
        found = described_events(may, (each.fields() | {"position": each.position} for each in page.events))
        answer: dict[str, Any] = {
            "node_id": call.context.gateway.node_id,
            "incarnation": incarnation,
            "at_ms": clock.wall_ms(),
            "monotonic_us": clock.monotonic_us(),
            "next": page.next,
            "forgotten": page.forgotten,
            "events": found,
        }
        return plain_json(answer)

    return (
        Route(
            method="GET",
            path="/kraft/events",
            handler=events,
            summary="What has happened at this node: elections, ISRs, truncations, fencings, faults, refusals.",
            tag="node",
            query=_QUERY,
            answers={200: Body(content={PLAIN_JSON: NodeEvents})},
            errors=(BAD_REQUEST,),
            answers_early=True,
        ),
    )
