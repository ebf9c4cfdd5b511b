"""Listening sockets whose connections reach their protocol when the TLS handshake is done; where both are taken, those
that begin without TLS reach it at once.

A handshake has a place and a time, as a connection that has not authenticated has: when all places are taken, the
address that holds most of them loses its oldest. asyncio's own server would have neither limit.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Final

from kraft.runtime.tls_alerts import send_alert
from metadata.environment import Tls
from metadata.unauthenticated import TLS_HANDSHAKES, UnauthenticatedConnections

LOG = logging.getLogger(__name__)

ACCEPTED_AT_ONCE_MAX: Final = 64
"""Connections taken in one turn of the loop."""
HANDSHAKE: Final = b"\x16"
"""Content type of the first record of TLS (RFC 8446, 5.1)."""
RETRY_S: Final = 0.1
"""Pause after the system had no descriptor for a connection."""


class TlsServer:
    """Like asyncio's Server, as far as listeners use it."""

    def __init__(self, protocol: Callable[[], asyncio.BaseProtocol], tls: Tls, sockets: list[socket.socket]) -> None:
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._tls = tls
        self.sockets = sockets
        self._handshakes = UnauthenticatedConnections(TLS_HANDSHAKES)
        self._tasks: set[asyncio.Task[None]] = set()
        for each in sockets:
            self._loop.add_reader(each, self._accept, each)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE_MAX):
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                LOG.warning("no connection is accepted for %g s: %s", RETRY_S, error)
                self._loop.remove_reader(listening)
                self._loop.call_later(RETRY_S, self._accept_again, listening)
                return
            accepted.setblocking(False)
            self.take(accepted, f"{address[0]}:{address[1]}")

    def _accept_again(self, listening: socket.socket) -> None:
        if listening in self.sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def take(self, accepted: socket.socket, peer: str) -> None:
        """Begin the handshake of a connection."""
        task = self._loop.create_task(self._shake_hands(accepted, peer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _shake_hands(self, accepted: socket.socket, peer: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            with self._handshakes.waiting(_Handshake(peer, task)):
                if self._tls.takes_plain and not await self._begins_with_tls(accepted):
                    await self._loop.connect_accepted_socket(self._protocol, accepted)
                    return
                await self._encrypted(accepted)
        except (OSError, ssl.SSLError) as error:
            LOG.info("closing %s: no TLS: %s", peer, error)
            accepted.close()
        except asyncio.CancelledError:
            accepted.close()

    async def _encrypted(self, accepted: socket.socket) -> None:
        """Raises OSError, also for a handshake that fails: the peer has the alert then."""
        with accepted.dup() as own:  # the loop closes its own before the error is here
            try:
                await self._loop.connect_accepted_socket(
                    self._protocol,
                    accepted,
                    ssl=self._tls.context(),
                    ssl_handshake_timeout=TLS_HANDSHAKES.wait_ms / 1_000,
                )
            except ssl.SSLError as error:
                send_alert(error, own)
                raise

    async def _begins_with_tls(self, accepted: socket.socket) -> bool:
        """Look at the first byte without taking it: no frame of Kafka or of the quorum, and no request of HTTP, begins
        as a handshake does. Raises OSError when none comes in time."""
        async with asyncio.timeout(TLS_HANDSHAKES.wait_ms / 1_000):
            await self._readable(accepted)
        return accepted.recv(1, socket.MSG_PEEK) == HANDSHAKE

    async def _readable(self, accepted: socket.socket) -> None:
        ready = self._loop.create_future()
        self._loop.add_reader(accepted, _done, ready)
        try:
            await ready
        finally:
            self._loop.remove_reader(accepted)

    def close(self) -> None:
        """Listen no more; handshakes that are under way end."""
        sockets, self.sockets = self.sockets, []
        for each in sockets:
            self._loop.remove_reader(each)
            each.close()
        for task in list(self._tasks):
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until the handshakes have ended."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Handshake:
    """A place of `UnauthenticatedConnections`."""

    def __init__(self, peer: str, task: asyncio.Task[None]) -> None:
        self.peer = peer
        self._task = task

    def abort(self) -> None:
        self._task.cancel()


def _done(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def listen_with_tls(
    protocol: Callable[[], asyncio.BaseProtocol], host: str, port: int, *, backlog: int, tls: Tls
) -> TlsServer:
    """Listen on all addresses of the host. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            sockets.append(_listening(family, address, backlog))
    except OSError:
        for each in sockets:
            each.close()
        raise
    return TlsServer(protocol, tls, sockets)


def _listening(family: int, address: object, backlog: int) -> socket.socket:
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.setblocking(False)
        listening.bind(address)  # type: ignore[arg-type]  # as getaddrinfo returns it
        listening.listen(backlog)
    except OSError as error:
        listening.close()
        raise OSError(error.errno, f"error while attempting to bind on address {address}: {error.strerror}") from error
    return listening
