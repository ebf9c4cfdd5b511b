"""Output of commands: tables on a terminal, tab-separated text in a pipe, JSON for machines; errors on stderr.

The output has text of records and of other people's clients. A terminal would obey a control character in it, and in a
pipe it would break a table: there it is shown as `\\u001b`. All other bytes in a pipe are unchanged.
"""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from kraft.protocol.text import visible

FAILED = 1
USAGE = 2


class CommandFailed(Exception):
    """The command could not do its work; the message is for the person who runs it."""


def field(text: str) -> str:
    """A text in one column of one line."""
    return visible(text, keep="") if sys.stdout.isatty() else text


def write(line: str) -> None:
    sys.stdout.write((visible(line) if sys.stdout.isatty() else line) + "\n")
    sys.stdout.flush()


def write_words(line: str) -> None:
    """Write a sentence: on a terminal it is broken between words."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        line = textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    write(line)


def say(line: str) -> None:
    """Print progress and warnings on standard error, never between results."""
    sys.stderr.write((visible(line) if sys.stderr.isatty() else line) + "\n")
    sys.stderr.flush()


def progress(*, as_json: bool) -> Callable[[str], None]:
    """The function that prints progress: with JSON, standard output has only the document."""
    return say if as_json else write


def write_json(document: Any) -> None:
    write(json.dumps(document, ensure_ascii=False))


def write_rows(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    as_json: bool,
    title: str = "",
    empty: str = "",
    whole: Sequence[str] = (),
) -> None:
    """Write one JSON document, a table, or a header line and one tab-separated line per row.

    `empty` is printed instead of a table without rows. `whole`: columns that a narrow terminal does not break, because
    people copy them.
    """
    if as_json:
        write_json(list(rows))
    elif sys.stdout.isatty():
        if rows or not empty:
            _write_table(rows, columns, title, whole)
        else:
            write(empty)
    else:
        write("\t".join(columns))
        for row in rows:
            write("\t".join(visible(cell(row.get(column)), keep="") for column in columns))


def write_pairs(pairs: Mapping[str, Any], *, as_json: bool, title: str = "") -> None:
    """Write one thing with its properties."""
    if as_json:
        write_json(dict(pairs))
    else:
        rows = [{"property": name, "value": value} for name, value in pairs.items()]
        write_rows(rows, ("property", "value"), as_json=False, title=title)


def cell(value: Any, *, joint: str = ",") -> str:
    match value:
        case None:
            return "-"
        case bool():
            return str(value).lower()
        case list() | tuple():
            return joint.join(cell(item) for item in value) or "-"
        case dict():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)


def fail(message: str, *, code: int = FAILED) -> NoReturn:
    say(f"error: {message}")
    sys.exit(code)


WORD_MAX = 12
"""Longer words in a column that may be broken are broken, where a terminal is narrow."""


def _write_table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str, whole: Sequence[str] = ()
) -> None:
    """Write a table. If the columns that may not be broken do not fit, each row becomes a block of lines."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    names = [column.replace("_", " ") for column in columns]
    texts = [[visible(cell(row.get(column), joint=", ")) for column in columns] for row in rows]
    widths = [
        max(len(part) if column in whole else _longest_word(part) for part in (name, *parts))
        for column, name, parts in zip(columns, names, zip(*texts, strict=True), strict=False)
    ]
    if whole and sum(widths) + 2 * len(widths) + 1 > console.width:
        _write_blocks(names, texts, title)
        return
    if title:
        console.print(Text(title, style="table.title"))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0) if whole else (0, 1))
    for column, name in zip(columns, names, strict=True):
        table.add_column(name, overflow="fold", no_wrap=column in whole)
    for row in texts:
        table.add_row(*map(Text, row))
    console.print(table)


def _longest_word(text: str) -> int:
    return min(max(map(len, text.split()), default=0), WORD_MAX)


def _write_blocks(names: Sequence[str], texts: Sequence[Sequence[str]], title: str) -> None:
    if title:
        write(title)
    width = max(map(len, names))
    for row in texts:
        write("")
        for name, text in zip(names, row, strict=True):
            write(f"{name:<{width}}  {text}")
