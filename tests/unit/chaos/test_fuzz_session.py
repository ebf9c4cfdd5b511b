"""A fuzz session: stories until the time is up; one that fails is written down, without the steps it does not need."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from kraft.chaos import scenario_loader
from kraft.chaos.checkers.verdict import Counts, Operations, Verdict
from kraft.chaos.model import Scenario
from kraft.chaos.nemesis.fuzz import session as module
from kraft.chaos.nemesis.fuzz.profiles import STRICT
from kraft.chaos.nemesis.fuzz.session import SHORTENING_MS_MAX, FuzzSession
from kraft.chaos.nemesis.fuzz.story import make_story, steps_of
from kraft.chaos.result import RunResult
from tests.unit.chaos.test_random_stories import check_order, reported_steps

SEED = 5
STORY_US = 10_000_000
Outcome = Callable[[Scenario], tuple[int, str]]
"""Records lost, and why the story broke off."""


class Clock:
    us = 1

    def now_us(self) -> int:
        return self.us


def play(
    folder: Path, outcome: Outcome, monkeypatch: pytest.MonkeyPatch, *, minutes: float = 0.1
) -> tuple[FuzzSession, list[Scenario]]:
    """One story, told again as often as it takes to shorten it."""
    clock, reported = Clock(), []
    monkeypatch.setattr(module, "now_us", clock.now_us)

    async def run(scenario: Scenario, seed: int, report: Path | None) -> RunResult:
        clock.us += STORY_US
        if report is not None:
            await asyncio.to_thread(report.mkdir, parents=True)
        reported.append(scenario)
        lost, failure = outcome(scenario)
        verdict = Verdict(
            scenario=scenario.name,
            seed=seed,
            counts=Counts(kept=10, lost=lost),
            operations=Operations(),
            as_expected=not lost,
            problems=(f"lost: {lost} records, expected 0",) if lost else (),
        )
        return RunResult(scenario=scenario.name, seed=seed, elapsed_ms=10_000, verdict=verdict, failure=failure)

    said: list[str] = []
    fuzz = FuzzSession(STRICT, seed=SEED, minutes=minutes, directory=folder, run=run, say=said.append)
    asyncio.run(fuzz.run_until_time_is_up(at_a_time=1))
    return fuzz, reported


def faults(scenario: Scenario) -> list[str]:
    return [step.action.do for step in steps_of(scenario)]


def test_stories_run_until_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz, reported = play(tmp_path / "fuzz", lambda scenario: (0, ""), monkeypatch, minutes=0.5)
    assert [scenario.name for scenario in reported] == [f"fuzz-strict-{SEED + number}" for number in range(3)]
    assert (fuzz.stories, fuzz.records, fuzz.violations) == (3, 30, [])
    assert list((tmp_path / "fuzz").iterdir()) == [], "nothing is left when nothing was found"


def test_violation_is_written_with_needed_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    story = make_story(STRICT, seed=SEED)
    needed = "kill"

    def loses(scenario: Scenario) -> tuple[int, str]:
        return (7 if needed in faults(scenario) else 0), ""

    fuzz, reported = play(tmp_path, loses, monkeypatch)
    (violation,) = fuzz.violations
    assert faults(violation.scenario) == [needed]
    assert faults(story).count(needed) < len(steps_of(story))
    assert violation.problems == ("lost: 7 records, expected 0",)
    text = violation.file.read_text()
    assert "Found by kraft scenario fuzz --profile strict." in text
    assert "lost: 7 records, expected 0" in text
    assert reported_steps(scenario_loader.load(str(violation.file))) == reported_steps(violation.scenario)
    assert reported[0] == story
    assert (tmp_path / story.name).is_dir(), "the report of the run that failed"


def test_a_shorter_story_that_could_not_be_run_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It breaks off for another reason than the one that was found."""
    story = make_story(STRICT, seed=SEED)

    def breaks_when_shorter(scenario: Scenario) -> tuple[int, str]:
        return (
            (7, "")
            if len(steps_of(scenario)) == len(steps_of(story))
            else (0, "step 1 (kill node 1): node 1 does not run")
        )

    fuzz, _ = play(tmp_path, breaks_when_shorter, monkeypatch)
    assert fuzz.violations[0].scenario == story


def test_no_shorter_story_asks_for_what_cannot_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz, reported = play(tmp_path, lambda scenario: (7, ""), monkeypatch)
    assert faults(fuzz.violations[0].scenario) == []
    for scenario in reported:
        check_order(scenario)


def test_shortening_has_a_limit_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the end of the session, but not for ever; what is shortest then is written."""
    story = make_story(STRICT, seed=SEED)

    def loses_as_a_whole(scenario: Scenario) -> tuple[int, str]:
        return (7 if len(steps_of(scenario)) == len(steps_of(story)) else 0), ""

    fuzz, reported = play(tmp_path, loses_as_a_whole, monkeypatch)
    assert 1 < len(reported) <= 2 + SHORTENING_MS_MAX * 1_000 // STORY_US
    assert fuzz.violations[0].scenario == story
