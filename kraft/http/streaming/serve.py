"""The loop of every stream: read, write, wait until the client has taken it; a heartbeat when nothing came.

Errors before the first byte are ordinary answers; later ones are said on the stream, which then ends.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from aiohttp import web

from kraft.broker.client_quotas import Owner
from kraft.http.endpoint import Call, Parameter
from kraft.http.errors import HttpError, error_body, from_kafka
from kraft.http.parameters import integer
from kraft.http.streaming.frames import Frames
from kraft.http.streaming.merge import Piece
from kraft.http.streaming.positions import POSITION_HEADER, Positions
from kraft.http.streaming.streams import Outlet
from kraft.protocol.errors import KafkaError
from metadata.controller.decide.client_quotas import CONSUMER_BYTE_RATE

HEARTBEAT_MS_DEFAULT = 10_000
HEARTBEAT_MS_MIN = 100
HEARTBEAT_MS_MAX = 300_000
HEARTBEAT = Parameter(
    name="heartbeat",
    description="Of a stream: milliseconds without a record after which a heartbeat is sent.",
    schema={
        "type": "integer", "minimum": HEARTBEAT_MS_MIN, "maximum": HEARTBEAT_MS_MAX, "default": HEARTBEAT_MS_DEFAULT,
    },
)  # fmt: skip


class Source(Protocol):
    """The source of the records of a stream."""

    @property
    def positions(self) -> Positions: ...

    async def next(self, *, wait_ms: int) -> list[Piece]:
        """What comes next, not before the last pieces were handed on. Raises KafkaError, HttpError."""
        ...


def heartbeat_ms(call: Call) -> int:
    """Raises HttpError 40002."""
    return integer(call, "heartbeat", default=HEARTBEAT_MS_DEFAULT, low=HEARTBEAT_MS_MIN, high=HEARTBEAT_MS_MAX)


async def serve(call: Call, source: Source, frames: Frames, *, wait_ms: int) -> web.StreamResponse:
    """Until the client leaves, the node stops, or there is no going on. `wait_ms`: between heartbeats."""
    response = web.StreamResponse(
        headers={
            "Content-Type": frames.content_type,
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
            POSITION_HEADER: source.positions.text,
        }
    )
    if call.request.method == "HEAD":
        return response
    with call.context.streams.opened():
        await response.prepare(call.request)
        outlet = Outlet(call.context.streams, call.request)
        try:
            await outlet.write(frames.begin(source.positions.text))
            error = await _run(call, source, outlet, frames, wait_ms=wait_ms)
            await outlet.write(frames.error(error_body(error), source.positions.text))
            await response.write_eof()
        except ConnectionError:
            pass  # the client has gone
    return response


async def _run(call: Call, source: Source, outlet: Outlet, frames: Frames, *, wait_ms: int) -> HttpError:
    """Returns what ended it. Raises ConnectionError."""
    context = call.context
    try:
        while True:
            await context.clock.sleep(0)  # neither a read of a log that is here nor a client that takes all suspends
            with call.while_allowed():
                pieces = await source.next(wait_ms=wait_ms)
            for piece in pieces:
                framed = _framed(piece, source.positions, frames)
                await outlet.write(framed)
                await _throttled(call, len(framed))
                if piece.error is not None:
                    return piece.error
            if not pieces:
                await outlet.write(frames.heartbeat())
    except HttpError as error:
        return error
    except KafkaError as error:
        return from_kafka(error, unknown_topic=call.unknown_topic)
    except asyncio.CancelledError:
        ended = context.streams.ended()
        if ended is None:
            raise
        return ended


async def _throttled(call: Call, size: int) -> None:
    """Waits for as long as the client is over its quota by what it has read."""
    gateway, clock = call.context.gateway, call.context.clock
    if gateway.quotas is None:
        return
    wait_ms = gateway.quotas.used(CONSUMER_BYTE_RATE, Owner(call.principal.name, None), size, clock.monotonic_ms())
    if wait_ms:
        with call.while_allowed():
            await clock.sleep(wait_ms)


def _framed(piece: Piece, positions: Positions, frames: Frames) -> bytes:
    """The events of a piece. The position after an error is beyond the record that it is about."""
    framed: list[bytes] = []
    for offset, line in zip(piece.offsets, piece.lines, strict=True):
        positions[piece.key] = offset + 1
        framed.append(frames.record(line, positions.text))
    positions[piece.key] = piece.next_offset + (piece.error is not None)
    return b"".join(framed)
