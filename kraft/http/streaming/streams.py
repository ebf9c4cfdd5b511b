"""The open streams of a node: what they may keep unsent together, and how they end when the node stops.

Invariant: bytes written to streams whose clients do not take them are at most `unsent_bytes_max`, beside one piece a
stream; beyond it the stream that has waited longest is cut off. Its client goes on elsewhere from its last event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from aiohttp import web
from aiohttp.http import StreamWriter

from kraft.http.errors import HttpError, overloaded
from kraft.http.limits import Slots

PIECE_BYTES = 65_536
"""Bytes of records read for a stream at once; the next are read when the client's side has taken these."""
PIECE_RECORDS = 5_000


class Streams:
    """All open streams of a node."""

    def __init__(self, *, slots: Slots, unsent_bytes_max: int) -> None:
        self._slots = slots
        self._unsent_bytes_max = unsent_bytes_max
        self._held_back: dict[Outlet, int] = {}
        self.unsent_bytes = 0
        self._tasks: set[asyncio.Task[object]] = set()
        self._is_stopping = False

    @property
    def count(self) -> int:
        """Streams that are open now."""
        return len(self._tasks)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """For as long as the current task serves a stream. Raises HttpError 503 when there are too many reads."""
        task = asyncio.current_task()
        assert task is not None, "a stream is served by a task"
        with self._slots:
            self._tasks.add(task)
            try:
                yield
            finally:
                self._tasks.discard(task)

    def stop(self) -> None:
        """The node stops: every stream sends this as an error to its client and ends."""
        self._is_stopping = True
        for task in tuple(self._tasks):
            task.cancel()

    def ended(self) -> HttpError | None:
        """The error that a cancelled stream sends to its client; None when the client has left."""
        task = asyncio.current_task()
        if not self._is_stopping or task is None:
            return None
        task.uncancel()
        return overloaded("this node stops; connect to another one with the last event id")

    @contextmanager
    def held_back(self, outlet: Outlet, size: int) -> Iterator[None]:
        """For as long as a client does not take `size` bytes."""
        self._held_back[outlet] = size
        self.unsent_bytes += size
        while self.unsent_bytes > self._unsent_bytes_max and len(self._held_back) > 1:
            longest = next(iter(self._held_back))
            self._forget(longest)
            longest.cut_off()
        try:
            yield
        finally:
            self._forget(outlet)

    def _forget(self, outlet: Outlet) -> None:
        self.unsent_bytes -= self._held_back.pop(outlet, 0)


class Outlet:
    """The client's side of one stream. `write` returns when the next piece may be written."""

    def __init__(self, streams: Streams, request: web.Request) -> None:
        self._streams = streams
        self._request = request

    async def write(self, data: bytes) -> None:
        """Raises ConnectionError when the client has gone."""
        if not data:
            return
        writer = cast(StreamWriter, self._request.writer)
        await writer.write(data, drain=False)
        protocol = self._request.protocol
        if protocol.writing_paused and protocol.transport is not None:
            with self._streams.held_back(self, protocol.transport.get_write_buffer_size()):
                await writer.drain()

    def cut_off(self) -> None:
        """Ends the connection: the client takes nothing, and others need the room."""
        transport = self._request.transport
        if transport is not None:
            transport.abort()
