"""One connection of the HTTP door: aiohttp's protocol, with JSON errors and a note of when its header began.

What is no HTTP at all is answered once, as JSON, and its connection is closed; others do not notice. aiohttp offers no
hook for either, so that this is the one place that knows its protocol's inside; `test_hostile_clients` guards it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from aiohttp import web
from aiohttp.hdrs import METH_CONNECT
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.streams import StreamReader

from kraft.broker.answer_budget import AnswerBudget
from kraft.http.errors import HttpError, error_response
from metadata.environment import Clock

LOG = logging.getLogger(__name__)

REQUEST_LINE_BYTES_MAX = 16_384
HEADER_BYTES_MAX = 16_384
"""Of one header line."""
HEADERS_MAX = 100
_TOO_MANY = "Too many"

Handle: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Connection(web.RequestHandler):
    """One connection of a client, from its first byte to its end."""

    __slots__ = (
        "_answers",
        "_body",
        "_broken",
        "_clock",
        "_held",
        "header_since_ms",
        "is_ending",
        "made_ms",
        "unsent",
        "unsent_since_ms",
    )

    def __init__(self, manager: web.Server, *, clock: Clock, **options: Any) -> None:
        super().__init__(manager, **options)
        self._clock = clock
        self._body: StreamReader | None = None
        """Of the last request that came."""
        self.header_since_ms: int | None = None
        """When the first bytes of a header came whose end is still missing."""
        self.made_ms = clock.monotonic_ms()
        self.is_ending = False
        """Answered for the last time."""
        self.unsent = 0
        """Bytes of answers that the client had not taken when it was last looked at."""
        self.unsent_since_ms = 0
        self._answers: AnswerBudget | None = None
        self._held = 0
        """Bytes of answers that it holds of that."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            self._body = self._messages[-1][1]
            self.header_since_ms = None
        elif self._waiter is None:
            self.header_since_ms = None
        elif self.header_since_ms is None and data.strip(b"\r\n"):
            self.header_since_ms = self._clock.monotonic_ms()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """aiohttp asks its parser for what a pause held back at each read of a body; nearly always nothing was paused.
        (Its signature.)"""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio: true keeps it open for the answer
        """A client that ends within its body is told so, if it still listens."""
        body = self._body
        if body is None or body.is_eof() or body.exception() is not None:
            return False
        body.set_exception(web.RequestPayloadError("it ends before its end"))
        return True

    def refuse_header(self, error: HttpError) -> None:
        """Answer a request that never became one. What still comes is not read; the next look closes the connection.

        Closing at once would reset it, and the client might lose the answer (RFC 9112 9.6).
        """
        self.header_since_ms = None
        response = error_response(error)
        body = response.body
        assert isinstance(body, bytes), body
        head = (
            f"HTTP/1.1 {response.status} {response.reason}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.close()
        self.is_ending = True
        if self.transport is not None:
            self.transport.write(head.encode() + body)
            self.transport.write_eof()

    @property
    def has_asked(self) -> bool:
        """Whether a request, or what was meant to be one, has come."""
        return self._body is not None or self.is_ending

    def unsent_bytes(self) -> int:
        """Of answers, not taken by the client's side yet."""
        transport = self.transport
        return 0 if transport is None else transport.get_write_buffer_size()

    def hold(self, answers: AnswerBudget, size: int) -> None:
        """So many bytes more are held for the answer that is being made."""
        self._answers = answers
        self._held += size
        answers.hold(size)

    def keep(self, size: int) -> None:
        """Of what is held, the answer has so many bytes. The rest is given back."""
        if self._answers is not None and self._held != size:
            held, self._held = self._held, size
            if size > held:
                self._answers.hold(size - held)
            else:
                self._answers.give_back(held - size)

    def give_back(self) -> None:
        """Once the client has taken all."""
        if self._held and self._current_request is None and not self.unsent_bytes():
            self.keep(0)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.keep(0)

    def abort(self) -> None:
        """End without another word; what is unsent is dropped."""
        if self.transport is not None:
            self.transport.abort()

    def log_exception(self, *args: Any, **options: Any) -> None:
        """A body that broke off, or was not what it claimed, is the client's fault: one line in the log."""
        error = options.get("exc_info")
        if not isinstance(error, (web.RequestPayloadError, BadHttpMessage, ConnectionError)):
            super().log_exception(*args, **options)
            return
        peer = None if self.transport is None else self.transport.get_extra_info("peername")
        LOG.warning("the body of a request of %s could not be read to its end: %s", peer, type(error).__name__)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What the parser refused (400), or a handler of ours that failed after its answer had begun (500)."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun; nothing else can be said on this connection")
        if isinstance(exc, LineTooLong) or _TOO_MANY in (message or ""):
            return error_response(HttpError(431, _too_long(message), closes=True))
        if isinstance(exc, BadHttpMessage):
            return error_response(HttpError(400, f"this is no HTTP/1.1 request: {_line(message)}", closes=True))
        return error_response(HttpError(status, "a fault of this node", closes=True))


def _too_long(message: str | None) -> str:
    return (
        f"{_line(message)}; a request line has at most {REQUEST_LINE_BYTES_MAX} bytes, a header {HEADER_BYTES_MAX}, "
        f"a request {HEADERS_MAX} headers"
    )


def _line(message: str | None) -> str:
    """The first line of a parser's complaint, which goes on with a picture of the place."""
    return (message or "malformed").strip().splitlines()[0].rstrip(": ")[:200]


def _in_json(handle: Handle) -> Handle:
    """aiohttp refuses in plain text what none of our routes gets to see: CONNECT, `OPTIONS *`, an unknown Expect."""

    async def handle_in_json(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handle(request)
        except web.HTTPException as refusal:
            if request.method == METH_CONNECT:
                return error_response(HttpError(405, "this node is no proxy: it knows no CONNECT", closes=True))
            message = f"{request.method} {request.path} is refused: {refusal.reason}; see /openapi.json"
            return error_response(HttpError(refusal.status, message))

    return handle_in_json


class Runner(web.AppRunner):
    """Makes `Connection`s for an application. One more than `connections_max` is closed without an answer."""

    def __init__(
        self, app: web.Application, *, clock: Clock, connections_max: Callable[[], int], **options: Any
    ) -> None:
        super().__init__(app, **options)
        self._clock = clock
        self._connections_max = connections_max

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made, clock=self._clock, connections_max=self._connections_max)


class _Server(web.Server):
    def __init__(self, made: web.Server, *, clock: Clock, connections_max: Callable[[], int]) -> None:
        options = dict(made._kwargs)
        super().__init__(
            _in_json(made.request_handler),
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=asyncio.get_running_loop(),
            **options,
        )
        self._clock = clock
        self._connections_max = connections_max

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self._connections) > self._connections_max():
            transport.abort()

    def __call__(self) -> web.RequestHandler:
        return Connection(self, clock=self._clock, loop=self._loop, **self._kwargs)
