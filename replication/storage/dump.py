"""Segments, indexes, producer snapshots and checkpoints as plain rows for people. Reads live folders without locks; bad
data becomes a row.

A row is a dict with `kind` (batch, record, offset_entry, time_entry, aborted_transaction, producer, checkpoint, error);
an error row has file and position. Nothing here raises because of a file's content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from kraft.protocol.batches.header import NO_SEQUENCE, BatchHeader, computed_crc
from kraft.protocol.batches.markers import marker_of
from kraft.protocol.batches.records import read_batches
from kraft.protocol.errors import KafkaError
from metadata.environment import File, Files
from replication.producers.state import NO_OFFSET
from replication.storage.header_scan import DamagedLog, headers_from
from replication.storage.indexes import OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES, CorruptIndex, OffsetIndex, TimeIndex
from replication.storage.names import (
    CLEANER_OFFSETS_FILE,
    EPOCHS_FILE,
    HIGH_WATERMARKS_FILE,
    INDEX_SUFFIX,
    LOG_STARTS_FILE,
    LOG_SUFFIX,
    META_PROPERTIES_FILE,
    PARTITION_METADATA_FILE,
    RECOVERY_POINTS_FILE,
    SNAPSHOT_SUFFIX,
    TIME_INDEX_SUFFIX,
    TRANSACTION_INDEX_SUFFIX,
)
from replication.storage.producer_snapshot import CorruptSnapshot, decode_snapshot
from replication.storage.text_files import read_text
from replication.storage.transaction_index import entries_of

Row = dict[str, object]
ENTRIES_READ = 4096
"""Entries of an index that are read at once."""

CHECKPOINTS = frozenset(
    {
        CLEANER_OFFSETS_FILE,
        EPOCHS_FILE,
        HIGH_WATERMARKS_FILE,
        LOG_STARTS_FILE,
        META_PROPERTIES_FILE,
        PARTITION_METADATA_FILE,
        RECOVERY_POINTS_FILE,
    }
)
"""The text files of a partition's folder and of a log directory."""


def dump_folder(files: Files, path: str, *, records: bool = False) -> Iterator[Row]:
    """Rows of every file in a partition's folder, or in a log directory itself, that has a format, in the order of
    names."""
    try:
        names = files.list_directory(path)
    except OSError as error:
        yield _error(path, str(error))
        return
    for name in names:
        if name.endswith(LOG_SUFFIX):
            yield from dump_segment(files, f"{path}/{name}", records=records)
        elif name.endswith((TIME_INDEX_SUFFIX, TRANSACTION_INDEX_SUFFIX, INDEX_SUFFIX)):
            yield from dump_index(files, f"{path}/{name}")
        elif name.endswith(SNAPSHOT_SUFFIX):
            yield from dump_producers(files, f"{path}/{name}")
        elif name in CHECKPOINTS:
            yield from dump_checkpoint(files, f"{path}/{name}")


def dump_segment(files: Files, path: str, *, records: bool = False) -> Iterator[Row]:
    """One row per batch, each followed by its records if requested."""

    def rows(file: File) -> Iterator[Row]:
        for position, header in headers_from(file, 0):
            yield from _dump_batch(file, position, header, records=records)

    return _dumped(files, path, rows)


def _dumped(files: Files, path: str, rows: Callable[[File], Iterator[Row]]) -> Iterator[Row]:
    """The rows of a file, as far as it can be read; an error row has the reason why they end too early."""
    try:
        file = files.open(path, read_only=True)
    except OSError as error:
        yield _error(path, str(error))
        return
    try:
        yield from rows(file)
    except (DamagedLog, CorruptSnapshot, CorruptIndex, OSError) as error:
        yield _error(path, str(error))
    finally:
        file.close()


def _dump_batch(file: File, position: int, header: BatchHeader, *, records: bool) -> Iterator[Row]:
    data = file.pread(position, header.size)
    is_valid = computed_crc(data, 0, header.size) == header.crc
    yield {
        "kind": "batch",
        "file": file.path,
        "base_offset": header.base_offset,
        "last_offset": header.last_offset,
        "count": header.record_count,
        "leader_epoch": header.leader_epoch,
        "producer_id": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
        "is_transactional": header.is_transactional,
        "is_control": header.is_control,
        **(_marker_cells(data, header) if header.is_control and is_valid else {}),
        "position": position,
        "timestamp": header.max_timestamp,
        "timestamp_type": "LogAppendTime" if header.is_log_append_time else "CreateTime",
        "size": header.size,
        "magic": header.magic,
        "compression": header.codec_name,
        "crc": header.crc,
        "is_valid": is_valid,
    }
    if records:
        yield from _dump_records(file.path, data)


