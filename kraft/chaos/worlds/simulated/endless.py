"""A step of the virtual loop that never ends: found by the processor time that it takes, and told with its stack.

Virtual time stands still during a step, so a loop around an await that does not suspend would hang a run, and whoever
plays it, for good. The time is the processor's (`ITIMER_PROF`) and not the wall's: a busy machine makes no step longer.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import traceback
from collections.abc import Iterator
from types import CodeType, FrameType

STEP_S_MAX = 20.0
"""Processor time of one step. The longest steps of the longest runs take a second."""
LOOKS = 8
"""Within that time."""


class EndlessStep(KeyboardInterrupt):
    """Tasks let an interrupt through to the loop, and no `except Exception` on the way takes it."""


class _Look:
    """What the last look saw: the step that ran then, and at how many looks it was the same."""

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
            self._seen = 0  # whoever goes on all the same is stopped once more
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
