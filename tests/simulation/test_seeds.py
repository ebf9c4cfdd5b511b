"""Whole clusters by seed: those that once found a bug, a few of each profile, and the proof that a seed is a seed.

A failing seed is in the test's name: `python -m tests.simulation replay SEED --profile NAME` shrinks it and prints its
story. `KRAFT_SEEDS=50` plays more of them.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.plan import Plan
from tests.simulation.plan_generator import draw_plan
from tests.simulation.profiles import PROFILES
from tests.simulation.run import Result, play
from tests.simulation.shrink import shrink, story_of

ROOT = Path(__file__).parents[2]
FRESH = int(os.environ.get("KRAFT_SEEDS", "1"))

FOUND = [
    ("power", 28),  # a log that could not be loaded on a full disk
    ("power", 102),  # an epoch file that a full disk had no room for, and a flush that wanted to sync it
    ("reconfigure", 21024),  # a new leader's unflushed tail held its high watermark under flush.messages=1
    ("rot", 11006),  # a flipped base offset that no index can hold
]
"""Seeds that failed before something was mended."""
FOUND_LONG = [
    ("power", 1),  # the high watermark under flush.messages=1 after a restart
    ("power", 21370),  # a leader that did not know yet that a member which lost power had left the ISR
    ("swarm", 21035),  # a damaged segment below the recovery point kept the node from starting
    ("nodes", 21240),  # a node that was stopped as it registered deleted all its logs
    ("swarm", 9),
]
"""The same, for more than half a second of processor time each."""
FOUND_DEAR = [
    ("power", 15),  # a voter rebuilt after a full disk that did not know its sessions
    ("power", 27),  # a hole in the offsets of a recovered log
    ("power", 46),  # the high watermark under flush.messages=1 after a restart
    ("power", 11006),  # old batches in front of newer ones after a power loss, and nobody noticed
    ("nodes", 21187),  # a read that a paused leader held for half a minute
    ("rot", 21485),  # a flipped bit that reached other replicas
    ("rot", 21122),  # a rotten partition that never became whole
    ("rot", 21583),  # a flipped leader epoch, which no CRC covers
    ("rot", 11473),  # a length that cannot be
    ("topics", 40002),  # the run's own administrator took a lost answer for the end
    ("swarm", 40019),  # a log start that moved on counted as a flush, and a torn topic id as damage
    ("groups", 16),  # a marker that vouched for a log which had not been loaded
    ("restless", 3),  # a Kafka consumer that REST consumers refused for ever after a failover
    ("groups", 170),  # a batch that was asked for again and came without one of its partitions
    ("groups", 71023),  # a deposed coordinator whose disk was full returned an old offset: fenced
    ("groups", 71003),  # the same: relieved because its log had failed, a session before it would have been fenced
    ("groups", 42006),  # a deposed coordinator called the token of its successor wrong
]
"""The same; dear, or a unit test watches the same place by default."""
PROFILES_DEAR = ("groups", "restless", "decay")
"""Five times as dear as the others: everything that others do, and members that read it."""
PROFILES_LONG = (
    "delayed",
    "headless",
    "pieces",
    "pipelined",
    "queues",
    "quorum",
    "reconfigure",
    "rot",
    "routed",
    "topics",
    "transactions",
    "usual",
)
"""More than half a second of processor time for a seed."""
MARKED = [
    *(pytest.param(*seed, marks=pytest.mark.long) for seed in FOUND_LONG),
    *(pytest.param(*dear, marks=pytest.mark.slow) for dear in FOUND_DEAR),
]


def _check(profile: str, seed: int) -> None:
    result = play(draw_plan(seed, profile))
    assert result.failure is None, story_of(result)


@pytest.mark.parametrize(("profile", "seed"), [*FOUND, *MARKED])
def test_seeds_that_once_failed_pass(profile: str, seed: int) -> None:
    _check(profile, seed)


def _marked_if_dear(profile: str) -> object:
    mark = pytest.mark.slow if profile in PROFILES_DEAR else pytest.mark.long if profile in PROFILES_LONG else None
    return profile if mark is None else pytest.param(profile, marks=mark)


@pytest.mark.parametrize("profile", [_marked_if_dear(profile) for profile in sorted(PROFILES)])
@pytest.mark.parametrize("number", range(FRESH))
def test_seeds_of_each_profile(profile: str, number: int) -> None:
    _check(profile, 101 + number)


def _fingerprint(profile: str, seed: int, hash_seed: str) -> str:
    program = (
        "from tests.simulation.plan_generator import draw_plan; from tests.simulation.run import play; "
        f"r = play(draw_plan({seed}, {profile!r}), keeps_trace=True); "
        "import hashlib; print(r.fingerprint, hashlib.sha256(''.join(r.lines).encode()).hexdigest(), r.failure)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout


@pytest.mark.parametrize(
    ("profile", "seed"),
    [
        pytest.param("swarm", 6, marks=pytest.mark.long),
        pytest.param("pipelined", 2, marks=pytest.mark.long),
        pytest.param("reconfigure", 4, marks=pytest.mark.slow),
        pytest.param("groups", 3, marks=pytest.mark.slow),
    ],
)
def test_same_seed_gives_same_trace_in_two_processes(profile: str, seed: int) -> None:
    """One of them has its own seed for hashes; the other is this one, which has played other runs before."""
    here = play(draw_plan(seed, profile), keeps_trace=True)
    lines = hashlib.sha256("".join(here.lines).encode()).hexdigest()
    assert f"{here.fingerprint} {lines} {here.failure}\n" == _fingerprint(profile, seed, "4242")


def test_failing_run_is_shrunk() -> None:
    def run(plan: Plan) -> Result:
        kinds = {event.kind for event in plan.events}
        failure = "Violation: both" if {"kill", "cut"} <= kinds else None
        return Result(plan, failure, [], Counter(), fingerprint="", virtual_s=0.0, wall_s=0.0)

    plan = next(plan for plan in map(draw_plan, range(1, 500)) if {"kill", "cut"} <= {e.kind for e in plan.events})
    smallest = shrink(run(plan), run=run)
    assert sorted(event.kind for event in smallest.plan.events) == ["cut", "kill"]
