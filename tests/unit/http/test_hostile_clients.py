"""Clients that are slow, that send garbage, too much, or half of it: a real listener, raw sockets, short limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from aiohttp import web

from kraft.http.app import CONTEXT, create_app
from kraft.http.endpoint import Call, Route
from kraft.http.limits import Limits
from kraft.http.server import HttpServer
from kraft.runtime.environment import close_environment, system_environment
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import BINARY

LIMITS = Limits(header_wait_ms=300, body_wait_ms=300, answer_wait_ms=500, unasked_connections=2)
"""Short, and long enough for who is not slow on a machine that is busy with much else."""
PRODUCE = f"POST /topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Type: {BINARY}\r\n"
GOOD_BODY = b'{"records":[{"value":"YQ=="}]}'


@dataclass
class Listener:
    server: HttpServer
    fake: FakeGateway
    app: Any

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.server.port)

    async def connections_become(self, count: int) -> None:
        async with asyncio.timeout(30):
            while self.server.connections != count:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)

    async def tell(self, data: bytes, *, ends: bool = False) -> tuple[int, Any, bool]:
        """Status, JSON body, and whether the connection was closed after one answer."""
        reader, writer = await self.connect()
        try:
            writer.write(data)
            if ends:
                writer.write_eof()
            return await read_answer(reader)
        finally:
            writer.close()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, Any, bool]:
    async with asyncio.timeout(30):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().split("content-length:")[1].split("\r\n")[0])
        body = msgspec.json.decode(await reader.readexactly(length)) if length else None
        closes = "connection: close" in head.lower()
        if closes:
            with suppress(ConnectionResetError):  # who still sends to a closed connection is told so by a reset
                assert await reader.read() == b"", "something came after the last answer"
    assert length == 0 or "application/json" in head or "application/vnd.kafka.v2+json" in head, head
    return int(head.split()[1]), body, closes


@asynccontextmanager
async def listening(limits: Limits, extra_routes: tuple[Route, ...], **static: Any) -> AsyncIterator[Listener]:
    fake = FakeGateway(static=static)
    fake.add_topic("t")
    environment = system_environment()
    app = create_app(fake, environment=environment, limits=limits, extra_routes=extra_routes)
    server = HttpServer(app, host="127.0.0.1", port=0, drain_ms=100)
    try:
        await server.start()
        yield Listener(server, fake, app)
    finally:
        await server.stop()
        close_environment(environment)


def with_listener(
    story: Callable[[Listener], Awaitable[None]],
    *,
    limits: Limits = LIMITS,
    extra_routes: tuple[Route, ...] = (),
    **static: Any,
) -> None:
    async def run() -> None:
        async with listening(limits, extra_routes, **static) as listener:
            await story(listener)
            assert all(log.end == 0 for log in listener.fake.logs.values()), "something was written"
            status, _, _ = await listener.tell(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert status == 200, "others are served as ever"
            context = listener.app[CONTEXT]
            assert (context.bodies.used, context.patience.bodies) == (0, set())

    asyncio.run(run())


GARBAGE: tuple[tuple[str, bytes, int], ...] = (
    ("no http", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello, this is TLS\r\n\r\n", 400),
    ("kafka", b"\x00\x00\x00\x10\x00\x12\x00\x03\x00\x00\x00\x01\x00\x04test\r\n\r\n", 400),
    ("bad header", b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n", 400),
    ("bad length", b"POST /topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n", 400),
    ("negative length", b"POST /topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
    (
        "two lengths",
        b"POST /topics/t HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        400,
    ),
    (
        "smuggling",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    ("null in header", b"GET / HTTP/1.1\r\nHost: localhost\r\nA: b\x00c\r\n\r\n", 400),
    ("long request line", b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
    ("long header", b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 20_000 + b"\r\n\r\n", 431),
    (
        "many headers",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"H%d: x\r\n" % n for n in range(500)) + b"\r\n",
        431,
    ),
)


@pytest.mark.parametrize(("name", "data", "status"), GARBAGE, ids=[case[0] for case in GARBAGE])
def test_garbage_is_answered_once_and_closed(name: str, data: bytes, status: int) -> None:
    async def story(listener: Listener) -> None:
        answered, body, closes = await listener.tell(data)
        assert (answered, body["error_code"], closes) == (status, status, True)
        assert body["message"]

    with_listener(story)


REFUSED: tuple[tuple[str, bytes, int, bool], ...] = (
    ("connect", b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", 405, True),
    ("connect to a path", b"CONNECT /topics HTTP/1.1\r\nHost: x\r\n\r\n", 405, True),
    ("options for all", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 404, False),
    ("no path", b"GET topics HTTP/1.1\r\nHost: x\r\n\r\n", 400, True),
    ("trace", b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 405, False),
    ("unknown method", b"BREW /topics HTTP/1.1\r\nHost: x\r\n\r\n", 400, True),
    ("unknown expect", b"GET /nowhere HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n", 417, False),
    ("expect nowhere", b"POST /nowhere HTTP/1.1\r\nHost: x\r\nExpect: x\r\nContent-Length: 3\r\n\r\nabc", 417, False),
)


@pytest.mark.parametrize(("name", "data", "status", "closes"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_no_route_gets_to_see_is_refused_in_json(name: str, data: bytes, status: int, closes: bool) -> None:
    async def story(listener: Listener) -> None:
        answered, body, closed = await listener.tell(data)
        assert (answered, body["error_code"], closed) == (status, status, closes)
        assert body["message"]

    with_listener(story)


def test_garbage_after_a_good_request_ends_only_its_connection() -> None:
    async def story(listener: Listener) -> None:
        other_reader, other = await listener.connect()
        reader, writer = await listener.connect()
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await read_answer(reader))[0] == 200
        writer.write(b"\x00garbage\r\n\r\n")
        status, body, closes = await read_answer(reader)
        assert (status, body["error_code"], closes) == (400, 400, True)
        other.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await read_answer(other_reader))[0] == 200
        writer.close()
        other.close()

    with_listener(story)


TRUNCATED: tuple[tuple[str, bytes], ...] = (
    ("by length", f"{PRODUCE}Content-Length: 1000\r\n\r\n".encode() + GOOD_BODY),
    ("by chunks", f"{PRODUCE}Transfer-Encoding: chunked\r\n\r\n1e\r\n".encode() + GOOD_BODY + b"\r\n"),
)


@pytest.mark.parametrize(("name", "data"), TRUNCATED, ids=[case[0] for case in TRUNCATED])
def test_a_body_that_ends_early_is_400(name: str, data: bytes) -> None:
    async def story(listener: Listener) -> None:
        status, body, closes = await listener.tell(data, ends=True)
        assert (status, body["error_code"], closes) == (400, 400, True)

    with_listener(story, limits=Limits())


def test_a_bad_chunk_is_400() -> None:
    async def story(listener: Listener) -> None:
        data = f"{PRODUCE}Transfer-Encoding: chunked\r\n\r\nzz\r\nwhat\r\n".encode()
        status, body, closes = await listener.tell(data)
        assert (status, body["error_code"], closes) == (400, 400, True)

    with_listener(story, limits=Limits())


async def trickle(writer: asyncio.StreamWriter, data: bytes, *, until: asyncio.Event) -> None:
    for byte in data:
        if until.is_set() or writer.is_closing():
            return
        writer.write(bytes([byte]))
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "data",
    [
        b"GET /topics HTTP/1.1\r\nHost: " + b"x" * 2_000,
        f"{PRODUCE}Content-Length: 2000\r\n\r\n".encode() + b" " * 1_000,
    ],
    ids=["headers", "body"],
)
def test_what_trickles_is_408(data: bytes) -> None:
    async def story(listener: Listener) -> None:
        reader, writer = await listener.connect()
        done = asyncio.Event()
        start = data[: data.find(b"\r\n\r\n") + 4]
        writer.write(start)
        trickling = asyncio.create_task(trickle(writer, data[len(start) :], until=done))
        status, body, closes = await read_answer(reader)
        done.set()
        await trickling
        assert (status, body["error_code"], closes) == (408, 408, True)
        writer.close()

    with_listener(story)


def test_headers_that_stop_after_an_answered_request_are_408() -> None:
    async def story(listener: Listener) -> None:
        reader, writer = await listener.connect()
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await read_answer(reader))[0] == 200
        writer.write(b"\r\n")  # some clients end a request with an empty line too many
        await asyncio.sleep(2 * LIMITS.header_wait_ms / 1000)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await read_answer(reader))[0] == 200, "an idle connection is no slow one"
        writer.write(b"GET /hea")
        assert (await read_answer(reader))[0] == 408
        writer.close()

    with_listener(story)


def test_a_client_that_takes_nothing_is_let_go() -> None:
    async def story(listener: Listener) -> None:
        reader, writer = await listener.connect()
        writer.write(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await listener.connections_become(1)
        await listener.connections_become(0)
        writer.close()
        assert not reader.at_eof(), "the answer was taken"

    async def large(call: Call) -> web.Response:
        return web.Response(body=bytes(20_000_000))

    route = Route(method="GET", path="/large", handler=large, summary="Large.", tag="t", answers={200: None})
    with_listener(story, extra_routes=(route,))


def test_connections_that_ask_nothing_are_bounded() -> None:
    async def story(listener: Listener) -> None:
        connections = [await listener.connect() for _ in range(3)]
        reader, writer = await listener.connect()
        async with asyncio.timeout(30):
            with suppress(ConnectionError):
                assert await reader.read() == b"", "it is closed without a word"
        for _, each in [*connections, (reader, writer)]:
            each.close()
        await listener.connections_become(0)

    with_listener(story, **{"max.connections": 1})


def test_an_unforeseen_fault_is_json_with_the_id_of_its_event() -> None:
    class Seen:
        def __init__(self) -> None:
            self.fields: dict[str, Any] = {}

        def emit(self, event: str, /, **fields: object) -> None:
            assert event == "http_request_failed"
            self.fields = fields

    async def broken(call: Call) -> Any:
        raise LookupError("secret detail")

    async def run() -> None:
        environment, seen = system_environment(), Seen()
        route = Route(method="GET", path="/broken", handler=broken, summary="Broken.", tag="t", answers={200: None})
        app = create_app(FakeGateway(), environment=environment, events=seen, extra_routes=(route,))
        server = HttpServer(app, host="127.0.0.1", port=0)
        await server.start()
        listener = Listener(server, FakeGateway(), app)
        status, body, _ = await listener.tell(b"GET /broken HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await server.stop()
        close_environment(environment)
        assert (status, body["error_code"]) == (500, 500)
        assert "secret" not in body["message"]
        assert seen.fields["fault_id"] == body["fault_id"]
        assert "in broken" in str(seen.fields["traceback"])

    asyncio.run(run())


@pytest.mark.parametrize("said", [b"", b"\r\n", b"G"], ids=["nothing", "an empty line", "a letter"])
def test_a_connection_on_which_no_request_comes_ends(said: bytes) -> None:
    async def story(listener: Listener) -> None:
        connections = [await listener.connect() for _ in range(3)]
        for _, writer in connections:
            writer.write(said)
        await listener.connections_become(0)
        for reader, writer in connections:
            answer = await reader.read()
            assert answer == b"" if said != b"G" else answer.startswith(b"HTTP/1.1 408 "), answer
            writer.close()

    with_listener(story, limits=Limits(header_wait_ms=300))
