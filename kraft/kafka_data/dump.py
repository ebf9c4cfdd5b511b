"""Kafka's metadata log as rows for people, in the form in which `kraft metadata dump` prints ours. Changes nothing."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from kraft.kafka_data.metadata_log import (
    CHECKPOINT_SUFFIX,
    FOLDER,
    QUORUM_STATE_FILE,
    Entry,
    newest_snapshot,
    read_file,
    read_folder,
    snapshot_id_of,
)
from kraft.protocol.encoding import Message
from metadata.environment import Files
from replication.storage.names import LOG_SUFFIX, PARTITION_METADATA_FILE, uuid_text

Row = dict[str, Any]


def metadata_path(files: Files, path: str) -> str | None:
    """The metadata folder of Kafka at or in `path`, or in a log directory in it; or the segment or snapshot that `path`
    is; None for other data."""
    path = path.rstrip("/")
    if not files.is_directory(path):
        return path if path.endswith((CHECKPOINT_SUFFIX, LOG_SUFFIX)) else None
    names = files.list_directory(path)
    inside = (f"{directory}/{FOLDER}" for directory in (path, *(f"{path}/{name}" for name in names)))
    if (found := next(filter(files.is_directory, inside), None)) is not None:
        return found
    is_metadata = PARTITION_METADATA_FILE in names and (QUORUM_STATE_FILE in names or newest_snapshot(files, path))
    return path if is_metadata else None


def metadata_rows(files: Files, path: str) -> Iterator[Row]:
    """Each entry of a file; of a folder, its newest snapshot and the log after it, committed or not. Raises
    UnreadableMetadata, OSError.
    """
    if not files.is_directory(path):
        snapshot = snapshot_id_of(path.rpartition("/")[2])
        yield from (_row(entry, in_snapshot=snapshot is not None) for entry in read_file(files, path))
        return
    snapshot = newest_snapshot(files, path)
    if snapshot is not None:
        yield {"type": "Snapshot", "next_offset": snapshot.end_offset, "controller_epoch": snapshot.epoch}
        for entry in read_file(files, f"{path}/{snapshot.file_name}"):
            yield _row(entry, in_snapshot=True)
    for entry in read_folder(files, path, after=snapshot):
        yield _row(entry, in_snapshot=False)


def _row(entry: Entry, *, in_snapshot: bool) -> Row:
    return {
        "offset": entry.offset,
        "controller_epoch": entry.epoch,
        "type": entry.name,
        "version": entry.version,
        **({"in_snapshot": True} if in_snapshot else {}),
        "record": _plain(entry.message),
    }


def _plain(value: object) -> Any:
    """Ids as Kafka writes them, bytes in base64."""
    match value:
        case Message():
            return {name: _plain(getattr(value, name)) for name in value.__slots__}
        case UUID():
            return uuid_text(value)
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode("ascii")
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return value
