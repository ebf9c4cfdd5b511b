"""What the members of a group have read and committed of a topic, and what must hold of it at the end. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from kraft.chaos.checkers.spans import Spans


def _all() -> Spans:
    """Exact, however many gaps there are: one that is claimed as read would not be found."""
    return Spans(spans_max=None)


@dataclass(slots=True)
class GroupReads:
    """By all members of the group together."""

    read: dict[int, Spans] = field(default_factory=dict)
    """Partition -> offsets that a member was given."""
    committed: dict[int, int] = field(default_factory=dict)
    """Partition -> the largest next offset whose commit was answered with success."""

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
        """`final`: what the group has committed at the end; `ends`: high watermarks, up to which all has been read."""
        for partition, offset in sorted(self.committed.items()):
            if final.get(partition, -1) < offset:
                found = final.get(partition, "nothing")
                yield f"partition {partition}: a commit of {offset} was acknowledged, and the group has {found}"
        for partition, end in sorted(ends.items()):
            gaps = list(self.read.get(partition, _all()).missing_below(end))
            if gaps:
                yield f"partition {partition}: no member was ever given the offsets {gaps[:5]} of {end}"
