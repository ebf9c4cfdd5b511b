"""docs/queues.md: its program and its commands run as they stand, in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.test_testing_page import BLOCK, ROOT, run

PAGE = (ROOT / "docs" / "queues.md").read_text(encoding="utf-8")


@pytest.mark.long
def test_the_tutorial_ends_with_a_dead_letter(tmp_path: Path) -> None:
    blocks = dict(BLOCK.findall(PAGE))
    (tmp_path / "worker.py").write_text(blocks["python"])
    printed = run("sh", "-ec", blocks["sh"], folder=tmp_path)
    before, done, after = printed.partition("3 accepted, 1 rejected")
    assert done, printed
    assert before.count("AVAILABLE\t0\t-\t-\t") == 4, before
    nothing, _, letters = after.partition("topic\tpartition\toffset\tdelivery.count")
    assert "AVAILABLE" not in nothing, "all are done with"
    assert "\t1\tOffset rejected by client.\t-\tpoison\n" in letters, letters
