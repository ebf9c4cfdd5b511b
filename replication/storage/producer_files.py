"""The `.snapshot` files of a partition's folder, and producer state from the newest one and the log after it.

`<20-digit offset>.snapshot` holds the producers of the log below that offset. One is written at each roll (so its
offset is a segment's base) and one at a clean shutdown. An unreadable snapshot is removed and an older one is used; the
log itself always has the complete state. A replay also rebuilds the indexes of aborted transactions (`.txnindex`).
Blocking, except for plain renames.
Source: org.apache.kafka.storage.internals.log.ProducerStateManager, UnifiedLog.rebuildProducerState.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from kraft.protocol.batches.header import NO_PRODUCER_ID, BatchHeader
from kraft.protocol.batches.markers import Marker, marker_of
from kraft.protocol.errors import KafkaError
from metadata.environment import Files
from replication.partition.log import AbortedTransaction
from replication.producers.state import EndedTransaction, ProducerLimits, ProducerStates
from replication.storage.header_scan import DamagedLog, headers_from, whole_batch
from replication.storage.indexes import CorruptIndex
from replication.storage.names import SNAPSHOT_SUFFIX, segment_file
from replication.storage.producer_snapshot import CorruptSnapshot, decode_snapshot, encode_snapshot
from replication.storage.segment import Segment

TEMPORARY_SUFFIX = ".tmp"


def snapshot_offsets(files: Files, folder: str) -> list[int]:
    """Ascending."""
    return offsets_of_snapshots(files.list_directory(folder))


def offsets_of_snapshots(names: Sequence[str]) -> list[int]:
    """Offsets of the snapshots among sorted file names, ascending."""
    return [int(name[:20]) for name in names if name[20:] == SNAPSHOT_SUFFIX and name[:20].isdecimal()]


def snapshot_file(folder: str, offset: int) -> str:
    return segment_file(folder, offset, SNAPSHOT_SUFFIX)


def write_synced(files: Files, path: str, data: bytes) -> None:
    file = files.open(path, create=True)
    try:
        file.truncate(0)
        file.append([data])
        file.sync()
    finally:
        file.close()


def save_snapshot(files: Files, folder: str, offset: int, states: ProducerStates) -> None:
    """Write a snapshot, without a sync: one torn by a power loss is unreadable, and is replaced by a replay."""
    path = snapshot_file(folder, offset)
    file = files.open(path + TEMPORARY_SUFFIX, create=True)
    try:
        file.truncate(0)
        file.append([encode_snapshot(states.items())])
    finally:
        file.close()
    files.rename(path + TEMPORARY_SUFFIX, path)


def remove_snapshots(files: Files, folder: str, offsets: Collection[int]) -> None:
    for offset in offsets:
        path = snapshot_file(folder, offset)
        if files.exists(path):
            files.remove(path)


def unneeded(offsets: Collection[int], bases: Sequence[int]) -> list[int]:
    """Snapshots that belong to no segment any more; one of a shutdown, after the last segment's base, stays."""
    newest, kept = max(offsets, default=-1), set(bases)
    return [offset for offset in offsets if offset not in kept and not (offset == newest and offset > bases[-1])]


def rebuild(
    files: Files,
    folder: str,
    segments: Sequence[Segment],
    *,
    snapshots: Sequence[int],
    end_offset: int,
    limits: ProducerLimits,
    is_known_empty: bool = False,
    is_loading: bool = False,
) -> tuple[ProducerStates, list[str]]:
    """The producers below `end_offset`, and the problems of snapshots and indexes of aborted transactions. Snapshots
    beyond the end are removed.

    `snapshots`: the offsets of the snapshots in the folder, ascending.
    `is_known_empty`: a log that was closed cleanly and has no snapshot is older than snapshots.
    `is_loading`: replayed transactions are written to the indexes of aborted transactions again; an unreadable index is
    replayed as a whole.
    """
    remove_snapshots(files, folder, [offset for offset in snapshots if offset > end_offset])
    damaged = _damaged_indexes(segments) if is_loading else {}
    begin = min((segment.base_offset for segment in damaged), default=end_offset)
    states, problems = ProducerStates(), [*damaged.values()]
    replay_from = end_offset if is_known_empty and not snapshots and not damaged else 0
    for offset in reversed([offset for offset in snapshots if offset <= begin]):
        try:
            states.put(decode_snapshot(_read(files, snapshot_file(folder, offset))), end_offset=offset)
        except CorruptSnapshot as error:
            problems.append(f"{snapshot_file(folder, offset)}: {error}")
            remove_snapshots(files, folder, [offset])
            continue
        replay_from = offset
        break
    _replay(states, segments, start=replay_from, end_offset=end_offset, limits=limits, writes_transactions=is_loading)
    if is_loading and replay_from < end_offset:
        _sync_transactions(files, folder, segments, start=replay_from)
    return states, problems


def _sync_transactions(files: Files, folder: str, segments: Sequence[Segment], *, start: int) -> None:
    """Sync the indexes: a flushed segment is used unchanged at the next start, with this index."""
    written = [each.transactions for each in segments if each.transactions.has_entries_since(start)]
    for transactions in written:
        transactions.sync()
    if written:
        files.sync_directory(folder)


def aborted(ended: EndedTransaction) -> AbortedTransaction:
    return AbortedTransaction(ended.producer_id, ended.first_offset, ended.last_offset, ended.last_stable_offset)


def _damaged_indexes(segments: Sequence[Segment]) -> dict[Segment, str]:
    """Unreadable indexes of aborted transactions, which are empty now, with the reason."""
    damaged: dict[Segment, str] = {}
    for segment in segments:
        try:
            segment.transactions.load()
        except CorruptIndex as error:
            segment.transactions.clear()
            damaged[segment] = str(error)
    return damaged


def _replay(
    states: ProducerStates,
    segments: Sequence[Segment],
    *,
    start: int,
    end_offset: int,
    limits: ProducerLimits,
    writes_transactions: bool,
) -> None:
    for index, segment in enumerate(segments):
        next_base = segments[index + 1].base_offset if index + 1 < len(segments) else end_offset
        if next_base <= start:
            continue
        if writes_transactions:
            segment.transactions.truncate_from(start)
        headers = segment.headers_near(start) if start > segment.base_offset else headers_from(segment.log, 0)
        for position, header in headers:
            if header.producer_id == NO_PRODUCER_ID or not start <= header.base_offset < end_offset:
                continue
            if not header.is_control:
                states.update(header, limits)
                continue
            marker = _marker(segment, position, header)
            ended = None if marker is None else states.end_transaction(header, marker, limits)
            if ended is not None and ended.is_aborted and writes_transactions:
                segment.transactions.append(aborted(ended))


def _marker(segment: Segment, position: int, header: BatchHeader) -> Marker | None:
    """The marker of a control batch. Raises DamagedLog."""
    try:
        return marker_of(whole_batch(segment.log, position, header), header)
    except KafkaError as error:
        raise DamagedLog(f"{segment.log.path}: at position {position}: {error}") from error


def _read(files: Files, path: str) -> bytes:
    file = files.open(path, read_only=True)
    try:
        return file.pread(0, file.size)
    finally:
        file.close()
