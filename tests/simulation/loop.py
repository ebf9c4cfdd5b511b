"""The virtual-time event loop: no selector, no threads, no real clock.

Time stands still while anything is ready to run, then jumps to the next timer. Timers of one instant run in the
order in which they were set. Invariant: with the same program and seed, callbacks run in the same order in every
process, whatever PYTHONHASHSEED is; tasks and futures therefore hash by number, not by address.

A callback belongs to the simulated process in whose context it was scheduled. Callbacks of a killed process never
run again (no `finally` either, as with SIGKILL); those of a paused one wait (as with SIGSTOP).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

STEPS_PER_INSTANT_MAX = 1_000_000
"""More loop steps than this without time moving on is an endless loop."""


@dataclass(slots=True, eq=False)
class Process:
    """A simulated operating system process; `is_alive` never turns true again."""

    name: str
    is_alive: bool = True
    is_paused: bool = False
    held: list[asyncio.Handle] = field(default_factory=list)


PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class Deadlock(AssertionError):
    """Nothing is scheduled, yet the awaited result is not there: somebody waits for what never comes."""


class Livelock(AssertionError):
    """Callbacks keep scheduling callbacks, and time never moves on."""


class _Handle(asyncio.Handle):
    __slots__ = ()

    def _run(self) -> None:
        if _may_run(self):
            super()._run()


class _Timer(asyncio.TimerHandle):
    __slots__ = ("_number",)

    def __init__(self, number: int, when: float, callback: Any, args: Any, loop: Any, context: Any) -> None:
        super().__init__(when, callback, args, loop, context)
        self._number = number

    def __lt__(self, other: Any) -> bool:
        return (self._when, self._number) < (other._when, other._number)

    def _run(self) -> None:
        if _may_run(self):
            super()._run()


def _may_run(handle: Any) -> bool:
    process: Process | None = handle._context.get(PROCESS)
    if process is None:
        return True
    if process.is_alive and process.is_paused:
        process.held.append(handle)
    return process.is_alive and not process.is_paused


class _Task(asyncio.Task[Any]):
    """Hashes by number, so that sets of tasks (TaskGroup, asyncio.wait) iterate in the same order in each run."""

    def __init__(self, coroutine: Any, *, number: int, loop: Any, context: contextvars.Context) -> None:
        self._number = number
        self.process = context.get(PROCESS)
        super().__init__(coroutine, loop=loop, context=context)

    def __hash__(self) -> int:
        return self._number


class _Future(asyncio.Future[Any]):
    def __init__(self, *, number: int, loop: Any) -> None:
        self._number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class _NoSelector:
    """Stands where the base loop waits for sockets: waiting means that time jumps."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[Any]:
        self._loop.advance(timeout)
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._steps = 0
        self._numbers = itertools.count(1)
        self._selector = _NoSelector(self)
        self._clock_resolution = 1e-9
        self._buried: list[asyncio.Task[Any]] = []
        self.failures: list[dict[str, Any]] = []
        """What nobody caught: contexts given to the exception handler. A simulation must end with none."""
        self.set_task_factory(self._make_task)
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    # Time

    def time(self) -> float:
        return self._now

    @property
    def now_us(self) -> int:
        return round(self._now * 1_000_000)

    def advance(self, timeout: float | None) -> None:
        if timeout is None:
            raise Deadlock(f"nothing is scheduled at {self.now_us} us, and the awaited result is not there")
        if timeout > 0:
            self._now = max(self._now, self._scheduled[0]._when)
            self._steps = 0
        self._steps += 1
        if self._steps > STEPS_PER_INSTANT_MAX:
            raise Livelock(f"{self._steps} steps at {self.now_us} us without time moving on")

    # Scheduling

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        timer = _Timer(next(self._numbers), when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)
        timer._scheduled = True
        return timer

    def _call_soon(self, callback: Any, args: Any, context: Any) -> asyncio.Handle:
        handle = _Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        return self._call_soon(callback, args, context)

    def create_future(self) -> asyncio.Future[Any]:
        return _Future(number=next(self._numbers), loop=self)

    def _make_task(self, loop: Any, coroutine: Any, *, context: Any = None) -> _Task:
        context = contextvars.copy_context() if context is None else context
        return _Task(coroutine, number=next(self._numbers), loop=loop, context=context)

    # Processes

    def spawn(self, process: Process | None, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A task in the process; all that it starts belongs to the process too. None: the world outside."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, process)
        return self.create_task(coroutine, context=context)

    def outside(self, callback: Callable[..., object], *args: object, delay_us: int = 0) -> asyncio.TimerHandle:
        """Call back from the world outside all processes (the network, the disk)."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, None)
        return self.call_at(self._now + delay_us / 1_000_000, callback, *args, context=context)

    def kill(self, process: Process) -> None:
        process.is_alive = False
        process.held.clear()
        for task in asyncio.all_tasks(self):
            if isinstance(task, _Task) and task.process is process:
                task._log_destroy_pending = False
                self._buried.append(task)

    def pause(self, process: Process) -> None:
        process.is_paused = True

    def resume(self, process: Process) -> None:
        process.is_paused = False
        self._ready.extend(process.held)
        process.held.clear()

    def cancel_outside(self) -> None:
        """Cancel what runs outside all processes, and wait for it."""
        tasks = [t for t in asyncio.all_tasks(self) if isinstance(t, _Task) and t.process is None]
        for task in sorted(tasks, key=hash):
            task.cancel()
        if tasks:
            self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    # What the base class asks of a loop with sockets

    def _process_events(self, event_list: list[Any]) -> None:
        assert not event_list

    def _write_to_self(self) -> None:
        raise AssertionError("a thread called into the simulated loop; simulated code has no threads")

    def close(self) -> None:
        self._close_buried()
        super().close()

    def __del__(self, _warn: object = None) -> None:
        """The base class warns of sockets left open; there are none."""

    def _close_buried(self) -> None:
        """Close what killed processes left, here and not whenever the garbage collector finds it."""
        for task in sorted(self._buried, key=hash):
            coroutine = task.get_coro()
            with contextlib.suppress(BaseException):  # A dead process's `finally` may do anything.
                coroutine.close()
        self._buried.clear()
