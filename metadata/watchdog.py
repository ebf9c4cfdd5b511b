"""A watch on a node's main loop from another thread: the quorum's thread, or one like it.

A step of the main loop that does not end leaves the quorum's thread alive: the node would continue to vote, win
elections and lead, and answer nobody. So the main loop counts its turns, and the watchdog beside it looks at the count.
A node whose loop has not turned for `HANGING_MS` is no candidate and stops leading; it still votes and acknowledges,
which need no main loop. A node that cannot recover ends its process, as a kill would.

Time counts only while the watchdog itself ran: a process that was stopped, a machine that was suspended and a host that
gave its processors to others are not the fault of the main loop. The end depends on processor time, of which a slow
disk uses none. Pure, except for `Pulse` and `Watchdog`, the thin shell around it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from metadata.environment import Clock, TimerHandle

BEAT_MS = 200
LOOK_MS = 200
COUNTED_MS_MAX = 2 * LOOK_MS
"""Longest counted time between two looks. A longer pause stopped the watchdog, too."""
HANGING_MS = 5_000
"""Time without a turn after which a node neither leads the quorum nor is a candidate (Q9)."""
WAITING_FACTOR = 5
"""A step that uses no processor time waits for something, and may take longer than one that computes."""


class Verdict(Enum):
    TURNS = "turns"
    HANGS = "hangs"
    PAST_HELP = "past help"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The state of the main loop at one moment."""

    at_ms: int
    turns: int
    """Turns since the start."""
    busy_ms: int
    """Processor time of its thread since the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """The watchdog's state after the last look."""

    last: Look
    silent_ms: int = 0
    """Counted time since the last turn."""
    busy_ms: int = 0
    """Processor time used since the last turn."""


def look_again(watch: Watch, look: Look) -> Watch:
    if look.turns != watch.last.turns:
        return Watch(last=look)
    passed_ms = min(max(look.at_ms - watch.last.at_ms, 0), COUNTED_MS_MAX)
    used_ms = max(look.busy_ms - watch.last.busy_ms, 0)
    return replace(watch, last=look, silent_ms=watch.silent_ms + passed_ms, busy_ms=watch.busy_ms + used_ms)


def verdict(watch: Watch, *, end_ms: int) -> Verdict:
    """Judge a watch. `end_ms`: processor time of one step after which the node ends (node.hang.timeout.ms)."""
    if watch.silent_ms < HANGING_MS:
        return Verdict.TURNS
    is_past_help = watch.busy_ms >= end_ms or watch.silent_ms >= WAITING_FACTOR * end_ms
    return Verdict.PAST_HELP if is_past_help else Verdict.HANGS


class Lock(Protocol):
    """A lock between the main loop and the watchdog beside it; a `threading.Lock`."""

    def acquire(self, blocking: bool = True) -> bool: ...
    def release(self) -> None: ...


class NoLock:
    """A lock for one thread alone."""

    def acquire(self, blocking: bool = True) -> bool:
        return True

    def release(self) -> None: ...


class WatchedProcess(Protocol):
    """The process whose main loop is watched. Its methods are called from another thread than that loop's."""

    def busy_ms(self) -> int:
        """Processor time of the main loop's thread."""
        ...

    def stack(self) -> list[str]:
        """The stack of the main loop's thread, outermost call first: one line for each call."""
        ...

    def lock(self) -> Lock:
        """A new lock between that thread and others."""
        ...

    def end(self, reason: str) -> None:
        """End the process at once, without the main loop, as a kill would. Logs the reason."""
        ...


class Pulse:
    """A counter of turns. Only the main loop writes it; the watchdog reads `turns` from beside it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._timer: TimerHandle | None = None
        self.turns = 0

    def start(self) -> None:
        self.turns += 1
        self._timer = self._clock.call_later(BEAT_MS, self.start)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Watchdog:
    """Made on the main loop; runs beside it."""

    def __init__(
        self,
        clock: Clock,
        *,
        pulse: Pulse,
        process: WatchedProcess,
        end_ms: Callable[[], int],
        emit: Callable[[str, dict[str, object]], bool],
    ) -> None:
        """`clock`: of the loop beside the main one. `emit(event, fields)` is repeated at each look while it returns
        False."""
        self._clock = clock
        self._pulse = pulse
        self._process = process
        self._end_ms = end_ms
        self._emit = emit
        self._watch: Watch | None = None
        self._timer: TimerHandle | None = None
        self._unreported: tuple[str, dict[str, object]] | None = None
        self._stopped = asyncio.Event()
        self.is_hanging = False
        self.hangs = 0
        """Number of times that the main loop hung."""
        self.silent_ms_max = 0
        """The longest time between two of its turns."""

    # --- beside the main loop -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look until `stop`. For a node that runs nothing else beside its main loop."""
        self.start()
        await self._stopped.wait()

    def start(self) -> None:
        self._watch = Watch(last=self._seen())
        self._timer = self._clock.call_later(LOOK_MS, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._stopped.set()

    def _seen(self) -> Look:
        return Look(at_ms=self._clock.monotonic_ms(), turns=self._pulse.turns, busy_ms=self._process.busy_ms())

    def _look(self) -> None:
        assert self._watch is not None
        self._timer = self._clock.call_later(LOOK_MS, self._look)
        before, self._watch = self._watch, look_again(self._watch, self._seen())
        self.silent_ms_max = max(self.silent_ms_max, self._watch.silent_ms)
        found = verdict(self._watch, end_ms=self._end_ms())
        if found is not Verdict.TURNS and not self.is_hanging:
            self._begins_to_hang(self._watch)
        elif found is Verdict.TURNS and self.is_hanging:
            self.is_hanging = False
            self._report("main_loop_turns_again", silent_ms=before.silent_ms, busy_ms=before.busy_ms)
        elif self._unreported is not None:
            self._report(self._unreported[0], **self._unreported[1])
        if found is Verdict.PAST_HELP:
            self._end(self._watch)

    def _begins_to_hang(self, watch: Watch) -> None:
        self.is_hanging = True
        self.hangs += 1
        self._report("main_loop_hangs", silent_ms=watch.silent_ms, busy_ms=watch.busy_ms, stack=self._process.stack())

    def _end(self, watch: Watch) -> None:
        self._report(
            "main_loop_past_help", silent_ms=watch.silent_ms, busy_ms=watch.busy_ms, stack=self._process.stack()
        )
        self._process.end(
            f"its main loop has not turned for {watch.silent_ms} ms, of which it computed {watch.busy_ms} ms; "
            f"node.hang.timeout.ms is {self._end_ms()}"
        )

    def _report(self, event: str, **fields: object) -> None:
        self._unreported = None if self._emit(event, fields) else (event, fields)
