"""What the members of a group have read and committed of a topic, and what must hold of it at the end. Pure.

Held as ranges, so that hours of reading need no more memory than its gaps.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Offsets:
    """A set of offsets as disjoint, ascending half-open ranges."""

    ranges: list[tuple[int, int]] = field(default_factory=list)

    def add(self, start: int, end: int) -> None:
        if start >= end:
            return
        at = bisect_right(self.ranges, (start, start))
        if at and self.ranges[at - 1][1] >= start:
            at -= 1
        stop = at
        while stop < len(self.ranges) and self.ranges[stop][0] <= end:
            start, end = min(start, self.ranges[stop][0]), max(end, self.ranges[stop][1])
            stop += 1
        self.ranges[at:stop] = [(start, end)]

    def missing_below(self, end: int) -> Iterator[tuple[int, int]]:
        position = 0
        for first, after in self.ranges:
            if first >= end:
                break
            if first > position:
                yield position, min(first, end)
            position = max(position, after)
        if position < end:
            yield position, end


@dataclass(slots=True)
class Reached:
    """By all members of the group together."""

    read: dict[int, Offsets] = field(default_factory=dict)
    """Partition -> offsets that a member was given."""
    committed: dict[int, int] = field(default_factory=dict)
    """Partition -> the largest next offset whose commit was answered with success."""

    def was_read(self, partition: int, offsets: Iterable[int]) -> None:
        known = self.read.setdefault(partition, Offsets())
        start = end = -1
        for offset in offsets:
            if offset != end:
                known.add(start, end)
                start = offset
            end = offset + 1
        known.add(start, end)

    def was_committed(self, positions: Mapping[int, int]) -> None:
        for partition, offset in positions.items():
            self.committed[partition] = max(offset, self.committed.get(partition, 0))

    def problems(self, *, final: Mapping[int, int], ends: Mapping[int, int]) -> Iterator[str]:
        """`final`: what the group has committed at the end; `ends`: high watermarks, up to which all has been read."""
        for partition, offset in sorted(self.committed.items()):
            if final.get(partition, -1) < offset:
                found = final.get(partition, "nothing")
                yield f"partition {partition}: a commit of {offset} was acknowledged, and the group has {found}"
        for partition, end in sorted(ends.items()):
            gaps = list(self.read.get(partition, Offsets()).missing_below(end))
            if gaps:
                yield f"partition {partition}: no member was ever given the offsets {gaps[:5]} of {end}"
