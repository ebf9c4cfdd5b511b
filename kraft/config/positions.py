"""The line of each key of a TOML text: dotted path -> line number.

`tomllib` returns values without positions. A path joins tables, indexes of arrays of tables, and key parts with dots:
`nodes.0.settings.broker.heartbeat.interval.ms`. A key inside an inline table has the line of the table.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\]]+?)\s*\]")
_KEY = re.compile(r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")


def key_lines(text: str) -> dict[str, int]:
    """Line of the first occurrence of each path in the text."""
    lines: dict[str, int] = {}
    elements: Counter[str] = Counter()
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _table_path(header[1] == "[[", _dotted(header[2]), elements)
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            lines.setdefault(f"{table}.{_dotted(key[1])}".lstrip("."), number)
    return lines


def line_of(path: str, lines: Mapping[str, int]) -> int:
    """The line of a path or of its first child, or of its nearest parent in the file; 0 when there is none."""
    while path:
        if path in lines:
            return lines[path]
        if children := [line for key, line in lines.items() if key.startswith(f"{path}.")]:
            return min(children)
        path = path.rpartition(".")[0]
    return 0


def _dotted(key: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in key.split("."))


def _table_path(is_array: bool, name: str, elements: Counter[str]) -> str:
    """`[[nodes]]` is `nodes.0`, `nodes.1`, ...; `[nodes.settings]` belongs to the last element of `nodes`, and so does
    `[[nodes.listeners]]`."""
    first, dot, rest = name.partition(".")
    if is_array and dot and elements[first]:
        name = f"{first}.{elements[first] - 1}.{rest}"
    if is_array:
        elements[name] += 1
        return f"{name}.{elements[name] - 1}"
    return f"{first}.{elements[first] - 1}.{rest}" if dot and elements[first] else name
