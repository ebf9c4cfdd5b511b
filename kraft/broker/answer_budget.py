"""Memory of the answers of a node: of those that are made and wait, and those that clients have not taken.

A read of the log asks for room before it reads, and takes no more than half of what is free, so that a few that ask
for much leave room for others. With less than one `PIECE_BYTES` free, a read waits in line. An answer that is made
counts whatever its size, until its client has taken it or gone.
Invariant: what is held is at most the limit and, beyond it, one batch (the first of an answer comes whole, KIP-74) and
the answers that are no reads.
"""

from __future__ import annotations

import asyncio
from collections import deque

from metadata.environment import Clock

PIECE_BYTES = 1024 * 1024
"""Room for less is room for nothing: a batch as large as producers send by default fits."""


class AnswerBudget:
    """At most `limit` bytes (`queued.max.response.bytes`); an answer that finds no room waits, first come, first
    served."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._piece = min(PIECE_BYTES, limit)
        self._held = 0
        self._line: deque[asyncio.Future[bool]] = deque()

    @property
    def limit(self) -> int:
        """The bytes of `queued.max.response.bytes`."""
        return self._limit

    @property
    def held(self) -> int:
        """Bytes of answers now, and of room that was promised."""
        return self._held

    @property
    def is_waited_for(self) -> bool:
        """Somebody finds no room."""
        return bool(self._line)

    def room(self) -> int:
        """The bytes that one answer may read now; 0 when it has to wait."""
        free = self._limit - self._held
        return max(free >> 1, self._piece) if free >= self._piece else 0

    def has_room(self) -> bool:
        """Nobody waits, and a read that begins now gets something."""
        return not self._line and self._limit - self._held >= self._piece

    def hold(self, size: int) -> None:
        """An answer of so many bytes is there."""
        self._held += size

    def give_back(self, size: int) -> None:
        """Its client has taken it, or is gone."""
        self._held -= size
        assert self._held >= 0, self._held
        if self._line:
            self.admit()

    def admit(self) -> None:
        """Lets in those who wait and fit now. To be called when who has waited has read."""
        while self._line and self._limit - self._held >= self._piece:
            turn = self._line.popleft()
            if not turn.done():
                self._held += self._piece
                turn.set_result(True)

    async def wait(self, clock: Clock, *, ms_max: int) -> None:
        """Until it is the caller's turn, or the time is over. There is room when it returns, unless the time was over:
        the caller reads without waiting for anything else, and calls `admit`.
        """
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        timer = clock.call_later(ms_max, self._give_up, turn)
        try:
            if await turn:
                self._held -= self._piece
        except asyncio.CancelledError:
            if turn.cancelled():
                self._give_up(turn)
            elif turn.result():
                self.give_back(self._piece)
            raise
        finally:
            timer.cancel()

    def _give_up(self, turn: asyncio.Future[bool]) -> None:
        if turn in self._line:
            self._line.remove(turn)
        if not turn.done():
            turn.set_result(False)
