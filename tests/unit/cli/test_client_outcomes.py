"""Both transports: one attempt, and an outcome that says whether the request may have been done."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from kraft.client import blocking_transport
from kraft.client.response import Answer, Refused, Request, Response, Unknown
from kraft.client.transport import Transport

OK = b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\nX-Next-Offset: 4\r\n\r\n{"a": 1}'


def send_async(url: str, request: Request) -> Response:
    async def attempt() -> Response:
        async with Transport() as transport:
            return await transport.send(url, request)

    return asyncio.run(attempt())


@pytest.fixture(params=[blocking_transport.send, send_async], ids=["blocking", "async"])
def send(request: pytest.FixtureRequest) -> Callable[[str, Request], Response]:
    return request.param


@contextmanager
def server(reply: bytes | None) -> Iterator[tuple[str, list[bytes]]]:
    """Answers each connection once with these bytes; None: holds it open and says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    requests: list[bytes] = []
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            requests.append(connection.recv(65536))
            if reply is None:
                held.append(connection)
                continue
            connection.sendall(reply)
            connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        for connection in held:
            connection.close()


def test_an_answer_has_status_headers_and_body(send):
    with server(OK) as (url, requests):
        outcome = send(url, Request(method="GET", path="/x?y=1"))
    assert isinstance(outcome, Answer)
    assert (outcome.status, outcome.json(), outcome.headers["x-next-offset"]) == (200, {"a": 1}, "4")
    assert outcome.is_success
    assert requests[0].startswith(b"GET /x?y=1 HTTP/1.1\r\n")


def test_an_error_status_is_an_answer_too(send):
    with server(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n") as (url, requests):
        outcome = send(url, Request(method="POST", path="/", body=b"x"))
    assert isinstance(outcome, Answer)
    assert (outcome.status, outcome.is_success, outcome.json()) == (503, False, None)
    assert len(requests) == 1


def test_a_redirect_is_not_followed(send):
    with server(b"HTTP/1.1 307 Go\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n") as (url, requests):
        outcome = send(url, Request(method="POST", path="/", body=b"x"))
    assert isinstance(outcome, Answer)
    assert outcome.status == 307
    assert len(requests) == 1


def test_a_refused_connection_surely_did_nothing(send):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        assert isinstance(send(url, Request(method="POST", path="/", body=b"x")), Refused)


def test_broken_connection_after_request_is_unknown(send):
    with server(b"") as (url, requests):
        outcome = send(url, Request(method="POST", path="/", body=b"x"))
    assert isinstance(outcome, Unknown)
    assert len(requests) == 1


def test_half_an_answer_is_unknown(send):
    with server(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf") as (url, _):
        assert isinstance(send(url, Request(method="GET", path="/")), Unknown)


def test_silence_is_unknown_after_the_timeout(send):
    with server(None) as (url, requests):
        outcome = send(url, Request(method="POST", path="/", body=b"x", timeout_ms=700))
    assert isinstance(outcome, Unknown)
    assert len(requests) == 1


def test_a_kept_connection_that_breaks_is_not_hidden_by_a_second_attempt():
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    requests: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        for reply in (OK, b""):
            requests.append(connection.recv(65536))
            connection.sendall(reply)
        connection.close()

    thread = threading.Thread(target=serve)
    thread.start()

    async def attempts() -> list[Response]:
        async with Transport() as transport:
            return [await transport.send(url, Request(method="DELETE", path=f"/{n}")) for n in range(2)]

    try:
        first, second = asyncio.run(attempts())
    finally:
        thread.join()
        listener.close()
    assert isinstance(first, Answer)
    assert isinstance(second, Unknown)
    assert len(requests) == 2
