"""Deadlines in tests by the real clock: none below ten seconds may decide how a test ends.

A machine under load makes a step of a second out of one of a tenth. A short wait that is meant to run out, or that
is what the test is about, has a comment on its line: `# short: WHY`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.architecture.sources import Module, imported_names, is_inside

DEADLINE_S_MIN = 10
FUNCTIONS_S = {"timeout": 0, "wait_for": 1, "settimeout": 0, "join": 0, "result": 0}
"""Called with a deadline in seconds at this position."""
NAMES_S = ("timeout", "timeout_s", "deadline_s", "within_s", "limit_s", "seconds_max")
NAMES_MS = ("timeout_ms", "connect_timeout_ms", "deadline_ms")
CONSTANTS_S = ("TIMEOUT_S", "DEADLINE_S", "WITHIN_S", "LIMIT_S", "GIVE_UP_S", "PATIENCE_S")
VIRTUAL = (
    "kraft.chaos.worlds.simulated",
    "tests.simulation",
    "tests.unit.broker.support",
    "tests.unit.client",
    "tests.unit.replication.harness",
)
"""Modules whose importers run under virtual time."""
MARK = "# short: "
SOME_DEADLINE = re.compile(
    r"\b(?:timeout|wait_for|settimeout)\("
    r"|\b(?:join|result)\(\s*\d"
    rf"|\b(?:{'|'.join((*NAMES_S, *NAMES_MS))})\s*=\s*\d"
    rf"|(?:{'|'.join(CONSTANTS_S)})\b.*=\s*\d"
)
"""What a module has that sets a deadline with a number."""


def short_deadlines(module: Module) -> Iterator[str]:
    if any(is_inside(name, VIRTUAL) for name in imported_names(module)) or is_inside(module.name, VIRTUAL):
        return
    lines = module.text.splitlines()
    for node in module.nodes(ast.Call, ast.Assign, ast.AnnAssign):
        for seconds, line in _deadlines(node):
            is_said = any(MARK in text for text in lines[getattr(node, "lineno", line) - 1 : _end(node)])
            if 0 < seconds < DEADLINE_S_MIN and not is_said:
                yield f"{module.path}:{line}: a deadline of {seconds:g} s; take {DEADLINE_S_MIN} or more, or say why"


def _end(node: ast.AST) -> int:
    return int(getattr(node, "end_lineno", 0))


def _deadlines(node: ast.AST) -> Iterator[tuple[float, int]]:
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name[:1].isupper():
            return  # a message with a field of that name
        at = FUNCTIONS_S.get(name)
        if at is not None and len(node.args) > at:
            yield from _number(node.args[at], 1)
        for keyword in node.keywords:
            if keyword.arg in NAMES_S:
                yield from _number(keyword.value, 1)
            elif keyword.arg in NAMES_MS:
                yield from _number(keyword.value, 1_000)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if isinstance(target, ast.Name) and target.id.endswith(CONSTANTS_S) and node.value is not None:
            yield from _number(node.value, 1)


def _number(node: ast.expr, per_second: int) -> Iterator[tuple[float, int]]:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        yield node.value / per_second, node.lineno
