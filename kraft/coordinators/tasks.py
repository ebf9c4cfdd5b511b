"""Tasks of one owner: kept while they run, reported when they fail, cancelled when the owner stops."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Tasks:
    def __init__(self, owner: str) -> None:
        """`owner` names, in the report of a failure, what the tasks belong to."""
        self._owner = owner
        self._running: set[asyncio.Task[None]] = set()

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            task.get_loop().call_exception_handler({"message": f"a task of {self._owner} failed", "exception": error})

    def cancel(self) -> None:
        for task in self._running:
            task.cancel()
