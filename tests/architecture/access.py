"""What each API and each HTTP route needs, as its table has it: `python -m tests.architecture.access` writes it into
docs/security.md.
"""

from __future__ import annotations

import textwrap
from typing import Any, Final

from kraft.http.access_table import ROUTE_ACCESS, RouteAccess
from kraft.wire.access import Access, Need
from kraft.wire.access_table import ACCESS
from tests.architecture.sources import ROOT

DOCUMENT: Final = ROOT / "docs" / "security.md"
BEGIN: Final = "<!-- access: made by python -m tests.architecture.access -->\n"
END: Final = "<!-- end of access -->\n"


def tables() -> str:
    """Both tables, as lists: a path may be longer than a column."""
    apis = "".join(_entry(name, needed(ACCESS[name])) for name in sorted(ACCESS))
    routes = "".join(
        _entry(f"`{name}`", route_needs(ROUTE_ACCESS[name])) for name in sorted(ROUTE_ACCESS, key=_by_path)
    )
    return f"\n### APIs\n\n{apis}\n### HTTP routes\n\n{routes}\n"


def _entry(name: str, needs: str) -> str:
    entry = textwrap.TextWrapper(120, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
    return entry.fill(f"{name}: {needs}") + "\n"


def needed(row: Access) -> str:
    """The needs of an API in words."""
    parts = [_need(each) for each in row.needs]
    for each in row.each:
        text = f"{_word(each.operation)} on each {each.states}"
        if each.unless is not None:
            text += f", or {_word(each.unless[0])} on {_word(each.unless[1])}"
        parts.append(text)
    return "; ".join([*dict.fromkeys(parts), *([row.states] if row.states else ())])


def _need(need: Need) -> str:
    text = f"{_word(need.operation)} on {_word(need.resource)}"
    if need.or_operation is not None:
        text = f"{_word(need.or_operation)} or {text}"
    if need.or_some is not None:
        text += f", or {_word(need.or_some[0])} on some {_word(need.or_some[1])}"
    return text


def route_needs(row: RouteAccess) -> str:
    """The needs of a route in words."""
    parts = [f"{_word(each.operation)} on {_word(each.resource)}" for each in row.needs]
    return "; ".join([*parts, *([row.states] if row.states else ())])


def _by_path(name: str) -> tuple[str, str]:
    method, _, path = name.partition(" ")
    return path, method


def _word(code: Any) -> str:
    """ALTER_CONFIGS as Kafka's tools write it, AlterConfigs."""
    return "".join(part.capitalize() for part in code.name.split("_"))


def written(text: str) -> str:
    """The document with the tables as they should be. Raises ValueError when it has no place for them."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + tables() + END + rest.split(END)[1]


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
