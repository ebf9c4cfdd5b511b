"""A limit on what is held at once, bytes or places; a caller that would exceed it waits in line.

Invariant: what is taken is at most the limit, except for one holder that alone is larger.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Budget:
    """At most `limit` units (bytes or places) are held at once; a caller that would exceed it waits, first come,
    first served."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def taken(self) -> int:
        """The units that are held now."""
        return self._taken

    def try_take(self, size: int) -> bool:
        """Takes `size` units and returns True; False, and nothing is taken, when they do not fit or others wait."""
        taken = self._taken
        if self._line or (taken and taken + size > self._limit):
            return False
        self._taken = taken + size
        return True

    async def take(self, size: int) -> None:
        """Takes `size` units, waiting in line until they fit. A size above the limit fits when nothing else is held. A
        cancelled wait takes nothing.
        """
        if self.try_take(size):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(size)
            elif (size, turn) in self._line:
                self._line.remove((size, turn))
                self._admit()
            raise

    def give_back(self, size: int) -> None:
        """Returns `size` units, and lets in those who wait and fit now."""
        self._taken -= size
        assert self._taken >= 0, self._taken
        if self._line:
            self._admit()

    def _admit(self) -> None:
        while self._line and self._fits(self._line[0][0]):
            size, turn = self._line.popleft()
            if not turn.cancelled():
                self._taken += size
                turn.set_result(None)

    def _fits(self, size: int) -> bool:
        return self._taken == 0 or self._taken + size <= self._limit
