"""docs/queues.md: its program and its commands run as they stand, in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.test_testing_page import BLOCK, ROOT, run

PAGE = (ROOT / "docs" / "queues.md").read_text(encoding="utf-8")


@pytest.mark.long
def test_the_worker_of_the_page_empties_the_queue(tmp_path: Path) -> None:
    blocks = dict(BLOCK.findall(PAGE))
    (tmp_path / "worker.py").write_text(blocks["python"])
    printed = run("sh", "-ec", blocks["sh"], folder=tmp_path)
    assert "3 accepted, 1 rejected" in printed, printed
