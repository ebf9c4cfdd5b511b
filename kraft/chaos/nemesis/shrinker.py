"""Shorten a failing story, or plan of events: delta debugging with a limit of runs. Pure.

The search removes halves first, then smaller and smaller pieces, and at the end single items, until every item is
needed (Zeller's ddmin without its tests of the pieces alone, which seldom fail).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Final, TypeAlias, TypeVar

Item = TypeVar("Item")
Search: TypeAlias = Generator[list[Item], bool, list[Item]]
"""A generator that yields a selection to try, receives whether it fails, and returns the shortest failing one."""

RUNS_MAX: Final = 40
"""The most runs of a story while it is shortened; then the shortest failing story so far is the result."""


async def shorten(
    items: Sequence[Item], still_fails: Callable[[Sequence[Item]], Awaitable[bool]], *, runs_max: int = RUNS_MAX
) -> list[Item]:
    """The shortest failing selection found, in order. `items` itself is taken to fail."""
    search = _search(items, runs_max)
    try:
        candidate = next(search)
        while True:
            candidate = search.send(await still_fails(candidate))
    except StopIteration as end:
        return list(end.value)


def shorten_at_once(
    items: Sequence[Item], still_fails: Callable[[Sequence[Item]], bool], *, runs_max: int = RUNS_MAX
) -> list[Item]:
    """`shorten` for runs that are plain calls, such as those of simulated machines."""
    search = _search(items, runs_max)
    try:
        candidate = next(search)
        while True:
            candidate = search.send(still_fails(candidate))
    except StopIteration as end:
        return list(end.value)


def _search(items: Sequence[Item], runs_max: int) -> Search[Item]:
    kept = list(items)
    size = max(1, len(kept) // 2)
    runs = 0
    while True:
        is_shorter = False
        at = 0
        while at < len(kept):
            if runs >= runs_max:
                return kept
            candidate = kept[:at] + kept[at + size :]
            runs += 1
            if (yield candidate):
                kept, is_shorter = candidate, True
            else:
                at += size
        if size == 1 and not is_shorter:
            return kept
        size = max(1, size // 2)
