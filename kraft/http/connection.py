"""One connection of the HTTP server: aiohttp's protocol, with JSON errors and a note of when its header began.

What is no HTTP at all is answered once, as JSON, and its connection is closed; others do not notice. Everything here
uses public parts of aiohttp but one shortcut, `resume_reading`, which is left out where its parts are missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

from aiohttp import web
from aiohttp.hdrs import METH_CONNECT
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.streams import StreamReader

from kraft.broker.answer_budget import AnswerBudget
from kraft.broker.principal import ANONYMOUS, ANONYMOUS_NAME, Principal, UserPrincipal
from kraft.http.errors import HttpError, error_response
from kraft.runtime.tls import distinguished_name
from metadata.certificate_names import user_of
from metadata.environment import Clock

LOG = logging.getLogger(__name__)

REQUEST_LINE_BYTES_MAX = 16_384
HEADER_BYTES_MAX = 16_384
"""Length limit of one header line."""
HEADERS_MAX = 100
_TOO_MANY = "Too many"

PAUSES: Final = ("_reading_paused", "_buffer_paused")
"""Attributes of aiohttp's protocol: whether it has paused reading from the socket."""

Handle: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Connection(web.RequestHandler):
    """One connection of a client, from its first byte to its end."""

    __slots__ = (
        "_body",
        "_broken",
        "_clock",
        "_held",
        "_is_at_hand",
        "_mapping_rules",
        "answers",
        "certified",
        "has_certificate",
        "header_since_ms",
        "is_ending",
        "made_ms",
        "principal",
        "remembered",
        "unsent",
        "unsent_since_ms",
    )

    def __init__(self, manager: web.Server, *, clock: Clock, mapping_rules: Callable[[], str], **options: Any) -> None:
        super().__init__(manager, **options)
        self._mapping_rules = mapping_rules
        self._clock = clock
        self._body: StreamReader | None = None
        """The body of the last request that arrived."""
        self._is_at_hand = False
        """A request has arrived whose handler has not returned."""
        self.header_since_ms: int | None = None
        """When the first bytes of a header came whose end is still missing."""
        self.principal: Principal = ANONYMOUS
        """Computed once for the connection, and again when a request brings other credentials."""
        self.certified = ANONYMOUS
        """The principal of the connection itself: the user of its certificate, or ANONYMOUS."""
        self.has_certificate = False
        self.remembered: object = None
        """The login of the last request (`kraft.http.authentication`)."""
        self.made_ms = clock.monotonic_ms()
        self.is_ending = False
        """Answered for the last time."""
        self.unsent = 0
        """Bytes of answers that the client had not taken when it was last looked at."""
        self.unsent_since_ms = 0
        self.answers: AnswerBudget | None = None
        """Where memory for answers is taken from; None while none was."""
        self._held = 0
        """Bytes of answers that it holds of that."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        subject = distinguished_name(transport.get_extra_info("peercert"))
        name = user_of(subject, self._mapping_rules()) if subject else ANONYMOUS_NAME
        self.has_certificate = bool(subject)
        self.certified = self.principal = UserPrincipal(name, _host_of(transport))
        if not name:
            LOG.warning("closing %s: ssl.principal.mapping.rules makes no user of its certificate", self.principal.host)
            self.abort()

    def data_received(self, data: bytes) -> None:
        body = self._body
        awaits_header = self.header_since_ms is None and not self._is_at_hand and (body is None or body.is_eof())
        if awaits_header and not self.unsent_bytes() and data.strip(b"\r\n"):
            self.header_since_ms = self._clock.monotonic_ms()
        super().data_received(data)

    def begin(self, body: StreamReader) -> None:
        """A header is whole, and its request is at hand until `end`."""
        self._body = body
        self._is_at_hand = True
        self.header_since_ms = None

    def end(self) -> None:
        """The handler of the request has returned."""
        self._is_at_hand = False

    if all(hasattr(web.RequestHandler, name) for name in PAUSES):

        def resume_reading(self, *args: Any, **options: Any) -> None:
            """aiohttp asks its parser for what a pause held back at each read of a body; nearly always nothing was
            paused."""
            if self._reading_paused or self._buffer_paused:
                super().resume_reading(*args, **options)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio: true keeps it open for the answer
        """A client that ends its side within a body gets a 400, if it still reads."""
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
            if self.transport.can_write_eof():
                self.transport.write_eof()

    @property
    def has_asked(self) -> bool:
        """Whether a request, well-formed or not, has arrived."""
        return self._body is not None or self.is_ending

    def unsent_bytes(self) -> int:
        """Bytes of answers that the client's side has not taken yet."""
        transport = self.transport
        return 0 if transport is None else transport.get_write_buffer_size()

    def hold(self, answers: AnswerBudget, size: int) -> None:
        """So many bytes more are held for the answer that is being made."""
        self.answers = answers
        self._held += size
        answers.hold(size)

    def keep(self, size: int) -> None:
        """The answer has `size` bytes: the rest of the memory that is held for it goes back to the budget."""
        if self.answers is not None and self._held != size:
            held, self._held = self._held, size
            if size > held:
                self.answers.hold(size - held)
            else:
                self.answers.give_back(held - size)

    def give_back(self) -> None:
        """Once the client has taken all."""
        if self._held and not self._is_at_hand and not self.unsent_bytes():
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


