"""Worker threads for calls that wait for a device (fsync, recovery, deletion), so that the event loop never does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

WAITING_MAX = 4096
"""Calls that were passed to the threads and are not finished; one more waits on the event loop."""


class ThreadWorkers:
    """Bound to one event loop. Work that has started runs to its end even if its caller is cancelled."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, threads: int, name: str = "worker") -> None:
        self._loop = loop
        self._name = name
        self._threads = threads
        self._executor = self._new_executor()
        self._retired: list[tuple[ThreadPoolExecutor, Future[None]]] = []
        """Earlier executors, each with its last call."""
        self._turns = asyncio.Semaphore(WAITING_MAX)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        async with self._turns:
            return await self._loop.run_in_executor(self._executor, partial(function, *args, **kwargs))

    def resize(self, threads: int) -> None:
        """Pass later calls to so many threads; the old threads finish earlier ones."""
        if threads == self._threads:
            return
        self._retired = [each for each in self._retired if not each[1].done()]
        self._retired.append((self._executor, self._executor.submit(_nothing)))
        self._executor.shutdown(wait=False)
        self._threads = threads
        self._executor = self._new_executor()

    def close(self) -> None:
        """Wait for the calls that have started; drop the others."""
        for executor, _ in (*self._retired, (self._executor, None)):
            executor.shutdown(wait=True, cancel_futures=True)

    def _new_executor(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=self._threads, thread_name_prefix=self._name)


def _nothing() -> None:
    """The last call of an executor."""
