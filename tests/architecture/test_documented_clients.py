"""docs/clients.md names each test and script of other clients, and the commit on which it was run."""

from __future__ import annotations

import re
from pathlib import Path

from tests.architecture.sources import ROOT

CLIENTS = ROOT / "tests" / "clients"
ENTRY = re.compile(r"^- \*\*.*(?:\n  .*)*", re.MULTILINE)
RUN_ON = re.compile(r"\([0-9a-f]{7,},\s+\d{4}-\d\d-\d\d\)")
"""Commit and date."""
NO_CLIENTS = {"tests.clients.golden.record", "tests.clients.golden.record_transactions", "tests.clients.record_kafka"}
NO_CLIENTS |= {"tests.clients.golden.record_quotas"}
"""They ask Apache Kafka, not us."""
NO_CLIENTS |= {"tests.clients.kaskade.pilot", "tests.clients.registry.client"}
"""They are started by the script beside them."""


def test_clients_page_names_every_run():
    page = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    named = " ".join(entry for entry in ENTRY.findall(page) if RUN_ON.search(entry))
    assert not [each for each in runnable() if not re.search(rf"\b{re.escape(each)}(?![\w.])", named)]


def runnable() -> list[str]:
    tests = [path.name for path in CLIENTS.rglob("test_*.py")]
    scripts = [module(path) for path in CLIENTS.rglob("*.py") if "if __name__ ==" in path.read_text(encoding="utf-8")]
    assert len(tests) > 10
    assert len(scripts) > 5
    return sorted({*tests, *scripts} - NO_CLIENTS)


def module(path: Path) -> str:
    """The name of a module for `python -m`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
