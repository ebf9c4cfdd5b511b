"""One segment: a log file and its two indexes, all named by the segment's base offset.

Invariant: every index entry points at a batch that is wholly in the log file. An append that fails leaves the three
files as they were. Source: org.apache.kafka.storage.internals.log.LogSegment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from metadata.environment import Buffer, File, Files
from metadata.settings import TopicSettings
from metadata.values import value
from replication.batches.header import NO_TIMESTAMP, BatchHeader
from replication.storage.indexes import OffsetIndex, TimeIndex
from replication.storage.names import INDEX_SUFFIX, LOG_SUFFIX, SEGMENT_SUFFIXES, TIME_INDEX_SUFFIX, segment_file
from replication.storage.scanning import DamagedLog, headers_from

RELATIVE_OFFSET_MAX = 2**31 - 1
"""An index entry has room for no more; a segment is rolled before (Kafka keeps to a signed integer)."""


@value()
class Found:
    """A batch in the log file, and the offset after the one before it."""

    position: int
    header: BatchHeader
    expected: int
    has_bad_index: bool = False


class Segment:
    def __init__(
        self, *, folder: str, base_offset: int, log: File, offsets: OffsetIndex, times: TimeIndex, created_ms: int
    ) -> None:
        self.folder = folder
        self.base_offset = base_offset
        self.created_ms = created_ms
        """When it was rolled; stands in for the first record's time while that is unknown."""
        self._log = log
        self.offsets = offsets
        self.times = times
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
        created_ms: int,
        create: bool = False,
        state_suffix: str = "",
    ) -> Segment:
        """Missing index files come up empty: whoever opens an existing segment checks and rebuilds them."""
        opened: list[File] = []
        try:
            for suffix in SEGMENT_SUFFIXES:
                path = segment_file(folder, base_offset, suffix) + state_suffix
                opened.append(files.open(path, create=create or suffix != LOG_SUFFIX))
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
            created_ms=created_ms,
        )

    @property
    def log(self) -> File:
        return self._log

    @property
    def size(self) -> int:
        return self._log.size

    @property
    def max_timestamp(self) -> int:
        """Largest timestamp of its records; -1 while it has none."""
        return self._max_timestamp

    @property
    def max_timestamp_offset(self) -> int:
        """Last offset of the batch that has it."""
        return self._max_timestamp_offset

    def first_timestamp(self) -> int:
        """Timestamp of the first batch; -1 while there is none."""
        if self._first_timestamp is None and self.size:
            _, header = next(headers_from(self._log, 0))
            self._first_timestamp = header.max_timestamp
        return NO_TIMESTAMP if self._first_timestamp is None else self._first_timestamp

    def append(self, parts: Sequence[Buffer], headers: Sequence[BatchHeader], *, index_interval_bytes: int) -> int:
        """Write stamped batches and what the indexes want of them; returns the log file's new size. Raises OSError and
        changes nothing."""
        position = self._log.size
        size = self._log.append(parts)
        if size - position + self._bytes_since_entry <= index_interval_bytes:
            for header in headers:  # no index entry falls due
                self.note(header, position, index_interval_bytes=index_interval_bytes)
                position += header.size
        else:
            self._note_all(headers, position, index_interval_bytes=index_interval_bytes)
        return size

    def _note_all(self, headers: Sequence[BatchHeader], log_bytes: int, *, index_interval_bytes: int) -> None:
        """What stands in the log from there on. Raises OSError: then it is cut off again."""
        entries, time_entries = len(self.offsets), len(self.times)
        marks = self._bytes_since_entry, self._first_timestamp, self._max_timestamp, self._max_timestamp_offset
        position = log_bytes
        try:
            for header in headers:
                self.note(header, position, index_interval_bytes=index_interval_bytes)
                position += header.size
        except OSError:
            self._log.truncate(log_bytes)
            self.offsets.truncate_entries(entries)
            self.times.truncate_entries(time_entries)
            self._bytes_since_entry, self._first_timestamp, self._max_timestamp, self._max_timestamp_offset = marks
            raise

    def note(self, header: BatchHeader, position: int, *, index_interval_bytes: int) -> None:
        """Take one batch of the log into the indexes: after an append, and when they are rebuilt."""
        if not position:
            self._first_timestamp = header.max_timestamp
        if header.max_timestamp > self._max_timestamp:
            self._max_timestamp, self._max_timestamp_offset = header.max_timestamp, header.last_offset
        if self._bytes_since_entry > index_interval_bytes:
            self.offsets.append(header.last_offset - self.base_offset, position)
            self.times.maybe_append(self._max_timestamp, self._max_timestamp_offset - self.base_offset)
            self._bytes_since_entry = 0
        self._bytes_since_entry += header.size

    def finish_time_index(self) -> None:
        """When no more comes (roll, close), the last entry holds the segment's largest timestamp."""
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
            size > settings.segment_bytes - more_bytes
            or last_offset - self.base_offset > RELATIVE_OFFSET_MAX
            or self.offsets.is_full
            or self.times.is_full
            or self._waited_ms(now_ms, max_timestamp) > settings.segment_ms - jitter_ms
        )

    def _waited_ms(self, now_ms: int, max_timestamp: int) -> int:
        first = self.first_timestamp()
        return max_timestamp - first if first >= 0 else now_ms - self.created_ms

    def position_hint(self, offset: int) -> int:
        """A batch start at or before the one that holds the offset."""
        return self.offsets.lookup(offset - self.base_offset)[1]

    def find(self, offset: int, *, start: int | None = None, limit: int | None = None) -> Found | None:
        """The first batch whose last offset is >= the offset; `start` is where it begins, if that is known, and `limit`
        the offset at which the log goes on after this segment.

        An index entry that leads to no batch of its offset is not followed: the batch is found from the beginning.
        Raises DamagedLog when the batches up to there do not follow each other.
        """
        if start is not None:
            return self._walk(offset, start=start, expected=offset, limit=limit)
        relative, position = self.offsets.lookup(offset - self.base_offset)
        has_bad_index = False
        if position:
            try:
                return self._walk(offset, start=position, first_ends_at=self.base_offset + relative, limit=limit)
            except DamagedLog:
                has_bad_index = True  # or the log is damaged: then the next line raises as well
        found = self._walk(offset, start=0, expected=self.base_offset, limit=limit)
        return found if found is None else replace(found, has_bad_index=has_bad_index)

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
                    f"{self._log.path}: the batch at position {position} says that it begins at offset "
                    f"{header.base_offset}; the one before ends at {expected}"
                )
            if header.last_offset >= offset:
                return Found(position, header, expected)
            expected = header.next_offset
        if first_ends_at is not None or (limit is not None and expected != limit):
            raise DamagedLog(f"{self._log.path}: it ends at offset {expected}, and the log goes on at {limit}")
        return None

    def truncate_to(self, offset: int) -> int:
        """Drop every batch that ends at or after the offset; returns the log's new end."""
        found = self.find(offset)
        if found is None:
            return offset
        self.cut_at(found.position)
        self.offsets.truncate_from(offset - self.base_offset)
        self.times.truncate_from(offset - self.base_offset)
        return min(offset, self.reload())  # where a compaction took records, the end of those before the gap

    def cut_at(self, position: int) -> None:
        self._log.truncate(position)
        if position == 0:
            self._first_timestamp = None

    def reset_marks(self) -> None:
        """Back to what the time index knows."""
        self._bytes_since_entry = 0
        last = self.times.last()
        self._max_timestamp, self._max_timestamp_offset = (
            (last[0], self.base_offset + last[1]) if last else (NO_TIMESTAMP, self.base_offset)
        )

    def reload(self) -> int:
        """Read the marks of the tail behind the last index entry again; returns the next offset."""
        self.reset_marks()
        next_offset = self.base_offset
        for _, header in headers_from(self._log, self.position_hint(self.base_offset + RELATIVE_OFFSET_MAX)):
            if header.max_timestamp > self._max_timestamp:
                self._max_timestamp, self._max_timestamp_offset = header.max_timestamp, header.last_offset
            self._bytes_since_entry += header.size
            next_offset = header.next_offset
        return next_offset

    def sync(self) -> None:
        """Blocking. The indexes can be rebuilt from the log, but not quickly."""
        self._log.sync()
        self.offsets.file.sync()
        self.times.file.sync()

    def close(self) -> None:
        for file in (self._log, self.offsets.file, self.times.file):
            file.close()

    def paths(self) -> tuple[str, ...]:
        return tuple(segment_file(self.folder, self.base_offset, suffix) for suffix in SEGMENT_SUFFIXES)


__all__ = ["INDEX_SUFFIX", "LOG_SUFFIX", "RELATIVE_OFFSET_MAX", "TIME_INDEX_SUFFIX", "Segment"]
