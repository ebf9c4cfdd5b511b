"""What the command line shows of a verdict."""

from __future__ import annotations

import dataclasses
import io
import sys
from pathlib import Path

import pytest
from rich.console import Console

from kraft.chaos import catalogue
from kraft.chaos.checkers.verdict import Counts
from kraft.chaos.live import MEANINGS, count_rows, node_lines, verdict_rows
from kraft.cli.scenario_view import TerminalView
from tests.unit.chaos.recorded_run import Run, clean_run, values
from tests.unit.chaos.test_stories import SNAPSHOT


def test_unread_records_are_shown(tmp_path: Path) -> None:
    run = Run()
    run.sent(*values(0, 10), at_s=1, offset=0)
    run.read(0, values(0, 6), at_s=2, high_watermark=10)
    verdict = run.verdict(tmp_path)
    found = {row["records"]: row["found"] for row in count_rows(verdict)}
    assert found["kept"] == "6"
    assert found["unread"] == "4"
    assert verdict_rows(verdict)[-1] == {"records": "unread", "found": "4", "expected": ""}


def test_table_without_unread_records(tmp_path: Path) -> None:
    assert "unread" not in {row["records"] for row in verdict_rows(clean_run().verdict(tmp_path))}


def test_every_count_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Counts.__struct_fields__)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [40, 80, 140])
def test_a_terminal_shows_nodes_faults_and_how_far_it_is(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stdout", Terminal())
    view = TerminalView()
    assert "step 0" in drawn(view, columns), "before anything is known"
    view.begun(catalogue.SCENARIOS["acks1-leader-kill"])
    view.phase("running the story")
    view.looked(SNAPSHOT)
    view.happened("killed node 3 with -9", after_ms=1_500)
    view.step(3, "until now.done('doomed') and now.log_end(old, 't', 0) == 250")
    lines = drawn(view, columns).splitlines()
    assert max(map(len, lines)) <= columns
    assert sum(line.startswith("node ") for line in lines) == 3
    assert [line for line in lines if "1.50 s  killed node 3 with -9" in line]
    if columns > 40:
        assert "step 3 of 10  until now.done('doomed')" in lines[-1]
        assert "node 2  active       leads t-0 (epoch 4, ISR 1,2)" in lines
    with view:
        pass
    left = drawn(view, columns)
    assert "killed node 3" in left
    assert "active" not in left, "what no longer runs is not shown"


def drawn(view: TerminalView, columns: int) -> str:
    out = io.StringIO()
    Console(file=out, width=columns).print(view._draw())
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def test_a_node_with_many_partitions_keeps_to_its_line() -> None:
    replica = SNAPSHOT.views[2].replicas["t", 0]
    replicas = {("t", number): replica for number in range(5)}
    views = {2: dataclasses.replace(SNAPSHOT.views[2], replicas=replicas)}
    (line,) = node_lines(dataclasses.replace(SNAPSHOT, states={2: "running"}, views=views))
    assert line.roles.startswith("leads t-0 (epoch 4, ISR 1,2), t-1 ")
    assert line.roles.endswith(", t-2 (epoch 4, ISR 1,2) and 2 more")
