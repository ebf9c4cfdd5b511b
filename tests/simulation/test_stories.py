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
from tests.simulation.small_stories import SMALL

LIMIT_S = 240


def run(name: str, *, seed: int = 1) -> RunResult:
    return run_simulated(catalogue.SCENARIOS[name], seed=seed, watcher=NobodyWatches())


LONG = frozenset(
    {
        *("all-down-wait-for-isr", "bridge-partition", "cluster-killed", "cluster-power-loss"),
        *("cluster-power-loss-flushed", "controller-killed", "coordinator-killed-in-rebalance"),
        *("delayed-forwarder-killed", "delayed-leader-killed"),
        *("corrupt-closed-follower", "corrupt-closed-leader", "corrupt-follower", "corrupt-leader", "disk-full-leader"),
        *("follower-cut-from-leader", "high-watermark-behind", "index-deleted", "last-isr-member-dies-unclean-off"),
        *("last-isr-member-power-loss-flushed", "member-killed", "old-controller-isolated", "one-way-mute"),
        *("partition-grown", "paused-follower", "queue-coordinator-killed", "queue-leader-killed", "queue-lock-ends"),
        *("queue-lock-renewed", "queue-many-workers", "queue-poison", "queue-unclean-election"),
        *("quorum-majority-lost", "ring-partition"),
        *("rolling-restart", "slow-follower", "torn-tail", "transaction-both-flows", "transaction-client-killed"),
        *("transaction-coordinator-killed", "transaction-leader-killed", "transaction-unclean-election"),
        "unclean-switched-on-cluster",
    }
)
"""More than a third of a second of processor time each, and the default run has another story of the same kind."""
LONG_BUGS = frozenset(
    {
        *("committed_offsets_not_replayed", "commits_more_than_was_read", "delayed_twice", "queue_begins_again"),
        *(
            "queue_skips_released_records",
            "queue_state_beyond_log",
            "queue_takes_late_acceptances",
            "queue_writes_no_dead_letters",
            "vote_not_persisted",
        ),
    }
)
"""More than a second; the default run has a small story for each."""


def marked(names: Iterable[str], long: Collection[str]) -> list[object]:
    assert set(long) <= set(names), "a name is no more"
    return [pytest.param(name, marks=pytest.mark.long) if name in long else name for name in names]


@pytest.mark.parametrize("name", marked(catalogue.NAMES, LONG))
def test_story_in_virtual_time(name: str) -> None:
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
def test_planted_bug_is_found_in_virtual_time(name: str) -> None:
    bug = BUGS[name]
    with planted(name):
        result = run(bug.found_by)
    assert result.verdict is not None, result.failure
    lines = verdict_lines(result.verdict)
    assert result.exit_code == (COULD_NOT_RUN if bug.breaks_off else NOT_AS_EXPECTED), (bug.what, result.problems)
    assert any(part in line for line in lines for part in bug.verdict), lines


@pytest.mark.parametrize("name", SMALL)
def test_planted_bug_is_found_by_small_story(name: str) -> None:
    """Which ends as expected without the bug."""
    without = run_simulated(SMALL[name], seed=1, watcher=NobodyWatches())
    assert (without.problems, without.exit_code) == ((), AS_EXPECTED)
    with planted(name):
        result = run_simulated(SMALL[name], seed=1, watcher=NobodyWatches())
    assert result.verdict is not None, result.failure
    assert result.exit_code == NOT_AS_EXPECTED, result.problems
    lines = verdict_lines(result.verdict)
    assert any(part in line for line in lines for part in BUGS[name].verdict), lines


def test_long_stories_have_small_ones() -> None:
    assert set(SMALL) >= LONG_BUGS


def test_the_same_seed_gives_the_same_run() -> None:
    def history(seed: int) -> bytes:
        scenario = catalogue.SCENARIOS["acks0-leader-kill"]
        result = run_simulated(scenario, seed=seed, watcher=NobodyWatches(), keep=True)
        assert result.directory is not None
        return (result.directory / HISTORY_FILE).read_bytes()

    assert history(3) == history(3)
    assert history(3) != history(4)


def test_story_runs_with_installed_product_only(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "kraft", "scenario", "run", "acks1-leader-kill", "--simulated"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*command, "--report", "report"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=LIMIT_S
    )
    assert done.returncode == AS_EXPECTED, done.stderr
    assert "acks1-leader-kill: as expected" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"report"}
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000
