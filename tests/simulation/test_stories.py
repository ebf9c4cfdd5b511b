"""The catalogue in virtual time: the same stories, judged by the same checkers, and the same bugs are found by them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from kraft.chaos import catalogue
from kraft.chaos.checkers.check import HISTORY_FILE
from kraft.chaos.live import NobodyWatches, verdict_lines
from kraft.chaos.result import AS_EXPECTED, COULD_NOT_RUN, NOT_AS_EXPECTED, RunResult
from kraft.chaos.worlds.simulated.run import run_simulated
from tests.integration.planted.bugs import BUGS

LIMIT_S = 240


def run(name: str, *, seed: int = 1) -> RunResult:
    return run_simulated(catalogue.SCENARIOS[name], seed=seed, watcher=NobodyWatches())


LONG = frozenset(
    {
        *("all-down-wait-for-isr", "bridge-partition", "cluster-killed", "cluster-power-loss-flushed"),
        *("controller-killed", "coordinator-killed-in-rebalance", "corrupt-closed-follower", "corrupt-closed-leader"),
        *("disk-full-leader", "follower-cut-from-leader", "index-deleted", "member-killed", "partition-grown"),
        *("slow-follower", "torn-tail", "transaction-both-flows", "transaction-client-killed"),
        *("transaction-leader-killed", "transaction-unclean-election"),
    }
)
"""More than half a second of processor time each, and the default run has another story of the same kind."""
LONG_BUGS = frozenset({"committed_offsets_not_replayed", "commits_more_than_was_read", "vote_not_persisted"})
"""More than a second."""


def marked(names: Iterable[str], long: Collection[str]) -> list[object]:
    assert set(long) <= set(names), "a name is no more"
    return [pytest.param(name, marks=pytest.mark.long) if name in long else name for name in names]


@pytest.mark.parametrize("name", marked(catalogue.NAMES, LONG))
def test_a_story_ends_in_virtual_time_as_it_does_with_real_nodes(name: str) -> None:
    result = run(name)
    assert result.problems == ()
    assert result.exit_code == AS_EXPECTED


@contextmanager
def planted(name: str) -> Iterator[None]:
    with ExitStack() as patches:
        for each in BUGS[name].patches:
            made = each.make(getattr(each.owner, each.attribute, None))
            patches.enter_context(patch.object(each.owner, each.attribute, made))
        yield


@pytest.mark.parametrize("name", marked(BUGS, LONG_BUGS))
def test_a_planted_bug_is_found_by_the_story_that_finds_it_in_real_nodes(name: str) -> None:
    bug = BUGS[name]
    with planted(name):
        result = run(bug.found_by)
    assert result.verdict is not None, result.failure
    lines = verdict_lines(result.verdict)
    assert result.exit_code == (COULD_NOT_RUN if bug.breaks_off else NOT_AS_EXPECTED), (bug.what, result.problems)
    assert any(part in line for line in lines for part in bug.verdict), lines


def test_the_same_seed_gives_the_same_run() -> None:
    def history(seed: int) -> bytes:
        scenario = catalogue.SCENARIOS["acks1-leader-kill"]
        result = run_simulated(scenario, seed=seed, watcher=NobodyWatches(), keep=True)
        assert result.directory is not None
        return (result.directory / HISTORY_FILE).read_bytes()

    assert history(3) == history(3)
    assert history(3) != history(4)


def test_a_story_runs_where_there_is_nothing_but_the_installed_product(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "kraft", "scenario", "run", "acks1-leader-kill", "--simulated"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*command, "--report", "report"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == AS_EXPECTED, done.stderr
    assert "acks1-leader-kill: as expected" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"report"}
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000
