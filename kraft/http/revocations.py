"""Requests that wait end soon after the login or the ACL that allowed them has gone.

A client that asks next is checked as always; this is for one that has asked and waits: streams and long polls. What
writes is not interrupted: Kafka, too, finishes what it has begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import Final

from kraft.http.errors import HttpError
from kraft.protocol.errors import KafkaError
from metadata.environment import Clock, TimerHandle

UNWATCHED: Final = nullcontext()
"""For a request whose permission cannot go: of a cluster without logins and ACLs."""
LOOK_MS = 500
"""How often what waits is checked again."""


class Wait:
    """A context manager: for as long as the current task waits in it, `check` is called now and then. The HttpError or
    KafkaError that it raises ends the wait, and is raised by the context. Not a generator: each read enters one."""

    __slots__ = ("_check", "_error", "_owner", "_task")

    def __init__(self, owner: Revocations, check: Callable[[], object]) -> None:
        self._owner, self._check = owner, check
        self._task: asyncio.Task[object] | None = None
        self._error: Exception | None = None

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._owner.add(self)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        del self._owner.waits[self]
        if self._error is not None:
            assert self._task is not None
            self._task.uncancel()
            if kind is asyncio.CancelledError:
                raise self._error from None

    def look(self) -> None:
        """Calls `check`, and ends the wait if it raises."""
        if self._error is None:
            try:
                self._check()
            except (HttpError, KafkaError) as error:
                assert self._task is not None, "a task waits"
                self._error = error
                self._task.cancel()


class Revocations:
    """All that waits at one node, and the check that allowed each of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.waits: dict[Wait, None] = {}
        self._timer: TimerHandle | None = None

    def watching(self, check: Callable[[], object]) -> Wait:
        """A wait that ends soon after `check` raises HttpError or KafkaError."""
        return Wait(self, check)

    def add(self, wait: Wait) -> None:
        """A task begins to wait."""
        self.waits[wait] = None
        if self._timer is None:
            self._timer = self._clock.call_later(LOOK_MS, self._look)

    def _look(self) -> None:
        self._timer = self._clock.call_later(LOOK_MS, self._look) if self.waits else None
        for wait in list(self.waits):
            wait.look()
