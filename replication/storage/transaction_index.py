"""The aborted transactions that end in one segment (`.txnindex`): a read_committed consumer leaves them out.

Entries of 34 bytes, big-endian, in the order of their markers: version int16 = 0, producer id int64, first offset
int64, last offset int64 (the marker's), last stable offset int64 when the marker was appended. The file exists only if
there is an entry, and a segment is rolled when it has segment.index.bytes. Only the last offset of each
`ENTRIES_AT_ONCE`th entry stays in memory: a lookup searches these, and then reads so many entries of the file at a
time. No checksum covers the file: all of it is checked for its invariants when it is loaded, and rebuilt from the log
where they do not hold.
Source: org.apache.kafka.storage.internals.log.TransactionIndex, AbortedTxn.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

from metadata.environment import File, Files
from replication.partition.log import AbortedTransaction
from replication.storage.indexes import CorruptIndex

VERSION = 0
_ENTRY = struct.Struct(">hqqqq")
_LAST_OFFSET = struct.Struct(">q")
_LAST_OFFSET_AT = struct.calcsize(">hqq")
TRANSACTION_ENTRY_BYTES = _ENTRY.size
ENTRIES_AT_ONCE = 128
"""Entries that are read from the file at once. A fetch of a megabyte seldom has more aborted transactions in it."""
NO_FIRST_OFFSET = 2**63 - 1
NO_LAST_OFFSET = -1


@dataclass(frozen=True, slots=True)
class Found:
    aborted: list[AbortedTransaction]
    is_complete: bool
    """No later segment has one that belongs to the range."""


class TransactionIndex:
    def __init__(self, files: Files, path: str, *, base_offset: int, bytes_max: int, is_there: bool) -> None:
        self._files = files
        self.path = path
        self._base_offset = base_offset
        self._bytes_max = bytes_max
        self._file: File | None = files.open(path) if is_there else None
        self._is_loaded = self._file is None
        self._count = 0
        self._page_ends = array("q")
        """The last offset of each `ENTRIES_AT_ONCE`th entry."""
        self._first_offset_min = NO_FIRST_OFFSET
        """No entry begins before it."""
        self._last_offset = NO_LAST_OFFSET
        """Last offset of the last entry."""

    @property
    def is_there(self) -> bool:
        return self._file is not None

    @property
    def count(self) -> int:
        """Number of entries, from the size of the file, without loading it."""
        return self._file.size // TRANSACTION_ENTRY_BYTES if self._file is not None else 0

    @property
    def is_full(self) -> bool:
        return self._file is not None and self._file.size + TRANSACTION_ENTRY_BYTES > self._bytes_max

    def load(self) -> None:
        """Read and check all of it once. Raises CorruptIndex."""
        if self._is_loaded:
            return
        assert self._file is not None, self.path
        self._forget()
        for entry in _checked(self._file, self.path, base_offset=self._base_offset):
            self._note(entry)
        self._is_loaded = True

    def overlapping(self, start: int, stop: int) -> Found:
        """Transactions that end in this segment and have offsets in the range, by their markers. Raises
        CorruptIndex."""
        self.load()
        found: list[AbortedTransaction] = []
        if self._first_offset_min < stop and self._last_offset >= start:
            for entry in self._from(self._first_ending_at(start)):
                if entry.first_offset < stop:
                    found.append(entry)
                if entry.last_stable_offset >= stop:
                    return Found(found, True)
        return Found(found, False)

    def _first_ending_at(self, offset: int) -> int:
        """The number of the first entry whose marker is at or after the offset."""
        assert self._file is not None, self.path
        begin = bisect_left(self._page_ends, offset) * ENTRIES_AT_ONCE
        page = self._file.pread(begin * TRANSACTION_ENTRY_BYTES, ENTRIES_AT_ONCE * TRANSACTION_ENTRY_BYTES)

        def last_offset(at: int) -> int:
            (found,) = _LAST_OFFSET.unpack_from(page, at * TRANSACTION_ENTRY_BYTES + _LAST_OFFSET_AT)
            return int(found)

        return begin + bisect_left(range(len(page) // TRANSACTION_ENTRY_BYTES), offset, key=last_offset)

    def _from(self, at: int) -> Iterator[AbortedTransaction]:
        assert self._file is not None, self.path
        last_offset = self._base_offset - 1
        for entry in _entries(self._file, range(at, self._count)):
            if entry.last_offset <= last_offset:
                raise CorruptIndex(f"{self.path}: it has changed, and markers do not ascend any more")
            last_offset = entry.last_offset
            yield entry

    def has_entries_since(self, offset: int) -> bool:
        """Whether a transaction ends here at or after the offset. Raises CorruptIndex."""
        self.load()
        return self._last_offset >= offset

    def append(self, entry: AbortedTransaction) -> bool:
        """Append an entry. True when the file is new. Raises CorruptIndex, OSError."""
        self.load()
        is_new = self._file is None
        if self._file is None:
            self._file = self._files.open(self.path, create=True)
        self._file.append([encode_entry(entry)])
        self._note(entry)
        return is_new

    def _note(self, entry: AbortedTransaction) -> None:
        self._count += 1
        self._first_offset_min = min(self._first_offset_min, entry.first_offset)
        self._last_offset = entry.last_offset
        if not self._count % ENTRIES_AT_ONCE:
            self._page_ends.append(entry.last_offset)

    def _forget(self) -> None:
        self._count, self._first_offset_min, self._last_offset = 0, NO_FIRST_OFFSET, NO_LAST_OFFSET
        del self._page_ends[:]

    def truncate_from(self, offset: int) -> None:
        """Remove the transactions that end at or after the offset. Raises CorruptIndex, OSError."""
        if self._file is None:
            return
        self.load()
        if self._last_offset >= offset:
            kept = self._first_ending_at(offset)
            last_offset = next(_entries(self._file, range(kept - 1, kept))).last_offset if kept else NO_LAST_OFFSET
            self._file.truncate(kept * TRANSACTION_ENTRY_BYTES)
            self._count, self._last_offset = kept, last_offset
            del self._page_ends[kept // ENTRIES_AT_ONCE :]

    def clear(self) -> None:
        """Remove all entries, to rebuild an unreadable index. Raises OSError."""
        if self._file is not None:
            self._file.truncate(0)
        self._forget()
        self._is_loaded = True

    def sync(self) -> None:
        """Blocking."""
        if self._file is not None:
            self._file.sync()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _checked(file: File, path: str, *, base_offset: int) -> Iterator[AbortedTransaction]:
    """All entries. Markers ascend from the base offset on, no transaction begins behind its marker, and none that ends
    later begins below the last stable offset of an earlier one. Raises CorruptIndex."""
    last_before, stable_max = max(base_offset - 1, NO_LAST_OFFSET), 0
    for at, entry in enumerate(entries_of(file)):
        producer_id, first, last, stable = entry
        if not (producer_id >= 0 and 0 <= first < last and last_before < last):
            raise CorruptIndex(f"{path}: entry {at} of producer {producer_id} from {first} to {last} is impossible")
        if not 0 <= stable <= last + 1:
            raise CorruptIndex(f"{path}: entry {at} has a last stable offset of {stable}, which it cannot have")
        if first < stable_max:
            raise CorruptIndex(
                f"{path}: entry {at} begins at {first}, and an earlier one has a last stable offset of {stable_max}, "
                "which it cannot have"
            )
        last_before, stable_max = last, max(stable_max, stable)
        yield entry


def encode_entry(entry: AbortedTransaction) -> bytes:
    return _ENTRY.pack(VERSION, *entry)


def entries_of(file: File) -> Iterator[AbortedTransaction]:
    """All entries of a file. Raises CorruptIndex."""
    if file.size % TRANSACTION_ENTRY_BYTES:
        raise CorruptIndex(f"{file.path}: {file.size} bytes are no whole number of entries")
    return _entries(file, range(file.size // TRANSACTION_ENTRY_BYTES))


def _entries(file: File, numbers: range) -> Iterator[AbortedTransaction]:
    for at in range(numbers.start, numbers.stop, ENTRIES_AT_ONCE):
        wanted = min(ENTRIES_AT_ONCE, numbers.stop - at) * TRANSACTION_ENTRY_BYTES
        data = file.pread(at * TRANSACTION_ENTRY_BYTES, wanted)
        if len(data) != wanted:
            raise CorruptIndex(f"{file.path}: it is shorter than it was")
        for version, producer_id, first_offset, last_offset, last_stable_offset in _ENTRY.iter_unpack(data):
            if version != VERSION:
                raise CorruptIndex(f"{file.path}: an entry has version {version}; only {VERSION} is known")
            yield AbortedTransaction(producer_id, first_offset, last_offset, last_stable_offset)
