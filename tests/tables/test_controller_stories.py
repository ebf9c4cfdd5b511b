"""Each story in stories/ is its own golden output. KRAFT_UPDATE_STORIES=1 writes what happens now; read the diff."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.tables.story import tell

STORIES = sorted((Path(__file__).parent / "stories").glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path) -> None:
    text = path.read_text()
    reported = tell(text)
    if os.environ.get("KRAFT_UPDATE_STORIES"):
        path.write_text(reported)
    assert reported == text


def test_there_are_stories() -> None:
    assert len(STORIES) >= 5
