"""How often a test repeats itself: a few times in the default run, many times in that of the long tests."""

from __future__ import annotations

from collections.abc import Sequence

import pytest


def few_and_many(name: str, few: int, many: int) -> pytest.MarkDecorator:
    """The test gets the number as the argument `name`. CI has both for each change."""
    return pytest.mark.parametrize(name, [few, pytest.param(many, marks=pytest.mark.long)])


def first_and_last(versions: Sequence[int]) -> list[object]:
    """Those in between are left to the run of long tests."""
    return [
        version if version in (versions[0], versions[-1]) else pytest.param(version, marks=pytest.mark.long)
        for version in versions
    ]
