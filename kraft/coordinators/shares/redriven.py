"""How far the dead letters of a queue were brought back, in one partition of their topic. Pure.

It is committed as an offset: all letters below it are done, and so are ranges beyond it, which stand in the metadata of
the offset as `5-9,12-12`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kraft.protocol.errors import InvalidRequest

_RANGE: Final = re.compile(r"(\d{1,19})-(\d{1,19})")


@dataclass(frozen=True, slots=True)
class Progress:
    """Offsets of one partition of the dead letter topic whose letters are done."""

    offset: int = 0
    """All below it."""
    ranges: Sequence[tuple[int, int]] = ()
    """First and last offset of those beyond it, in order and apart from each other."""

    def has(self, offset: int) -> bool:
        """Whether the letter at the offset is done."""
        return offset < self.offset or any(first <= offset <= last for first, last in self.ranges)

    def with_done(self, first: int, last: int) -> Progress:
        """The same, and the offsets from `first` to `last` are done."""
        if last < first:
            return self
        kept: list[tuple[int, int]] = []
        for low, high in sorted([*self.ranges, (first, last)]):
            if kept and low <= kept[-1][1] + 1:
                kept[-1] = kept[-1][0], max(kept[-1][1], high)
            else:
                kept.append((low, high))
        offset = self.offset
        while kept and kept[0][0] <= offset:
            offset = max(offset, kept.pop(0)[1] + 1)
        return Progress(offset, tuple(kept))

    @property
    def metadata(self) -> str:
        """The ranges as they stand in the metadata of the committed offset."""
        return ",".join(f"{first}-{last}" for first, last in self.ranges)

    @property
    def noted(self) -> tuple[int, str]:
        """How it stands in a commit."""
        return self.offset, self.metadata


def progress_of(offset: int, metadata: str) -> Progress:
    """What was committed. Raises InvalidRequest 42 for what no redrive has written."""
    progress = Progress(max(offset, 0))
    for text in metadata.split(",") if metadata else ():
        found = _RANGE.fullmatch(text)
        if found is None:
            raise InvalidRequest(f"{text[:100]!r} is no range of offsets: something else has committed it; delete it")
        progress = progress.with_done(int(found[1]), int(found[2]))
    return progress
