"""A failing run, cut down to few events that still fail in the same way: halves first, then one by one (ddmin)."""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.plan import Event, Plan
from tests.simulation.run import Result, play

RUNS_MAX = 150


def shrink(failed: Result, *, run: Callable[[Plan], Result] = play, runs_max: int = RUNS_MAX) -> Result:
    """The smallest run found that fails as this one did; at most `runs_max` runs are spent on it."""
    best, spent = failed, 0
    size = max(1, len(best.plan.events) // 2)
    while spent < runs_max:
        is_smaller = False
        at = 0
        while at < len(best.plan.events) and spent < runs_max:
            events = best.plan.events[:at] + best.plan.events[at + size :]
            result = run(best.plan.with_events(events))
            spent += 1
            if result.kind == failed.kind:
                best, is_smaller = result, True
            else:
                at += size
        if size == 1 and not is_smaller:
            break
        size = max(1, size // 2)
    return best


def tell(result: Result, *, lines: int = 80) -> str:
    """The run as a story: what was planned, then what happened up to the violation."""
    events: tuple[Event, ...] = result.plan.events
    told = [str(result.plan), *(f"  {event}" for event in events), "..."]
    return "\n".join([*told, *result.story[-lines:]])
