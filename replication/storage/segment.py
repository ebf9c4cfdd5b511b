"""One segment: a log file and its indexes, all named by the segment's base offset.

Invariant: every index entry that is used leads to a batch that is wholly in the log file; an index that does not fit
its log is rebuilt from the headers of the log. An append that fails leaves the three files unchanged.
Source: org.apache.kafka.storage.internals.log.LogSegment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from kraft.protocol.batches.header import NO_TIMESTAMP, BatchHeader
from kraft.protocol.primitives import Buffer
from kraft.values import value
from metadata.environment import File, Files
from metadata.settings import TopicSettings
from replication.storage.header_scan import DamagedLog, headers_from
from replication.storage.indexes import RELATIVE_OFFSET_MAX, CorruptIndex, OffsetIndex, TimeIndex
from replication.storage.names import (
    INDEX_SUFFIX,
    LOG_SUFFIX,
    NEEDED_SUFFIXES,
    TIME_INDEX_SUFFIX,
    TRANSACTION_INDEX_SUFFIX,
    segment_file,
)
from replication.storage.transaction_index import TransactionIndex


@value()
class Found:
    """A batch in the log file, and the offset after the one before it."""

    position: int
    header: BatchHeader
    expected: int
    has_bad_index: bool = False
    """An index entry led to no batch, and the index could not be rebuilt."""


class Segment:
    def __init__(
        self,
        *,
        folder: str,
        base_offset: int,
        log: File,
        offsets: OffsetIndex,
        times: TimeIndex,
        transactions: TransactionIndex,
        created_ms: int,
        index_interval_bytes: int,
    ) -> None:
        self.folder = folder
        self.base_offset = base_offset
        self.created_ms = created_ms
        """Time of its roll; it replaces the first record's time while that is unknown."""
        self.index_interval_bytes = index_interval_bytes
        self.on_index_rebuilt: Callable[[Segment, str], None] = _nobody_listens
        """Called with the reason."""
        self._log = log
        self.offsets = offsets
        self.times = times
        self.transactions = transactions
        self._bytes_since_entry = 0
        self._first_timestamp: int | None = None
        self._max_timestamp, self._max_timestamp_offset = NO_TIMESTAMP, base_offset
        self.reset_marks()

    @classmethod
    def open(
        cls,
        files: Files,
        folder: str,
        base_offset: int,
        *,
        index_bytes_max: int,
        index_interval_bytes: int,
        created_ms: int,
        create: bool = False,
        has_transactions: bool = False,
        state_suffix: str = "",
    ) -> Segment:
        """Missing index files are created empty: a caller that opens an existing segment checks and rebuilds them.
        `has_transactions`: there is an index of aborted ones."""
        opened: list[File] = []
        try:
            for suffix in NEEDED_SUFFIXES:
                path = segment_file(folder, base_offset, suffix) + state_suffix
                opened.append(files.open(path, create=create or suffix != LOG_SUFFIX))
            transactions = TransactionIndex(
                files,
                segment_file(folder, base_offset, TRANSACTION_INDEX_SUFFIX) + state_suffix,
                base_offset=base_offset,
                bytes_max=index_bytes_max,
                is_there=has_transactions,
            )
        except OSError:
            for file in opened:
                file.close()
                if create:
                    files.remove(file.path)
            raise
        log, index, time_index = opened
        return cls(
            folder=folder,
            base_offset=base_offset,
            log=log,
            offsets=OffsetIndex(index, bytes_max=index_bytes_max),
            times=TimeIndex(time_index, bytes_max=index_bytes_max),
            transactions=transactions,
            created_ms=created_ms,
            index_interval_bytes=index_interval_bytes,
        )

    @property
    def log(self) -> File:
        return self._log

    @property
    def size(self) -> int:
        return self._log.size

    @property
    def is_empty(self) -> bool:
        """Whether all of its files are empty."""
        return not (self._log.size or self.offsets.file.size or self.times.file.size)

    @property
    def max_timestamp(self) -> int:
        """Largest timestamp of its records; -1 while it has none."""
        return self._max_timestamp

    @property
    def max_timestamp_offset(self) -> int:
        """Last offset of the batch with the largest timestamp."""
        return self._max_timestamp_offset

    def first_timestamp(self) -> int:
        """Timestamp of the first batch; -1 while there is none."""
        if self._first_timestamp is None and self.size:
            _, header = next(headers_from(self._log, 0))
            self._first_timestamp = header.max_timestamp
        return NO_TIMESTAMP if self._first_timestamp is None else self._first_timestamp

    def append(self, parts: Sequence[Buffer], headers: Sequence[BatchHeader]) -> int:
        """Write stamped batches and their index entries; return the log file's new size. Raises OSError, or DamagedLog
        for indexes that cannot be rebuilt, and then changes nothing."""
        if not (self.offsets.is_loaded and self.times.is_loaded):
            self._load_indexes()
        position = self._log.size
        size = self._log.append(parts)
        bytes_since_entry = self._bytes_since_entry + size - position
        if bytes_since_entry > self.index_interval_bytes:
            self._note_all(headers, position)
            return size
        if not position:  # no index entry is due
            self._first_timestamp = headers[0].max_timestamp
        for header in headers:
            if header.max_timestamp > self._max_timestamp:
                self._max_timestamp = header.max_timestamp
                self._max_timestamp_offset = header.base_offset + header.last_offset_delta
        self._bytes_since_entry = bytes_since_entry
        return size

    def _note_all(self, headers: Sequence[BatchHeader], log_bytes: int) -> None:
        """Add new batches to the indexes. If an index raises, the log file is cut back first; DamagedLog if that
        fails."""
        entries, time_entries = len(self.offsets), len(self.times)
        marks = self._bytes_since_entry, self._first_timestamp, self._max_timestamp, self._max_timestamp_offset
        position = log_bytes
        try:
            for header in headers:
                self.note(header, position)
                position += header.size
        except Exception as error:
            try:
                self._log.truncate(log_bytes)
                self.offsets.truncate_entries(entries)
                self.times.truncate_entries(time_entries)
            except OSError as failure:
                raise DamagedLog(f"{self._log.path}: an append cannot be undone: {failure}") from error
            self._bytes_since_entry, self._first_timestamp, self._max_timestamp, self._max_timestamp_offset = marks
            raise

    def note(self, header: BatchHeader, position: int) -> None:
        """Add one batch of the log to the loaded indexes: after an append, and when they are rebuilt."""
        if not position:
            self._first_timestamp = header.max_timestamp
        if header.max_timestamp > self._max_timestamp:
            self._max_timestamp, self._max_timestamp_offset = header.max_timestamp, header.last_offset
        if self._bytes_since_entry > self.index_interval_bytes:
            self.offsets.append(header.last_offset - self.base_offset, position)
            self.times.maybe_append(self._max_timestamp, self._max_timestamp_offset - self.base_offset)
            self._bytes_since_entry = 0
        self._bytes_since_entry += header.size

    # --- the indexes and their source ---------------------------------------------------------------------------

    def _load_indexes(self) -> None:
        """Load the indexes, or rebuild them if they are not readable. Raises DamagedLog, OSError."""
        try:
            if not self.offsets.is_loaded:
                self.offsets.load(log_bytes=self.size)
            if not self.times.is_loaded:
                self.times.load()
        except CorruptIndex as error:
            self.rebuild_indexes(str(error))

    def check_indexes(self) -> None:
        """Check a cleanly closed segment: the last entries must fit the log. Nothing stays loaded.

        Raises CorruptIndex; DamagedLog where the log is not readable either.
        """
        self.offsets.check(log_bytes=self.size)
        self.times.check()
        last = self.times.last()
        if last is None:
            if self.size and self.first_timestamp() >= 0:
                raise CorruptIndex(f"{self.times.file.path}: no entry for a log of {self.size} bytes")
            return
        if not self._is_true(last):
            raise CorruptIndex(f"{self.times.file.path}: no batch has its last entry's timestamp {last[0]}")

    def _is_true(self, entry: tuple[int, int]) -> bool:
        """Whether the batch with that offset has that timestamp: one flipped bit makes the entry wrong."""
        timestamp, relative = entry
        offset = self.base_offset + relative
        found = self._find(offset, limit=None)
        return found is not None and found.header.base_offset <= offset and found.header.max_timestamp == timestamp

    def start_over(self) -> None:
        """Empty the indexes, before all batches are added by `note`; `finish_indexes` writes them."""
        self.offsets.begin_rebuild()
        self.times.begin_rebuild()
        self.reset_marks()

    def finish_indexes(self) -> None:
        self.offsets.finish_rebuild()
        self.times.finish_rebuild()

    def rebuild_indexes(self, reason: str) -> None:
        """Rebuild them from the headers of the log. Raises DamagedLog, OSError; the marks are then unchanged."""
        marks = self._bytes_since_entry, self._first_timestamp, self._max_timestamp, self._max_timestamp_offset
        self.start_over()
        try:
            expected = self.base_offset
            for position, header in headers_from(self._log, 0):
                if header.base_offset < expected or header.last_offset - self.base_offset > RELATIVE_OFFSET_MAX:
                    raise DamagedLog(f"{self._log.path}: offset {header.base_offset} at {position} is out of order")
                expected = header.next_offset
                self.note(header, position)
            self.finish_time_index()
            self.finish_indexes()
        except (DamagedLog, OSError):
            self.offsets.abandon_rebuild()
            self.times.abandon_rebuild()
            self._bytes_since_entry, self._first_timestamp, self._max_timestamp, self._max_timestamp_offset = marks
            raise
        self.on_index_rebuilt(self, reason)

    def _could_rebuild(self, reason: str) -> bool:
        try:
            self.rebuild_indexes(reason)
        except (DamagedLog, OSError):
            return False
        return True

    def finish_time_index(self) -> None:
        """Complete the time index (roll, close): its last entry gets the segment's largest timestamp."""
        self._load_indexes()
        self.times.maybe_append(self._max_timestamp, self._max_timestamp_offset - self.base_offset)

    def should_roll(
        self,
        *,
        more_bytes: int,
        last_offset: int,
        max_timestamp: int,
        now_ms: int,
        jitter_ms: int,
        settings: TopicSettings,
    ) -> bool:
        """Kafka's LogSegment.shouldRoll: size, age by timestamps, full indexes, offsets out of reach."""
        size = self._log.size
        if not size:
            return last_offset - self.base_offset > RELATIVE_OFFSET_MAX
        return (
            size > settings.segment_size - more_bytes
            or last_offset - self.base_offset > RELATIVE_OFFSET_MAX
            or self.offsets.is_full
            or self.times.is_full
            or self.transactions.is_full
            or self._waited_ms(now_ms, max_timestamp) > settings.segment_ms - jitter_ms
        )

    def _waited_ms(self, now_ms: int, max_timestamp: int) -> int:
        first = self.first_timestamp()
        return max_timestamp - first if first >= 0 else now_ms - self.created_ms

    def headers_near(self, offset: int) -> Iterator[tuple[int, BatchHeader]]:
        """Position and header of each batch, from one at or before the offset's batch. Raises DamagedLog."""
        self._load_indexes()
        relative, position = self.offsets.lookup(offset - self.base_offset)
        if position and not self._ends_at(position, self.base_offset + relative):
            self.rebuild_indexes(_leads_nowhere(self.offsets))
            _, position = self.offsets.lookup(offset - self.base_offset)
        return headers_from(self._log, position)

    def _ends_at(self, position: int, offset: int) -> bool:
        try:
            return next(headers_from(self._log, position))[1].last_offset == offset
        except DamagedLog:
            return False

    def headers_since(self, timestamp_ms: int) -> Iterator[tuple[int, BatchHeader]]:
        """Headers from a batch at or before the first one that is not earlier. Raises DamagedLog."""
        self._load_indexes()
        entry = self._borne_out(self.times.lookup, timestamp_ms - 1)
        return self.headers_near(self.base_offset + (entry[1] if entry else 0))

    def latest_up_to(self, offset: int) -> tuple[int, int] | None:
        """(timestamp, offset) of the largest timestamp that an index has up to there. Raises DamagedLog."""
        self._load_indexes()
        entry = self._borne_out(self.times.last_up_to_offset, offset - self.base_offset)
        return entry and (entry[0], self.base_offset + entry[1])

    def _borne_out(self, look: Callable[[int], tuple[int, int] | None], key: int) -> tuple[int, int] | None:
        entry = look(key)
        if entry is not None and not self._is_true(entry):
            self.rebuild_indexes(f"{self.times.file.path}: no batch at offset {entry[1]} has timestamp {entry[0]}")
            entry = look(key)
        return entry

    def find(self, offset: int, *, start: int | None = None, limit: int | None = None) -> Found | None:
        """The first batch whose last offset is >= the offset; `start` is its position, if that is known, and `limit`
        the offset at which the log continues after this segment.

        An index entry that leads to no batch of its offset is not used: the batch is found from the beginning, and the
        index is rebuilt. Raises DamagedLog when the batches up to there are not in sequence.
        """
        if start is not None:
            return self._walk(offset, start=start, expected=offset, limit=limit)
        self._load_indexes()
        return self._find(offset, limit=limit)

    def _find(self, offset: int, *, limit: int | None) -> Found | None:
        relative, position = self.offsets.lookup(offset - self.base_offset)
        reason = ""
        if position:
            try:
                return self._walk(offset, start=position, first_ends_at=self.base_offset + relative, limit=limit)
            except DamagedLog:
                reason = _leads_nowhere(self.offsets)  # or the log is damaged: then the next line raises as well
        found = self._walk(offset, start=0, expected=self.base_offset, limit=limit)
        if not reason or self._could_rebuild(reason):
            return found
        return found if found is None else replace(found, has_bad_index=True)

    def _walk(
        self, offset: int, *, start: int, limit: int | None, expected: int = -1, first_ends_at: int | None = None
    ) -> Found | None:
        for position, header in headers_from(self._log, start):
            if first_ends_at is not None:
                if header.last_offset != first_ends_at:
                    raise DamagedLog(f"{self.offsets.file.path}: no batch at {start} ends at offset {first_ends_at}")
                first_ends_at, expected = None, header.base_offset
            if header.base_offset < expected:
                raise DamagedLog(
                    f"{self._log.path}: the batch at position {position} begins at offset "
                    f"{header.base_offset} by its header; the one before ends at {expected}"
                )
            if header.last_offset >= offset:
                return Found(position, header, expected)
            expected = header.next_offset
        if first_ends_at is not None or (limit is not None and expected != limit):
            raise DamagedLog(f"{self._log.path}: it ends at offset {expected}, and the log continues at {limit}")
        return None

    def truncate_to(self, offset: int) -> int:
        """Remove every batch that ends at or after the offset; return the log's new end."""
        found = self.find(offset)
        if found is None:
            return offset
        self._load_indexes()
        self.cut_at(found.position)
        self.truncate_indexes(offset)
        try:
            self.transactions.truncate_from(offset)
        except CorruptIndex as error:
            raise DamagedLog(str(error)) from error
        return min(offset, self.reload())  # where a compaction removed records, the end of those before the gap

    def truncate_indexes(self, offset: int) -> None:
        """Remove the entries at and after the offset."""
        self.offsets.truncate_from(offset - self.base_offset)
        self.times.truncate_from(offset - self.base_offset)

    def cut_at(self, position: int) -> None:
        self._log.truncate(position)
        if position == 0:
            self._first_timestamp = None

    def reset_marks(self) -> None:
        """Set the marks back to the state of the time index."""
        self._bytes_since_entry = 0
        last = self.times.last()
        self._max_timestamp, self._max_timestamp_offset = (
            (last[0], self.base_offset + last[1]) if last else (NO_TIMESTAMP, self.base_offset)
        )

    def reload(self) -> int:
        """Read the marks of the batches after the last index entry again; return the next offset."""
        self._load_indexes()
        self.reset_marks()
        next_offset = self.base_offset
        for _, header in self.headers_near(self.base_offset + RELATIVE_OFFSET_MAX):
            if header.max_timestamp > self._max_timestamp:
                self._max_timestamp, self._max_timestamp_offset = header.max_timestamp, header.last_offset
            self._bytes_since_entry += header.size
            next_offset = header.next_offset
        return next_offset

    def sync(self) -> None:
        """Sync all files. Blocking. The indexes can be rebuilt from the log, but not quickly."""
        self._log.sync()
        self.offsets.file.sync()
        self.times.file.sync()
        self.transactions.sync()

    def close(self) -> None:
        for file in (self._log, self.offsets.file, self.times.file):
            file.close()
        self.transactions.close()

    def folder_renamed(self, folder: str) -> None:
        self.folder = folder
        self.transactions.path = segment_file(folder, self.base_offset, TRANSACTION_INDEX_SUFFIX)

    def paths(self) -> tuple[str, ...]:
        """Paths of the files that it has."""
        needed = tuple(segment_file(self.folder, self.base_offset, suffix) for suffix in NEEDED_SUFFIXES)
        return (*needed, self.transactions.path) if self.transactions.is_there else needed


def _leads_nowhere(offsets: OffsetIndex) -> str:
    return f"{offsets.file.path}: an entry leads to no batch of its offset"


def _nobody_listens(segment: Segment, reason: str, /) -> None:
    """Used until a log owns the segment."""


__all__ = ["INDEX_SUFFIX", "LOG_SUFFIX", "RELATIVE_OFFSET_MAX", "TIME_INDEX_SUFFIX", "Segment"]
