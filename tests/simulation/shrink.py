"""A failing run, cut down to few events that still fail in the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kraft.chaos.nemesis.shrinker import shorten_at_once
from tests.simulation.plan import Event, Plan
from tests.simulation.run import Result, play

RUNS_MAX = 150


def shrink(failed: Result, *, run: Callable[[Plan], Result] = play, runs_max: int = RUNS_MAX) -> Result:
    """The smallest run found that fails as this one did; at most `runs_max` runs are spent on it."""
    best = failed

    def still_fails(events: Sequence[Event]) -> bool:
        nonlocal best
        result = run(failed.plan.with_events(tuple(events)))
        if result.kind == failed.kind:
            best = result
        return result.kind == failed.kind

    shorten_at_once(failed.plan.events, still_fails, runs_max=runs_max)
    return best


def story_of(result: Result, *, lines: int = 80) -> str:
    """The run as a story: what was planned, then what happened up to the violation."""
    events: tuple[Event, ...] = result.plan.events
    lines_of_plan = [str(result.plan), *(f"  {event}" for event in events), "..."]
    return "\n".join([*lines_of_plan, *result.story[-lines:]])
