"""The sparse indexes of one segment: offset -> position (`.index`) and timestamp -> offset (`.timeindex`).

Entries of `.index`, 8 bytes: offset relative to the base u32, file position u32; of `.timeindex`, 12 bytes: timestamp
i64, relative offset u32; big-endian, ascending, never preallocated. In memory an index is one compact array,
loaded when first asked, which is all of a log that is held. Source: OffsetIndex, TimeIndex.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right

from metadata.environment import File

OFFSET_ENTRY_BYTES = 8
TIME_ENTRY_BYTES = 12
_TIME_ENTRY = struct.Struct(">qI")
_OFFSET_ENTRY = struct.Struct(">Q")
_LOW_WORD = 0xFFFFFFFF


class CorruptIndex(Exception):
    """The index cannot belong to its segment; it is rebuilt from the log (S5)."""


class OffsetIndex:
    """Each entry is one integer, relative offset << 32 | position: sorted by offset, and by position as well."""

    def __init__(self, file: File, *, bytes_max: int) -> None:
        self._file = file
        self._full_bytes = bytes_max // OFFSET_ENTRY_BYTES * OFFSET_ENTRY_BYTES
        self.is_full = file.size >= self._full_bytes
        self._loaded: array[int] | None = None

    @property
    def file(self) -> File:
        return self._file

    def __len__(self) -> int:
        return self._file.size // OFFSET_ENTRY_BYTES

    @property
    def _entries(self) -> array[int]:
        if self._loaded is None:
            size = self._file.size - self._file.size % OFFSET_ENTRY_BYTES
            self._loaded = array("Q", self._file.pread(0, size))
            if sys.byteorder == "little":
                self._loaded.byteswap()
        return self._loaded

    def append(self, relative_offset: int, position: int) -> None:
        entry = relative_offset << 32 | position
        entries = self._entries
        assert not entries or entry > entries[-1], (relative_offset, position, entries[-1])
        self.is_full = self._file.append([_OFFSET_ENTRY.pack(entry)]) >= self._full_bytes
        entries.append(entry)

    def lookup(self, relative_offset: int) -> tuple[int, int]:
        """The last entry (relative offset, position) at or before the offset; (0, 0) when there is none."""
        entries = self._entries
        at = bisect_right(entries, relative_offset << 32 | _LOW_WORD) - 1
        return (0, 0) if at < 0 else (entries[at] >> 32, entries[at] & _LOW_WORD)

    def truncate_from(self, relative_offset: int) -> None:
        """Drop the entries at and after the offset."""
        self.truncate_entries(bisect_left(self._entries, relative_offset << 32))

    def truncate_entries(self, count: int) -> None:
        del self._entries[count:]
        self._file.truncate(count * OFFSET_ENTRY_BYTES)
        self.is_full = self._file.size >= self._full_bytes

    def check(self, *, log_bytes: int) -> None:
        """Sanity of a trusted index: whole entries, and the last one inside the log."""
        if self._file.size % OFFSET_ENTRY_BYTES:
            raise CorruptIndex(f"{self._file.path}: {self._file.size} bytes are no whole number of entries")
        if not len(self):
            return
        data = self._file.pread(self._file.size - OFFSET_ENTRY_BYTES, OFFSET_ENTRY_BYTES)
        (last,) = _OFFSET_ENTRY.unpack(data)
        if last & _LOW_WORD >= log_bytes:
            raise CorruptIndex(f"{self._file.path}: position {last & _LOW_WORD} in a log of {log_bytes} bytes")

    def rows(self) -> list[tuple[int, int]]:
        return [(entry >> 32, entry & _LOW_WORD) for entry in self._entries]


class TimeIndex:
    """Entry (timestamp, offset): no record up to that offset is later than the timestamp."""

    def __init__(self, file: File, *, bytes_max: int) -> None:
        self._file = file
        self._full_bytes = (bytes_max // TIME_ENTRY_BYTES - 1) * TIME_ENTRY_BYTES
        self.is_full = file.size >= self._full_bytes
        self._loaded: tuple[array[int], array[int]] | None = None

    @property
    def file(self) -> File:
        return self._file

    def __len__(self) -> int:
        return self._file.size // TIME_ENTRY_BYTES

    @property
    def _entries(self) -> tuple[array[int], array[int]]:
        if self._loaded is None:
            size = self._file.size - self._file.size % TIME_ENTRY_BYTES
            times, offsets = array("q"), array("Q")
            for timestamp, offset in _TIME_ENTRY.iter_unpack(self._file.pread(0, size)):
                times.append(timestamp)
                offsets.append(offset)
            self._loaded = (times, offsets)
        return self._loaded

    def last(self) -> tuple[int, int] | None:
        """The last (timestamp, relative offset)."""
        if not len(self):
            return None
        data = self._file.pread((len(self) - 1) * TIME_ENTRY_BYTES, TIME_ENTRY_BYTES)
        timestamp, offset = _TIME_ENTRY.unpack(data)
        return timestamp, offset

    def maybe_append(self, timestamp: int, relative_offset: int) -> None:
        """Add an entry if the timestamp is later than the last one's."""
        times, offsets = self._entries
        if timestamp < 0 or (times and timestamp <= times[-1]):
            return
        assert not offsets or relative_offset > offsets[-1], (relative_offset, offsets[-1])
        self.is_full = self._file.append([_TIME_ENTRY.pack(timestamp, relative_offset)]) >= self._full_bytes
        times.append(timestamp)
        offsets.append(relative_offset)

    def lookup(self, timestamp: int) -> int:
        """Relative offset of the last entry that is not later than the timestamp; 0 when there is none."""
        times, offsets = self._entries
        at = bisect_right(times, timestamp) - 1
        return 0 if at < 0 else offsets[at]

    def last_up_to_offset(self, relative_offset: int) -> tuple[int, int] | None:
        """The last (timestamp, relative offset) at or before the offset."""
        times, offsets = self._entries
        at = bisect_right(offsets, relative_offset) - 1
        return None if at < 0 else (times[at], offsets[at])

    def truncate_from(self, relative_offset: int) -> None:
        self.truncate_entries(bisect_left(self._entries[1], relative_offset))

    def truncate_entries(self, count: int) -> None:
        times, offsets = self._entries
        del times[count:]
        del offsets[count:]
        self._file.truncate(count * TIME_ENTRY_BYTES)
        self.is_full = self._file.size >= self._full_bytes

    def check(self) -> None:
        if self._file.size % TIME_ENTRY_BYTES:
            raise CorruptIndex(f"{self._file.path}: {self._file.size} bytes are no whole number of entries")
        last = self.last()
        if last is not None and last[0] < 0:
            raise CorruptIndex(f"{self._file.path}: last timestamp {last[0]}")

    def rows(self) -> list[tuple[int, int]]:
        return list(zip(*self._entries, strict=True))
