"""Bugs planted into the nodes of real clusters: a scenario of the catalogue finds each, within a stated time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kraft.chaos import catalogue, scenario_loader
from kraft.chaos.live import NobodyWatches, verdict_lines
from kraft.chaos.model import Scenario
from kraft.chaos.nemesis.fuzz.profiles import STRICT
from kraft.chaos.nemesis.fuzz.session import FuzzSession
from kraft.chaos.nemesis.fuzz.story import make_story, steps_of
from kraft.chaos.result import COULD_NOT_RUN, NOT_AS_EXPECTED, RunResult
from kraft.chaos.worlds.processes.run import run_scenario
from tests.integration.planted.bugs import BUGS, planted_in_nodes

LIMIT_S = 240


def run_with(name: str) -> RunResult:
    bug = BUGS[name]
    with planted_in_nodes(name):
        running = run_scenario(catalogue.SCENARIOS[bug.found_by], seed=1, watcher=NobodyWatches(), clients=bug.clients)
        return asyncio.run(running)


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("name", BUGS)
def test_a_bug_in_real_nodes_is_found(name: str) -> None:
    bug = BUGS[name]
    begun = time.monotonic()
    result = run_with(name)
    took_s = time.monotonic() - begun
    assert result.verdict is not None, result.failure
    lines = verdict_lines(result.verdict)
    print(f"{name}, {bug.found_by}: {took_s:.1f} s", *lines, sep="\n  ")
    assert result.exit_code == (COULD_NOT_RUN if bug.breaks_off else NOT_AS_EXPECTED), (bug.what, result.problems)
    assert any(part in line for line in lines for part in bug.verdict), lines
    assert took_s < bug.within_s


PARTITIONED = replace(STRICT, name="partitioned", faults={"partition": 3, "crash": 1})
"""As strict, with the faults that show the bug soon."""
FUZZ_MINUTES = 0.5
SHORTENING_MS = 20_000
REPETITIONS_MAX = 4
"""Of a story that lost records once: how far its followers had fetched when the leader died differs from run to run."""


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S)
def test_fuzz_finds_and_shortens_planted_bug(tmp_path: Path) -> None:
    async def run(scenario: Scenario, seed: int, report: Path | None = None) -> RunResult:
        return await run_scenario(scenario, seed=seed, watcher=NobodyWatches(), report=report)

    async def find() -> FuzzSession:
        session = FuzzSession(
            PARTITIONED,
            seed=1,
            minutes=FUZZ_MINUTES,
            directory=tmp_path,
            run=run,
            say=print,
            shortening_ms_max=SHORTENING_MS,
        )
        await session.run_until_time_is_up(at_a_time=1)
        return session

    with planted_in_nodes("acks_all_too_early"):
        violation = asyncio.run(find()).violations[0]
        assert any(problem.startswith("lost: ") for problem in violation.problems), violation.problems
        written = scenario_loader.load(str(violation.file))
        seed = violation.result.seed
        assert 0 < len(steps_of(violation.scenario)) < len(steps_of(make_story(PARTITIONED, seed=seed)))
        outcomes = (asyncio.run(run(written, seed)).exit_code for _ in range(REPETITIONS_MAX))
        assert NOT_AS_EXPECTED in outcomes, "the file repeats it"
    assert (tmp_path / written.name / "report.html").exists()


def test_every_bug_names_a_story_of_the_catalogue() -> None:
    assert {bug.found_by for bug in BUGS.values()} <= set(catalogue.NAMES)
