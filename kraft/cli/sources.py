"""Records for `kraft produce`: from arguments, files, or standard input, line by line and never all at once.

A source yields entries of a v2 produce request, and PAUSE when no more are available just now, so that a line typed by
hand is sent at once while fast lines share requests.
"""

from __future__ import annotations

import base64
import binascii
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Final

import msgspec

from kraft.cli.options import Format
from kraft.cli.output import CommandFailed

RECORDS_PER_REQUEST_MAX: Final = 500
BYTES_PER_REQUEST_MAX: Final = 512 * 1024
LINES_WAITING_MAX: Final = 4 * RECORDS_PER_REQUEST_MAX
"""Lines that were read from standard input and not yet sent; more wait in the pipe."""
RECORD_FIELDS: Final = frozenset({"key", "value", "partition", "timestamp", "headers"})
PLACE_FIELDS: Final = frozenset({"topic", "offset"})
"""Fields that `kraft consume --json` also prints: the place of a record, which does not decide its new place."""

Entry = dict[str, Any]
"""An entry of a produce request. Its JSON is sent unchanged (`msgspec.Raw`): numbers keep every digit."""
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_any = msgspec.json.Decoder(msgspec.Raw).decode


class Pause:
    """No more entries just now."""


PAUSE: Final = Pause()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The format of a line. `on_bytes` gets the length of each line in the input."""

    form: Format
    key: str | None = None
    separator: str | None = None
    partition: int | None = None
    is_record: bool = False
    """Each line is a record with key, value, partition, timestamp and headers, as JSON."""
    on_bytes: Callable[[int], None] = lambda _: None


def from_arguments(texts: Iterable[str], reading: Reading) -> Iterator[Entry]:
    for number, text in enumerate(texts, 1):
        yield _entry(text, reading, where=f"record {number}")


def from_files(paths: Iterable[Path], reading: Reading) -> Iterator[Entry]:
    """The lines of the files, one after the other; in binary each file is one record, unless its lines are records."""
    for path in paths:
        try:
            if reading.form == "binary" and not reading.is_record:
                content = path.read_bytes()
                reading.on_bytes(len(content))
                yield _entry(base64.b64encode(content).decode("ascii"), reading, where=str(path))
                continue
            with path.open("rb") as lines:
                yield from _entries(lines, reading, source=str(path))
        except OSError as error:
            raise CommandFailed(str(error)) from error


def from_standard_input(reading: Reading) -> Iterator[Entry | Pause]:
    """Entries of standard input: a thread reads ahead, at most LINES_WAITING_MAX lines."""
    lines: Queue[bytes | None] = Queue(LINES_WAITING_MAX)
    threading.Thread(target=_read_ahead, args=(lines,), daemon=True).start()
    number = 0
    while True:
        try:
            line = lines.get_nowait()
        except Empty:
            yield PAUSE
            line = lines.get()
        if line is None:
            return
        number += 1
        reading.on_bytes(len(line))
        yield _entry(_text(line, f"line {number}"), reading, where=f"line {number}")


def _read_ahead(lines: Queue[bytes | None]) -> None:
    try:
        for line in sys.stdin.buffer:
            lines.put(line)
    finally:
        lines.put(None)


def batches(entries: Iterable[Entry | Pause]) -> Iterator[list[Entry]]:
    """Requests of bounded size, in order. The last record of a full one may exceed the byte limit by itself."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        if not isinstance(entry, Pause):
            batch.append(entry)
            size += len(msgspec.json.encode(entry))
            if len(batch) < RECORDS_PER_REQUEST_MAX and size < BYTES_PER_REQUEST_MAX:
                continue
        if batch:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _entries(lines: Iterable[bytes], reading: Reading, *, source: str) -> Iterator[Entry]:
    for number, line in enumerate(lines, 1):
        where = f"{source}:{number}"
        reading.on_bytes(len(line))
        yield _entry(_text(line, where), reading, where=where)


def _text(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise CommandFailed(f"{where} is not UTF-8 ({error}); --format binary sends a file as it is") from error


def _entry(text: str, reading: Reading, *, where: str) -> Entry:
    if reading.is_record:
        return _whole_record(text, where)
    key, value = reading.key, text
    if reading.separator and reading.separator in value:
        key, _, value = value.partition(reading.separator)
    entry: Entry = {"value": _embedded(value, reading.form, f"the value of {where}")}
    if key is not None:
        # A key is text even when values are JSON: `--key a` is the JSON string "a".
        entry["key"] = key if reading.form != "binary" else _embedded(key, reading.form, f"the key of {where}")
    if reading.partition is not None:
        entry["partition"] = reading.partition
    return entry


def _whole_record(text: str, where: str) -> Entry:
    try:
        record = _fields(text)
    except msgspec.ValidationError as error:
        raise CommandFailed(f'{where} is no JSON object like {{"key": "a", "value": "b"}}') from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise CommandFailed(f"{where} is not JSON: {error}") from error
    unknown = sorted(record.keys() - RECORD_FIELDS - PLACE_FIELDS)
    if unknown:
        raise CommandFailed(f"{where} has {', '.join(unknown)}; a record has {', '.join(sorted(RECORD_FIELDS))}")
    return {name: value for name, value in record.items() if name in RECORD_FIELDS and bytes(value) != b"null"}


def _embedded(text: str, form: Format, what: str) -> Any:
    try:
        if form == "json":
            return _any(text)
        if form == "binary":
            base64.b64decode(text, validate=True)
    except (msgspec.DecodeError, RecursionError) as error:
        raise CommandFailed(f"{what}, {text[:80]!r}, is not JSON ({error}); --format text sends it as it is") from error
    except binascii.Error as error:
        raise CommandFailed(f"{what}, {text[:80]!r}, is not base64; --format text sends it as it is") from error
    return text
