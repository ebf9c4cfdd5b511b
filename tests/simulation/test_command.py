"""The command that plays seeds: what it prints in a pipe and for machines, its exit codes, and which seeds it draws."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from tests.simulation import ci_seeds, seed_runs
from tests.simulation.__main__ import main
from tests.simulation.plan import Plan
from tests.simulation.plan_generator import draw_plan
from tests.simulation.run import Result
from tests.simulation.states import NIGHTLY

ONE = ["run", "--seeds", "7..7"]


def _played(plan: Plan, *, fails: bool, states: Counter[str]) -> Result:
    failure = "Violation: two leaders" if fails else None
    return Result(plan, failure, ["a line"], states, fingerprint="1 a", virtual_s=10.0, wall_s=0.5)


@pytest.fixture
def all_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        seed_runs, "play", lambda plan: _played(plan, fails=False, states=Counter(dict.fromkeys(NIGHTLY, 1)))
    )


@pytest.fixture
def all_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seed_runs, "play", lambda plan: _played(plan, fails=True, states=Counter({"truncated": 2})))


@pytest.mark.usefixtures("all_pass")
def test_output_of_passing_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(ONE) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("1 runs, 0 failed; 0 produces, 0 acknowledged; 10 virtual s in ")
    assert any(line.split() == ["truncated", "1"] for line in lines)


@pytest.mark.usefixtures("all_fail")
def test_output_of_failing_seed_has_replay_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ONE, "--profile", "power"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "FAILED seed 7 --profile power: Violation: two leaders"
    assert lines[1] == "  replay: python -m tests.simulation replay 7 --profile power"


@pytest.mark.usefixtures("all_fail")
def test_json_output_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*ONE, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["runs"], document["virtual_s"], document["states"]) == (1, 10.0, {"truncated": 2})
    (failed,) = document["failed"]
    assert failed["seed"] == 7
    assert failed["failure"] == "Violation: two leaders"
    assert failed["replay"] == "python -m tests.simulation replay 7 --profile swarm"


def test_nightly_fails_without_a_state(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    most = Counter(dict.fromkeys(NIGHTLY, 1))
    del most["metadata command dropped"]
    monkeypatch.setattr(seed_runs, "play", lambda plan: _played(plan, fails=False, states=most))
    assert main([*ONE, "--nightly"]) == 1
    assert "NEVER REACHED: metadata command dropped" in capsys.readouterr().out


@pytest.mark.usefixtures("all_pass")
def test_ci_plays_fixed_and_fresh_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ci", "--fresh-from", "commit 2026-11-21", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["runs"] == len(ci_seeds.FIXED) + ci_seeds.FRESH_MAX * len(ci_seeds.PROFILES)


def test_fresh_seeds_depend_on_the_text() -> None:
    seeds = seed_runs.fresh_seeds("commit 2026-11-21", count=3)
    assert seeds == seed_runs.fresh_seeds("commit 2026-11-21", count=3)
    assert seeds[0] != seed_runs.fresh_seeds("commit 2026-11-22", count=3)[0]
    assert seeds[0] >= seed_runs.FRESH_FROM


@pytest.mark.parametrize("seeds", ["x", "3..", "9..1", ""])
def test_invalid_seed_range_is_refused(seeds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", "--seeds", seeds])
    assert caught.value.code == 2
    assert "is no FIRST..LAST" in capsys.readouterr().err


def test_clusters_have_three_to_seven_nodes() -> None:
    sizes = Counter(len(draw_plan(seed).roles) for seed in range(1, 200))
    assert set(sizes) == {3, 4, 5, 6, 7}
