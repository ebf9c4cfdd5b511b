"""The sparse indexes of one segment: offset -> position (`.index`) and timestamp -> offset (`.timeindex`).

Entries of `.index`, 8 bytes: offset relative to the base u32, file position u32; of `.timeindex`, 12 bytes: timestamp
i64, relative offset u32; big-endian, ascending, never preallocated. In memory an index is one compact array, loaded at
its first use, and the only part of a log in memory. No checksum covers an index, so a loaded one is checked for its
order, and the segment accepts an entry only if the batch at its position confirms it.
Source: OffsetIndex, TimeIndex.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice
from operator import lt
from typing import Generic, TypeVar, overload

from metadata.environment import File

OFFSET_ENTRY_BYTES = 8
TIME_ENTRY_BYTES = 12
_TIME_ENTRY = struct.Struct(">qI")
_OFFSET_ENTRY = struct.Struct(">Q")
_LOW_WORD = 0xFFFFFFFF
RELATIVE_OFFSET_MAX = 2**31 - 1
"""Limit of an entry; a segment is rolled before (Kafka uses a signed integer)."""


Entries = TypeVar("Entries")


class CorruptIndex(Exception):
    """The index cannot belong to its segment; it is rebuilt from the log (S5)."""


class _Index(Generic[Entries]):
    """The common part of both indexes: a file of entries of one size, the same entries in memory after the first use,
    and a rebuild of the file from the log."""

    __slots__ = ("_entries", "_entry_bytes", "_file", "_full_bytes", "_rebuilt", "is_full")

    def __init__(self, file: File, *, entry_bytes: int, entries_max: int) -> None:
        self._file = file
        self._entry_bytes = entry_bytes
        self._full_bytes = entries_max * entry_bytes
        self.is_full = file.size >= self._full_bytes
        self._entries: Entries | None = None
        self._rebuilt: bytearray | None = None
        """New content of the file, while the index is rebuilt."""

    @property
    def file(self) -> File:
        return self._file

    @property
    def is_loaded(self) -> bool:
        return self._entries is not None

    def __len__(self) -> int:
        return self._file.size // self._entry_bytes

    @property
    def _loaded(self) -> Entries:
        assert self._entries is not None, self._file.path
        return self._entries

    def _check_whole(self) -> None:
        if self._file.size % self._entry_bytes:
            raise CorruptIndex(f"{self._file.path}: {self._file.size} bytes are no whole number of entries")

    def _write(self, entry: bytes) -> None:
        if self._rebuilt is None:
            self.is_full = self._file.append([entry]) >= self._full_bytes
        else:
            self._rebuilt += entry

    def _truncate_file(self, entries: int) -> None:
        self._file.truncate(entries * self._entry_bytes)
        self.is_full = self._file.size >= self._full_bytes

    # --- rebuild from the log: the file stays unchanged until the end

    def _begin_rebuild(self, empty: Entries) -> None:
        self._entries, self._rebuilt = empty, bytearray()

    def finish_rebuild(self) -> None:
        """Write the new content. Raises OSError: then the index is empty, and its readers need longer walks."""
        assert self._rebuilt is not None, self._file.path
        self._file.truncate(0)
        if self._rebuilt:
            self._file.append([self._rebuilt])
        self._rebuilt = None
        self.is_full = self._file.size >= self._full_bytes

    def abandon_rebuild(self) -> None:
        self._entries = self._rebuilt = None


class OffsetIndex(_Index["array[int]"]):
    """Each entry is one integer, relative offset << 32 | position: sorted by offset, and by position as well."""

    __slots__ = ()

    def __init__(self, file: File, *, bytes_max: int) -> None:
        super().__init__(file, entry_bytes=OFFSET_ENTRY_BYTES, entries_max=bytes_max // OFFSET_ENTRY_BYTES)

    def load(self, *, log_bytes: int) -> None:
        """Load the file. Raises CorruptIndex."""
        self.check(log_bytes=log_bytes)
        entries = self._read()
        if not all(map(lt, entries, islice(entries, 1, None))):
            raise CorruptIndex(f"{self._file.path}: its offsets do not ascend")
        positions = [entry & _LOW_WORD for entry in entries]
        if not all(map(lt, positions, islice(positions, 1, None))):
            raise CorruptIndex(f"{self._file.path}: its positions do not ascend")
        if entries and entries[-1] >> 32 > RELATIVE_OFFSET_MAX:
            raise CorruptIndex(f"{self._file.path}: offset {entries[-1] >> 32} is too large for a segment")
        self._entries = entries

    def _read(self) -> array[int]:
        entries = array("Q", self._file.pread(0, len(self) * OFFSET_ENTRY_BYTES))
        if sys.byteorder == "little":
            entries.byteswap()
        return entries

    def append(self, relative_offset: int, position: int) -> None:
        entry = relative_offset << 32 | position
        entries = self._loaded
        assert not entries or entry > entries[-1], (relative_offset, position, entries[-1])
        self._write(_OFFSET_ENTRY.pack(entry))
        entries.append(entry)

    def lookup(self, relative_offset: int) -> tuple[int, int]:
        """The last entry (relative offset, position) at or before the offset; (0, 0) when there is none. An index that
        is not loaded is searched in its file."""
        entries: Sequence[int] = _OffsetsOnDisk(self._file) if self._entries is None else self._entries
        at = bisect_right(entries, relative_offset << 32 | _LOW_WORD) - 1
        if at < 0:
            return 0, 0
        entry = entries[at]
        return entry >> 32, entry & _LOW_WORD

    def truncate_from(self, relative_offset: int) -> None:
        """Remove the entries at and after the offset."""
        self.truncate_entries(bisect_left(self._loaded, relative_offset << 32))

    def truncate_entries(self, count: int) -> None:
        del self._loaded[count:]
        self._truncate_file(count)

    def begin_rebuild(self) -> None:
        self._begin_rebuild(array("Q"))

    def check(self, *, log_bytes: int) -> None:
        """Check that the entries are whole, and the last one lies in the log; loads nothing. Raises CorruptIndex."""
        self._check_whole()
        if not len(self):
            return
        last = _OffsetsOnDisk(self._file)[len(self) - 1]
        if last & _LOW_WORD >= log_bytes:
            raise CorruptIndex(f"{self._file.path}: position {last & _LOW_WORD} in a log of {log_bytes} bytes")

    def rows(self) -> Iterator[tuple[int, int]]:
        """The entries as they are in the file, in order or not."""
        return ((entry >> 32, entry & _LOW_WORD) for entry in self._read())


class TimeIndex(_Index["tuple[array[int], array[int]]"]):
    """Entry (timestamp, offset): no record up to that offset is later than the timestamp."""

    __slots__ = ()

    def __init__(self, file: File, *, bytes_max: int) -> None:
        super().__init__(file, entry_bytes=TIME_ENTRY_BYTES, entries_max=bytes_max // TIME_ENTRY_BYTES - 1)

    def load(self) -> None:
        """Load the file. Raises CorruptIndex."""
        self.check()
        times, offsets = entries = self._read()
        for what, values in (("timestamps", times), ("offsets", offsets)):
            if not all(map(lt, values, islice(values, 1, None))):
                raise CorruptIndex(f"{self._file.path}: its {what} do not ascend")
        self._entries = entries

    def _read(self) -> tuple[array[int], array[int]]:
        times, offsets = array("q"), array("Q")
        for timestamp, offset in _TIME_ENTRY.iter_unpack(self._file.pread(0, len(self) * TIME_ENTRY_BYTES)):
            times.append(timestamp)
            offsets.append(offset)
        return times, offsets

    def last(self) -> tuple[int, int] | None:
        """The last (timestamp, relative offset)."""
        if self._entries is not None:
            times, offsets = self._entries
            return (times[-1], offsets[-1]) if times else None
        if not len(self):
            return None
        data = self._file.pread((len(self) - 1) * TIME_ENTRY_BYTES, TIME_ENTRY_BYTES)
        timestamp, offset = _TIME_ENTRY.unpack(data)
        return timestamp, offset

    def maybe_append(self, timestamp: int, relative_offset: int) -> None:
        """Add an entry if the timestamp is later than the last one's."""
        times, offsets = self._loaded
        if timestamp < 0 or (times and timestamp <= times[-1]):
            return
        assert not offsets or relative_offset > offsets[-1], (relative_offset, offsets[-1])
        self._write(_TIME_ENTRY.pack(timestamp, relative_offset))
        times.append(timestamp)
        offsets.append(relative_offset)

    def lookup(self, timestamp: int) -> tuple[int, int] | None:
        """The last entry that is not later than the timestamp."""
        times, offsets = self._loaded
        at = bisect_right(times, timestamp) - 1
        return None if at < 0 else (times[at], offsets[at])

    def last_up_to_offset(self, relative_offset: int) -> tuple[int, int] | None:
        """The last (timestamp, relative offset) at or before the offset."""
        times, offsets = self._loaded
        at = bisect_right(offsets, relative_offset) - 1
        return None if at < 0 else (times[at], offsets[at])

    def truncate_from(self, relative_offset: int) -> None:
        self.truncate_entries(bisect_left(self._loaded[1], relative_offset))

    def truncate_entries(self, count: int) -> None:
        times, offsets = self._loaded
        del times[count:]
        del offsets[count:]
        self._truncate_file(count)

    def begin_rebuild(self) -> None:
        self._begin_rebuild((array("q"), array("Q")))

    def check(self) -> None:
        """Check that the entries are whole, and the last one is possible; loads nothing. Raises CorruptIndex."""
        self._check_whole()
        last = self.last()
        if last is not None and last[0] < 0:
            raise CorruptIndex(f"{self._file.path}: last timestamp {last[0]}")

    def rows(self) -> Iterator[tuple[int, int]]:
        """The entries as they are in the file, in order or not."""
        return zip(*self._read(), strict=True)


class _OffsetsOnDisk(Sequence[int]):
    """The entries of an index that is not loaded, for a search that reads only a few of them."""

    def __init__(self, file: File) -> None:
        self._file = file

    def __len__(self) -> int:
        return self._file.size // OFFSET_ENTRY_BYTES

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        assert isinstance(index, int), index
        (entry,) = _OFFSET_ENTRY.unpack(self._file.pread(index * OFFSET_ENTRY_BYTES, OFFSET_ENTRY_BYTES))
        return int(entry)
