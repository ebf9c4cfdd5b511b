"""The records of a topic that the members of a group have read and committed, and the conditions at the end. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from kraft.chaos.checkers.spans import Spans


def _all() -> Spans:
    """Exact spans with any number of gaps: a merged gap would hide a skipped record."""
    return Spans(spans_max=None)


@dataclass(slots=True)
class GroupReads:
    """The reads and commits of all members of a group."""

    read: dict[int, Spans] = field(default_factory=dict)
    """Partition -> offsets that a member received."""
    committed: dict[int, int] = field(default_factory=dict)
    """Partition -> the largest committed offset."""

    def was_read(self, partition: int, offsets: Iterable[int]) -> None:
        known = self.read.setdefault(partition, _all())
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
        """The violations. `final`: the committed offsets at the end; `ends`: the high watermarks."""
        for partition, offset in sorted(self.committed.items()):
            if final.get(partition, -1) < offset:
                found = final.get(partition, "nothing")
                yield f"partition {partition}: a commit of {offset} was acknowledged, and the group has {found}"
        for partition, end in sorted(ends.items()):
            gaps = list(self.read.get(partition, _all()).missing_below(end))
            if gaps:
                yield f"partition {partition}: no member received the offsets {gaps[:5]} of {end}"
