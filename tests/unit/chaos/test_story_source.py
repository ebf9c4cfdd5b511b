"""The text of a story with what its file adds to it."""

from __future__ import annotations

import ast

import pytest

from kraft.chaos import catalogue
from kraft.chaos.story_source import steps_in, surroundings


def test_constants_and_functions_that_a_story_uses_are_shown() -> None:
    text = surroundings(catalogue.SCENARIOS["acks1-leader-kill"])
    for part in ("BEFORE = Producer(", "SLOW_TO_SHRINK = {", "def _dies_with_the_only_copy(", "def _replace("):
        assert part in text
    assert "@scenario" not in text
    assert "_outlive" not in text
    assert surroundings(catalogue.SCENARIOS["paused-follower"]) == ""


def test_steps_of_helpers_count() -> None:
    assert steps_in(catalogue.SCENARIOS["acks1-leader-kill"]) == 10


@pytest.mark.parametrize("name", catalogue.NAMES)
def test_shown_text_is_python_and_knows_its_own_names(name: str) -> None:
    scenario = catalogue.SCENARIOS[name]
    tree = ast.parse(f"{surroundings(scenario)}\n\n{scenario.source}")
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    own = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef)}
    own |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert not {each for each in used if each.startswith("_") or each.isupper()} - own - {"ANY", "SOME"}
