"""The blocking half of a compaction pass: read the dirty part into a map, write the remaining records to new files.

The old segments are only read. A new segment is named `<base offset>.log.cleaned` (and its indexes likewise) until it
is swapped in, and is synced before this returns. The last batch of a group stays, empty if necessary, so that the new
segment ends where the old ones did.

Transactions (all of them decided here): aborted records are removed, and hide no key. A marker is removed in three
passes: it stays while batches of its transaction stay, then gets a delete horizon, so that readers have time to pass
it, and is removed after that, unless only it has its producer's epoch.
Source: org.apache.kafka.storage.internals.log.Cleaner, CleanedTransactionMetadata.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kraft.protocol.batches.header import NO_PRODUCER_ID, BatchHeader, header_at
from kraft.protocol.batches.record_filter import decoded, delete_horizon_of, emptied, with_records
from metadata.environment import Files
from metadata.settings import TopicSettings
from replication.partition.log import AbortedTransaction
from replication.storage.cleaner_map import OffsetMap
from replication.storage.header_scan import headers_from, whole_batch
from replication.storage.names import CLEANED_SUFFIX, SEGMENT_SUFFIXES, segment_file
from replication.storage.segment import Segment

WRITE_BYTES = 1024 * 1024
"""New batches are collected up to this size before they are written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveProducers:
    """The remembered producers, whose last batch stays in the log (D9)."""

    last_offsets: frozenset[int] = frozenset()
    """Offsets of their last batches; these stay, without records."""
    marked_epochs: frozenset[tuple[int, int]] = frozenset()
    """Id and epoch of producers that have written nothing since the marker with their epoch; it stays."""


class CleanedTransactions:
    """A pass's state of transactions from the first batch of the log to the last that it may change."""

    def __init__(self, aborted: Iterable[AbortedTransaction]) -> None:
        self._aborted: dict[int, list[AbortedTransaction]] = {}
        for each in sorted(aborted, key=lambda each: each.last_offset):
            self._aborted.setdefault(each.producer_id, []).append(each)
        self._passed: set[int] = set()
        """Producers with a batch since their last marker."""

    def aborted_at(self, header: BatchHeader) -> AbortedTransaction | None:
        """The aborted transaction that the batch, or the marker, belongs to."""
        of_producer = self._aborted.get(header.producer_id, ())
        at = bisect_left(of_producer, header.base_offset, key=lambda each: each.last_offset)
        found = of_producer[at] if at < len(of_producer) else None
        return None if found is None or found.first_offset > header.base_offset else found

    def passed(self, header: BatchHeader) -> None:
        """Note a transactional batch, kept or not."""
        self._passed.add(header.producer_id)

    def ended(self, header: BatchHeader) -> bool:
        """At a marker: whether its transaction had a batch."""
        has_batches = header.producer_id in self._passed
        self._passed.discard(header.producer_id)
        return has_batches


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyRules:
    files: Files
    folder: str
    settings: TopicSettings
    active: ActiveProducers
    transactions: CleanedTransactions
    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    base_offset: int
    bytes_before: int
    bytes_after: int


def build_map(
    segments: Sequence[Segment], transactions: CleanedTransactions, *, start: int, end: int, bytes_max: int
) -> OffsetMap:
    """Build the map. Blocking. Stops at the first batch that does not fit any more."""
    offsets = OffsetMap(bytes_max=bytes_max)
    offsets.end_offset = start
    for segment in segments:
        for position, header in headers_from(segment.log, 0):
            if header.last_offset < start:
                continue
            if header.base_offset >= end:
                return offsets
            if not offsets.has_room_for(header.record_count):
                return offsets
            is_aborted = header.is_transactional and transactions.aborted_at(header) is not None
            if not header.is_control and not is_aborted:
                _note_keys(offsets, segment, position, header, start=start)
            offsets.end_offset = header.next_offset
    offsets.end_offset = max(offsets.end_offset, end)
    return offsets


def _note_keys(offsets: OffsetMap, segment: Segment, position: int, header: BatchHeader, *, start: int) -> None:
    for record in decoded(whole_batch(segment.log, position, header), header):
        if record.key is not None and record.offset >= start:
            offsets.put(record.key, record.offset)


