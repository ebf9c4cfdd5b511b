"""What the command line shows of a verdict."""

from __future__ import annotations

from pathlib import Path

from kraft.scenarios.checker.verdict import Counts
from kraft.scenarios.live import MEANINGS, count_rows, verdict_rows
from tests.unit.scenarios.d_run import Run, clean_run, values


def test_records_that_nobody_read_are_shown(tmp_path: Path) -> None:
    run = Run()
    run.sent(*values(0, 10), at_s=1, offset=0)
    run.read(0, values(0, 6), at_s=2, high_watermark=10)
    verdict = run.verdict(tmp_path)
    found = {row["records"]: row["found"] for row in count_rows(verdict)}
    assert found["kept"] == "6"
    assert found["unread"] == "4"
    assert verdict_rows(verdict)[-1] == {"records": "unread", "found": "4", "expected": ""}


def test_a_table_of_a_run_in_which_all_was_read_has_no_row_for_it(tmp_path: Path) -> None:
    assert "unread" not in {row["records"] for row in verdict_rows(clean_run().verdict(tmp_path))}


def test_every_count_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Counts.__struct_fields__)
