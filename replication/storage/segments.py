"""The segments of one log in order of their offsets: lookup, roll, removal, and files that wait for their removal.

Invariant: never empty; base offsets ascend; the last one is active, the only one that is written to. Dropped
segments are renamed at once and removed after file.delete.delay.ms; until then their files stay open.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from metadata.environment import Environment, Files
from metadata.settings import TopicSettings
from replication.storage.names import (
    CLEANED_SUFFIX,
    DELETED_SUFFIX,
    PARTITION_METADATA_FILE,
    SEGMENT_SUFFIXES,
    SWAP_SUFFIX,
    TRANSACTION_INDEX_SUFFIX,
    segment_file,
)
from replication.storage.retention import Deletion, SegmentFacts, segments_to_delete
from replication.storage.segment import Segment


@dataclass(frozen=True, slots=True)
class _Condemned:
    due_ms: int
    segment: Segment
    paths: tuple[str, ...]


class Segments:
    def __init__(
        self,
        environment: Environment,
        folder: str,
        segments: Sequence[Segment],
        settings: TopicSettings,
        on_index_rebuilt: Callable[[Segment, str], None],
    ) -> None:
        assert segments, folder
        self._environment = environment
        self._folder = folder
        self._on_index_rebuilt = on_index_rebuilt
        for segment in segments:
            segment.on_index_rebuilt = on_index_rebuilt
        self._segments = list(segments)
        self._bases = [segment.base_offset for segment in segments]
        self._condemned: list[_Condemned] = []
        self._settings = settings
        self._jitter_ms = self._new_jitter()

    def update_settings(self, settings: TopicSettings) -> None:
        self._settings = settings
        self._jitter_ms = self._new_jitter()
        for segment in self._segments:
            segment.index_interval_bytes = settings.index_interval_bytes

    def _new_jitter(self) -> int:
        """A random delay, so that many logs that begin together do not roll together."""
        highest = min(self._settings.segment_jitter_ms, self._settings.segment_ms)
        return self._environment.rng.randrange(highest) if highest else 0

    def __len__(self) -> int:
        return len(self._segments)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._segments)

    @property
    def active(self) -> Segment:
        return self._segments[-1]

    @property
    def first_base_offset(self) -> int:
        return self._bases[0]

    @property
    def base_offsets(self) -> Sequence[int]:
        """Ascending."""
        return self._bases

    @property
    def size_bytes(self) -> int:
        return sum(segment.size for segment in self._segments)

    def aborted_transactions(self) -> int:
        return sum(segment.transactions.count for segment in self._segments)

    def from_offset(self, offset: int) -> list[Segment]:
        """The segment that may hold the offset and all after it."""
        return self._segments[max(bisect_right(self._bases, offset) - 1, 0) :]

    def should_roll(self, *, more_bytes: int, last_offset: int, max_timestamp: int, now_ms: int) -> bool:
        return self._segments[-1].should_roll(
            more_bytes=more_bytes,
            last_offset=last_offset,
            max_timestamp=max_timestamp,
            now_ms=now_ms,
            jitter_ms=self._jitter_ms,
            settings=self._settings,
        )

    def roll(self, base_offset: int, *, now_ms: int) -> None:
        """Begin a new active segment. Raises OSError and changes nothing."""
        old = self.active
        if old.base_offset == base_offset:
            assert not old.size, (base_offset, old.size)
            return
        old.finish_time_index()
        self._add(base_offset, now_ms=now_ms)
        self._jitter_ms = self._new_jitter()

    def _add(self, base_offset: int, *, now_ms: int) -> None:
        self._segments.append(self._open(base_offset, now_ms=now_ms, create=True))
        self._bases.append(base_offset)

    def _open(self, base_offset: int, *, now_ms: int, create: bool = False, has_transactions: bool = False) -> Segment:
        segment = Segment.open(
            self._environment.files,
            self._folder,
            base_offset,
            index_bytes_max=self._settings.segment_index_bytes,
            index_interval_bytes=self._settings.index_interval_bytes,
            created_ms=now_ms,
            create=create,
            has_transactions=has_transactions,
        )
        segment.on_index_rebuilt = self._on_index_rebuilt
        return segment

    def truncate_to(self, offset: int) -> int:
        """Remove everything from the offset on; return the log's new end."""
        keep = max(bisect_right(self._bases, offset), 1)
        for segment in reversed(self._segments[keep:]):
            self._condemn(segment)
        del self._segments[keep:], self._bases[keep:]
        return self.active.truncate_to(offset)

    def start_over_at(self, offset: int) -> None:
        """Remove all segments and begin an empty one. The old files are renamed to free its name."""
        for segment in self._segments:
            self._condemn(segment)
        self._segments.clear()
        self._bases.clear()
        self._add(offset, now_ms=self._environment.clock.wall_ms())

    def deletable(
        self, *, log_start_offset: int, high_watermark: int, log_end_offset: int, now_ms: int
    ) -> Deletion | None:
        ends = [*self._bases[1:], log_end_offset]
        facts = [
            SegmentFacts(
                base_offset=segment.base_offset,
                next_offset=end,
                size_bytes=segment.size,
                largest_timestamp=segment.max_timestamp if segment.max_timestamp >= 0 else segment.created_ms,
            )
            for segment, end in zip(self._segments, ends, strict=True)
        ]
        return segments_to_delete(
            facts,
            log_start_offset=log_start_offset,
            high_watermark=high_watermark,
            now_ms=now_ms,
            settings=self._settings,
        )

    def drop_oldest(self, count: int) -> None:
        assert count < len(self._segments), (count, len(self._segments))
        for segment in self._segments[:count]:
            self._condemn(segment)
        del self._segments[:count], self._bases[:count]

    def holds(self, group: Sequence[Segment]) -> bool:
        """Whether these are still neighbours in the log, and none of them is active."""
        at = bisect_right(self._bases, group[0].base_offset) - 1
        return at >= 0 and self._segments[at : at + len(group)] == list(group) and self.active not in group

    def replace(self, group: Sequence[Segment], *, now_ms: int) -> None:
        """Swap in the compacted files beside a group. After a crash the `.log.swap` file is the base of recovery."""
        files, base_offset = self._environment.files, group[0].base_offset
        paths = [segment_file(self._folder, base_offset, suffix) for suffix in reversed(SEGMENT_SUFFIXES)]
        paths = [path for path in paths if files.exists(path + CLEANED_SUFFIX)]
        for path in paths:
            files.rename(path + CLEANED_SUFFIX, path + SWAP_SUFFIX)
        for segment in group:
            self._condemn(segment)
        for path in paths:
            files.rename(path + SWAP_SUFFIX, path)
        has_transactions = segment_file(self._folder, base_offset, TRANSACTION_INDEX_SUFFIX) in paths
        new = self._open(base_offset, now_ms=now_ms, has_transactions=has_transactions)
        new.reload()
        at = self._segments.index(group[0])
        self._segments[at : at + len(group)] = [new]
        self._bases[at : at + len(group)] = [base_offset]

    def _condemn(self, segment: Segment) -> None:
        files = self._environment.files
        paths = []
        for path in segment.paths():
            files.rename(path, path + DELETED_SUFFIX)
            paths.append(path + DELETED_SUFFIX)
        due_ms = self._environment.clock.monotonic_ms() + self._settings.file_delete_delay_ms
        self._condemned.append(_Condemned(due_ms, segment, tuple(paths)))

    @property
    def has_condemned(self) -> bool:
        return bool(self._condemned)

    def take_due(self, *, everything: bool = False) -> list[_Condemned]:
        """Removed segments whose delay is over; the caller deletes their files after the last fsync that uses them."""
        if not self._condemned:
            return []
        now_ms = self._environment.clock.monotonic_ms()
        due = [each for each in self._condemned if everything or each.due_ms <= now_ms]
        self._condemned = [each for each in self._condemned if each not in due]
        return due

    def remove(self, due: Sequence[_Condemned]) -> None:
        """Blocking."""
        for each in due:
            each.segment.close()
            for path in each.paths:
                if self._environment.files.exists(path):
                    self._environment.files.remove(path)

    def close(self) -> None:
        for segment in (*self._segments, *(each.segment for each in self._condemned)):
            segment.close()

    def folder_renamed(self, folder: str) -> None:
        """The folder was renamed, with its files."""
        old, self._folder = self._folder, folder
        for segment in (*self._segments, *(each.segment for each in self._condemned)):
            segment.folder_renamed(folder)
        self._condemned = [
            replace(each, paths=tuple(folder + path.removeprefix(old) for path in each.paths))
            for each in self._condemned
        ]

    def sync_folder(self) -> None:
        """Make new, renamed and removed names durable. Blocking."""
        sync_folder(self._environment.files, self._folder)


def sync_folder(files: Files, folder: str) -> None:
    """Make a partition's names durable, with the topic id in a new folder. Blocking."""
    path = f"{folder}/{PARTITION_METADATA_FILE}"
    if files.exists(path):
        metadata = files.open(path)
        try:
            metadata.sync()
        finally:
            metadata.close()
    files.sync_directory(folder)
    files.sync_directory(folder.rpartition("/")[0] or ".")
