"""A connection to a broker that asks with the generated messages and keeps every exchange as bytes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import TypeVar

from kraft.protocol.codec import decode_body, encode_body
from kraft.protocol.encoding import TopLevel

TIMEOUT_S = 60
CLIENT_ID = "golden"
API_VERSIONS = 18

ResponseT = TypeVar("ResponseT", bound=TopLevel)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and its answer, without their headers."""

    name: str
    """What is asked, in words; with API and version it names the exchange."""
    api: str
    version: int
    request: bytes
    response: bytes

    @property
    def key(self) -> tuple[str, int, str]:
        return self.api, self.version, self.name


@dataclass
class Peer:
    address: tuple[str, int]
    client_id: str = CLIENT_ID
    exchanges: list[Exchange] = field(default_factory=list)
    broken: list[tuple[str, int, str, str]] = field(default_factory=list)
    """Requests that were answered by a closed connection: API, version, name and how it ended."""
    connect: Callable[[], socket.socket] | None = None
    """Makes the connection, where it takes more than an address."""

    def __post_init__(self) -> None:
        self._socket: socket.socket | None = None
        self._correlation_id = 0

    def ask(self, name: str, request: TopLevel, version: int) -> TopLevel:
        """The decoded answer; a broker that closes the connection is an answer of defaults, kept in `broken`."""
        api = type(request).__name__.removesuffix("RequestData")
        body = b"".join(encode_body(request, version))
        try:
            answer = self._exchange(request, version, body)
        except (OSError, EOFError) as error:
            self.close()
            self.broken.append((api, version, name, f"{type(error).__name__}: {error}"))
            return response_type(type(request)).make()  # type: ignore[attr-defined, no-any-return]
        self.exchanges.append(Exchange(name, api, version, body, answer))
        return decode_body(response_type(type(request)), version, memoryview(answer), 0)

    def pipeline(self, *requests: tuple[TopLevel, int]) -> list[TopLevel]:
        """The decoded answers of requests, each with its version, that are sent together on one connection."""
        bodies = [b"".join(encode_body(request, version)) for request, version in requests]
        for (request, version), body in zip(requests, bodies, strict=True):
            self._send(request, version, body)
        first = self._correlation_id - len(requests) + 1
        return [
            decode_body(
                response_type(type(request)), version, memoryview(self._receive(request, version, first + place)), 0
            )
            for place, (request, version) in enumerate(requests)
        ]

    def send(self, request: TopLevel, version: int) -> None:
        """Without an answer: a produce with acks=0."""
        self._send(request, version, b"".join(encode_body(request, version)))

    def is_answered_within(self, request: TopLevel, version: int, timeout_s: float) -> bool:
        """Whether the connection is read. It is of no more use then."""
        self.send(request, version)
        assert self._socket is not None
        self._socket.settimeout(timeout_s)
        try:
            return len(self._read(4)) == 4
        except TimeoutError:
            return False

    def _exchange(self, request: TopLevel, version: int, body: bytes) -> bytes:
        self._send(request, version, body)
        return self._receive(request, version, self._correlation_id)

    def _send(self, request: TopLevel, version: int, body: bytes) -> None:
        self._correlation_id += 1
        client_id = self.client_id.encode()
        head = struct.pack(">hhih", request.API_KEY, version, self._correlation_id, len(client_id)) + client_id
        if version >= request.FLEXIBLE_FROM:
            head += b"\0"
        if self._socket is None:
            self._socket = socket.create_connection(self.address, TIMEOUT_S) if self.connect is None else self.connect()
        self._socket.sendall(struct.pack(">i", len(head) + len(body)) + head + body)

    def _receive(self, request: TopLevel, version: int, wanted: int) -> bytes:
        (size,) = struct.unpack(">i", self._read(4))
        frame = self._read(size)
        (correlation_id,) = struct.unpack_from(">i", frame)
        assert correlation_id == wanted, "answers come in order"
        has_tags = request.API_KEY != API_VERSIONS and version >= response_type(type(request)).FLEXIBLE_FROM
        assert not has_tags or frame[4] == 0, "no tagged fields are known in response headers"
        return frame[5 if has_tags else 4 :]

    def _read(self, size: int) -> bytes:
        assert self._socket is not None
        data = bytearray()
        while len(data) < size:
            piece = self._socket.recv(size - len(data))
            if not piece:
                raise EOFError("the broker closed the connection")
            data += piece
        return bytes(data)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def response_type(request: type[TopLevel]) -> type[TopLevel]:
    module = import_module(request.__module__.removesuffix("_request") + "_response")
    kind: type[TopLevel] = getattr(module, request.__name__.removesuffix("RequestData") + "ResponseData")
    return kind
