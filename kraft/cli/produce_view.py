"""Output of `kraft produce` while it sends: a line per record in a pipe, a progress bar and a summary for a person."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kraft.cli.output import say, write, write_json, write_rows

if TYPE_CHECKING:
    from rich.progress import Progress

Place = dict[str, Any]
"""Place of one record, from the server: partition and offset, or an error."""


class Report(Protocol):
    def read(self, count: int) -> None:
        """So many more bytes of the input were read."""

    def stored(self, places: list[Place], *, sent: int) -> None:
        """The answer to one request has arrived; no places with acks=0."""


def is_failed(place: Place) -> bool:
    return place.get("error_code") is not None


@contextmanager
def report_to(*, has_lines: bool, files: list[Path], as_json: bool) -> Iterator[Report]:
    """A progress bar on standard error when a person watches many lines, else lines."""
    lines = _Lines(as_json=as_json)
    if not has_lines or not sys.stderr.isatty() or (not files and sys.stdin.isatty()):
        yield lines
        return
    is_summarized = sys.stdout.isatty() and not as_json
    progress = _progress_bar()
    watched = _Watched(progress, total=_size_of(files))
    try:
        with progress:
            yield watched if is_summarized else _Both(watched, lines)
    finally:
        if is_summarized:
            watched.summarize()


class _Lines:
    """Prints partition and offset of every record."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def read(self, count: int) -> None:
        pass

    def stored(self, places: list[Place], *, sent: int) -> None:
        if not places:
            say(f"{sent} records sent; with acks=0 their offsets are not known")
        for place in places:
            if self._as_json:
                write_json(place)
            elif is_failed(place):
                say(f"error: {place.get('error')} (error_code {place['error_code']})")
            else:
                write(f"{place['partition']}\t{place['offset']}")


@dataclass(slots=True)
class _Range:
    first: int
    last: int
    count: int = 0


class _Watched:
    """Shows a bar of the bytes read, the rate, and at the end the offsets of the records in each partition."""

    def __init__(self, progress: Progress, *, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=total, records=0, rate=0.0)
        self._begin = time.monotonic()
        self._records = 0
        self._ranges: dict[int, _Range] = {}

    def read(self, count: int) -> None:
        self._progress.advance(self._task, count)

    def stored(self, places: list[Place], *, sent: int) -> None:
        self._records += sent - sum(map(is_failed, places))
        rate = self._records / max(time.monotonic() - self._begin, 0.001)
        self._progress.update(self._task, records=self._records, rate=rate)
        for place in places:
            if is_failed(place):
                say(f"error: {place.get('error')} (error_code {place['error_code']})")
            else:
                self._note(int(place["partition"]), int(place["offset"]))

    def _note(self, partition: int, offset: int) -> None:
        known = self._ranges.setdefault(partition, _Range(offset, offset))
        known.first, known.last = min(known.first, offset), max(known.last, offset)
        known.count += 1

    def summarize(self) -> None:
        rows = [
            {"partition": partition, "first_offset": at.first, "last_offset": at.last, "records": at.count}
            for partition, at in sorted(self._ranges.items())
        ]
        columns = ("partition", "first_offset", "last_offset", "records")
        write_rows(rows, columns, as_json=False, empty="with acks=0 the offsets are not known")


class _Both:
    def __init__(self, *reports: Report) -> None:
        self._reports = reports

    def read(self, count: int) -> None:
        for report in self._reports:
            report.read(count)

    def stored(self, places: list[Place], *, sent: int) -> None:
        for report in self._reports:
            report.stored(places, sent=sent)


def _size_of(files: list[Path]) -> int | None:
    """Bytes to read; None for a pipe, whose size is not known."""
    return sum(file.stat().st_size for file in files if file.exists()) if files else None


def _progress_bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[records]:,} records"),
        TextColumn("{task.fields[rate]:,.0f} records/s"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
