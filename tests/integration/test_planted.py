"""Bugs planted into the nodes of real clusters: a scenario of the catalogue finds each, within a stated time."""

from __future__ import annotations

import asyncio
import time

import pytest

from kraft.scenarios import catalogue
from kraft.scenarios.live import NobodyWatches, verdict_lines
from kraft.scenarios.result import NOT_AS_EXPECTED, RunResult
from kraft.scenarios.runner import run_scenario
from tests.integration.planted.bugs import BUGS, planted_in_nodes

LIMIT_S = 90


def run_with(name: str) -> RunResult:
    scenario = catalogue.load(BUGS[name].found_by)
    with planted_in_nodes(name):
        return asyncio.run(run_scenario(scenario, seed=1, watcher=NobodyWatches()))


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
    assert result.exit_code == NOT_AS_EXPECTED, (bug.what, result.problems)
    assert any(bug.verdict in line for line in lines), lines
    assert took_s < bug.within_s


def test_every_bug_names_a_story_of_the_catalogue() -> None:
    assert {bug.found_by for bug in BUGS.values()} <= set(catalogue.NAMES)
