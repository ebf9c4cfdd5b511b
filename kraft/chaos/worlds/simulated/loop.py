"""The virtual-time event loop: no selector, no threads, no real clock.

Time does not change while a callback is ready, then jumps to the next timer. Callbacks run in the order in which they
became ready, timers of one instant in the order in which they were set. Invariant: with the same program and seed,
callbacks run in the same order in every process, whatever PYTHONHASHSEED is; tasks and futures therefore hash by
number, not by address.

A callback belongs to the simulated process in whose context it was scheduled. Callbacks of a killed process never
run again (no `finally` either, as with SIGKILL); those of a paused one wait (as with SIGSTOP).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import itertools
import math
import signal
import threading
import traceback
import weakref
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextvars import copy_context
from dataclasses import dataclass, field
from heapq import heappop, heappush
from types import CodeType, FrameType
from typing import Any

STEPS_PER_INSTANT_MAX = 1_000_000
"""More callbacks than this at one instant, or more rounds of timers, are an endless loop."""
CANCEL_S = 60
"""Virtual time for what is cancelled at the limit of virtual time."""
TASKS_NAMED = 10
"""Tasks that the error at this limit names."""
RESOLUTION_S = 1e-9
TASKS_REMEMBERED = 1_000
"""Finished tasks are removed when there are so many of them, or twice as many as running ones."""


@dataclass(slots=True, eq=False)
class Process:
    """A simulated operating system process; `is_alive` never turns true again."""

    name: str
    is_alive: bool = True
    is_paused: bool = False
    is_hanging: bool = False
    """The main loop is paused; tasks beside it (`BESIDE`) continue."""
    held: list[_Ready] = field(default_factory=list)

    def stands_still(self, context: contextvars.Context) -> bool:
        return self.is_paused and not (self.is_hanging and context.get(BESIDE, False))


BESIDE: contextvars.ContextVar[bool] = contextvars.ContextVar("beside", default=False)
"""True in contexts that run on another thread in production: the Raft part of a voter, and its watchdog."""
PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class Deadlock(AssertionError):
    """Nothing is scheduled, and the awaited result is missing: a task waits for ever."""


class Livelock(AssertionError):
    """Time does not advance, because callbacks always schedule callbacks or one of them does not end; or it advances
    beyond all measure, because a task retries for ever."""


_Ready = tuple[Callable[..., object] | None, Any, contextvars.Context]
"""A callback that is due, its arguments, and the context that it runs in; or None and a handle that has both, unless it
was cancelled since."""


class _Handle:
    """The part of a handle that asyncio uses, and no more: a run has hundreds of thousands."""

    __slots__ = ("_args", "_callback", "_when", "context")

    def __init__(self, callback: Any, args: Any, context: contextvars.Context, when: float = 0.0) -> None:
        self._callback = callback
        self._args = args
        self._when = when
        self.context = context

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        self._callback = self._args = None

    def cancelled(self) -> bool:
        return self._callback is None


class _Task(asyncio.Task[Any]):
    """Hashes by number, so that sets of tasks (TaskGroup, asyncio.wait) iterate in the same order in each run."""

    process: Process | None
    number: int

    def __hash__(self) -> int:
        return self.number


def _let_loops_know_their_tasks() -> None:
    """asyncio remembers every task of every loop in one set written in Python, which takes longer than making the
    task. Those of a virtual loop are kept out of it; that of all others stays as it is."""
    name = "_all_tasks" if hasattr(asyncio.tasks, "_all_tasks") else "_scheduled_tasks"  # since Python 3.12
    everybodys: Any = getattr(asyncio.tasks, name)
    if "add" in vars(everybodys):
        return
    add = everybodys.add

    def add_others(task: object) -> None:
        if type(task) is not _Task:
            add(task)

    everybodys.add = add_others


class _Future(asyncio.Future[Any]):
    """Gets its number at its first hash, in the same order in each run; few futures are ever hashed."""

    def __hash__(self) -> int:
        try:
            return self._number
        except AttributeError:
            loop = self.get_loop()
            assert isinstance(loop, VirtualLoop)
            self._number: int = next(loop.numbers)
            return self._number


class VirtualLoop(asyncio.BaseEventLoop):
    def __init__(self) -> None:
        super().__init__()
        _let_loops_know_their_tasks()
        self._now = 0.0
        self.now_us = 0
        self._rounds = 0
        """Rounds of timers since the last change of time."""
        self.numbers = itertools.count(1)
        self._queue: deque[_Ready] = deque()
        self._timers: list[tuple[float, int, _Handle]] = []
        self._outside = contextvars.Context()
        """The context outside of all processes; no variable is set in it."""
        self._tasks: list[weakref.ref[_Task]] = []
        self._tasks_max = TASKS_REMEMBERED
        self._buried: list[asyncio.Task[Any]] = []
        self.step_s_max = STEP_S_MAX
        """The limit of processor time of one step."""
        self.s_max = math.inf
        """The limit of virtual time. A run that knows how long it may last sets it."""
        self.failures: list[dict[str, Any]] = []
        """Uncaught exceptions: contexts of the exception handler. A simulation must end with none."""
        # Each future is made by the one and asks the other; methods of ours would cost more than the future.
        self.create_future = functools.partial(_Future, loop=self)  # type: ignore[method-assign]
        self.get_debug = bool  # type: ignore[method-assign]
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    # Time

    def time(self) -> float:
        return self._now

    def _advance(self) -> None:
        """Jump to the next active timer; all due timers become ready."""
        timers = self._timers
        while timers and timers[0][2]._callback is None:
            heappop(timers)
        if not timers:
            raise Deadlock(f"nothing is scheduled at {self.now_us} us, and the awaited result is not there")
        when = timers[0][0]
        if when > self.s_max:
            self._give_up()
        if when > self._now:
            self._now, self._rounds = when, 0
            self.now_us = round(when * 1_000_000)
        self._rounds += 1
        if self._rounds > STEPS_PER_INSTANT_MAX:
            raise Livelock(f"{self._rounds} rounds of timers at {self.now_us} us without time moving on")
        until = self._now + RESOLUTION_S
        while timers and timers[0][0] < until:
            handle = heappop(timers)[2]
            self._queue.append((None, handle, handle.context))

    def _give_up(self) -> None:
        """Raises Livelock, with what still runs outside of all processes. Then there is time to cancel it."""
        running = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in self._tasks_of(None))
        limit_s, self.s_max = self.s_max, self.s_max + CANCEL_S
        text = ", ".join(f"{count} x {name}" for name, count in running.most_common(TASKS_NAMED))
        raise Livelock(f"no end within {limit_s:.0f} s of virtual time; there run {text}")

    # Scheduling

    def run_forever(self) -> None:
        """Raises Livelock, with its stack, for a step that does not end."""
        try:
            with no_endless_step(VirtualLoop._run_ready.__code__, "ready", step_s_max=self.step_s_max):
                super().run_forever()
        except EndlessStep as found:
            raise Livelock(f"at {self.now_us} us {found}") from None

    def _run_once(self) -> None:
        """Run until the loop is stopped: all ready callbacks and those that they add, then the next timers."""
        while True:
            self._run_ready()
            if self._stopping:  # type: ignore[attr-defined]
                return
            self._advance()

    def _run_ready(self) -> None:
        """A callback of a dead process is dropped, one of a paused process is held back."""
        queue, take = self._queue, self._queue.popleft
        for _ in range(STEPS_PER_INSTANT_MAX):
            if not queue or self._stopping:  # type: ignore[attr-defined]
                return
            ready = take()
            callback, args, context = ready
            process = context.get(PROCESS)
            if process is not None and (process.is_paused or not process.is_alive):
                if not process.is_alive:
                    continue
                if process.stands_still(context):
                    process.held.append(ready)
                    continue
            if callback is None:
                callback, args = args._callback, args._args
                if callback is None:
                    continue
            try:
                context.run(callback, *args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - as asyncio's own handles do
                self.call_exception_handler({"message": f"exception in {callback!r}", "exception": error})
        raise Livelock(f"{STEPS_PER_INSTANT_MAX} callbacks at {self.now_us} us without time moving on")

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        handle = _Handle(callback, args, copy_context() if context is None else context, when)
        heappush(self._timers, (when, next(self.numbers), handle))
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        """Tasks and futures give a context, and never cancel: they get no handle."""
        if context is not None:
            self._queue.append((callback, args, context))
            return None
        handle = _Handle(callback, args, copy_context())
        self._queue.append((None, handle, handle.context))
        return handle

    def create_task(self, coroutine: Any, *, name: Any = None, context: Any = None) -> _Task:
        if context is None:
            context = copy_context()
        task = _Task(coroutine, loop=self, context=context)
        task.number = next(self.numbers)
        task.process = context.get(PROCESS)
        if name is not None:
            task.set_name(name)
        if len(self._tasks) >= self._tasks_max:
            self._tasks = [ref for ref in self._tasks if ref() is not None]
            self._tasks_max = max(TASKS_REMEMBERED, 2 * len(self._tasks))
        self._tasks.append(weakref.ref(task))
        return task

    def _tasks_of(self, process: Process | None) -> list[_Task]:
        """The running tasks of a process, in the order of their creation."""
        tasks = [task for ref in self._tasks if (task := ref()) is not None]
        return [task for task in tasks if task.process is process and not task.done()]

    # Processes

    def spawn(
        self, process: Process | None, coroutine: Coroutine[Any, Any, Any], *, is_beside: bool = False
    ) -> asyncio.Task[Any]:
        """Create a task in the process; its own tasks belong to the process too. None: outside of all processes."""
        context = copy_context()
        context.run(PROCESS.set, process)
        context.run(BESIDE.set, is_beside)
        return self.create_task(coroutine, context=context)

    def outside(self, callback: Callable[..., object], *args: object, delay_us: int = 0) -> _Handle:
        """Call back from outside of all processes (the network, the disk)."""
        handle: _Handle = self.call_at(self._now + delay_us / 1_000_000, callback, *args, context=self._outside)
        return handle

    def kill(self, process: Process) -> None:
        process.is_alive = False
        self._bury(self._tasks_of(process))
        process.held.clear()  # last: a task that was cancelled while it slept is held by nothing else

    def _bury(self, tasks: Iterable[_Task]) -> None:
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            self._buried.append(task)

    def pause(self, process: Process) -> None:
        process.is_paused, process.is_hanging = True, False

    def hang(self, process: Process) -> None:
        """The main loop hangs; tasks beside it continue."""
        process.is_paused = process.is_hanging = True

    def resume(self, process: Process) -> None:
        process.is_paused = process.is_hanging = False
        self._queue.extend(process.held)
        process.held.clear()

    def cancel_outside(self) -> None:
        """Cancel what runs outside all processes, and wait for it."""
        tasks = self._tasks_of(None)
        for task in tasks:
            task.cancel()
        if tasks:
            self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    # What the base class asks of a loop with sockets

    def _write_to_self(self) -> None:
        raise AssertionError("a thread called into the simulated loop; simulated code has no threads")

    def _asyncgen_finalizer_hook(self, generator: Any) -> None:
        """Close an abandoned generator, as asyncio does; generators of dead processes stay."""
        self._asyncgens.discard(generator)  # type: ignore[attr-defined]
        if self.is_running():
            self.create_task(generator.aclose())

    def close(self) -> None:
        # A `finally` of what is closed may gather or begin a task. It needs a running loop, else the coroutine that it
        # has made for the task is lost, and the garbage collector warns of it.
        asyncio._set_running_loop(self)
        try:
            self._close_buried()
        finally:
            asyncio._set_running_loop(None)
        super().close()

    def __del__(self, _warn: object = None) -> None:
        """The base class warns of sockets left open; there are none."""

    def _close_buried(self) -> None:
        """Close coroutines of killed processes here, and not when the garbage collector finds them; also those of the
        tasks that a `finally` begins meanwhile."""
        while self._buried:
            buried, self._buried = sorted(self._buried, key=hash), []
            before = set(self._tasks_of(None))
            for task in buried:
                coroutine = task.get_coro()
                with contextlib.suppress(BaseException):  # A dead process's `finally` may do anything.
                    coroutine.close()
            self._bury(task for task in self._tasks_of(None) if task not in before)


# --- a step without an end --------------------------------------------------------------------------------------------

STEP_S_MAX = 20.0
"""Processor time of one step. The longest steps of the longest runs take a second."""
LOOKS = 8
"""The number of checks in that time."""


class EndlessStep(KeyboardInterrupt):
    """A step of the virtual loop never ends: a limit of processor time finds it, and the exception has its stack.

    Virtual time does not change during a step, so a loop around an await that does not suspend would hang a run for
    ever. The time is the processor's (`ITIMER_PROF`) and not the wall's: a busy machine makes no step longer. Tasks let
    an interrupt through to the loop, and no `except Exception` on the way takes it.
    """


class _Look:
    """The step at the last check, and the number of checks with the same step."""

    def __init__(self, loop_code: CodeType, step_name: str) -> None:
        self._loop_code = loop_code
        self._step_name = step_name
        self._step: object = None
        self._seen = 0

    def __call__(self, _number: int, frame: FrameType | None) -> None:
        stack = list(traceback.walk_stack(frame))
        at = next((i for i, (each, _) in enumerate(stack) if each.f_code is self._loop_code), None)
        step = None if at is None else stack[at][0].f_locals.get(self._step_name)
        self._seen = self._seen + 1 if step is not None and step is self._step else 0
        self._step = step
        if self._seen >= LOOKS:
            self._seen = 0  # a step that continues is interrupted again
            lines = traceback.StackSummary.extract(reversed(stack[:at]), limit=None).format()
            raise EndlessStep("a step that does not end:\n" + "".join(lines))


@contextlib.contextmanager
def no_endless_step(loop_code: CodeType, step_name: str, *, step_s_max: float) -> Iterator[None]:
    """Raises EndlessStep inside a step that takes longer. `loop_code`: of the function that runs one step after the
    other, each in its variable `step_name`. Only the main thread gets signals: any other one is not watched."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGPROF, _Look(loop_code, step_name))
    every_s = step_s_max / LOOKS
    timer = signal.setitimer(signal.ITIMER_PROF, every_s, every_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, *timer)
        signal.signal(signal.SIGPROF, before)
