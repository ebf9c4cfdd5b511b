"""Scenarios of a console: what may be run, and what is known of a run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kraft.chaos.catalogue import NAMES
from kraft.chaos.report.page import content_policy
from kraft.testing.console.scenarios import LINE_CHARACTERS_MAX, LINES_MAX, OWN, Run, Scenarios


def nothing() -> str:
    raise ValueError("nothing was done")


def made(folder: Path = Path("/nowhere")) -> Run:
    return Run(number=1, name="s", seed=1, simulated=True, steps=3, folder=folder)


def test_the_list_has_all_stories_with_their_text() -> None:
    rows = Scenarios(nothing).catalogue()
    assert [row["name"] for row in rows] == list(NAMES)
    assert all("async def" in row["story"] and row["question"] and row["steps"] > 0 for row in rows)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"name": "no-such"}, "there is no scenario"),
        ({"name": ["a"]}, "there is no scenario"),
        ({"name": NAMES[0], "seed": -1}, "seed is a number"),
        ({"name": NAMES[0], "seed": "1"}, "seed is a number"),
        ({"name": OWN}, "nothing was done"),
    ],
)
def test_what_cannot_be_run_is_refused(asked: dict[str, object], why: str) -> None:
    async def story() -> None:
        scenarios = Scenarios(nothing)
        with pytest.raises(ValueError, match=why):
            await scenarios.run(asked)
        with pytest.raises(ValueError, match="no scenario runs"):
            await scenarios.stop()
        assert scenarios.state == []
        await scenarios.close()

    asyncio.run(story())


def test_lines_of_a_run_are_bounded_and_name_its_step() -> None:
    run = made()
    run.note("step 2: kill nodes 1")
    run.note("step by step")
    for _ in range(LINES_MAX):
        run.note("x" * 1_000)
    row = run.row(is_newest=True)
    assert (row["step"], row["steps"], len(row["lines"])) == (2, 3, LINES_MAX)
    assert set(map(len, row["lines"])) == {LINE_CHARACTERS_MAX}
    assert "lines" not in run.row(is_newest=False)


def test_a_run_without_a_verdict_reports_why() -> None:
    run = made()
    run.document, run.outcome = {"failure": "node 1 did not start", "verdict": None}, "could not be run"
    row = run.row(is_newest=True)
    assert (row["problems"], row["counts"], row["has_report"]) == (["node 1 did not start"], [], False)


def test_a_report_is_there_when_the_run_is_over(tmp_path: Path) -> None:
    run = made(tmp_path)
    (tmp_path / "report.html").write_text("<!doctype html>")
    assert run.report is None
    run.outcome = "as expected"
    assert run.report == tmp_path / "report.html"
    with pytest.raises(KeyError):
        Scenarios(nothing).report(1)


def test_the_policy_of_a_report_allows_its_own_parts_alone() -> None:
    policy = content_policy()
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 2
