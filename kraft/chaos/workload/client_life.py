"""What all clients of a story have in common: links that are opened first, a task that runs, and its end."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

from kraft.chaos.workload.counts import Counts


class Links(Protocol):
    async def open(self, nodes: Sequence[int]) -> None: ...
    async def close(self) -> None: ...


class ClientLife(ABC):
    def __init__(self, name: str, links: Links, nodes: Sequence[int]) -> None:
        self.counts = Counts()
        self.is_silent = False
        self._name = name
        self._links = links
        self._nodes = nodes
        self._running: asyncio.Task[None] | None = None
        self._is_ending = asyncio.Event()
        self._operations = 0

    @abstractmethod
    async def _live(self) -> None:
        """Runs until `_is_ending` is set, or until nothing is left to do."""

    async def open(self) -> None:
        """Open the links. No request is sent yet."""
        await self._links.open(self._nodes)

    async def start(self) -> None:
        assert self._running is None, f"{self._name} was started twice"
        self._running = asyncio.get_running_loop().create_task(self._run(), name=self._name)

    async def finish(self) -> None:
        """Begin nothing new; returns when the last answer has arrived or timed out."""
        self._is_ending.set()
        if self._running is not None and not self.is_silent:
            await self._running

    async def silence(self) -> None:
        """End as a killed process does: in the middle of its work."""
        self.is_silent = True
        await self.close()
        self.counts.is_done = True

    async def close(self) -> None:
        """End at once. Requests in flight are not recorded."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await self._links.close()

    async def _run(self) -> None:
        try:
            await self._live()
        finally:
            self.counts.is_done = True

    async def _pause(self, seconds: float) -> None:
        """Ends early when the client is to finish."""
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._is_ending.wait()
        except TimeoutError:
            return

    def _next_index(self) -> int:
        """The number of the next operation in the history."""
        self._operations += 1
        return self._operations - 1
