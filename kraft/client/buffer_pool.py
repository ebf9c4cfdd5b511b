"""BufferPool for records: buffer.memory, and the turns of those who wait for some of it.

The first caller gets room first: a large record is not overtaken for ever by small ones.
"""

from __future__ import annotations

import asyncio
from collections import deque

from kraft.client.clock import Clock
from kraft.client.errors import BufferExhausted, ClientClosed
from kraft.client.settings import ProducerSettings


class BufferPool:
    def __init__(self, settings: ProducerSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._turns: deque[asyncio.Event] = deque()
        self._is_closed = False
        self.used = 0

    def take_now(self, size: int) -> bool:
        """Whether there was room, and nobody waits for it."""
        if self._turns or not self._fits(size):
            return False
        self.used += size
        return True

    async def take(self, size: int) -> None:
        """In turn. Raises BufferExhausted after max.block.ms, ClientClosed when the producer is closed meanwhile."""
        settings = self._settings
        if size > settings.buffer_memory:
            raise BufferExhausted(f"a record of {size} bytes never fits buffer.memory={settings.buffer_memory}")
        turn = asyncio.Event()
        self._turns.append(turn)
        try:
            async with self._clock.timeout(settings.max_block_ms):
                while not self._is_closed and (self._turns[0] is not turn or not self._fits(size)):
                    turn.clear()
                    await turn.wait()
        except TimeoutError:
            used = f"{self.used} of buffer.memory={settings.buffer_memory} are in use"
            limit = f"max.block.ms={settings.max_block_ms}"
            raise BufferExhausted(f"no room for the record within {limit}: {used}") from None
        else:
            if self._is_closed:
                raise ClientClosed("the producer was closed while the record waited for room; it was not taken")
            self.used += size
        finally:
            self._turns.remove(turn)
            self._wake_first()

    def release(self, size: int) -> None:
        assert size <= self.used, (size, self.used)
        self.used -= size
        self._wake_first()

    def close(self) -> None:
        """Those who wait get no room any more."""
        self._is_closed = True
        for turn in self._turns:
            turn.set()

    def _fits(self, size: int) -> bool:
        return self.used + size <= self._settings.buffer_memory

    def _wake_first(self) -> None:
        if self._turns:
            self._turns[0].set()
