"""One link: a listener, its connections, their rules, and counts.

Invariant: the port is open exactly while the target listens and the link is not cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from kraft.chaos.worlds.processes.proxy.connection import Connection, Owner, Side
from kraft.chaos.worlds.processes.proxy.rules import Counts, Half, OpenLink, Rules
from kraft.chaos.worlds.processes.proxy.target import Target

if TYPE_CHECKING:
    from kraft.chaos.worlds.processes.proxy.certificates import LinkCertificate
    from kraft.runtime.tls_listener import TlsServer

BACKLOG = 256
NewConnection = Callable[[Owner], Connection]


class Link:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        wanted: OpenLink,
        target: Target,
        new_connection: NewConnection,
        certificate: LinkCertificate | None = None,
    ) -> None:
        """`certificate`: the link ends TLS with it."""
        self._loop = loop
        self._wanted = wanted
        self._new_connection = new_connection
        self._port = 0
        self._certificate = certificate
        self._server: asyncio.Server | TlsServer | None = None
        self._listening = asyncio.Lock()
        self._steering: set[asyncio.Task[None]] = set()
        self._connections: set[Connection] = set()
        self.rules = Rules()
        self.target = target
        self.requests_bytes = self.answers_bytes = 0
        self._dropped = 0

    async def open(self, port: int) -> None:
        """Open the port, and follow the state of the target. Raises OSError if the port is taken."""
        self._port = port
        server = await self._serve()
        server.close()
        self.target.watch(self._target_changed)
        await self.target.first_look()
        await self._steer()

    async def set_rules(self, rules: Rules) -> None:
        """The change is active when this returns."""
        self.rules = rules
        if rules.is_cut:
            self._close_listener()
        for connection in list(self._connections):
            connection.rules_changed()
        await self._steer()

    def counts(self) -> Counts:
        return Counts(
            is_listening=self._server is not None,
            connections=len(self._connections),
            requests_bytes=self.requests_bytes,
            answers_bytes=self.answers_bytes,
            dropped_answers=self._dropped,
        )

    # --- the port ---------------------------------------------------------------------------------------------------

    def _target_changed(self) -> None:
        if not self.target.is_up:
            self._close_listener()
        else:
            task = self._loop.create_task(self._steer())
            self._steering.add(task)
            task.add_done_callback(self._steering.discard)

    async def _steer(self) -> None:
        async with self._listening:
            if self.target.is_up and not self.rules.is_cut and self._server is None:
                server = await self._serve()
                if self.target.is_up and not self.rules.is_cut:
                    self._server = server
                else:
                    server.close()

    def _close_listener(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self) -> asyncio.Server | TlsServer:
        host, port = self._wanted.host, self._port
        if self._certificate is not None:
            from kraft.runtime.tls_listener import listen_with_tls

            return await listen_with_tls(self._accept, host, port, backlog=BACKLOG, tls=self._certificate)
        return await self._loop.create_server(self._accept, host, port, backlog=BACKLOG, reuse_address=True)

    def _accept(self) -> Side:
        connection = self._new_connection(self)
        self._connections.add(connection)
        return Side(connection, "requests")

    # --- for connections --------------------------------------------------------------------------------------------

    def lost(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def use_up_drop(self) -> None:
        self._dropped += 1
        self.rules = _replace(self.rules, drop_answers=_less(self.rules.drop_answers))

    def use_up_close(self, half: Half) -> None:
        if half == "requests":
            self.rules = _replace(self.rules, close_mid_request=_less(self.rules.close_mid_request))
        else:
            self.rules = _replace(self.rules, close_mid_answer=_less(self.rules.close_mid_answer))


def _less(count: int) -> int:
    """The count minus one; an unlimited count stays."""
    return count - 1 if count > 0 else count


def _replace(rules: Rules, **changes: int) -> Rules:
    return msgspec.structs.replace(rules, **changes)
