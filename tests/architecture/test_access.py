"""The tables of docs/security.md are those of the code."""

from __future__ import annotations

from kraft.wire.access_table import ACCESS
from tests.architecture.access import DOCUMENT, needed, tables, written


def test_the_document_has_the_tables_of_the_code() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert written(text) == text, "run python -m tests.architecture.access"


def test_needs_are_written_in_words() -> None:
    assert needed(ACCESS["WriteTxnMarkers"]) == "Alter or ClusterAction on Cluster"
    assert needed(ACCESS["CreateTopics"]).startswith("Create on each Topic, or Create on Cluster; ")
    assert "- `POST /topics/{topic}`: Write on Topic\n" in tables()
