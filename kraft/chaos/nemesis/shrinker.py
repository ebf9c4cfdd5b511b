"""Leave out steps of a story, or events of a plan, while it still fails: delta debugging with a limit of runs. Pure.

Halves are left out first, then ever smaller pieces, each from the first to the last; at the end one by one, until none
can go (Zeller's ddmin without its tests of the pieces themselves, which seldom fail alone).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Final, TypeAlias, TypeVar

Item = TypeVar("Item")
Search: TypeAlias = Generator[list[Item], bool, list[Item]]
"""Yields a selection to try, is sent whether it fails too, and returns the shortest that does."""

RUNS_MAX: Final = 40
"""How often a story is told again while it is shortened; beyond that the shortest so far stands."""


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
