"""A set of offsets as ascending spans, disjoint and half-open: hours of reading need no more memory than its gaps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

SPANS_MAX: Final = 4_096


class Spans:
    def __init__(self, *, spans_max: int | None = SPANS_MAX) -> None:
        """Beyond `spans_max` the first two spans are merged: the set then contains offsets that were not added."""
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._spans_max = spans_max

    @property
    def end(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

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
        if self._spans_max is not None and len(starts) > self._spans_max:
            starts[:2], ends[:2] = [starts[0]], [ends[1]]

    def missing_below(self, end: int) -> Iterator[tuple[int, int]]:
        """The spans of [0, end) outside of the set."""
        position = 0
        for start, after in self:
            if start >= end:
                break
            if start > position:
                yield position, start
            position = after
        if position < end:
            yield position, end
