"""The loop of the Raft half: its own thread in production, the node's own loop in a simulation.

The quorum has two halves. The Raft half (`engine`) writes and fsyncs in line, so it must not share a loop with
requests; the other half (`raft_log`) belongs to the node's main loop. They meet only here: `call` runs a function on
the Raft loop, `call_main` on the main loop, both in order and without waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol


class QuorumHost(Protocol):
    def start(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin to run `main` on the Raft loop. Called once, on the main loop."""
        ...

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Run `function` soon on the Raft loop; dropped when that loop has ended. Callable from the main loop."""
        ...

    def call_main(self, function: Callable[..., object], *args: object) -> None:
        """Run `function` soon on the main loop; dropped when that loop has ended. Callable from the Raft loop."""
        ...

    async def stop(self) -> None:
        """Wait until `main` has returned. The caller has already asked it to."""
        ...


class InlineHost:
    """Both halves on the loop that calls `start`."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        assert self._task is None, "a host is started once"
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(main())

    def call(self, function: Callable[..., object], *args: object) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon(function, *args)

    call_main = call

    async def stop(self) -> None:
        if self._task is not None:
            await self._task
