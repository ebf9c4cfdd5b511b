"""`kraft produce`: records over REST, from arguments, files or a pipe, with a progress bar where a person watches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer

from kraft.cli.options import DataOption, Format, FormatOption, JsonOption, RestOption, TopicArgument
from kraft.cli.output import CommandFailed
from kraft.cli.produce_view import Place, is_failed, report_to
from kraft.cli.rest import Rest, checked, segment
from kraft.cli.sources import Entry, Pause, Reading, batches, from_arguments, from_files, from_standard_input
from kraft.client.outcome import Request

REPLY_MARGIN_MS: Final = 10_000
"""Added to the server's timeout, so that its verdict arrives before we give up."""


def produce(
    topic: TopicArgument,
    record: Annotated[
        list[str] | None, typer.Argument(metavar="[RECORD]...", help="Values; without any, lines of standard input.")
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option("--file", metavar="FILE", help="Lines of a file; with binary, the whole file is one record."),
    ] = None,
    records: Annotated[
        bool,
        typer.Option(
            "--records",
            help="Each line is a record as JSON: key, value, partition, timestamp, headers, as consume --json prints.",
        ),
    ] = False,
    key: Annotated[str | None, typer.Option(help="Key of every record; equal keys go to one partition.")] = None,
    separator: Annotated[str | None, typer.Option(help="Splits each record into key and value at its first.")] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Default: by key, else spread.")] = None,
    acks: Annotated[str, typer.Option(help="all: every in-sync replica has it; 1: the leader has it; 0.")] = "all",
    timeout_ms: Annotated[
        int, typer.Option("--timeout", help="How long the server may wait for acks, in ms.")
    ] = 30_000,
    form: FormatOption = "text",
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send records and print where each was stored: partition and offset, tab-separated; one JSON line with --json.

    Lines of a file or of standard input show a progress bar on a terminal, and at the end where they are. Stops at
    the first failure; nothing is sent twice.
    """
    if acks not in ("all", "-1", "1", "0"):
        raise typer.BadParameter("acks is all, 1 or 0", param_hint="--acks")
    if records and (key is not None or separator is not None or partition is not None):
        raise typer.BadParameter("a record says its own key and partition", param_hint="--records")
    path = f"/topics/{segment(topic)}?acks={acks}&timeout={timeout_ms}"
    sender = _Sender(Rest(rest, data), path, form=form, timeout_ms=timeout_ms)
    with report_to(has_lines=not record, files=file or [], as_json=as_json) as report:
        reading = Reading(
            form=form, key=key, separator=separator, partition=partition, is_record=records, on_bytes=report.read
        )
        for batch in batches(_source(record, file, reading)):
            places = sender.send(batch)
            report.stored(places, sent=len(batch))
            _check(places, sent=len(batch))


def _source(texts: list[str] | None, files: list[Path] | None, reading: Reading) -> Iterator[Entry | Pause]:
    if not texts and not files:
        yield from from_standard_input(reading)
    yield from from_arguments(texts or (), reading)
    yield from from_files(files or (), reading)


class _Sender:
    """One request after the other."""

    def __init__(self, client: Rest, path: str, *, form: Format, timeout_ms: int) -> None:
        self._client = client
        self._path = path
        self._headers = {"Content-Type": f"application/vnd.kafka.{form}.v2+json"}
        self._timeout_ms = timeout_ms + REPLY_MARGIN_MS

    def send(self, batch: list[Entry]) -> list[Place]:
        """Where each record is, or why not; empty with acks=0. Raises CommandFailed when the request failed whole."""
        body = json.dumps({"records": batch}, ensure_ascii=False).encode()
        request = Request(method="POST", path=self._path, body=body, headers=self._headers, timeout_ms=self._timeout_ms)
        document = checked(self._client.change(request)).json()
        return document["offsets"] if isinstance(document, dict) and "offsets" in document else []


def _check(places: list[Place], *, sent: int) -> None:
    failures = sum(is_failed(place) for place in places)
    if failures:
        raise CommandFailed(f"{failures} of {sent} records of the last request failed; nothing more was sent")
