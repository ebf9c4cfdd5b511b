"""Checks whether the target of a proxy listens, so that the proxy refuses connections when its target does.

A refused connection proves that the target does not listen; then its port is checked every `POLL_MS`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import Final

POLL_MS: Final = 16
AGAIN_MS: Final = 3
"""A dying process closes its sockets one by one, so that a first look may still find the listener."""
CONNECT_TIMEOUT_MS: Final = 200
"""A stopped process with a full queue of connections does not answer; it does not refuse either."""
RESET: Final = struct.pack("ii", 1, 0)


class Target:
    def __init__(self, loop: asyncio.AbstractEventLoop, host: str, port: int) -> None:
        self._loop = loop
        self.host, self.port = host, port
        self.is_up = False
        self._watchers: list[Callable[[], None]] = []
        self._looking: asyncio.Task[None] | None = None
        self._polling: asyncio.Task[None] | None = None

    def watch(self, watcher: Callable[[], None]) -> None:
        """`watcher` is called at each change of `is_up`."""
        self._watchers.append(watcher)

    async def first_look(self) -> None:
        """Check the target for the first time; then `is_up` is valid."""
        if not self.is_up and self._polling is None:
            self.is_up = not await self._is_refused()
            if not self.is_up and self._polling is None:
                self._polling = self._loop.create_task(self._poll())

    async def check(self) -> None:
        """Somebody knows that the target has just come or gone: Check the target for the first time; then `is_up` is
        valid."""
        if self.is_up:
            await self.look()
        elif not await self._is_refused() and not self.is_up:
            self._set(True)

    def refused(self) -> None:
        """A connection was refused just now."""
        if self.is_up:
            self._set(False)
            self._polling = self._loop.create_task(self._poll())

    async def look(self) -> None:
        """A connection broke: check the target."""
        if self._looking is None or self._looking.done():
            self._looking = self._loop.create_task(self._look())
        await asyncio.shield(self._looking)

    async def close(self) -> None:
        tasks = [task for task in (self._looking, self._polling) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        for pause_ms in (0, AGAIN_MS):
            await asyncio.sleep(pause_ms / 1000)
            if not self.is_up or await self._is_refused():
                self.refused()
                return

    async def _poll(self) -> None:
        while not self.is_up and await self._is_refused():  # noqa: ASYNC110 - there is no event when a process listens
            await asyncio.sleep(POLL_MS / 1000)
        if not self.is_up:
            self._set(True)

    async def _is_refused(self) -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            with contextlib.suppress(TimeoutError):
                try:
                    async with asyncio.timeout(CONNECT_TIMEOUT_MS / 1000):
                        await self._loop.sock_connect(probe, (self.host, self.port))
                except OSError as error:
                    return not isinstance(error, TimeoutError)
        return False

    def _set(self, is_up: bool) -> None:
        self.is_up = is_up
        for watcher in self._watchers:
            watcher()
