"""The product's modules as syntax trees, for the rules that are tested here."""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("metadata", "replication", "kraft")
NOT_HAND_WRITTEN = (ROOT / "kraft" / "protocol" / "messages", ROOT / "kraft" / "protocol" / "schema")
"""Generated messages, and what generates them, which is no part of a node."""


Node = TypeVar("Node", bound=ast.AST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    name: str
    path: str
    text: str
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        return self.path.endswith("__init__.py")

    def nodes(self, *kinds: type[Node]) -> Iterator[Node]:
        """All nodes of its tree that are of these kinds; the tree is walked once for all who ask."""
        found = _by_kind(self.tree)
        for kind in kinds:
            yield from found.get(kind, ())  # type: ignore[misc]


@functools.cache
def _by_kind(tree: ast.Module) -> Mapping[type[ast.AST], Sequence[ast.AST]]:
    found: dict[type[ast.AST], list[ast.AST]] = defaultdict(list)
    for node in ast.walk(tree):
        found[type(node)].append(node)
    return found


def module(name: str, text: str, *, path: str = "") -> Module:
    return Module(name=name, path=path or name.replace(".", "/") + ".py", text=text, tree=ast.parse(text))


@functools.cache
def product_modules() -> list[Module]:
    """Parsed when first asked for, and not by every process that only collects the tests."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.parent in NOT_HAND_WRITTEN:
                continue
            relative = path.relative_to(ROOT)
            names = relative.with_suffix("").parts
            name = ".".join(names[:-1] if names[-1] == "__init__" else names)
            found.append(module(name, path.read_text(encoding="utf-8"), path=str(relative)))
    return found


def modules_of_tests(text: re.Pattern[str]) -> Iterator[Module]:
    """Those in whose text the pattern is found: to parse all of them takes seconds."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        found = path.read_text(encoding="utf-8")
        if text.search(found):
            relative = path.relative_to(ROOT)
            yield module(".".join(relative.with_suffix("").parts), found, path=str(relative))


def is_inside(name: str, folders: tuple[str, ...]) -> bool:
    return any(name == folder or name.startswith(folder + ".") for folder in folders)


def imported_names(module: Module) -> set[str]:
    """Every module name that the module may import: `from a import b` gives `a` and `a.b`."""
    names: set[str] = set()
    for plain in module.nodes(ast.Import):
        names.update(alias.name for alias in plain.names)
    for node in module.nodes(ast.ImportFrom):
        base = _absolute(module, node)
        names.add(base)
        names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    parts = parts[: len(parts) - node.level + (1 if module.is_package else 0)]
    return ".".join([*parts, *([node.module] if node.module else [])])
