"""Connections that the kernel has accepted for a listener and nobody has taken yet.

Their clients see an open connection, and may have sent a request. The close of a listening socket resets all of them,
so a clean stop accepts them first: it keeps the socket open a moment longer than its server.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from kraft.runtime.tls_listener import TlsServer, listen_with_tls
from metadata.environment import Tls

TAKEN_MAX: Final = 1_024
"""Connections of one socket: its backlog, so that clients that continue to connect cannot prevent a node's end."""


class HasDescriptor(Protocol):
    def fileno(self) -> int: ...


async def listen(
    protocol: Callable[[], asyncio.BaseProtocol], host: str, port: int, *, waiting_max: int, tls: Tls | None = None
) -> asyncio.Server | TlsServer:
    """Gives connections to this address to protocols of this loop; the kernel holds `waiting_max` that none has taken
    yet. Raises OSError."""
    if tls is not None:
        return await listen_with_tls(protocol, host, port, backlog=waiting_max, tls=tls)
    return await asyncio.get_running_loop().create_server(protocol, host, port, backlog=waiting_max)


class Backlog:
    """Another handle of each listening socket. Made before their server closes; `take` closes them for good."""

    def __init__(self, listening: Iterable[HasDescriptor]) -> None:
        self._sockets = [socket.socket(fileno=os.dup(each.fileno())) for each in listening]

    async def take(self, protocol: Callable[[], asyncio.BaseProtocol], *, tls: Tls | None = None) -> int:
        """Pass all waiting connections to protocols of this loop; return their number."""
        waiting: list[socket.socket] = []
        for listening in self._sockets:
            with listening:
                listening.setblocking(False)
                waiting += _accepted(listening)
        loop = asyncio.get_running_loop()
        for each in waiting if tls is None else ():
            await loop.connect_accepted_socket(protocol, each)
        if tls is not None:  # a handshake takes its time, and nobody has asked anything yet
            for each in waiting:
                each.close()
        return len(waiting)


def _accepted(listening: socket.socket) -> list[socket.socket]:
    found: list[socket.socket] = []
    while len(found) < TAKEN_MAX:
        try:
            connection, _ = listening.accept()
        except OSError:  # none waits, or no descriptor is left for them
            break
        connection.setblocking(False)
        found.append(connection)
    return found
