"""The index of modules in docs/modules.md: `python -m tests.architecture.modules` makes it from their first lines."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterable
from itertools import groupby
from typing import Final

from tests.architecture.sources import ROOT, Module, product_modules

DOCUMENT: Final = ROOT / "docs" / "modules.md"
HEAD: Final = """# Modules

Made by `python -m tests.architecture.modules` from the first sentence of each module; a test checks that it is current.
[ARCHITECTURE.md](../ARCHITECTURE.md) explains how the packages belong together.
"""
WIDTH: Final = 120


def index(modules: Iterable[Module]) -> str:
    """The whole document."""
    entries = sorted((*_place(module), first_sentence(module)) for module in modules if ast.get_docstring(module.tree))
    return HEAD + "".join(
        f"\n## {folder}\n\n" + "".join(_entry(name, sentence) for _, name, sentence in group)
        for folder, group in groupby(entries, key=lambda entry: entry[0])
    )


def first_sentence(module: Module) -> str:
    """The first sentence of the docstring, without its full stop; the first paragraph if that is shorter."""
    paragraph = " ".join((ast.get_docstring(module.tree) or "").partition("\n\n")[0].split())
    return paragraph.partition(". ")[0].rstrip(".:")


def _place(module: Module) -> tuple[str, str]:
    folder, _, name = module.path.rpartition("/")
    return folder, name


def _entry(name: str, sentence: str) -> str:
    entry = textwrap.TextWrapper(WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
    return entry.fill(f"`{name}`: {sentence}") + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(index(product_modules()), encoding="utf-8")
