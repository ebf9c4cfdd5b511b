"""Documents fit into a terminal, and the index of modules is current."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.architecture.modules import DOCUMENT, first_sentence, index
from tests.architecture.sources import ROOT, module, product_modules

WIDTH = 120
FOLDERS = ("bench", "docs", "examples", "kraft", "metadata", "replication", "tests")


def test_lines_of_markdown_are_short() -> None:
    long = [line for path in documents() for line in too_long(path.read_text(encoding="utf-8"), name=path.name)]
    assert not long, "\n".join(long)


def test_a_long_line_is_found() -> None:
    assert list(too_long(f"a\n{'b' * 120}\n| {'c' * 120} |\n", name="x.md")) == ["x.md:3: 124 characters"]


def test_index_of_modules_is_current() -> None:
    is_current = DOCUMENT.read_text(encoding="utf-8") == index(product_modules())
    assert is_current, "run python -m tests.architecture.modules"


def test_first_sentence_of_a_module() -> None:
    assert first_sentence(module("kraft.x", '"""One\nsentence. Another.\n\nMore.\n"""')) == "One sentence"
    assert first_sentence(module("kraft.x", '"""One line: P1.2 of it.\n\nMore.\n"""')) == "One line: P1.2 of it"


def too_long(text: str, *, name: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        if len(line) > WIDTH:
            yield f"{name}:{number}: {len(line)} characters"


def documents() -> Iterator[Path]:
    """Every Markdown file of the repository."""
    yield from sorted(ROOT.glob("*.md"))
    for folder in FOLDERS:
        yield from sorted((ROOT / folder).rglob("*.md"))
