"""What the tests import of the product is there under that name. mypy sees the product and `tests/support`, but no
tests, so a module that was renamed would be missed only by the test run that imports it, perhaps at night.

Read as text, for to parse all of it takes seconds: every import and every definition begins a line.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.architecture.sources import PACKAGES, ROOT

IMPORT = re.compile(rf"^\s*from ((?:{'|'.join(PACKAGES)})[\w.]*) import (\([^)]*\)|.*)", re.MULTILINE)
DEFINED = re.compile(r"^ *(?:(?:async )?def |class )?(\w+)\b(?=[ (:=\[])", re.MULTILINE)
UNPACKED = re.compile(r"^(\w+(?:, \w+)+) = ", re.MULTILINE)
IMPORTED = re.compile(r"^ *(?:from \S+ )?import (\([^)]*\)|.*)", re.MULTILINE)
COMMENT = re.compile(r"#.*")


def imports(text: str) -> Iterator[tuple[str, str]]:
    """Module and name of each import of the product."""
    for source, names in IMPORT.findall(text):
        for each in COMMENT.sub("", names).strip("()").split(","):
            if each.strip():
                yield source, each.split()[0]


def defined(text: str) -> frozenset[str]:
    """Names that begin a line or are imported: all that a module defines, and a few that it only uses."""
    return frozenset(DEFINED.findall(text)) | {
        word for names in IMPORTED.findall(text) + UNPACKED.findall(text) for word in re.findall(r"\w+", names)
    }


@functools.cache
def names_of(module: str) -> frozenset[str] | None:
    """What can be imported from it; None when there is no such module."""
    path = ROOT.joinpath(*module.split("."))
    file = path.with_suffix(".py")
    if file.is_file():
        return defined(file.read_text())
    if path.is_dir():
        init = path / "__init__.py"
        return (defined(init.read_text()) if init.is_file() else frozenset()) | {each.stem for each in path.iterdir()}
    return None


def missing(tests: Mapping[str, str]) -> list[str]:
    return [
        f"{path}: there is no {name} in {module}"
        for path, text in tests.items()
        for module, name in imports(text)
        if name not in (names_of(module) or ())
    ]


def test_imports_of_tests_exist() -> None:
    files = set(Path(ROOT, "tests").rglob("*.py")) - {Path(__file__)}
    found = {str(path.relative_to(ROOT)): path.read_text() for path in sorted(files)}
    assert sum(1 for text in found.values() for _ in imports(text)) > 3_000
    assert missing(found) == []


def test_a_name_that_is_gone_is_found() -> None:
    text = """
from kraft.node import assembly, gone
from kraft.node.assembly import (
    Node,  # which there is
    Nobody,
)
def test() -> None:
    from kraft.gone import Anything
"""
    assert missing({"test_x.py": text}) == [
        "test_x.py: there is no gone in kraft.node",
        "test_x.py: there is no Nobody in kraft.node.assembly",
        "test_x.py: there is no Anything in kraft.gone",
    ]
