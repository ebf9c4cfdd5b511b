"""`HttpServer`: the HTTP listener, started and stopped by the composition root.

Stop: no new connections; a client that is connected and has not asked yet may do so for `FIRST_REQUEST_MS`; idle
connections are closed; requests under way get `drain_ms` to finish, then are cancelled.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from kraft.http.app import CONTEXT
from kraft.http.connection import HEADER_BYTES_MAX, HEADERS_MAX, REQUEST_LINE_BYTES_MAX, Connection, Server
from kraft.http.context import Context
from kraft.runtime.backlog import Backlog, listen
from kraft.runtime.tls_listener import TlsServer
from metadata.environment import Tls

READ_BUFFER_BYTES = 262_144
KEEPALIVE_SECONDS = 75.0
LINGER_SECONDS = 2.0
"""How long the rest of a refused body is read away, so that its client sees the answer."""
BACKLOG = 1_024
DRAIN_MS = 5_000
FIRST_REQUEST_MS = 300
"""How long a stop waits for the request of a connection that has made none yet. To close it sooner would reset it, and
leave a client that has just produced in doubt."""
LOOK_EVERY_MS = 5


class HttpServer:
    """Serves an application on one address. Port 0 lets the system choose; `port` is that port."""

    def __init__(
        self, app: web.Application, *, host: str, port: int, drain_ms: int = DRAIN_MS, tls: Tls | None = None
    ) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._drain_ms = drain_ms
        self._tls = tls
        self._server: Server | None = None
        self._listener: asyncio.Server | TlsServer | None = None
        self._patience: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that it listens on, also where the system chose it."""
        return self._port

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return 0 if self._server is None else len(self._server.connections)

    async def start(self) -> None:
        """Raises OSError (EADDRINUSE)."""
        assert self._server is None, "started twice"
        options: dict[str, Any] = {
            "access_log": None,
            "keepalive_timeout": KEEPALIVE_SECONDS,
            "max_line_size": REQUEST_LINE_BYTES_MAX,
            "max_field_size": HEADER_BYTES_MAX,
            "max_headers": HEADERS_MAX,
            "lingering_time": LINGER_SECONDS,
            "read_bufsize": READ_BUFFER_BYTES,
        }
        context = self._app[CONTEXT]
        runner = web.AppRunner(self._app)
        await runner.setup()
        made = runner.server
        assert made is not None, "a runner that is set up has a server"
        server = Server(
            made,
            clock=context.clock,
            connections_max=lambda: _accepted_max(context),
            mapping_rules=lambda: context.gateway.settings.ssl_principal_mapping_rules,
            **options,
        )
        try:
            self._listener = await listen(server, self._host, self._port, waiting_max=BACKLOG, tls=self._tls)
        except OSError:
            await runner.cleanup()
            raise
        self._server = server
        self._port = self._listener.sockets[0].getsockname()[1]
        context.connections.live = lambda: server.connections
        self._patience = asyncio.get_running_loop().create_task(context.patience.run(lambda: server.connections))

    async def stop(self) -> None:
        """Stops in the order that the module's docstring describes, within little more than `drain_ms`."""
        if self._patience is not None:
            self._patience.cancel()
        server, self._server = self._server, None
        if server is None:
            return
        assert self._listener is not None
        await self._hear_the_last(server, self._listener)
        server.pre_shutdown()
        await self._app.shutdown()
        await server.shutdown(self._drain_ms / 1000)
        await self._app.cleanup()

    async def _hear_the_last(self, server: Server, listener: asyncio.Server | TlsServer) -> None:
        backlog = Backlog(listener.sockets)
        listener.close()
        await backlog.take(server, tls=self._tls)
        clock = self._app[CONTEXT].clock
        for _ in range(FIRST_REQUEST_MS // LOOK_EVERY_MS):
            await clock.sleep(LOOK_EVERY_MS)  # first of all: a loop may have taken some that are not among them yet
            if all(isinstance(each, Connection) and each.has_asked for each in server.connections):
                return


def _accepted_max(context: Context) -> int:
    limits = context.limits
    return min(context.gateway.settings.max_connections + limits.unasked_connections, limits.connections_max)
