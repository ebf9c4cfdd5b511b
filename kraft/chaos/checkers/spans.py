"""A set of offsets as a few ascending spans."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

SPANS_MAX: Final = 4_096
"""Beyond this the two first spans become one: the set may then claim more than it was given."""


class Spans:
    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    @property
    def end(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __contains__(self, offset: int) -> bool:
        at = bisect_right(self._starts, offset) - 1
        return at >= 0 and offset < self._ends[at]

    def add(self, start: int, end: int) -> None:
        if start >= end:
            return
        starts, ends = self._starts, self._ends
        if starts and starts[-1] <= start <= ends[-1]:  # a reader that goes on where it was
            ends[-1] = max(ends[-1], end)
            return
        first = bisect_right(ends, start - 1)
        last = bisect_right(starts, end)
        if first < last:
            start, end = min(start, starts[first]), max(end, ends[last - 1])
        starts[first:last] = [start]
        ends[first:last] = [end]
        if len(starts) > SPANS_MAX:
            starts[:2], ends[:2] = [starts[0]], [ends[1]]
