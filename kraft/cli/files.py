"""`kraft metadata` and `kraft log`: the content of a node's files, live or stopped. Nothing is changed."""

from __future__ import annotations

import base64
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from kraft.cli.options import JsonOption
from kraft.cli.output import CommandFailed, cell, write, write_json
from kraft.layout import METADATA_FOLDER

if TYPE_CHECKING:
    from metadata.quorum.files import MetadataFiles

metadata_app = typer.Typer(
    help="Read the metadata log from a node's folder, or from one of Kafka.", no_args_is_help=True
)
log_app = typer.Typer(help="Read the records of a partition from its folder.", no_args_is_help=True)

TAIL_EVERY_MS: Final = 250
"""A file reports no growth, and its node may be down: a tail looks again until the reader ends it."""

FolderArgument = Annotated[
    str, typer.Argument(metavar="FOLDER", help="A node's data folder, or the metadata folder in it.")
]


@metadata_app.command("dump")
def dump_metadata(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Print the snapshot's offset and every committed record after it.

    From a log directory of Apache Kafka, or its __cluster_metadata-0: the records of the newest snapshot, and all after
    it; or those of one .checkpoint or .log file.
    """
    from kraft.kafka_data.dump import metadata_path
    from kraft.runtime.files import DiskFiles

    of_kafka = metadata_path(DiskFiles(), folder)
    rows = _metadata_rows(_read_metadata(folder), after=-1) if of_kafka is None else _kafka_rows(of_kafka)
    _write_metadata([rows], as_json=as_json)


@metadata_app.command("tail")
def tail_metadata(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Print records as they are committed, until Ctrl-C. A running node saves its commit index about once a second."""
    try:
        _write_metadata(_as_it_grows(folder), as_json=as_json)
    except KeyboardInterrupt:
        return


@log_app.command("dump")
def dump_log(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A folder, or one segment, index, snapshot or checkpoint in it.")
    ],
    records: Annotated[bool, typer.Option("--records", help="Each batch with its records.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print a segment's batches, an index's entries, a snapshot's producers, a checkpoint, or all files of a folder.

    Damage is a row of its own, and makes the exit code 1.
    """
    if not os.path.exists(path):
        raise CommandFailed(f"there is no {path}; use a partition's folder like data/node-1/logs/orders-0")
    counts = Counter[str]()
    rows = _counted(_log_rows(path, records=records), counts)
    if sys.stdout.isatty() and not as_json:
        from kraft.cli.file_views import write_log_tables

        write_log_tables(rows, records=records)
    else:
        for row in rows:
            _write_row(row, as_json=as_json)
    if counts["error"]:
        raise CommandFailed(f"{counts['error']} places in {path} are damaged")
    if not counts and os.path.isdir(path):
        raise CommandFailed(f"{path} holds no log; use a partition's folder like data/node-1/logs/orders-0")


def _counted(rows: Iterator[Mapping[str, Any]], counts: Counter[str]) -> Iterator[Mapping[str, Any]]:
    for row in rows:
        counts[row["kind"]] += 1
        yield {name: _readable(value) for name, value in row.items()}


def _log_rows(path: str, *, records: bool) -> Iterator[Mapping[str, Any]]:
    from kraft.runtime.files import DiskFiles
    from replication.storage.dump import (
        CHECKPOINTS,
        dump_checkpoint,
        dump_folder,
        dump_index,
        dump_producers,
        dump_segment,
    )

    if os.path.isdir(path):
        return dump_folder(DiskFiles(), path, records=records)
    if path.endswith((".index", ".timeindex", ".txnindex")):
        return dump_index(DiskFiles(), path)
    if path.endswith((".log", ".checkpoint")):
        return dump_segment(DiskFiles(), path, records=records)
    if path.endswith(".snapshot"):
        return dump_producers(DiskFiles(), path)
    if os.path.basename(path) in CHECKPOINTS:
        return dump_checkpoint(DiskFiles(), path)
    raise CommandFailed(
        f"{path} is neither a folder, a .log, .index, .timeindex, .txnindex, .snapshot or .checkpoint file, nor a "
        "checkpoint file of offsets"
    )


def _readable(value: object) -> Any:
    """Bytes as text if they are text, else in base64, so that every row is JSON."""
    match value:
        case bytes() | bytearray() | memoryview():
            data = bytes(value)
            try:
                return data.decode("utf-8")
            except UnicodeDecodeError:
                return {"base64": base64.b64encode(data).decode("ascii")}
        case list() | tuple():
            return [_readable(item) for item in value]
        case dict():
            return {str(name): _readable(item) for name, item in value.items()}
        case _:
            return value


def _read_metadata(folder: str) -> MetadataFiles:
    from kraft.runtime.files import DiskFiles
    from metadata.quorum.durable import QuorumStorageError
    from metadata.quorum.files import read_metadata_files

    inner = os.path.join(folder, METADATA_FOLDER)
    try:
        return read_metadata_files(DiskFiles(), inner if os.path.isdir(inner) else folder)
    except (QuorumStorageError, OSError) as error:
        raise CommandFailed(str(error)) from error


def _kafka_rows(path: str) -> Iterator[dict[str, Any]]:
    from kraft.kafka_data.dump import metadata_rows
    from kraft.kafka_data.metadata_log import UnreadableMetadata
    from kraft.runtime.files import DiskFiles

    try:
        yield from metadata_rows(DiskFiles(), path)
    except (UnreadableMetadata, OSError) as error:
        raise CommandFailed(str(error)) from error


def _as_it_grows(folder: str) -> Iterator[Iterator[dict[str, Any]]]:
    position = _read_metadata(folder).image.next_offset - 1
    while True:
        read = _read_metadata(folder)
        yield _metadata_rows(read, after=position)
        position = max(position, read.image.next_offset - 1)
        time.sleep(TAIL_EVERY_MS / 1000)


def _write_metadata(pages: Iterable[Iterator[dict[str, Any]]], *, as_json: bool) -> None:
    """Write each page at once, so that a tail shows it."""
    if sys.stdout.isatty() and not as_json:
        from kraft.cli.file_views import write_metadata_table

        write_metadata_table(pages)
        return
    for row in chain.from_iterable(pages):
        _write_row(row, as_json=as_json)


def _metadata_rows(read: MetadataFiles, *, after: int) -> Iterator[dict[str, Any]]:
    if read.snapshot is not None and after < 0:
        yield {"type": "Snapshot", "next_offset": read.snapshot.next_offset}
    for entry in read.records:
        if entry.offset > after:
            yield {
                "offset": entry.offset,
                "controller_epoch": entry.controller_epoch,
                "type": type(entry.record).__name__,
                "record": _plain(entry.record),
            }


def _plain(record: object) -> Any:
    from pydantic import BaseModel

    return record.model_dump(mode="json") if isinstance(record, BaseModel) else str(record)


def _write_row(row: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        write_json(row)
        return
    write("  ".join(f"{name}: {json.dumps(v) if isinstance(v, dict) else cell(v)}" for name, v in row.items()))