def _host_of(transport: asyncio.BaseTransport) -> str:
    name = transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) and name else ""


def _too_long(message: str | None) -> str:
    return (
        f"{_line(message)}; a request line has at most {REQUEST_LINE_BYTES_MAX} bytes, a header {HEADER_BYTES_MAX}, "
        f"a request {HEADERS_MAX} headers"
    )


def _line(message: str | None) -> str:
    """The first line of a parser's complaint, which goes on with a picture of the place."""
    return (message or "malformed").strip().splitlines()[0].rstrip(": ")[:200]


class Server(web.Server):
    """Makes the `Connection`s of an application. One more than `connections_max` is closed without an answer."""

    def __init__(
        self,
        made: web.Server,
        *,
        clock: Clock,
        connections_max: Callable[[], int],
        mapping_rules: Callable[[], str],
        **options: Any,
    ) -> None:
        """`made`: the server that aiohttp makes for the application; `mapping_rules` returns the setting that makes
        users of certificates; `options` are those of `web.RequestHandler`."""
        super().__init__(
            _handler(made.request_handler),
            request_factory=_request_factory(made.request_factory),
            handler_cancellation=True,
            **options,
        )
        self._options = options
        self._clock = clock
        self._mapping_rules = mapping_rules
        self._connections_max = connections_max
        self._open = 0

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._open += 1
        if self._open > self._connections_max():
            transport.abort()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._open -= 1

    def __call__(self) -> web.RequestHandler:
        loop = asyncio.get_running_loop()
        return Connection(self, clock=self._clock, mapping_rules=self._mapping_rules, loop=loop, **self._options)


def _request_factory(make: Callable[..., web.BaseRequest]) -> Callable[..., web.BaseRequest]:
    """Called when a header is whole, before its handler begins."""

    def make_request(
        message: Any, payload: StreamReader, protocol: web.RequestHandler, *options: Any
    ) -> web.BaseRequest:
        assert isinstance(protocol, Connection), protocol
        protocol.begin(payload)
        return make(message, payload, protocol, *options)

    return make_request


def _handler(handle: Handle) -> Handle:
    """aiohttp refuses in plain text what none of our routes gets to see: CONNECT, `OPTIONS *`, an unknown Expect."""

    async def handle_in_json(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handle(request)
        except web.HTTPException as refusal:
            if request.method == METH_CONNECT:
                return error_response(HttpError(405, "this node is no proxy: it knows no CONNECT", closes=True))
            message = f"{request.method} {request.path} is refused: {refusal.reason}; see /openapi.json"
            return error_response(HttpError(refusal.status, message))
        finally:
            protocol = request.protocol
            assert isinstance(protocol, Connection), protocol
            protocol.end()

    return handle_in_json
