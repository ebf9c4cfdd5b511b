"""Plays many seeds, in one process or several, and sums up the results.

The order of the results is that of the jobs, whatever finishes first. `fresh_seeds` turns any text (the name of a
change) into seeds that are not chosen by hand and can be played again.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import chain

from tests.simulation.plan_generator import draw_plan
from tests.simulation.run import Result, play

Job = tuple[int, str]
"""Seed and profile."""

STORY_KEPT = 5
"""The most lines of the story of a run that its process sends back."""
BATCHES_AHEAD = 8
"""Jobs per process that are handed out at once."""
FRESH_FROM = 1_000_000
"""Fresh seeds begin above all seeds that a user types."""
FRESH_SPAN = 900_000_000


@dataclass(frozen=True, slots=True)
class Played:
    result: Result
    cpu_s: float

    @property
    def replay(self) -> str:
        plan = self.result.plan
        return f"python -m tests.simulation replay {plan.seed} --profile {plan.profile}"


@dataclass(slots=True)
class Totals:
    """The totals of many runs."""

    runs: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    attempts: int = 0
    acked: int = 0
    states: Counter[str] = field(default_factory=Counter)
    failed: list[Played] = field(default_factory=list)

    def add(self, played: Played) -> None:
        result = played.result
        self.runs += 1
        self.virtual_s += result.virtual_s
        self.cpu_s += played.cpu_s
        self.attempts += result.attempts
        self.acked += result.acked
        self.states.update(result.states)
        if result.failure is not None:
            self.failed.append(played)

    @property
    def per_core(self) -> float:
        """Virtual seconds in a second of processor time."""
        return self.virtual_s / self.cpu_s if self.cpu_s else 0.0


def play_all(
    jobs: Iterable[Job],
    *,
    total: Totals,
    processes: int,
    seconds: float = math.inf,
    on_played: Callable[[Played], None] = lambda played: None,
) -> None:
    """Until all are played or `seconds` of wall time are over: at least one is, and one that has begun is ended."""
    began = time.perf_counter()
    for played in _until(_results(list(jobs), processes), began + seconds):
        total.add(played)
        on_played(played)
    total.wall_s += time.perf_counter() - began


def _results(jobs: Sequence[Job], processes: int) -> Iterator[Played]:
    if processes == 1:
        yield from map(_play, jobs)
        return
    size = BATCHES_AHEAD * processes
    with ProcessPoolExecutor(processes) as pool:
        batches = (jobs[at : at + size] for at in range(0, len(jobs), size))
        yield from chain.from_iterable(pool.map(_play, batch) for batch in batches)


def _until(results: Iterable[Played], end: float) -> Iterator[Played]:
    for played in results:
        yield played
        if time.perf_counter() > end:
            return


def _play(job: Job) -> Played:
    began = time.process_time()
    result = play(draw_plan(*job))
    result.story = result.story[-STORY_KEPT:]
    return Played(result, time.process_time() - began)


def fresh_seeds(text: str, *, count: int) -> range:
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    first = FRESH_FROM + number % FRESH_SPAN
    return range(first, first + count)