def _marker_cells(data: bytes, header: BatchHeader) -> Row:
    """The outcome of a transaction, and the epoch of the coordinator that ended it; empty for another control batch."""
    try:
        marker = marker_of(data, header)
    except KafkaError:
        return {}
    if marker is None:
        return {}
    return {"marker": "COMMIT" if marker.is_commit else "ABORT", "coordinator_epoch": marker.coordinator_epoch}


def _dump_records(path: str, data: bytes) -> Iterator[Row]:
    try:
        for record in read_batches(data, with_control=True):
            yield {
                "kind": "record",
                "offset": record.offset,
                "timestamp": record.timestamp,
                "key": record.key,
                "value": record.value,
                "headers": list(record.headers),
            }
    except KafkaError as error:
        yield _error(path, str(error))


def dump_index(files: Files, path: str) -> Iterator[Row]:
    """The entries of an `.index`, a `.timeindex` or a `.txnindex`."""
    if path.endswith(TRANSACTION_INDEX_SUFFIX):
        return _dumped(files, path, _dump_transaction_index)
    base = path.rpartition("/")[2].partition(".")[0]
    base_offset = int(base) if base.isdecimal() else 0
    dump = _dump_time_index if path.endswith(TIME_INDEX_SUFFIX) else _dump_offset_index
    return _dumped(files, path, lambda file: dump(file, base_offset))


def _dump_offset_index(file: File, base_offset: int) -> Iterator[Row]:
    rows = OffsetIndex(file, bytes_max=file.size).rows()
    for relative_offset, position in islice(rows, _entries_used(file, OFFSET_ENTRY_BYTES)):
        yield {
            "kind": "offset_entry",
            "file": file.path,
            "offset": base_offset + relative_offset,
            "position": position,
        }
    yield from _odd_bytes(file, OFFSET_ENTRY_BYTES)


def _dump_time_index(file: File, base_offset: int) -> Iterator[Row]:
    rows = TimeIndex(file, bytes_max=file.size).rows()
    for timestamp, relative_offset in islice(rows, _entries_used(file, TIME_ENTRY_BYTES)):
        yield {
            "kind": "time_entry",
            "file": file.path,
            "timestamp": timestamp,
            "offset": base_offset + relative_offset,
        }
    yield from _odd_bytes(file, TIME_ENTRY_BYTES)


def _dump_transaction_index(file: File) -> Iterator[Row]:
    for entry in entries_of(file):
        yield {"kind": "aborted_transaction", "file": file.path, **entry._asdict()}


def _entries_used(file: File, entry_bytes: int) -> int:
    """Kafka makes an index at its full size, with zeros, and cuts it only at a stop in order, and never that of its
    metadata. One entry of zeros may be an entry."""
    count = end = file.size // entry_bytes
    while end:
        begin = max(0, end - ENTRIES_READ)
        found = file.pread(begin * entry_bytes, (end - begin) * entry_bytes).rstrip(b"\0")
        if found:
            end = begin + -(-len(found) // entry_bytes)
            break
        end = begin
    return count if count - end <= 1 else end


def _odd_bytes(file: File, entry_bytes: int) -> Iterator[Row]:
    odd = file.size % entry_bytes
    if odd:
        yield _error(file.path, f"{odd} bytes after the last whole entry of {entry_bytes}")


def dump_producers(files: Files, path: str) -> Iterator[Row]:
    """The producers of a `.snapshot`, at the begin of the segment of its name. Sequences are -1 for a producer that has
    written no records in its epoch; `open_transaction` is the first offset of one, or -1."""
    return _dumped(files, path, _dump_snapshot)


def _dump_snapshot(file: File) -> Iterator[Row]:
    for producer_id, producer in decode_snapshot(file.pread(0, file.size)):
        last = producer.batches[-1] if producer.batches else None
        yield {
            "kind": "producer",
            "file": file.path,
            "producer_id": producer_id,
            "producer_epoch": producer.epoch,
            "first_sequence": NO_SEQUENCE if last is None else last.first_sequence,
            "last_sequence": producer.last_sequence,
            "first_offset": NO_OFFSET if last is None else last.first_offset,
            "last_offset": producer.last_offset,
            "timestamp": producer.timestamp,
            "coordinator_epoch": producer.coordinator_epoch,
            "open_transaction": producer.current_txn_first_offset,
        }


def dump_checkpoint(files: Files, path: str) -> Iterator[Row]:
    """The lines of a text file."""
    try:
        text = read_text(files, path)
    except OSError as error:
        yield _error(path, str(error))
        return
    yield {"kind": "checkpoint", "file": path, "lines": (text or "").splitlines()}


def _error(path: str, message: str) -> Row:
    return {"kind": "error", "file": path, "error": message}
