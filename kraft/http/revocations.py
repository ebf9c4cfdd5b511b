"""Requests that wait end soon after the login or the ACL that allowed them has gone.

A client that asks next is checked as always; this is for one that has asked and waits: streams and long polls. What
writes is not interrupted: Kafka, too, finishes what it has begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kraft.http.errors import HttpError
from kraft.protocol.errors import KafkaError
from metadata.environment import Clock, TimerHandle

LOOK_MS = 500
"""How often what waits is checked again."""


class _Wait:
    __slots__ = ("check", "error", "task")

    def __init__(self, task: asyncio.Task[object], check: Callable[[], object]) -> None:
        self.task, self.check = task, check
        self.error: Exception | None = None


class Revocations:
    """All that waits at one node, and the check that allowed each of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waits: dict[_Wait, None] = {}
        self._timer: TimerHandle | None = None

    @contextmanager
    def watching(self, check: Callable[[], object]) -> Iterator[None]:
        """For as long as the current task waits: `check` is called now and then, and the HttpError or KafkaError that
        it raises ends the wait and is raised here."""
        task = asyncio.current_task()
        assert task is not None, "a task waits"
        wait = _Wait(task, check)
        self._waits[wait] = None
        if self._timer is None:
            self._timer = self._clock.call_later(LOOK_MS, self._look)
        try:
            yield
        except asyncio.CancelledError:
            if wait.error is None:
                raise
            raise wait.error from None
        finally:
            del self._waits[wait]
            if wait.error is not None:
                task.uncancel()

    def _look(self) -> None:
        self._timer = self._clock.call_later(LOOK_MS, self._look) if self._waits else None
        for wait in [each for each in self._waits if each.error is None]:
            try:
                wait.check()
            except (HttpError, KafkaError) as error:
                wait.error = error
                wait.task.cancel()
