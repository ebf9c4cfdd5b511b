"""A load generator that needs little processor time, because it shares the machine with the nodes.

Requests are bytes made beforehand; a connection is a protocol with callbacks, no task and no header dictionary.
Closed loop: each connection has one request under way and sends the next when the answer is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

ANSWER_WAIT_S = 60.0
_LENGTH = b"content-length: "


def request(method: str, path: str, *, body: bytes = b"", headers: tuple[str, ...] = ()) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str | None:
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None


OnAnswer = Callable[["Connection", Answer], None]


class Connection(asyncio.Protocol):
    """One keep-alive connection; `on_answer` is called for each answer, `on_lost` once when it breaks."""

    def __init__(self, on_answer: OnAnswer, on_lost: Callable[[Connection, Exception | None], None]) -> None:
        self._on_answer = on_answer
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._received: list[bytes] = []
        self._missing = 0
        self._head: bytes | None = None
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, data: bytes) -> None:
        assert self._transport is not None
        self.sent_at = time.perf_counter()
        self._transport.write(data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        """A body is put together once: copying it as it grows would cost more than sending it."""
        if self._head is None:
            data = self._take_head(data)
            if self._head is None:
                return
        self._received.append(data)
        self._missing -= len(data)
        assert self._missing >= 0, f"{-self._missing} bytes after the answer to the only request"
        if self._missing:
            return
        head, body = self._head, b"".join(self._received)
        self._head, self._received = None, []
        self._on_answer(self, Answer(int(head[9:12]), head, body))

    def _take_head(self, data: bytes) -> bytes:
        """What comes behind the head once that is complete; the rest waits."""
        data = b"".join([*self._received, data])
        head, separator, rest = data.partition(b"\r\n\r\n")
        self._received = [] if separator else [data]
        if separator:
            small = head.lower()
            at = small.find(_LENGTH)
            assert at >= 0 or head[9:12] == b"204", f"an answer without a length: {head!r}"
            self._missing = int(small[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            self._head = head
        return rest

    def connection_lost(self, error: Exception | None) -> None:
        self._on_lost(self, error)


async def open_connection(
    base: str, on_answer: OnAnswer, on_lost: Callable[[Connection, Exception | None], None]
) -> Connection:
    url = urlsplit(base)
    loop = asyncio.get_running_loop()
    host, port = url.hostname or "127.0.0.1", url.port or 80
    _, connection = await loop.create_connection(lambda: Connection(on_answer, on_lost), host, port)
    return connection


class Client:
    """A client with one request at a time, for requests that are not measured."""

    def __init__(self, base: str) -> None:
        self.base = base
        self._connection: Connection | None = None
        self._waiting: asyncio.Future[Answer] | None = None

    async def ask(self, data: bytes, *, timeout_s: float = ANSWER_WAIT_S) -> Answer:
        """Raises ConnectionError or TimeoutError; the next call then connects again."""
        try:
            async with asyncio.timeout(timeout_s):
                if self._connection is None:
                    self._connection = await open_connection(self.base, self._answered, self._lost)
                self._waiting = asyncio.get_running_loop().create_future()
                self._connection.send(data)
                return await self._waiting
        except (OSError, TimeoutError):
            self.close()
            raise
        finally:
            self._waiting = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _answered(self, _: Connection, answer: Answer) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(answer)

    def _lost(self, connection: Connection, error: Exception | None) -> None:
        if connection is self._connection:
            self._connection = None
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_exception(error or ConnectionResetError("the node closed the connection"))


@dataclass(slots=True)
class Load:
    """The result of one closed loop."""

    answers: int = 0
    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    """The first bytes of each answer, to check later: looking now would slow the loop down."""
    received_bytes: int = 0
    errors: list[str] = field(default_factory=list)


class ClosedLoop:
    def __init__(
        self, base: str, data: bytes, *, connections: int, seconds: float, requests_max: int, keep_bytes: int = 120
    ) -> None:
        self._base = base
        self._data = data
        self._connections = connections
        self._seconds = seconds
        self._left = requests_max
        self._keep_bytes = keep_bytes
        self._open = 0
        self._load = Load()
        self._deadline = 0.0
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> Load:
        opened = [
            await open_connection(self._base, self._answered, self._lost)
            for _ in range(min(self._connections, self._left))
        ]
        self._open = len(opened)
        begin = time.perf_counter()
        self._deadline = begin + self._seconds
        for connection in opened:
            self._next(connection)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._seconds + ANSWER_WAIT_S):
                await self._done
        if not self._done.done():
            self._load.errors.append(f"no answer in {ANSWER_WAIT_S} s")
        self._load.seconds = time.perf_counter() - begin
        for connection in opened:
            connection.close()
        return self._load

    def _next(self, connection: Connection) -> None:
        if self._left > 0 and time.perf_counter() < self._deadline:
            self._left -= 1
            connection.send(self._data)
        else:
            self._finished()

    def _finished(self) -> None:
        self._open -= 1
        if self._open <= 0 and not self._done.done():
            self._done.set_result(None)

    def _answered(self, connection: Connection, answer: Answer) -> None:
        load = self._load
        load.latencies_s.append(time.perf_counter() - connection.sent_at)
        load.answers += 1
        load.received_bytes += len(answer.body)
        load.bodies.append(answer.body[: self._keep_bytes])
        if answer.status >= 300:
            load.errors.append(f"{answer.status} {answer.body[:200]!r}")
        self._next(connection)

    def _lost(self, _: Connection, error: Exception | None) -> None:
        if not self._done.done():
            self._load.errors.append(f"connection lost: {error}")
            self._finished()
