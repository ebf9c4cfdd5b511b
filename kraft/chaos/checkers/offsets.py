"""The value at each offset of one log, as slots of `Values`: pages of 4096 offsets, 4 bytes each; 0: no value."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

PAGE_BITS: Final = 12
PAGE_OFFSETS: Final = 1 << PAGE_BITS
_MASK: Final = PAGE_OFFSETS - 1
_EMPTY: Final = bytes(4 * PAGE_OFFSETS)
NOTHING: Final = -1


class OffsetMap:
    def __init__(self) -> None:
        self._pages: dict[int, array[int]] = {}
        self.end = 0
        """The offset after the highest one that was set."""

    def get(self, offset: int) -> int:
        """The slot at the offset, or NOTHING."""
        page = self._pages.get(offset >> PAGE_BITS)
        return NOTHING if page is None else page[offset & _MASK] - 1

    def put(self, offset: int, slot: int) -> int:
        """Set the slot of an offset; returns the slot before, or NOTHING."""
        page = self._pages.get(offset >> PAGE_BITS)
        if page is None:
            page = self._pages[offset >> PAGE_BITS] = array("i", _EMPTY)
        before = page[offset & _MASK]
        page[offset & _MASK] = slot + 1
        if offset >= self.end:
            self.end = offset + 1
        return before - 1

    def items(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
        """(offset, slot) pairs in [start, end), ascending."""
        limit = self.end if end is None else min(end, self.end)
        for number in sorted(self._pages):
            base = number << PAGE_BITS
            if base + PAGE_OFFSETS <= start or base >= limit:
                continue
            for offset, entry in enumerate(self._pages[number], base):
                if entry and start <= offset < limit:
                    yield offset, entry - 1

    def count(self, start: int, end: int) -> int:
        return sum(1 for _ in self.items(start, end))

    def differences(self, other: OffsetMap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(offset, own slot, other's slot) where they differ in [start, end); equal pages cost one comparison."""
        for number in sorted(self._pages.keys() | other._pages.keys()):
            base = number << PAGE_BITS
            if base + PAGE_OFFSETS <= start or base >= end:
                continue
            own, others = self._pages.get(number, _EMPTY_PAGE), other._pages.get(number, _EMPTY_PAGE)
            if own == others:
                continue
            for at in range(max(start - base, 0), min(end - base, PAGE_OFFSETS)):
                if own[at] != others[at]:
                    yield base + at, own[at] - 1, others[at] - 1


_EMPTY_PAGE: Final = array("i", _EMPTY)
