"""The product's modules as syntax trees, for the rules that are tested here."""

from __future__ import annotations

import ast
import functools
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("metadata", "replication", "kraft")
NOT_HAND_WRITTEN = (ROOT / "kraft" / "wire" / "generated", ROOT / "kraft" / "wire" / "schema")
"""Generated messages, and what generates them, which is no part of a node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    name: str
    path: str
    text: str
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        return self.path.endswith("__init__.py")


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


@functools.cache
def test_modules() -> list[Module]:
    paths = sorted((ROOT / "tests").rglob("*.py"))
    found = [path.relative_to(ROOT) for path in paths]
    return [module(".".join(each.with_suffix("").parts), (ROOT / each).read_text(), path=str(each)) for each in found]


test_modules.__test__ = False  # type: ignore[attr-defined]


def is_inside(name: str, folders: tuple[str, ...]) -> bool:
    return any(name == folder or name.startswith(folder + ".") for folder in folders)


def imported_names(module: Module) -> set[str]:
    """Every module name that the module may import: `from a import b` gives `a` and `a.b`."""
    names: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
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
