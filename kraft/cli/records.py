"""`kraft produce` and `kraft consume`: records over REST, from and to a terminal or a pipe."""

from __future__ import annotations

import base64
import binascii
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from kraft.cli.options import DataOption, JsonOption, RestOption, TopicArgument
from kraft.cli.output import CommandFailed, say, write, write_json
from kraft.cli.reading import Position, partitions_of, read_partitions, start_offset
from kraft.cli.rest import Rest, checked, segment
from kraft.client.outcome import Request

RECORDS_PER_REQUEST_MAX: Final = 500
BYTES_PER_REQUEST_MAX: Final = 512 * 1024
REPLY_MARGIN_MS: Final = 10_000
"""Added to the server's timeout, so that its verdict arrives before we give up."""

Format = Literal["text", "json", "binary"]
FormatOption = Annotated[
    Format, typer.Option("--format", help="text; json: each record is JSON; binary: each record is base64.")
]


def produce(
    topic: TopicArgument,
    record: Annotated[
        list[str] | None, typer.Argument(metavar="[RECORD]...", help="Values; without any, lines of standard input.")
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option("--file", metavar="FILE", help="Lines of a file; with binary, the whole file is one record."),
    ] = None,
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
    """Send records and print where each was stored. Stops at the first failure; nothing is sent twice."""
    if acks not in ("all", "-1", "1", "0"):
        raise typer.BadParameter("acks is all, 1 or 0", param_hint="--acks")
    client = Rest(rest, data)
    values = _values(record, file, form)
    entries = (_entry(value, form=form, key=key, separator=separator, partition=partition) for value in values)
    path = f"/topics/{segment(topic)}?acks={acks}&timeout={timeout_ms}"
    for batch in batches(entries):
        _produce_batch(client, path, batch, form=form, timeout_ms=timeout_ms, as_json=as_json)


def consume(
    topic: TopicArgument,
    partition: Annotated[int | None, typer.Option(min=0, help="Default: all partitions, one after the other.")] = None,
    offset: Annotated[
        str, typer.Option(help="earliest, latest, a number, or a time: ts:MILLISECONDS or ISO-8601.")
    ] = "earliest",
    limit: Annotated[int | None, typer.Option("--max", min=1, help="Stop after this many records.")] = None,
    group: Annotated[
        str | None, typer.Option(help="As a member of this group: from its offsets on, sharing the partitions.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new records until Ctrl-C.")] = False,
    timeout_ms: Annotated[
        int, typer.Option("--timeout", min=0, help="Wait this long for a first record, in ms.")
    ] = 500,
    form: FormatOption = "text",
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read records and print partition, offset, timestamp, key and value, separated by tabs; one JSON line with --json.

    Without --follow it ends at the last record that all in-sync replicas have.
    """
    client = Rest(rest, data)
    if group is not None:
        _consume_as_member(
            client, group, topic, offset=offset, partition=partition, form=form, timeout_ms=timeout_ms, follow=follow,
            printer=_Printer(form=form, limit=limit, as_json=as_json),
        )  # fmt: skip
        return
    wanted = [partition] if partition is not None else partitions_of(client, topic)
    start = start_offset(offset)
    positions = [Position(topic=topic, partition=number, offset=start) for number in wanted]
    printer = _Printer(form=form, limit=limit, as_json=as_json)
    try:
        if follow:
            from kraft.cli import following

            following.follow(client.urls, positions, form=form, on_records=printer.show)
            return
        for entries in read_partitions(client, positions, form=form, timeout_ms=timeout_ms):
            if not printer.show(entries):
                return
    except KeyboardInterrupt:
        return


def _consume_as_member(
    client: Rest,
    group: str,
    topic: str,
    *,
    offset: str,
    partition: int | None,
    form: Format,
    timeout_ms: int,
    follow: bool,
    printer: _Printer,
) -> None:
    from kraft.cli.group_reading import consume_group

    if partition is not None or offset not in ("earliest", "latest"):
        raise typer.BadParameter("a group assigns the partitions; --offset is earliest or latest, where it has none")
    try:
        consume_group(
            client, group, topic, form=form, reset=offset, timeout_ms=timeout_ms, follow=follow, show=printer.show
        )
    except KeyboardInterrupt:
        return


class _Printer:
    """Prints records up to a limit."""

    def __init__(self, *, form: Format, limit: int | None, as_json: bool) -> None:
        self._form = form
        self._left = limit if limit is not None else -1
        self._as_json = as_json

    def show(self, entries: list[dict[str, Any]]) -> bool:
        """False once the limit is reached."""
        for entry in entries:
            write_json(entry) if self._as_json else write(_line(entry, self._form))
            self._left -= 1
            if self._left == 0:
                return False
        return True


def batches(entries: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Requests of bounded size, in order. The last record of a full one may exceed the byte limit by itself."""
    batch: list[dict[str, Any]] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += len(json.dumps(entry))
        if len(batch) >= RECORDS_PER_REQUEST_MAX or size >= BYTES_PER_REQUEST_MAX:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _values(texts: list[str] | None, paths: list[Path] | None, form: Format) -> Iterator[str]:
    if paths and form == "binary":
        contents = (base64.b64encode(_bytes_of(path)).decode("ascii") for path in paths)
        return chain(texts or (), contents)
    if paths:
        return chain(texts or (), (line for path in paths for line in _bytes_of(path).decode("utf-8").splitlines()))
    if texts:
        return iter(texts)
    return (line.rstrip("\r\n") for line in sys.stdin)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandFailed(str(error)) from error


def _entry(
    value: str, *, form: Format, key: str | None, separator: str | None, partition: int | None
) -> dict[str, Any]:
    if separator and separator in value:
        key, _, value = value.partition(separator)
    entry: dict[str, Any] = {"value": _embedded(value, form, "value")}
    if key is not None:
        # A key is text even when values are JSON: `--key a` is the JSON string "a".
        entry["key"] = key if form != "binary" else _embedded(key, form, "key")
    if partition is not None:
        entry["partition"] = partition
    return entry


def _embedded(text: str, form: Format, what: str) -> Any:
    try:
        if form == "json":
            return json.loads(text)
        if form == "binary":
            base64.b64decode(text, validate=True)
    except json.JSONDecodeError as error:
        raise CommandFailed(
            f"the {what} {text[:80]!r} is not JSON ({error}); --format text sends it as it is"
        ) from error
    except binascii.Error as error:
        raise CommandFailed(f"the {what} {text[:80]!r} is not base64; --format text sends it as it is") from error
    return text


def _produce_batch(
    client: Rest, path: str, batch: list[dict[str, Any]], *, form: Format, timeout_ms: int, as_json: bool
) -> None:
    body = json.dumps({"records": batch}, ensure_ascii=False).encode()
    headers = {"Content-Type": f"application/vnd.kafka.{form}.v2+json"}
    request = Request(method="POST", path=path, body=body, headers=headers, timeout_ms=timeout_ms + REPLY_MARGIN_MS)
    answer = checked(client.change(request))
    document = answer.json()
    if not isinstance(document, dict) or "offsets" not in document:
        say(f"{len(batch)} records sent; with acks=0 nobody says where they are")
        return
    failures = 0
    for place in document["offsets"]:
        failed = place.get("error_code") is not None
        failures += failed
        if as_json:
            write_json(place)
        elif failed:
            say(f"error: {place.get('error')} (error_code {place['error_code']})")
        else:
            write(f"{place['partition']}\t{place['offset']}")
    if failures:
        raise CommandFailed(f"{failures} of {len(batch)} records of the last request failed; nothing more was sent")


def _line(entry: dict[str, Any], form: Format) -> str:
    fields = [entry["partition"], entry["offset"], entry.get("timestamp"), entry.get("key"), entry.get("value")]
    return "\t".join(_field(field, form) for field in fields)


def _field(value: Any, form: Format) -> str:
    if value is None:
        return "null" if form == "json" else "-"
    return value if isinstance(value, str) and form != "json" else json.dumps(value, ensure_ascii=False)
