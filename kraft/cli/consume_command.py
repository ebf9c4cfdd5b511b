"""`kraft consume`: records over REST, to a terminal or a pipe."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from kraft.cli.options import (
    DataOption,
    Format,
    FormatOption,
    Isolation,
    IsolationOption,
    JsonOption,
    RestOption,
    TopicArgument,
)
from kraft.cli.output import field, write
from kraft.cli.partition_reads import Position, ReadRecord, partitions_of, read_partitions, start_offset
from kraft.cli.rest import Rest


def consume(
    topic: TopicArgument,
    partition: Annotated[int | None, typer.Option(min=0, help="Default: all partitions, one after the other.")] = None,
    offset: Annotated[
        str, typer.Option(help="earliest, latest, a number, or a time: ts:MILLISECONDS or ISO-8601.")
    ] = "earliest",
    limit: Annotated[int | None, typer.Option("--max", min=1, help="Stop after this many records.")] = None,
    group: Annotated[
        str | None, typer.Option(help="Read as a member of this group: from its offsets on, sharing the partitions.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue with new records until Ctrl-C.")] = False,
    timeout_ms: Annotated[
        int, typer.Option("--timeout", min=0, help="Wait this long for a first record, in ms.")
    ] = 500,
    form: FormatOption = "text",
    isolation: IsolationOption = "read_uncommitted",
    rest: RestOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read records and print partition, offset, timestamp, key and value, separated by tabs; one JSON line with --json.

    Without --follow it ends at the last record that all in-sync replicas have; with --isolation read_committed, before
    the first record of a transaction that is still open.
    """
    client = Rest(rest, data)
    if group is not None:
        _consume_as_member(
            client, group, topic, offset=offset, partition=partition, form=form, isolation=isolation,
            timeout_ms=timeout_ms, follow=follow, printer=_Printer(form=form, limit=limit, as_json=as_json),
        )  # fmt: skip
        return
    wanted = [partition] if partition is not None else partitions_of(client, topic)
    start = start_offset(offset)
    positions = [Position(topic=topic, partition=number, offset=start) for number in wanted]
    printer = _Printer(form=form, limit=limit, as_json=as_json)
    try:
        if follow:
            from kraft.cli import follow_command

            follow_command.follow(client.urls, positions, form=form, isolation=isolation, on_records=printer.show)
            return
        for entries in read_partitions(client, positions, form=form, isolation=isolation, timeout_ms=timeout_ms):
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
    isolation: Isolation,
    timeout_ms: int,
    follow: bool,
    printer: _Printer,
) -> None:
    from kraft.cli.group_reader import consume_group

    if partition is not None or offset not in ("earliest", "latest"):
        raise typer.BadParameter("a group assigns the partitions; --offset is earliest or latest, where it has none")
    try:
        consume_group(
            client, group, topic, form=form, isolation=isolation, reset=offset, timeout_ms=timeout_ms, follow=follow,
            show=printer.show,
        )  # fmt: skip
    except KeyboardInterrupt:
        return


class _Printer:
    """Prints records up to a limit."""

    def __init__(self, *, form: Format, limit: int | None, as_json: bool) -> None:
        self._form = form
        self._left = limit if limit is not None else -1
        self._as_json = as_json

    def show(self, records: list[ReadRecord]) -> bool:
        """Print records. False at the limit."""
        for record in records:
            write(_on_one_line(msgspec.json.encode(record)) if self._as_json else _line(record, self._form))
            self._left -= 1
            if self._left == 0:
                return False
        return True


def _line(record: ReadRecord, form: Format) -> str:
    whose = [str(record.partition), str(record.offset), str(record.timestamp)]
    return "\t".join([*whose, _field(record.key, form), _field(record.value, form)])


def _field(data: msgspec.Raw, form: Format) -> str:
    """JSON with --format json, else the text; "-" for none."""
    text = _on_one_line(data)
    if form != "json":
        text = "-" if text == "null" else msgspec.json.decode(text, type=str)
    return field(text)


def _on_one_line(data: bytes | msgspec.Raw) -> str:
    """JSON without white space between its tokens; not parsed, so that numbers and strings are unchanged."""
    return msgspec.json.format(bytes(data), indent=-1).decode()
