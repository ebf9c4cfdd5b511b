"""Worker threads for record work that is too large for the event loop: some pieces at once, the others wait in line.

The cost of one piece has its own limit (`kraft.protocol.batches.budget`), so this limits the memory of all of it, and
leaves threads for flushes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from kraft.protocol.errors import ThrottlingQuotaExceeded
from metadata.environment import Workers

P = ParamSpec("P")
T = TypeVar("T")

AT_ONCE = 2
WAITING_MAX = 1_024
"""Pieces of work that wait, each with the bytes of its request; one more is refused with 89."""


class RecordWorkers:
    def __init__(self, workers: Workers, *, at_once: int = AT_ONCE) -> None:
        self._workers = workers
        self._turns = asyncio.Semaphore(at_once)
        self._waiting = 0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function` on a worker. Raises ThrottlingQuotaExceeded 89, or the error of `function`."""
        if self._waiting >= WAITING_MAX:
            raise ThrottlingQuotaExceeded(f"{WAITING_MAX} requests with many records wait already; try again")
        self._waiting += 1
        try:
            async with self._turns:
                return await self._workers.run(function, *args, **kwargs)
        finally:
            self._waiting -= 1
