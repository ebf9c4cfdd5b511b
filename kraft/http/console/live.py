"""`GET /kraft/facts`, `GET /kraft/changes` and the stream `GET /kraft/live`: the data of every page of the console.

A stream has no queue: the next frame is computed when its client has taken the last one, and holds what has changed
since then. A page has one stream, a node at most `PAGES_MAX`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from aiohttp import web
from pydantic import BaseModel

from kraft.broker.node_facts import SHOWN_DEFAULT, SHOWN_MAX, NodeFacts, Scope, asker_of
from kraft.broker.principal import UserPrincipal
from kraft.http.console.changes import Frame, State, difference, visible_facts, whole, without_topics
from kraft.http.console.facts import Source
from kraft.http.endpoint import Body, Call, Handler, Parameter, Route
from kraft.http.errors import BAD_REQUEST, HttpError, error_body, from_kafka
from kraft.http.limits import Slots
from kraft.http.parameters import parse_integer
from kraft.http.responses import plain_json
from kraft.http.streaming.frames import EventFrames
from kraft.http.streaming.streams import Outlet, Streams
from kraft.protocol.errors import KafkaError
from kraft.protocol.media_types import EVENT_STREAM, PLAIN_JSON
from metadata.environment import Clock

PAGES_MAX: Final = 16
RATE_DEFAULT: Final = 4
RATE_MAX: Final = 10
WHOLE_EVERY_MS: Final = 30_000
"""A page that has lost something has it again after this time."""
BEAT_EVERY_MS: Final = 5_000
"""A stream without changes has an empty frame this often."""
FILTER_CHARACTERS_MAX: Final = 260
HEADERS: Final = {"Content-Type": EVENT_STREAM, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}

_BOOLEAN: dict[str, Any] = {"type": "boolean", "default": False}
FILTER = Parameter(
    name="filter",
    description="Only partitions whose name (`orders-0`) contains this.",
    schema={"type": "string", "maxLength": FILTER_CHARACTERS_MAX},
)
EXACT = Parameter(name="exact", description="`filter` is the whole name.", schema=_BOOLEAN)
ONLY_BAD = Parameter(
    name="only_bad", description="Only partitions that are offline, under min ISR or under-replicated.", schema=_BOOLEAN
)
LIMIT = Parameter(
    name="limit",
    description="Number of partitions at most; the worst come first.",
    schema={"type": "integer", "minimum": 1, "maximum": SHOWN_MAX, "default": SHOWN_DEFAULT},
)
RATE = Parameter(
    name="rate",
    description="Frames a second at most; there are none without changes.",
    schema={"type": "integer", "minimum": 1, "maximum": RATE_MAX, "default": RATE_DEFAULT},
)
SCOPE = (FILTER, EXACT, ONLY_BAD, LIMIT)


class ChangesAnswer(BaseModel):
    """One frame: rows by key, see docs/console.md."""

    full: bool
    at_ms: int
    set: dict[str, Any]
    gone: list[str]


def settings_of(query: Mapping[str, str]) -> tuple[Scope, int]:
    """Scope and ms between two frames, from a query. Raises HttpError 40002."""
    text = query.get("filter", "")
    if len(text) > FILTER_CHARACTERS_MAX:
        raise HttpError(BAD_REQUEST, f"filter has {len(text)} characters; it has at most {FILTER_CHARACTERS_MAX}")
    scope = Scope(
        filter=text,
        exact=_flag(query, "exact"),
        only_bad=_flag(query, "only_bad"),
        limit=parse_integer(query.get("limit", str(SHOWN_DEFAULT)), "limit", low=1, high=SHOWN_MAX),
    )
    rate = parse_integer(query.get("rate", str(RATE_DEFAULT)), "rate", low=1, high=RATE_MAX)
    return scope, 1_000 // rate


def _flag(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name, "false")
    if text not in ("true", "false"):
        raise HttpError(BAD_REQUEST, f"{name}={text!r:.20} is neither true nor false")
    return text == "true"


def live_routes(source: Source, own: Callable[[Scope], NodeFacts] | None = None) -> tuple[Route, ...]:
    """`own` returns the facts of this node; None where this process is no node."""
    slots = Slots(lambda: PAGES_MAX, what="pages of the console")

    async def facts(call: Call) -> web.Response:
        assert own is not None
        found = own(_of_caller(call, settings_of(call.request.query)[0]))
        if call.permissions is not None:
            found = visible_facts(found, call.context.gateway.image.topic_ids)
        return plain_json(found)

    async def changes(call: Call) -> web.Response:
        state = await _visible_state(call, source, settings_of(call.request.query)[0])
        return plain_json(whole(state, at_ms=call.context.clock.wall_ms()))

    async def live(call: Call) -> web.StreamResponse:
        (scope, every_ms), context = settings_of(call.request.query), call.context
        if call.request.method == "HEAD":
            return web.StreamResponse(headers=HEADERS)
        with slots:
            return await send_frames(
                call.request,
                context.streams,
                context.clock,
                lambda: _still_visible_state(call, source, scope),
                every_ms=every_ms,
            )

    def route(path: str, handler: Handler, summary: str, answer: Body, *more: Parameter) -> Route:
        return Route(
            method="GET", path=path, handler=handler, summary=summary, tag="node", query=(*SCOPE, *more),
            answers={200: answer}, answers_early=True,
        )  # fmt: skip

    found = (
        route(
            "/kraft/changes", changes, "The state of the cluster, as this node and those it reaches know it.",
            Body(content={PLAIN_JSON: ChangesAnswer}),
        ),
        route(
            "/kraft/live", live, "The same as a stream of what changes.",
            Body(content={EVENT_STREAM: None}, description="Each event has a frame as its data."), RATE,
        ),
    )  # fmt: skip
    alone = "What this node alone knows: its metadata, its own replicas, its connections."
    of_node = Body(content={PLAIN_JSON: NodeFacts})
    return found if own is None else (*found, route("/kraft/facts", facts, alone, of_node))


async def send_frames(
    request: web.Request, streams: Streams, clock: Clock, look: Callable[[], Awaitable[State]], *, every_ms: int
) -> web.StreamResponse:
    """A stream of what changes in the state that `look` returns, until the client leaves or the node stops. Raises
    HttpError 503 when there are too many streams."""
    frames, response = EventFrames(), web.StreamResponse(headers=HEADERS)
    with streams.opened():
        await response.prepare(request)
        outlet = Outlet(streams, request)
        try:
            await outlet.write(frames.begin(""))
            await _send(look, outlet, clock, every_ms=every_ms)
        except ConnectionError:
            pass  # the page was closed
        except (HttpError, KafkaError) as error:
            refusal = error if isinstance(error, HttpError) else from_kafka(error)
            await outlet.write(frames.error(error_body(refusal), ""))
            await response.write_eof()
        except asyncio.CancelledError:
            ended = streams.ended()
            if ended is None:
                raise
            await outlet.write(frames.error(error_body(ended), ""))
            await response.write_eof()
    return response


async def _send(look: Callable[[], Awaitable[State]], outlet: Outlet, clock: Clock, *, every_ms: int) -> None:
    """Raises ConnectionError when the client has left, and what `look` raises."""
    state: State = {}
    whole_ms = sent_ms = clock.monotonic_ms() - WHOLE_EVERY_MS
    while True:
        began_ms = clock.monotonic_ms()
        new = await look()
        if began_ms - whole_ms >= WHOLE_EVERY_MS:
            frame, whole_ms = whole(new, at_ms=clock.wall_ms()), began_ms
        else:
            frame = difference(state, new, at_ms=clock.wall_ms())
        state = new
        if frame.full or frame.set or frame.gone or began_ms - sent_ms >= BEAT_EVERY_MS:
            await outlet.write(_event(frame))
            sent_ms = began_ms
        await clock.sleep(max(every_ms - (clock.monotonic_ms() - began_ms), 1))


def _event(frame: Frame) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(frame)


async def _still_visible_state(call: Call, source: Source, scope: Scope) -> State:
    """Raises what refuses the page by now."""
    call.check_again()
    return await _visible_state(call, source, scope)


async def _visible_state(call: Call, source: Source, scope: Scope) -> State:
    state = await source.state(_of_caller(call, scope))
    if call.permissions is None:
        return state
    return without_topics(state, call.context.gateway.image.topic_ids)  # nodes may know older ACLs


def _of_caller(call: Call, scope: Scope) -> Scope:
    """The same, without the topics that the caller may not describe."""
    principal = call.principal
    if call.permissions is None or not isinstance(principal, UserPrincipal):
        return scope
    return msgspec.structs.replace(scope, asker=asker_of(principal))
