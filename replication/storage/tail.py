"""The end of a log in memory: what its leader appended last, and where batches begin near the end of the file.

Followers that keep up ask for what was appended a moment ago; they get the very bytes, without a read of the file.
Invariant: the bytes kept by all tails together are at most `bytes_max`; the oldest go first. A tail holds only what
is in its log: it is reset whenever the log is cut or begins a new segment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from metadata.environment import Buffer, File
from replication.partition.log import LogRead

RECENT_BYTES_MAX = 16 * 1024 * 1024
"""Of all logs of a broker together: a follower that is further behind reads from the file."""

MARKS_MAX = 512
"""Batch boundaries that are remembered, so that a read between two of them is one pread."""


@dataclass(slots=True, eq=False)
class _Kept:
    tail: Tail
    base_offset: int
    next_offset: int
    data: Buffer


class RecentAppends:
    """What the tails of all logs keep, in the order of the appends."""

    def __init__(self, *, bytes_max: int = RECENT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._kept: deque[_Kept] = deque()
        self._size = 0

    @property
    def size_bytes(self) -> int:
        return self._size

    def add(self, kept: _Kept) -> None:
        self._kept.append(kept)
        self._size += len(kept.data)
        while self._size > self._bytes_max:
            oldest = self._kept.popleft()
            self._size -= len(oldest.data)
            oldest.tail.forget(oldest)

    def drop(self, tail: Tail) -> None:
        self._kept = deque(kept for kept in self._kept if kept.tail is not tail)
        self._size = sum(len(kept.data) for kept in self._kept)


class Tail:
    def __init__(self, recent: RecentAppends, *, end_offset: int, position: int) -> None:
        self._recent = recent
        self._kept: dict[int, _Kept] = {}
        """By base offset."""
        self._marks = {end_offset: position}
        """Offset of a batch -> its position in the active segment."""

    def reset(self, *, end_offset: int, position: int) -> None:
        """The log was cut, or a new segment begins."""
        if self._kept:
            self._kept.clear()
            self._recent.drop(self)
        self._marks = {end_offset: position}

    def appended(self, *, next_offset: int, position: int) -> None:
        """The log now ends at this offset and position."""
        if len(self._marks) >= MARKS_MAX:
            del self._marks[next(iter(self._marks))]
        self._marks[next_offset] = position

    def keep(self, data: Buffer, *, base_offset: int, next_offset: int) -> None:
        """Bytes as they were appended, which nobody changes any more."""
        kept = self._kept[base_offset] = _Kept(self, base_offset, next_offset, data)
        self._recent.add(kept)

    def forget(self, kept: _Kept) -> None:
        if self._kept.get(kept.base_offset) is kept:
            del self._kept[kept.base_offset]

    def mark(self, offset: int) -> int | None:
        """Position of the batch that begins at the offset, if it is remembered."""
        return self._marks.get(offset)

    def read(
        self, log: File, offset: int, *, bytes_max: int, bound: int, check: Callable[[Buffer, int], None]
    ) -> LogRead | None:
        """The bytes from memory, or by one pread from the file. None: the log has to be searched.

        `check(bytes, position)` raises when what the file has may not be handed out.
        """
        kept = self._kept.get(offset)
        if kept is not None:
            found = self._from_memory(kept, bytes_max=bytes_max, bound=bound)
            if found is not None:
                return found
        start, stop = self._marks.get(offset), self._marks.get(bound)
        if start is None or stop is None or stop - start > bytes_max:
            return None
        data = log.pread(start, stop - start)
        check(data, start)
        return LogRead(data=data, next_offset=bound)

    def _from_memory(self, first: _Kept, *, bytes_max: int, bound: int) -> LogRead | None:
        """As many whole appends as fit; None when not even the first does."""
        parts: list[Buffer] = []
        size, offset = 0, first.base_offset
        kept: _Kept | None = first
        while kept is not None and kept.next_offset <= bound and size + len(kept.data) <= bytes_max:
            parts.append(kept.data)
            size += len(kept.data)
            offset = kept.next_offset
            kept = self._kept.get(offset)
        if not parts:
            return None
        return LogRead(data=parts[0] if len(parts) == 1 else b"".join(parts), next_offset=offset)
