"""A limit on what is held at once, bytes or places; whoever would exceed it waits in line.

Invariant: what is taken is at most the limit, except for one holder that alone is larger.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Budget:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def taken(self) -> int:
        return self._taken

    def try_take(self, size: int) -> bool:
        """False when it does not fit, or others wait in line."""
        taken = self._taken
        if self._line or (taken and taken + size > self._limit):
            return False
        self._taken = taken + size
        return True

    async def take(self, size: int) -> None:
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
