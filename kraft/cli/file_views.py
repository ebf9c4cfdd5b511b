"""Tables of rows that are read from a node's files: one per file and kind of row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from kraft.cli.output import cell
from kraft.cli.streamed_tables import Column, FlowingTable
from kraft.protocol.text import visible

METADATA_COLUMNS: Final = (
    Column("offset", 8, is_number=True),
    Column("epoch", 5, is_number=True),
    Column("type", 24),
    Column("record", None),
)

_TIME: Final = Column("timestamp", 23)
_LOG_COLUMNS: Final = {
    "batch": (
        Column("base_offset", 11, is_number=True),
        Column("last_offset", 11, is_number=True),
        Column("count", 6, is_number=True),
        Column("epoch", 5, is_number=True),
        Column("position", 10, is_number=True),
        Column("size", 8, is_number=True),
        _TIME,
        Column("codec", 6),
        Column("CRC", 5),
        Column("producer", None),
    ),
    "record": (
        Column("offset", 11, is_number=True),
        Column("batch", 11, is_number=True),
        Column("epoch", 5, is_number=True),
        _TIME,
        Column("key", 20),
        Column("value", None),
        Column("headers", 20),
    ),
    "offset_entry": (Column("offset", 11, is_number=True), Column("position", 10, is_number=True)),
    "time_entry": (_TIME, Column("offset", 11, is_number=True)),
    "aborted_transaction": (
        Column("producer", 19, is_number=True),
        Column("first", 11, is_number=True),
        Column("marker", 11, is_number=True),
        Column("last stable", 11, is_number=True),
    ),
    "producer": (
        Column("producer", 19, is_number=True),
        Column("epoch", 5, is_number=True),
        Column("sequences", 23, is_number=True),
        Column("offsets", 23, is_number=True),
        Column("open since", 11, is_number=True),
        _TIME,
    ),
    "checkpoint": (Column("line", None),),
    "error": (Column("error", None),),
}

Cells = tuple[str, str, Mapping[str, Any]]
"""The file, the kind of row, and the content of its columns."""


def write_metadata_table(pages: Iterable[Iterator[Mapping[str, Any]]]) -> None:
    """Records of the metadata log, their fields as `name=value`; a page is shown as soon as it is read."""
    table = FlowingTable(Console(highlight=False), METADATA_COLUMNS)
    for rows in pages:
        table.write(map(_metadata_cells, rows))


def _metadata_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    fields = row.get("record") or {}
    text = "  ".join(f"{name}={cell(value)}" for name, value in fields.items() if name != "type")
    if row["type"] == "Snapshot":
        return {"offset": row["next_offset"] - 1, "type": "Snapshot", "record": "everything up to here"}
    offset = None if row.get("in_snapshot") else row["offset"]
    return {"offset": offset, "epoch": row["controller_epoch"], "type": row["type"], "record": text}


def write_log_tables(rows: Iterable[Mapping[str, Any]], *, records: bool) -> None:
    """A heading for each file, then a table for each run of rows of one kind; records are shown instead of their
    batches."""
    console = Console(highlight=False)
    shown = ""
    for (file, kind), run in groupby(_log_cells(rows, records=records), key=lambda cells: cells[:2]):
        if file != shown:
            console.print(Text(f"\n{visible(file)}", style="bold cyan"))
            shown = file
        FlowingTable(console, _LOG_COLUMNS[kind]).write(cells for _, _, cells in run)


def _log_cells(rows: Iterable[Mapping[str, Any]], *, records: bool) -> Iterator[Cells]:
    batch: Mapping[str, Any] = {}
    for row in rows:
        match row["kind"]:
            case "batch" if records:
                batch = row
                if not row["count"]:
                    yield (
                        row["file"],
                        "record",
                        {"offset": row["last_offset"], **_of_batch(batch), "value": "no records"},
                    )
            case "record":
                at = {"offset": row["offset"], **_of_batch(batch), "timestamp": _time(row["timestamp"])}
                yield (
                    batch["file"],
                    "record",
                    {**at, "key": row["key"], "value": row["value"], "headers": _headers(row)},
                )
            case "batch":
                yield row["file"], "batch", _batch_cells(row)
            case "producer":
                yield row["file"], "producer", _producer_cells(row)
            case "checkpoint":
                yield from ((row["file"], "checkpoint", {"line": line}) for line in row["lines"])
            case "aborted_transaction":
                yield row["file"], "aborted_transaction", _aborted_cells(row)
            case "time_entry":
                yield row["file"], "time_entry", {**row, "timestamp": _time(row["timestamp"])}
            case kind:
                yield row["file"], kind, row


def _of_batch(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {"batch": batch["base_offset"], "epoch": batch["leader_epoch"]}


def _batch_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    text = row.get("marker") or f"sequence {row['base_sequence']}"
    if row["is_transactional"] and not row["is_control"]:
        text += " in a transaction"
    producer = f"{row['producer_id']} epoch {row['producer_epoch']} {text}"
    return {
        **row,
        "epoch": row["leader_epoch"],
        "timestamp": _time(row["timestamp"]),
        "codec": row["compression"],
        "CRC": "good" if row["is_valid"] else "wrong",
        "producer": producer if row["producer_id"] >= 0 else "-",
    }


def _producer_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "producer": row["producer_id"],
        "epoch": row["producer_epoch"],
        "sequences": f"{row['first_sequence']} to {row['last_sequence']}",
        "offsets": f"{row['first_offset']} to {row['last_offset']}",
        "open since": row["open_transaction"] if row["open_transaction"] >= 0 else "-",
        "timestamp": _time(row["timestamp"]),
    }


def _aborted_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "producer": row["producer_id"],
        "first": row["first_offset"],
        "marker": row["last_offset"],
        "last stable": row["last_stable_offset"],
    }


def _headers(row: Mapping[str, Any]) -> str | None:
    return "  ".join(f"{name}={cell(value)}" for name, value in row["headers"]) or None


def _time(timestamp_ms: int) -> str:
    """A time in UTC to the millisecond, as in the log; one that no calendar has stays a number."""
    try:
        return datetime.fromtimestamp(timestamp_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    except (OverflowError, OSError, ValueError):
        return str(timestamp_ms)
