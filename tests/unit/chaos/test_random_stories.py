"""Random stories are possible ones, are repeated by their seed, and are shortened to what makes them fail."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from kraft.chaos import scenario_loader
from kraft.chaos.live import NobodyWatches
from kraft.chaos.model import Scenario
from kraft.chaos.nemesis.actions import NodeFault
from kraft.chaos.nemesis.fuzz.profiles import PROFILES, STRICT
from kraft.chaos.nemesis.fuzz.render import render_scenario
from kraft.chaos.nemesis.fuzz.story import make_story, steps_of
from kraft.chaos.nemesis.shrinker import shorten
from kraft.chaos.scenario_loader import Rehearsal
from kraft.chaos.story import ScenarioRun, run_story


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_random_stories_depend_on_seed(profile: object) -> None:
    stories = [make_story(profile, seed=seed) for seed in range(30)]  # type: ignore[arg-type]
    assert stories == [make_story(profile, seed=seed) for seed in range(30)]  # type: ignore[arg-type]
    assert len({render_scenario(story) for story in stories}) == 30


@pytest.mark.parametrize("seed", range(4, 12))
@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_a_story_written_down_is_the_same_story(profile: object, seed: int, tmp_path: Path) -> None:
    story = make_story(profile, seed=seed)  # type: ignore[arg-type]
    file = tmp_path / "story.py"
    file.write_text(render_scenario(story))
    again = scenario_loader.load(str(file))
    assert (again.topics, again.clients, again.expect) == (story.topics, story.clients, story.expect)
    assert reported_steps(again) == reported_steps(story)


def reported_steps(story: Scenario) -> list[str]:
    """What the story does and how long it waits, as it says itself."""
    steps: list[str] = []

    class Listening(NobodyWatches):
        def step(self, number: int, text: str) -> None:
            steps.append(text)

    asyncio.run(run_story(story.story, ScenarioRun(story, Rehearsal(story), Listening())))
    return steps


def check_order(story: Scenario) -> None:
    down: set[int] = set()
    paused: set[int] = set()
    for step in steps_of(story):
        if not isinstance(step.action, NodeFault):
            continue
        nodes, kind = set(step.action.nodes), step.action.do
        if kind == "restart":
            assert nodes <= down
            down -= nodes
        elif kind == "resume":
            assert nodes <= paused
            paused -= nodes
        elif kind == "pause":
            assert not nodes & (down | paused)
            paused |= nodes
        else:
            assert not nodes & down
            assert kind != "stop" or not nodes & paused
            down |= nodes
            paused -= nodes


def test_no_step_asks_for_what_cannot_be_done() -> None:
    for profile in PROFILES.values():
        for seed in range(200):
            check_order(make_story(profile, seed=seed))


def test_the_strict_profile_allows_nothing() -> None:
    expect = STRICT.expect
    assert (expect.lost, expect.duplicated, expect.phantom, expect.anomalies) == (0, 0, 0, ())


def _shortened(items: Sequence[int], culprits: set[int], *, runs_max: int = 200) -> tuple[list[int], int]:
    runs = 0

    async def still_fails(candidate: Sequence[int]) -> bool:
        nonlocal runs
        runs += 1
        return culprits <= set(candidate)

    return asyncio.run(shorten(items, still_fails, runs_max=runs_max)), runs


@pytest.mark.parametrize("culprits", [{3}, {0, 19}, {4, 5, 17}, set(), set(range(20))])
def test_shortening_leaves_only_what_is_needed(culprits: set[int]) -> None:
    assert _shortened(range(20), culprits)[0] == sorted(culprits)


def test_shortening_stops_at_limit_of_runs() -> None:
    kept, runs = _shortened(range(64), {7, 40}, runs_max=5)
    assert runs == 5
    assert {7, 40} <= set(kept)
    assert len(kept) < 64
