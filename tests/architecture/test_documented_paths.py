"""Each path that the documents of the project name is there: a map that names a gone file leads nowhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.sources import ROOT

FOLDERS = ("kraft", "metadata", "replication", "tests", "bench", "docs", "examples")
PATH = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+)`")
"""A path from the root, in backticks: a folder, a file, or a module without its `.py`."""
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def documents() -> Iterator[Path]:
    yield from (ROOT / name for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "SECURITY.md"))
    yield from sorted((ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("document", list(documents()), ids=lambda path: str(path.relative_to(ROOT)))
def test_documented_paths_and_links_resolve(document: Path):
    assert not list(missing(document.read_text(encoding="utf-8"), folder=document.parent))


def test_missing_path_is_found():
    text = "`kraft/gone.py`, `kraft/node`, `kraft/node/assembly`, [a](gone.md), [b](README.md#limits), `kraft/v9`"
    assert list(missing(text, folder=ROOT)) == ["kraft/gone.py", "kraft/v9", "gone.md"]


def missing(text: str, *, folder: Path) -> Iterator[str]:
    for name in PATH.findall(text):
        if not (ROOT / name).exists() and not (ROOT / f"{name}.py").is_file():
            yield name
    for name in LINK.findall(CODE_BLOCK.sub("", text)):
        if not (folder / name).exists():
            yield name
