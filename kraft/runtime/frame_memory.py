"""Memory for frames that are arriving: the total of all connections of a listener, and the order in which they get
more.

Any client may announce a frame as long as the limit. Memory is granted in steps while its bytes arrive, so an
announcement alone costs one step at most. When all of it is taken, a connection that needs more waits in line and is
held back by TCP. Frames that have begun precede new ones, and the oldest of them gets the memory that it needs even
beyond the limit, so that half-received frames cannot block each other. While one waits, a frame that is slower than
`SLOWEST_BYTES` per `LOOK_MS` loses its connection: no client keeps others out by sending nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Protocol

LOG = logging.getLogger(__name__)

STEP_BYTES = 2 * 1024 * 1024
"""A produce of one whole batch of 1 MiB fits into one step."""
LOOK_MS = 1_000
SLOWEST_BYTES = 64 * 1024


class Arriving(Protocol):
    """A connection, as far as its arriving frame is concerned."""

    @property
    def peer(self) -> str: ...
    @property
    def arrived(self) -> int | None:
        """Bytes of the arriving frame; None when there is none."""
        ...

    def granted(self, size: int) -> None:
        """More memory was granted: reading may continue."""
        ...

    def abort(self) -> None: ...


class ArrivingFrames:
    def __init__(self, loop: asyncio.AbstractEventLoop, *, bytes_max: int) -> None:
        self._loop = loop
        self._bytes_max = bytes_max
        self._taken = 0
        self._held: dict[Arriving, int] = {}
        """Connection -> granted bytes, in the order in which their frames began."""
        self._line: deque[tuple[Arriving, int]] = deque()
        """Frames that have begun, then those that have not, each in the order of arrival."""
        self._look: asyncio.TimerHandle | None = None
        self._seen: dict[Arriving, int] = {}
        """Bytes that had arrived at the last look."""

    @property
    def taken(self) -> int:
        return self._taken

    def ask(self, connection: Arriving, size: int) -> bool:
        """Ask for memory. False: the connection waits in line, and `granted` is called."""
        has_begun = connection in self._held
        if (has_begun or not self._line) and self._fits(connection, size):
            self._give(connection, size)
            return True
        place = sum(each in self._held for each, _ in self._line) if has_begun else len(self._line)
        self._line.insert(place, (connection, size))
        if self._look is None:
            self._seen = {}
            self._look = self._loop.call_later(LOOK_MS / 1_000, self._end_the_slow)
        return False

    def give_back(self, connection: Arriving, *, keep: int = 0) -> None:
        """Return all memory that it holds beyond `keep`."""
        held = self._held.pop(connection, 0)
        kept = min(held, keep)
        if kept:
            self._held[connection] = kept
        self._taken -= held - kept
        self._admit()

    def leave(self, connection: Arriving) -> None:
        """Return all memory and wait no more."""
        self._line = deque(waiting for waiting in self._line if waiting[0] is not connection)
        self.give_back(connection)

    def _fits(self, connection: Arriving, size: int) -> bool:
        if self._taken + size <= self._bytes_max:
            return True
        on_its_way = (each for each in self._held if each.arrived is not None)
        return next(on_its_way, connection) is connection

    def _give(self, connection: Arriving, size: int) -> None:
        self._taken += size
        self._held[connection] = self._held.get(connection, 0) + size

    def _admit(self) -> None:
        while (place := self._next_place()) is not None:
            connection, size = self._line[place]
            del self._line[place]
            self._give(connection, size)
            connection.granted(size)

    def _next_place(self) -> int | None:
        """The place in the line that gets memory now: the first, or the oldest frame wherever it is."""
        if self._line and self._fits(*self._line[0]):
            return 0
        oldest = next((each for each in self._held if each.arrived is not None), None)
        return next((place for place, (each, _) in enumerate(self._line) if each is oldest), None)

    def _end_the_slow(self) -> None:
        self._look = None
        if not self._line:
            return
        waiting = {connection for connection, _ in self._line}
        arrived = {each: each.arrived for each in self._held}
        slow = [
            each
            for each, now in arrived.items()
            if each not in waiting and now is not None and now - self._seen.get(each, now) < SLOWEST_BYTES
            if each in self._seen
        ]
        self._seen = {each: now for each, now in arrived.items() if now is not None}
        for connection in slow:
            LOG.warning("closing %s: its frame is too slow while others wait for memory", connection.peer)
            connection.abort()
        if self._line:
            self._look = self._loop.call_later(LOOK_MS / 1_000, self._end_the_slow)
