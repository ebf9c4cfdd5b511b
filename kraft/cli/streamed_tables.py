"""Tables of unknown length on a terminal: columns of a fixed width, printed as the rows arrive.

Invariant: no more than one page of rows is held, so that a log far larger than memory can be shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from kraft.cli.output import cell
from kraft.protocol.text import visible

if TYPE_CHECKING:
    from rich.console import Console

PAGE_ROWS: Final = 200


@dataclass(frozen=True, slots=True)
class Column:
    """`width` None: the rest of the line; longer text is folded inside its column."""

    name: str
    width: int | None
    is_number: bool = False


class FlowingTable:
    """A header once, then row after row below it."""

    def __init__(self, console: Console, columns: tuple[Column, ...]) -> None:
        self._console = console
        self._columns = columns
        self._has_header = False

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Print rows as they arrive, a page at a time; cells are found by the column's name."""
        left = iter(rows)
        while page := list(islice(left, PAGE_ROWS)):
            self._write_page(page)

    def _write_page(self, rows: list[Mapping[str, Any]]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=not self._has_header, pad_edge=False, header_style="bold")
        for column in self._columns:
            table.add_column(
                column.name.replace("_", " "),
                width=column.width,
                justify="right" if column.is_number else "left",
                overflow="fold",
            )
        for row in rows:
            table.add_row(*(Text(visible(cell(row.get(column.name)))) for column in self._columns))
        self._console.print(table)
        self._has_header = True
