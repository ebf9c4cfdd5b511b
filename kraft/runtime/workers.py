"""Worker threads for calls that wait for a device (fsync, recovery, deletion), so that the event loop never does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

WAITING_MAX = 4096
"""Calls given to the threads and not finished; one more waits on the event loop for its turn."""


class ThreadWorkers:
    """Bound to one event loop. Work that has started runs to its end even if its caller is cancelled."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, threads: int, name: str = "worker") -> None:
        self._loop = loop
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)
        self._turns = asyncio.Semaphore(WAITING_MAX)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        async with self._turns:
            return await self._loop.run_in_executor(self._executor, partial(function, *args, **kwargs))

    def close(self) -> None:
        """Waits for what has started; what has not is dropped."""
        self._executor.shutdown(wait=True, cancel_futures=True)