def copy_group(group: Sequence[Segment], offsets: OffsetMap, rules: CopyRules) -> Copied:
    """Blocking."""
    base_offset = group[0].base_offset
    target = _new_target(rules, base_offset)
    try:
        writer = _Writer(target)
        for position, header, segment, is_last in _batches(group):
            if header.is_control:
                batch = _cleaned_control(segment, position, header, rules, target)
            else:
                batch = _cleaned(segment, position, header, offsets, rules)
            if batch is None and (is_last or _is_needed(header, rules)):
                batch = emptied(header)
            if batch is not None:
                writer.write(batch)
        writer.flush()
        target.finish_time_index()
        target.sync()
        return Copied(base_offset=base_offset, bytes_before=sum(s.size for s in group), bytes_after=target.size)
    finally:
        target.close()


def _is_needed(header: BatchHeader, rules: CopyRules) -> bool:
    return header.producer_id != NO_PRODUCER_ID and header.last_offset in rules.active.last_offsets


def remove_cleaned(files: Files, folder: str) -> None:
    """Remove the files of a pass that was not swapped in."""
    for name in files.list_directory(folder):
        if name.endswith(CLEANED_SUFFIX):
            files.remove(f"{folder}/{name}")


def _new_target(rules: CopyRules, base_offset: int) -> Segment:
    for suffix in SEGMENT_SUFFIXES:
        path = segment_file(rules.folder, base_offset, suffix) + CLEANED_SUFFIX
        if rules.files.exists(path):
            rules.files.remove(path)
    return Segment.open(
        rules.files,
        rules.folder,
        base_offset,
        index_bytes_max=rules.settings.segment_index_bytes,
        index_interval_bytes=rules.settings.index_interval_bytes,
        created_ms=rules.now_ms,
        create=True,
        state_suffix=CLEANED_SUFFIX,
    )


def _batches(group: Sequence[Segment]) -> Iterator[tuple[int, BatchHeader, Segment, bool]]:
    held: tuple[int, BatchHeader, Segment] | None = None
    for segment in group:
        for position, header in headers_from(segment.log, 0):
            if held is not None:
                yield *held, False
            held = position, header, segment
    if held is not None:
        yield *held, True


def _cleaned(
    segment: Segment, position: int, header: BatchHeader, offsets: OffsetMap, rules: CopyRules
) -> bytes | None:
    """The batch without superseded records; None when nothing of it stays."""
    batch = whole_batch(segment.log, position, header)
    if header.is_transactional:
        rules.transactions.passed(header)
        if rules.transactions.aborted_at(header) is not None:
            return None
    records = decoded(batch, header)
    horizon = delete_horizon_of(header)
    keeps_deletes = horizon is None or rules.now_ms < horizon
    kept = [
        record
        for record in records
        if record.key is not None
        and (record.value is not None or keeps_deletes)
        and offsets.is_latest(record.key, record.offset)
    ]
    if not kept:
        return None
    if horizon is None and any(record.value is None for record in kept):
        horizon = rules.now_ms + rules.settings.delete_retention_ms
        return with_records(header, kept, delete_horizon_ms=horizon)
    if len(kept) == len(records):
        return batch
    return with_records(header, kept, delete_horizon_ms=horizon)


def _cleaned_control(
    segment: Segment, position: int, header: BatchHeader, rules: CopyRules, target: Segment
) -> bytes | None:
    """A remaining marker with its entry in the index of aborted transactions; None when it is removed."""
    batch = whole_batch(segment.log, position, header)
    if not header.is_transactional:
        return batch
    if rules.transactions.ended(header):
        aborted = rules.transactions.aborted_at(header)
        if aborted is not None:
            target.transactions.append(aborted)
        return batch
    horizon = delete_horizon_of(header)
    if horizon is None and header.record_count:
        horizon = rules.now_ms + rules.settings.delete_retention_ms
        return with_records(header, decoded(batch, header), delete_horizon_ms=horizon)
    is_last_word = (header.producer_id, header.producer_epoch) in rules.active.marked_epochs
    return batch if is_last_word or (horizon is not None and rules.now_ms < horizon) else None


class _Writer:
    def __init__(self, target: Segment) -> None:
        self._target = target
        self._parts: list[bytes] = []
        self._headers: list[BatchHeader] = []
        self._size = 0

    def write(self, batch: bytes) -> None:
        self._parts.append(batch)
        self._headers.append(header_at(batch))
        self._size += len(batch)
        if self._size >= WRITE_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._parts:
            self._target.append(self._parts, self._headers)
        self._parts, self._headers, self._size = [], [], 0
