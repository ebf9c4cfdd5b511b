"""The layers of the product, as the contract in pyproject.toml has them: `python -m tests.architecture.layers` draws
them into ARCHITECTURE.md.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import resolve_name
from typing import Final

from tests.architecture.sources import ROOT, Module

DOCUMENT: Final = ROOT / "ARCHITECTURE.md"
BEGIN: Final = "<!-- layers: made by python -m tests.architecture.layers -->\n"
END: Final = "<!-- end of layers -->\n"


def layers() -> Sequence[Sequence[str]]:
    """The packages of each layer, the highest first: a package imports those of the layers below its own."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = (each for each in contracts if each["type"] == "layers")
    return [re.split(r" [|:] ", layer) for layer in contract["layers"]]


def picture() -> str:
    """The layers as text, one line for each."""
    rows = [" | ".join(layer) for layer in layers() if layer != ["kraft.__main__"]]
    width = max(map(len, rows))
    edge = f"    +{'-' * (width + 2)}+\n"
    return "\n" + edge + "".join(f"    | {row.center(width)} |\n" for row in rows) + edge + "\n"


def drawn(text: str) -> str:
    """The document with the picture as it should be. Raises ValueError when it has no place for it."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + picture() + END + rest.split(END)[1]


def imported(modules: Iterable[Module]) -> Mapping[str, set[str]]:
    """Each module's imports of other modules, those for type checking included."""
    known = {each.name: each for each in modules}
    return {name: set(_imports(each, known)) for name, each in known.items()}


def _imports(module: Module, known: Mapping[str, Module]) -> Iterator[str]:
    for node in module.nodes(ast.Import):
        yield from (alias.name for alias in node.names if alias.name in known)
    for node in module.nodes(ast.ImportFrom):
        package = module.name if module.is_package else module.name.rpartition(".")[0]
        source = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
        for alias in node.names:
            inner = f"{source}.{alias.name}"
            yield from (
                name for name in (inner if inner in known else source,) if name in known and name != module.name
            )


def circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """Modules that import each other in a circle: what is left when modules that import nothing of the rest are taken
    away again and again, and those that nothing of the rest imports."""
    left = {name: set(others) for name, others in imports.items()}
    while True:
        used = set().union(*left.values()) if left else set()
        ends = {name for name, others in left.items() if not others or name not in used}
        if not ends:
            break
        left = {name: others - ends for name, others in left.items() if name not in ends}
    found = []
    while left:
        start = min(left)
        circle, at = [start], start
        while (at := min(left[at])) not in circle:
            circle.append(at)
        found.append(circle[circle.index(at) :])
        left = {name: others - set(circle) for name, others in left.items() if name not in circle}
        left = {name: others for name, others in left.items() if others}
    return found


if __name__ == "__main__":
    DOCUMENT.write_text(drawn(DOCUMENT.read_text()))
