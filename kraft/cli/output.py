"""How commands answer: tables on a terminal, tab-separated text in a pipe, JSON for machines; errors on stderr.

What is printed comes from records and from other people's clients. On a terminal a control character in it is shown as
`\\u001b`, for a terminal would obey it, and so it is in the cells of a table in a pipe, which it would break; other
bytes in a pipe are what they were.
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
    """The command could not do what it was asked; the message is for the person who asked."""


def field(text: str) -> str:
    """A text that stands in one column of one line."""
    return visible(text, keep="") if sys.stdout.isatty() else text


def write(line: str) -> None:
    sys.stdout.write((visible(line) if sys.stdout.isatty() else line) + "\n")
    sys.stdout.flush()


def write_words(line: str) -> None:
    """A sentence: on a terminal it is broken between words."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        line = textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    write(line)


def say(line: str) -> None:
    """Progress and warnings: never mixed with results."""
    sys.stderr.write((visible(line) if sys.stderr.isatty() else line) + "\n")
    sys.stderr.flush()


def progress(*, as_json: bool) -> Callable[[str], None]:
    """Where progress goes: the standard output belongs to the document when that is JSON."""
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
    """One JSON document, a table, or a header line and one tab-separated line per row.

    `empty` is what a person reads instead of a table without rows. `whole`: columns that a narrow terminal does not
    break, as people copy what is in them.
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
    """One thing with its properties."""
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
"""Longer words of a column that may be broken are, where a terminal is narrow."""


def _write_table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], title: str, whole: Sequence[str] = ()
) -> None:
    """Where what may not be broken does not fit beside the rest, each row becomes a block of lines."""
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
