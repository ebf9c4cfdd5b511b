"""The end of a log in memory: its leader's last appends, and positions of batches near the end of the file.

Followers that keep up ask for records that were just appended; they get the same bytes, without a read of the file.
Invariant: the bytes kept by all tails together are at most `bytes_max`; the oldest are removed first. A tail holds only
bytes of its log: it is reset whenever the log is truncated or begins a new segment.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from kraft.protocol.primitives import Buffer
from kraft.values import new
from replication.partition.log import LogRead

RECENT_BYTES_MAX = 16 * 1024 * 1024
"""Limit for all logs of a broker together: a follower that is further behind reads from the file."""

MARKS_MAX = 512
"""Batch boundaries that are remembered, so that a read between two of them is one pread."""


@dataclass(slots=True, eq=False)
class _Kept:
    tail: Tail
    base_offset: int
    next_offset: int
    data: Buffer


class RecentAppends:
    """The bytes that the tails of all logs keep, in the order of the appends."""

    def __init__(self, *, bytes_max: int = RECENT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._kept: OrderedDict[_Kept, None] = OrderedDict()
        self._size = 0

    @property
    def size_bytes(self) -> int:
        return self._size

    def add(self, kept: _Kept) -> None:
        self._kept[kept] = None
        self._size += len(kept.data)
        while self._size > self._bytes_max:
            oldest, _ = self._kept.popitem(last=False)
            self._size -= len(oldest.data)
            oldest.tail.forget(oldest)

    def drop(self, dropped: Iterable[_Kept]) -> None:
        for kept in dropped:
            del self._kept[kept]
            self._size -= len(kept.data)


class Tail:
    def __init__(self, recent: RecentAppends, *, end_offset: int, position: int) -> None:
        self._recent = recent
        self._kept: dict[int, _Kept] = {}
        """Appends by base offset."""
        self._marks = {end_offset: position}
        """Offset of a batch -> its position in the active segment."""

    def reset(self, *, end_offset: int, position: int) -> None:
        """Forget everything: the log was truncated, or a new segment begins."""
        if self._kept:
            self._recent.drop(self._kept.values())
            self._kept.clear()
        self._marks = {end_offset: position}

    def appended(self, *, next_offset: int, position: int) -> None:
        """The log now ends at this offset and position."""
        if len(self._marks) >= MARKS_MAX:
            del self._marks[next(iter(self._marks))]
        self._marks[next_offset] = position

    def keep(self, data: Buffer, *, base_offset: int, next_offset: int) -> None:
        """Keep appended bytes, which nobody changes any more."""
        kept = self._kept[base_offset] = _Kept(self, base_offset, next_offset, data)
        self._recent.add(kept)

    def forget(self, kept: _Kept) -> None:
        if self._kept.get(kept.base_offset) is kept:
            del self._kept[kept.base_offset]

    def extent(self, offset: int, bound: int) -> tuple[int | None, int]:
        """Position of the offset's batch in the active segment, if it is remembered, and the number of bytes from there
        to the batch of the bound; 0 if that is not remembered."""
        start, stop = self._marks.get(offset), self._marks.get(bound)
        return start, 0 if start is None or stop is None else stop - start

    def read(self, offset: int, *, bytes_max: int, bound: int) -> LogRead | None:
        """The whole appends that fit; None when the first is not here or does not fit."""
        kept = self._kept.get(offset)
        if kept is None:
            return None
        parts: list[Buffer] = []
        size = 0
        while kept is not None and kept.next_offset <= bound and size + len(kept.data) <= bytes_max:
            parts.append(kept.data)
            size += len(kept.data)
            offset = kept.next_offset
            kept = self._kept.get(offset)
        if not parts:
            return None
        made = new(LogRead)
        LogRead.__init__(made, data=parts[0] if len(parts) == 1 else b"".join(parts), next_offset=offset)
        return made
