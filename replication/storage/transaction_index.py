"""The aborted transactions that end in one segment (`.txnindex`): what a read_committed consumer has to leave out.

Entries of 34 bytes, big-endian, in the order of their markers: version int16 = 0, producer id int64, first offset
int64, last offset int64 (the marker's), last stable offset int64 when the marker was appended. The file is there only
once there is an entry. In memory the entries are four compact arrays, loaded when first used; a segment is rolled
when the file has segment.index.bytes. No checksum covers it: what is loaded is checked for what always holds, and made
anew from the log where that does not.
Source: org.apache.kafka.storage.internals.log.TransactionIndex, AbortedTxn.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from metadata.environment import File, Files
from replication.partition.log import AbortedTransaction
from replication.storage.indexes import CorruptIndex

VERSION = 0
_ENTRY = struct.Struct(">hqqqq")
TRANSACTION_ENTRY_BYTES = _ENTRY.size
NO_FIRST_OFFSET = 2**63 - 1


class TransactionIndex:
    def __init__(self, files: Files, path: str, *, base_offset: int, bytes_max: int, is_there: bool) -> None:
        self._files = files
        self.path = path
        self._base_offset = base_offset
        self._bytes_max = bytes_max
        self._file: File | None = files.open(path) if is_there else None
        self._columns = _Columns()
        self._is_loaded = self._file is None

    @property
    def is_there(self) -> bool:
        return self._file is not None

    @property
    def is_full(self) -> bool:
        return self._file is not None and self._file.size + TRANSACTION_ENTRY_BYTES > self._bytes_max

    def load(self) -> None:
        """Raises CorruptIndex."""
        if not self._is_loaded:
            assert self._file is not None, self.path
            self._columns = _Columns(entries_of(self._file))
            self._columns.check(self.path, base_offset=self._base_offset)
            self._is_loaded = True

    def overlapping(self, start: int, stop: int) -> Iterator[AbortedTransaction]:
        """Those that end in this segment and have offsets in the range. Raises CorruptIndex."""
        self.load()
        columns = self._columns
        if columns.first_offset_min >= stop:
            return
        for at in range(bisect_left(columns.last_offsets, start), len(columns.last_offsets)):
            if columns.first_offsets[at] < stop:
                yield columns.entry(at)
            if columns.last_stable_offsets[at] >= stop:
                return

    def has_entries_since(self, offset: int) -> bool:
        """Whether a transaction ends here at or after the offset. Raises CorruptIndex."""
        self.load()
        return bool(self._columns.last_offsets) and self._columns.last_offsets[-1] >= offset

    def append(self, entry: AbortedTransaction) -> bool:
        """True when the file is new. Raises CorruptIndex, OSError."""
        self.load()
        is_new = self._file is None
        if self._file is None:
            self._file = self._files.open(self.path, create=True)
        self._file.append([encode_entry(entry)])
        self._columns.append(entry)
        return is_new

    def truncate_from(self, offset: int) -> None:
        """Drop the transactions that end at or after the offset. Raises CorruptIndex, OSError."""
        if self._file is None:
            return
        self.load()
        kept = bisect_left(self._columns.last_offsets, offset)
        if kept < len(self._columns.last_offsets):
            self._file.truncate(kept * TRANSACTION_ENTRY_BYTES)
            self._columns = _Columns([self._columns.entry(at) for at in range(kept)])

    def clear(self) -> None:
        """What cannot be read is made anew. Raises OSError."""
        if self._file is not None:
            self._file.truncate(0)
        self._columns, self._is_loaded = _Columns(), True

    def sync(self) -> None:
        """Blocking."""
        if self._file is not None:
            self._file.sync()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class _Columns:
    def __init__(self, entries: Iterable[AbortedTransaction] = ()) -> None:
        self.producer_ids = array("q")
        self.first_offsets = array("q")
        self.last_offsets = array("q")
        self.last_stable_offsets = array("q")
        self.first_offset_min = NO_FIRST_OFFSET
        for entry in entries:
            self.append(entry)

    def append(self, entry: AbortedTransaction) -> None:
        self.producer_ids.append(entry.producer_id)
        self.first_offsets.append(entry.first_offset)
        self.last_offsets.append(entry.last_offset)
        self.last_stable_offsets.append(entry.last_stable_offset)
        self.first_offset_min = min(self.first_offset_min, entry.first_offset)

    def entry(self, at: int) -> AbortedTransaction:
        return AbortedTransaction(
            self.producer_ids[at], self.first_offsets[at], self.last_offsets[at], self.last_stable_offsets[at]
        )

    def check(self, path: str, *, base_offset: int) -> None:
        """Markers ascend from the base offset on, no transaction begins behind its marker, and none that ends later
        begins below the last stable offset of an earlier one. Raises CorruptIndex."""
        later_first = later_last = NO_FIRST_OFFSET
        for at in reversed(range(len(self.last_offsets))):
            producer_id, first, last, stable = self.entry(at)
            if not (producer_id >= 0 and 0 <= first < last < later_last and base_offset <= last):
                raise CorruptIndex(f"{path}: entry {at} of producer {producer_id} from {first} to {last} is impossible")
            if not 0 <= stable <= min(later_first, last + 1):
                raise CorruptIndex(f"{path}: entry {at} has a last stable offset of {stable}, which it cannot have")
            later_first, later_last = min(later_first, first), last


def encode_entry(entry: AbortedTransaction) -> bytes:
    return _ENTRY.pack(VERSION, *entry)


def entries_of(file: File) -> Iterator[AbortedTransaction]:
    """Raises CorruptIndex."""
    if file.size % TRANSACTION_ENTRY_BYTES:
        raise CorruptIndex(f"{file.path}: {file.size} bytes are no whole number of entries")
    for version, *fields in _ENTRY.iter_unpack(file.pread(0, file.size)):
        if version != VERSION:
            raise CorruptIndex(f"{file.path}: an entry has version {version}; only {VERSION} is known")
        yield AbortedTransaction(*fields)
