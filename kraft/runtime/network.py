"""Real TCP: connecting, listening, and the tasks that serve accepted connections."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Mapping
from typing import Any, cast

from kraft.runtime.frame_memory import ArrivingFrames
from kraft.runtime.tcp import TcpConnection, read_buffer
from kraft.runtime.tls_listener import TlsServer, listen_with_tls
from metadata.environment import ConnectionClosed, OnConnection, Tls

LOG = logging.getLogger(__name__)

CONNECTIONS_MAX = 10_000
"""Open connections of one listener (default of max.connections); one more is reset."""
BACKLOG = 512
CLOSE_FLUSH_MS = 1_000
"""Time in which a closing listener lets its connections send queued frames."""


CLOSE_TURNS = 3
"""Turns of the loop in which it closes sockets that were closed here."""


class TcpListener:
    """A listening socket, its connections and the tasks that serve them."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_connection: OnConnection,
        *,
        connections_max: int,
        buffer: memoryview,
        arriving_bytes_max: int | None,
    ) -> None:
        self._loop = loop
        self._on_connection = on_connection
        self._connections_max = connections_max
        self._buffer = buffer
        self._arriving = None if arriving_bytes_max is None else ArrivingFrames(loop, bytes_max=arriving_bytes_max)
        self._server: asyncio.Server | TlsServer | None = None
        self._serving: dict[asyncio.Task[None], TcpConnection] = {}
        self._is_closing = False
        self._came_late: list[TcpConnection] = []

    async def start(self, host: str, port: int, *, frame_bytes_max: int, tls: Tls | None) -> None:
        def accept() -> _AcceptedConnection:
            return _AcceptedConnection(
                self._loop, self, frame_bytes_max=frame_bytes_max, buffer=self._buffer, arriving=self._arriving
            )

        if tls is None:
            self._server = await self._loop.create_server(accept, host, port, backlog=BACKLOG)
        else:
            self._server = await listen_with_tls(accept, host, port, backlog=BACKLOG, tls=tls)

    @property
    def port(self) -> int:
        assert self._server is not None
        return cast(int, self._server.sockets[0].getsockname()[1])

    def accepted(self, connection: TcpConnection) -> None:
        if self._is_closing:
            connection.abort()
            self._came_late.append(connection)
            return
        if len(self._serving) >= self._connections_max:
            LOG.warning("refusing %s: %d connections are open", connection.peer, self._connections_max)
            connection.abort()
            return
        task = self._loop.create_task(self._serve(connection))
        self._serving[task] = connection
        task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        del self._serving[task]

    async def _serve(self, connection: TcpConnection) -> None:
        try:
            await self._on_connection(connection)
        except ConnectionClosed:
            LOG.debug("%s disconnected", connection.peer)
        except Exception:
            LOG.exception("closing %s: its handler failed", connection.peer)
        finally:
            connection.close()

    async def close(self) -> None:
        self._is_closing = True
        if self._server is not None:
            self._server.close()
            await asyncio.sleep(0)  # the loop may have a connection that it has accepted, and report it only now
        serving = dict(self._serving)
        for connection in serving.values():
            connection.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await _wait_lost([*serving.values(), *self._came_late])
        if self._server is not None:
            await self._server.wait_closed()


class _AcceptedConnection(TcpConnection):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: TcpListener,
        *,
        frame_bytes_max: int,
        buffer: memoryview,
        arriving: ArrivingFrames | None,
    ) -> None:
        super().__init__(loop, frame_bytes_max=frame_bytes_max, buffer=buffer, arriving=arriving)
        self._listener = listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._listener.accepted(self)


class TcpNetwork:
    """Bound to one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, connections_max: int = CONNECTIONS_MAX) -> None:
        self._loop = loop
        self._connections_max = connections_max
        self._buffer = read_buffer()
        self._dialed: set[TcpConnection] = set()
        """Connections whose sockets are not closed yet; a listener has its own."""

    async def connect(
        self, host: str, port: int, *, frame_bytes_max: int, timeout_ms: int, tls: Tls | None = None
    ) -> TcpConnection:
        secure = {} if tls is None else {"ssl": tls.context(), "server_hostname": host}
        async with asyncio.timeout(timeout_ms / 1_000):
            errors: list[OSError] = []
            for address in await self._addresses(host):
                try:
                    return await self._connect_address(address, port, frame_bytes_max=frame_bytes_max, secure=secure)
                except OSError as error:
                    errors.append(error)
        # "Refused" is a statement about every address of the host; any other error is reported first.
        raise next((error for error in errors if not isinstance(error, ConnectionRefusedError)), errors[0])

    async def _addresses(self, host: str) -> list[str]:
        if _is_numeric(host):
            return [host]
        found = await self._loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    async def _connect_address(
        self, address: str, port: int, *, frame_bytes_max: int, secure: Mapping[str, Any]
    ) -> TcpConnection:
        transport, connection = await self._loop.create_connection(
            lambda: TcpConnection(self._loop, frame_bytes_max=frame_bytes_max, buffer=self._buffer),
            address,
            port,
            **secure,
        )
        self._dialed.add(connection)
        connection.lost.add_done_callback(lambda _: self._dialed.discard(connection))
        if transport.get_extra_info("sockname") == transport.get_extra_info("peername"):
            # TCP simultaneous open: the system chose the very port that nobody listens on as our own.
            connection.abort()
            raise ConnectionRefusedError(f"connect to {address}:{port}: nobody listens")
        return connection

    async def close(self) -> None:
        """Close all sockets before the loop is closed, which it cannot be while it has any. Not used any more after
        it."""
        dialed = list(self._dialed)
        for connection in dialed:
            connection.abort()
        await _wait_lost(dialed)
        for _ in range(CLOSE_TURNS):
            await asyncio.sleep(0)

    @property
    def connections_max(self) -> int:
        return self._connections_max

    async def listen(
        self,
        host: str,
        port: int,
        on_connection: OnConnection,
        *,
        frame_bytes_max: int,
        arriving_bytes_max: int | None = None,
        tls: Tls | None = None,
    ) -> TcpListener:
        listener = TcpListener(
            self._loop,
            on_connection,
            connections_max=self._connections_max,
            buffer=self._buffer,
            arriving_bytes_max=arriving_bytes_max,
        )
        await listener.start(host, port, frame_bytes_max=frame_bytes_max, tls=tls)
        return listener


async def _wait_lost(connections: list[TcpConnection]) -> None:
    """Wait until the connections have sent their queued frames, within `CLOSE_FLUSH_MS`; reset the rest."""
    if not connections:
        return
    await asyncio.wait([connection.lost for connection in connections], timeout=CLOSE_FLUSH_MS / 1_000)
    for connection in connections:
        connection.abort()


def _is_numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
