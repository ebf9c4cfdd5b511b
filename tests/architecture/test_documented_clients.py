"""docs/clients.md names each test and script of other people's clients, and the commit on which it was run: one that is
not in the table counts for nobody."""

from __future__ import annotations

import re
from pathlib import Path

from tests.architecture.sources import ROOT

CLIENTS = ROOT / "tests" / "clients"
ROW = re.compile(r"^\| .+? \| .*? \| (?P<where>.*?) \| [0-9a-f]{7,} \| \d{4}-\d\d-\d\d \|", re.MULTILINE)
NO_CLIENTS = {"tests.clients.golden.record", "tests.clients.golden.record_transactions"}
"""They ask Apache Kafka, not us."""
NO_CLIENTS |= {"tests.clients.kaskade.pilot", "tests.clients.registry.client"}
"""They are started by the script beside them."""


def test_each_of_them_has_a_row_with_the_commit_on_which_it_was_run():
    table = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    named = " ".join(row["where"] for row in ROW.finditer(table))
    assert not [each for each in runnable() if not re.search(rf"\b{re.escape(each)}(?![\w.])", named)]


def runnable() -> list[str]:
    tests = [path.name for path in CLIENTS.rglob("test_*.py")]
    scripts = [module(path) for path in CLIENTS.rglob("*.py") if "if __name__ ==" in path.read_text(encoding="utf-8")]
    assert len(tests) > 10
    assert len(scripts) > 5
    return sorted({*tests, *scripts} - NO_CLIENTS)


def module(path: Path) -> str:
    """As `python -m` takes it."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
