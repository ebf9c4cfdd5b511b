"""One proxied connection: two transports, a pipe for each direction, and faults of single messages.

When one side ends, the proxy sends the bytes in flight and closes the other side. When the target ends, the proxy first
checks whether the target's port still answers, so that the next connection attempt has the same result as without a
proxy.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import Iterator
from typing import Protocol, cast

from kraft.chaos.worlds.processes.proxy.messages import Messages
from kraft.chaos.worlds.processes.proxy.pipe import Pipe
from kraft.chaos.worlds.processes.proxy.rules import Half, Rules
from kraft.chaos.worlds.processes.proxy.target import RESET, Target


class Owner(Protocol):
    """The link that owns a connection."""

    rules: Rules
    target: Target
    requests_bytes: int
    answers_bytes: int

    def lost(self, connection: Connection) -> None: ...
    def use_up_drop(self) -> None: ...
    def use_up_close(self, half: Half) -> None: ...


class Connection:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: Owner,
        messages: Messages,
        rng: random.Random,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`tls`: that of the connection to the target."""
        self._tls = tls
        self._loop = loop
        self._owner = owner
        self._messages = messages
        self._requests = Pipe(loop, owner.rules.requests, rng)
        self._answers = Pipe(loop, owner.rules.answers, rng)
        self._client: asyncio.Transport | None = None
        self._upstream: asyncio.Transport | None = None
        self._opening: asyncio.Task[None] | None = None
        self._bytes_to_end: dict[Half, int] = {}
        """Bytes of a message that still pass before the connection ends."""
        self.is_over = False

    # --- life -------------------------------------------------------------------------------------------------------

    def accepted(self, client: asyncio.Transport) -> None:
        if self.is_over:  # the link was cut during the handshake
            reset(client)
            return
        self._client = client
        client.pause_reading()
        self._opening = self._loop.create_task(self._open(client))

    async def _open(self, client: asyncio.Transport) -> None:
        target = self._owner.target
        try:
            upstream, _ = await self._loop.create_connection(
                lambda: Side(self, "answers"), target.host, target.port, ssl=self._tls
            )
        except OSError as error:
            if isinstance(error, ConnectionRefusedError):
                target.refused()
            self.reset()
            return
        self._upstream = upstream
        if self.is_over:
            reset(upstream)
            return
        client.resume_reading()
        self._requests.connect(client, upstream)
        self._answers.connect(upstream, client)

    def rules_changed(self) -> None:
        if self._owner.rules.is_cut:
            self.reset()
            return
        self._requests.set_flow(self._owner.rules.requests)
        self._answers.set_flow(self._owner.rules.answers)

    def reset(self) -> None:
        """Reset both sides at once, with the bytes in flight."""
        if self.is_over:
            return
        self.is_over = True
        self._requests.stop()
        self._answers.stop()
        for transport in (self._client, self._upstream):
            if transport is not None:
                reset(transport)
        self._owner.lost(self)

    def ended(self, half: Half) -> None:
        """The side that sends this direction has ended."""
        if self.is_over:
            return
        if half == "requests":
            self._requests.finish(self._close)
        else:
            self._opening = self._loop.create_task(self._target_ended())

    async def _target_ended(self) -> None:
        await self._owner.target.look()
        self._answers.finish(self._close)

    def _close(self) -> None:
        """Close both sides after all written bytes are sent."""
        if self.is_over:
            return
        self.is_over = True
        for transport in (self._client, self._upstream):
            if transport is not None:
                transport.close()
        self._owner.lost(self)

    def full(self, half: Half, *, is_full: bool) -> None:
        """The side that sends this direction cannot receive more now."""
        (self._answers if half == "requests" else self._requests).sink_full(is_full)

    # --- bytes ------------------------------------------------------------------------------------------------------

    def requests(self, data: bytes) -> None:
        """Bytes from the client."""
        self.carry_request(data)

    def answers(self, data: bytes) -> None:
        """Bytes from the target."""
        self.carry_answer(data)

    def carry_request(self, data: bytes) -> None:
        self._owner.requests_bytes += len(data)
        begins = self._messages.requests(data)
        if self._owner.rules.close_mid_request or self._bytes_to_end:
            self._half(data, begins, "requests")
            return
        for _ in begins:
            pass
        self._requests.feed(data)

    def carry_answer(self, data: bytes, *, late_ms: float = 0) -> None:
        self._owner.answers_bytes += len(data)
        begins = self._messages.answers(data)
        rules = self._owner.rules
        if rules.drop_answers and (first := next(begins, None)) is not None:
            self._owner.use_up_drop()
            if first[0] > 0 and self._client is not None:
                self._client.write(data[: first[0]])
            self.reset()
            return
        if rules.close_mid_answer or self._bytes_to_end:
            self._half(data, begins, "answers")
            return
        for _ in begins:
            pass
        self._answers.feed(data, late_ms=late_ms)

    def answer(self, data: bytes, *, late_ms: float = 0) -> None:
        """Send an answer of the proxy to the client."""
        self._answers.feed(data, late_ms=late_ms)

    def end(self) -> None:
        """Send the bytes in flight to the client; then close both sides."""
        self._answers.finish(self._close)

    def _half(self, data: bytes, begins: Iterator[tuple[int, int]], half: Half) -> None:
        """Send the first half of the next message, then close both sides."""
        pipe = self._requests if half == "requests" else self._answers
        left = self._bytes_to_end.get(half)
        if left is None:
            first = next(begins, None)
            if first is None:
                pipe.feed(data)
                return
            self._owner.use_up_close(half)
            left = max(first[0] + first[1] // 2, 1)
        for _ in begins:
            pass
        self._bytes_to_end[half] = left - len(data)
        if left > len(data):
            pipe.feed(data)
            return
        pipe.feed(data[:left])
        pipe.finish(self._close)


class Side(asyncio.Protocol):
    """One transport of a connection; `half` is the direction of the bytes that it receives."""

    def __init__(self, connection: Connection, half: Half) -> None:
        self._connection = connection
        self._half = half
        self.data_received = connection.requests if half == "requests" else connection.answers  # type: ignore[method-assign]

    def connection_made(self, made: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, made)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._half == "requests":
            self._connection.accepted(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._connection.ended(self._half)

    def pause_writing(self) -> None:
        self._connection.full(self._half, is_full=True)

    def resume_writing(self) -> None:
        self._connection.full(self._half, is_full=False)


def reset(transport: asyncio.Transport) -> None:
    """Close a connection with a TCP reset."""
    listening = transport.get_extra_info("socket")
    if listening is not None and not transport.is_closing():
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    transport.abort()
