"""Run random stories until the time is up; a failing story is shortened and written to a file.

A folder with the name of the story has the report of the failed run.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from kraft.chaos.model import Scenario
from kraft.chaos.nemesis.fuzz.profiles import Profile
from kraft.chaos.nemesis.fuzz.render import render_scenario
from kraft.chaos.nemesis.fuzz.story import Step, make_story, possible, steps_of, with_steps
from kraft.chaos.nemesis.shrinker import RUNS_MAX, shorten
from kraft.chaos.result import AS_EXPECTED, RunResult
from kraft.chaos.worlds.processes.timeline import now_us

STORIES_AT_A_TIME: Final = 2
REPEATS_MAX: Final = 3
"""A violation may be rare: a shorter story counts as passing after so many runs without a violation."""
SHORTENING_MS_MAX: Final = 300_000
"""The most time to shorten a story, also after the time is up; then the shortest failing story so far is the result."""

Run: TypeAlias = Callable[[Scenario, int, Path | None], Awaitable[RunResult]]
"""Runs a scenario with a seed, and writes its report into a folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A story whose verdict its profile does not allow."""

    scenario: Scenario
    result: RunResult
    problems: tuple[str, ...]
    file: Path


class FuzzSession:
    def __init__(
        self,
        profile: Profile,
        *,
        seed: int,
        minutes: float,
        directory: Path,
        run: Run,
        say: Callable[[str], None],
        shortening_ms_max: int = SHORTENING_MS_MAX,
    ) -> None:
        self._profile = profile
        self._seed = seed
        self._deadline_us = now_us() + int(minutes * 60_000_000)
        self._directory = directory
        self._run = run
        self._say = say
        self._shortening_ms_max = shortening_ms_max
        self.stories = 0
        self.records = 0
        self.violations: list[Violation] = []

    async def run_until_time_is_up(self, *, at_a_time: int = STORIES_AT_A_TIME) -> None:
        async with asyncio.TaskGroup() as stories:
            for _ in range(at_a_time):
                stories.create_task(self._run_story())

    async def _run_story(self) -> None:
        while now_us() < self._deadline_us:
            seed = self._seed + self.stories
            self.stories += 1
            scenario = make_story(self._profile, seed=seed)
            report = self._directory / scenario.name
            result = await self._run(scenario, seed, report)
            self._count(result)
            if result.exit_code == AS_EXPECTED:
                await asyncio.to_thread(shutil.rmtree, report, ignore_errors=True)
                self._say(f"story {seed}: as allowed ({result.elapsed_ms / 1000:.1f} s)")
            else:
                await self._violated(scenario, result)

    def _count(self, result: RunResult) -> None:
        if result.verdict is not None:
            self.records += result.verdict.counts.kept + result.verdict.counts.lost

    async def _violated(self, scenario: Scenario, result: RunResult) -> None:
        problems = result.problems
        self._say(f"story {result.seed}: VIOLATION: {'; '.join(problems)}")
        self._write(scenario, result, problems)
        shorter = await self._shortened(scenario, result)
        file = self._write(shorter, result, problems)
        steps = steps_of(scenario)
        left_out = len(steps) - len(steps_of(shorter))
        self._say(f"story {result.seed}: written to {file}, {left_out} of {len(steps)} steps left out")
        self.violations.append(Violation(scenario=shorter, result=result, problems=problems, file=file))

    async def _shortened(self, scenario: Scenario, found: RunResult) -> Scenario:
        """A shorter story must fail with a violation too: a story that cannot be run is no result."""
        until_us = now_us() + self._shortening_ms_max * 1_000

        async def still_fails(steps: Sequence[Step]) -> bool:
            shorter = with_steps(scenario, possible(steps))
            for _ in range(REPEATS_MAX):
                if now_us() > until_us:
                    return False
                if (await self._run(shorter, found.seed, None)).exit_code == found.exit_code:
                    return True
            return False

        found_steps = await shorten(steps_of(scenario), still_fails, runs_max=RUNS_MAX)
        return with_steps(scenario, possible(found_steps))

    def _write(self, scenario: Scenario, result: RunResult, problems: tuple[str, ...]) -> Path:
        comment = "\n".join((f"Found by kraft scenario fuzz --profile {self._profile.name}.", *problems))
        self._directory.mkdir(parents=True, exist_ok=True)
        file = self._directory / f"{scenario.name}.py"
        file.write_text(render_scenario(scenario, comment=comment))
        return file
