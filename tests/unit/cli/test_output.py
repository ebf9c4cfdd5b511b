"""Tables on terminals of some widths: what people copy is not broken, and where it does not fit a row is a block."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kraft.cli.cluster import ADDRESSES
from kraft.cli.output import write_rows

COLUMNS = ("id", "roles", "rest", "kafka", "quorum", "pid")


def rows(ports: int) -> list[dict[str, Any]]:
    """Three nodes whose ports begin there."""
    return [
        {
            "id": node,
            "roles": ("broker", "controller"),
            "rest": f"http://127.0.0.1:{ports + node}",
            "kafka": f"127.0.0.1:{ports + 10 + node}",
            "quorum": f"127.0.0.1:{ports + 20 + node}",
            "pid": 22_567 + node,
        }
        for node in (1, 2, 3)
    ]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def show(width: int, ports: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        write_rows(rows(ports), COLUMNS, as_json=False, title="cluster c is ready", whole=ADDRESSES)
        return re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).splitlines()

    return show


@pytest.mark.parametrize(("width", "ports"), [(80, 8_000), (112, 8_000), (112, 28_000)])
def test_a_table_has_the_addresses_of_a_node_in_one_line(shown: Any, width: int, ports: int) -> None:
    lines = shown(width, ports)
    assert max(map(len, lines)) <= width
    for row in rows(ports):
        (line,) = (line for line in lines if row["rest"] in line)
        assert all(row[column] in line for column in ADDRESSES), line


@pytest.mark.parametrize(("width", "ports"), [(80, 28_000), (40, 8_000)])
def test_what_does_not_fit_becomes_a_block_of_lines_for_each_row(shown: Any, width: int, ports: int) -> None:
    lines = shown(width, ports)
    assert lines[0] == "cluster c is ready"
    assert max(map(len, lines)) <= width
    for row in rows(ports):
        at = lines.index(f"rest    {row['rest']}")
        assert lines[at - 1 : at + 3] == [
            "roles   broker, controller",
            f"rest    {row['rest']}",
            f"kafka   {row['kafka']}",
            f"quorum  {row['quorum']}",
        ]
