"""Leave out steps of a story while it still fails: delta debugging (Zeller's ddmin) with a limit of runs. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

Item = TypeVar("Item")

RUNS_MAX: Final = 40
"""How often a story is told again while it is shortened; beyond that the shortest so far stands."""


async def shorten(
    items: Sequence[Item], still_fails: Callable[[Sequence[Item]], Awaitable[bool]], *, runs_max: int = RUNS_MAX
) -> list[Item]:
    """The shortest failing selection found, in order. `items` itself is taken to fail."""
    kept = list(items)
    pieces = 2
    runs = 0
    while kept and runs < runs_max:
        size = -(-len(kept) // pieces)
        for start in range(0, len(kept), size):
            candidate = kept[:start] + kept[start + size :]
            runs += 1
            if await still_fails(candidate):
                kept, pieces = candidate, max(2, pieces - 1)
                break
            if runs >= runs_max:
                return kept
        else:
            if size == 1:
                return kept
            pieces = min(len(kept), pieces * 2)
    return kept
