"""`kraft produce`: records over REST, from arguments, files or a pipe, with a progress bar where a person watches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from kraft.cli.options import DataOption, FormatOption, JsonOption, RestOption, TopicArgument
from kraft.cli.output import CommandFailed
from kraft.cli.produce_view import Place, is_failed, report_to
from kraft.cli.rest import Rest
from kraft.cli.sending import Sender
from kraft.cli.sources import Entry, Pause, Reading, batches, from_arguments, from_files, from_standard_input
from kraft.client.response import segment


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
    idempotence: Annotated[
        bool | None,
        typer.Option(help="Send again what was not answered; it is stored once. Default: with acks=all."),
    ] = None,
    form: FormatOption = "text",
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send records and print where each was stored: partition and offset, tab-separated; one JSON line with --json.

    Lines of a file or of standard input show a progress bar on a terminal, and at the end where they are. Stops at
    the first failure. With acks=all nothing is stored twice, whatever had to be sent again.
    """
    is_idempotent = _is_idempotent(acks, idempotence)
    if records and (key is not None or separator is not None or partition is not None):
        raise typer.BadParameter("a record says its own key and partition", param_hint="--records")
    path = f"/topics/{segment(topic)}?acks={acks}&timeout={timeout_ms}"
    sender = Sender(Rest(rest, data), path, form=form, timeout_ms=timeout_ms, is_idempotent=is_idempotent)
    with report_to(has_lines=not record, files=file or [], as_json=as_json) as report:
        reading = Reading(
            form=form, key=key, separator=separator, partition=partition, is_record=records, on_bytes=report.read
        )
        for batch in batches(_source(record, file, reading)):
            places = sender.send(batch)
            report.stored(places, sent=len(batch))
            _check(places, sent=len(batch))


def _is_idempotent(acks: str, asked: bool | None) -> bool:
    """D7. Raises BadParameter."""
    if acks not in ("all", "-1", "1", "0"):
        raise typer.BadParameter("acks is all, 1 or 0", param_hint="--acks")
    is_safe = acks in ("all", "-1")
    if asked and not is_safe:
        raise typer.BadParameter("it needs acks=all: else what is sent again may be lost", param_hint="--idempotence")
    return is_safe if asked is None else asked


def _source(texts: list[str] | None, files: list[Path] | None, reading: Reading) -> Iterator[Entry | Pause]:
    if not texts and not files:
        yield from from_standard_input(reading)
    yield from from_arguments(texts or (), reading)
    yield from from_files(files or (), reading)


def _check(places: list[Place], *, sent: int) -> None:
    failures = sum(is_failed(place) for place in places)
    if failures:
        raise CommandFailed(f"{failures} of {sent} records of the last request failed; nothing more was sent")
