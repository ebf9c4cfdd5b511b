"""`GET /kraft/facts`, `GET /kraft/changes` and the stream `GET /kraft/live`: the data of every page of the console.

A stream has no queue: the next frame is computed when its client has taken the last one, and holds what has changed
since then. A page has one stream, a node at most `PAGES_MAX`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec
from aiohttp import web
from pydantic import BaseModel

from kraft.broker.node_facts import SHOWN_DEFAULT, SHOWN_MAX, NodeFacts, Scope
from kraft.http.console.changes import Frame, State, difference, whole, without_topics
from kraft.http.console.facts import Source
from kraft.http.endpoint import Body, Call, Handler, Parameter, Route
from kraft.http.errors import BAD_REQUEST, HttpError, error_body, from_kafka
from kraft.http.limits import Slots
from kraft.http.parameters import flag, integer
from kraft.http.responses import plain_json
from kraft.http.streaming.frames import EventFrames
from kraft.http.streaming.streams import Outlet
from kraft.protocol.errors import KafkaError
from kraft.protocol.media_types import EVENT_STREAM, PLAIN_JSON

PAGES_MAX: Final = 16
RATE_DEFAULT: Final = 4
RATE_MAX: Final = 10
WHOLE_EVERY_MS: Final = 30_000
"""A page that has lost something has it again after this time."""
BEAT_EVERY_MS: Final = 5_000
"""A stream without changes has an empty frame this often."""
FILTER_CHARACTERS_MAX: Final = 260

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


def scope_of(call: Call) -> Scope:
    """Raises HttpError 40002."""
    text = call.request.query.get("filter", "")
    if len(text) > FILTER_CHARACTERS_MAX:
        raise HttpError(BAD_REQUEST, f"filter has {len(text)} characters; it has at most {FILTER_CHARACTERS_MAX}")
    return Scope(
        filter=text,
        exact=flag(call, "exact"),
        only_bad=flag(call, "only_bad"),
        limit=integer(call, "limit", default=SHOWN_DEFAULT, low=1, high=SHOWN_MAX),
    )


def live_routes(source: Source, own: Callable[[Scope], NodeFacts] | None = None) -> tuple[Route, ...]:
    """`own` returns the facts of this node; None where this process is no node."""
    slots = Slots(lambda: PAGES_MAX, what="pages of the console")

    async def facts(call: Call) -> web.Response:
        assert own is not None
        return plain_json(own(scope_of(call)))

    async def changes(call: Call) -> web.Response:
        state = await _visible_state(call, source, scope_of(call))
        return plain_json(whole(state, at_ms=call.context.clock.wall_ms()))

    async def live(call: Call) -> web.StreamResponse:
        return await _stream(call, source, slots)

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
    return (
        found if own is None else (*found, route("/kraft/facts", facts, alone, Body(content={PLAIN_JSON: NodeFacts})))
    )


async def _stream(call: Call, source: Source, slots: Slots) -> web.StreamResponse:
    scope, frames, streams = scope_of(call), EventFrames(), call.context.streams
    rate = integer(call, "rate", default=RATE_DEFAULT, low=1, high=RATE_MAX)
    headers = {"Content-Type": frames.content_type, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    response = web.StreamResponse(headers=headers)
    if call.request.method == "HEAD":
        return response
    with slots, streams.opened():
        await response.prepare(call.request)
        outlet = Outlet(streams, call.request)
        try:
            await outlet.write(frames.begin(""))
            await _send(call, source, scope, outlet, every_ms=1_000 // rate)
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


async def _send(call: Call, source: Source, scope: Scope, outlet: Outlet, *, every_ms: int) -> None:
    """Until the client leaves or the node stops. Raises ConnectionError, and what refuses the page by now."""
    clock = call.context.clock
    state: State = {}
    whole_ms = sent_ms = clock.monotonic_ms() - WHOLE_EVERY_MS
    while True:
        call.check_again()
        began_ms = clock.monotonic_ms()
        new = await _visible_state(call, source, scope)
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


async def _visible_state(call: Call, source: Source, scope: Scope) -> State:
    state = await source.state(scope)
    if call.permissions is None:
        return state
    return without_topics(state, call.context.gateway.image.topic_ids)
