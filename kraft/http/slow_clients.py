"""Limits of the wait for slow clients: for headers, for bodies, and until an answer is taken.

Invariant: a connection that makes no progress is closed within its limit and `LOOK_EVERY_MS`, and what it held is given
back. Nothing is scheduled per request: one task looks at all connections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aiohttp import web

from kraft.http.connection import Connection
from kraft.http.errors import HttpError
from kraft.http.limits import Limits
from metadata.environment import Clock

LOOK_EVERY_MS = 1_000


class SlowBody(Exception):
    """Set on a body that arrives too slowly; the handler that reads the body gets this exception."""


class BodyWatch:
    """A body that is being read."""

    __slots__ = ("received", "request", "since_ms")

    def __init__(self, request: web.BaseRequest, *, since_ms: int) -> None:
        self.request = request
        self.since_ms = since_ms
        self.received = 0

    def is_late(self, now_ms: int, limits: Limits) -> bool:
        """Whether the body has arrived more slowly than `limits` allow."""
        return now_ms - self.since_ms > limits.body_wait_ms + self.received * 1000 // limits.body_bytes_per_second


class SlowClients:
    """Holds the bodies that are being read; `run` looks at them and at the connections until it is cancelled."""

    def __init__(self, clock: Clock, limits: Limits) -> None:
        self._clock = clock
        self._limits = limits
        self.bodies: set[BodyWatch] = set()

    def watch(self, request: web.BaseRequest) -> BodyWatch:
        """Begins to look at the request's body."""
        watch = BodyWatch(request, since_ms=self._clock.monotonic_ms())
        self.bodies.add(watch)
        return watch

    async def run(self, connections: Callable[[], Iterable[object]]) -> None:
        """Looks at bodies and connections every `LOOK_EVERY_MS` until it is cancelled."""
        while True:
            await self._clock.sleep(min(LOOK_EVERY_MS, self._limits.header_wait_ms))
            self.look(connections())

    def look(self, connections: Iterable[object]) -> None:
        """One look: ends what is over its limit."""
        now_ms = self._clock.monotonic_ms()
        for watch in [each for each in self.bodies if each.is_late(now_ms, self._limits)]:
            self.bodies.discard(watch)
            watch.request.content.set_exception(SlowBody())
        for connection in connections:
            if isinstance(connection, Connection):
                self._look_at(connection, now_ms)

    def _look_at(self, connection: Connection, now_ms: int) -> None:
        if connection.is_ending:
            connection.force_close()
            return
        connection.give_back()
        since_ms = connection.header_since_ms
        if not connection.has_asked and now_ms - connection.made_ms > self._limits.header_wait_ms:
            if since_ms is None:
                connection.force_close()  # it has said nothing, and there is nothing to answer
                return
            since_ms = connection.made_ms
        if since_ms is not None and now_ms - since_ms > self._limits.header_wait_ms:
            connection.refuse_header(
                HttpError(408, f"the headers did not end within {self._limits.header_wait_ms} ms; the connection ends")
            )
            return
        unsent = connection.unsent_bytes()
        if unsent == 0 or unsent != connection.unsent:
            connection.unsent, connection.unsent_since_ms = unsent, now_ms
        elif now_ms - connection.unsent_since_ms > self._limits.answer_wait_ms:
            connection.abort()


def too_slow(limits: Limits, received: int) -> HttpError:
    """The 408 for a body of which only `received` bytes came in time."""
    message = (
        f"{received} bytes of the body arrived in more than {limits.body_wait_ms} ms; it must arrive with at least "
        f"{limits.body_bytes_per_second} bytes a second"
    )
    return HttpError(408, message, closes=True)
