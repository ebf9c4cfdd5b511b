"""How many records a scenario expects to be kept, lost and so on: `19`, `"0"`, `">0"`, `"10..20"`, `"== unreplicated"`.

A bound is an expression over the names that steps remembered. Pure.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kraft.scenarios.conditions import BadExpression, Expression, Value, parse_expression

_OPERATORS: Final = ("==", "!=", ">=", "<=", ">", "<")
_BETWEEN: Final = re.compile(r"^(.+?)\.\.(.+)$")
_RIGHT: Final = 'write it like 0, ">0", "10..20" or "== unreplicated"'
COUNT: Final = "count"


@dataclass(frozen=True, slots=True)
class Range:
    """What a count must be."""

    text: str
    condition: Expression

    @property
    def names(self) -> frozenset[str]:
        return self.condition.free - {COUNT}

    async def holds(self, count: int, names: Mapping[str, Value]) -> bool:
        return bool(await self.condition.value(_NoWorld(), {**names, COUNT: count}))

    def explain(self, names: Mapping[str, Value]) -> str:
        """The text, with what the names in it stand for."""
        bound = ", ".join(f"{name} = {names.get(name)}" for name in sorted(self.names))
        return f"{self.text} ({bound})" if bound else self.text


def parse_range(written: int | str) -> Range:
    """Raises BadExpression."""
    text = str(written).strip()
    condition = parse_expression(_as_condition(text))
    if condition.calls:
        raise BadExpression(f"{text!r} asks {condition.calls[0].function}", "let a step remember it under a name")
    return Range(text=text, condition=condition)


def _as_condition(text: str) -> str:
    if between := _BETWEEN.match(text):
        low, high = (_operand(part) for part in between.groups())
        return f"({low}) <= {COUNT} <= ({high})"
    for sign in _OPERATORS:
        if text.startswith(sign):
            return f"{COUNT} {sign} ({_operand(text.removeprefix(sign))})"
    return f"{COUNT} == ({_operand(text)})"


def _operand(text: str) -> str:
    try:
        ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # Python tells of nesting by the last two
        raise BadExpression(f"{text.strip()!r} is no number of records", _RIGHT) from error
    return text.strip()


class _NoWorld:
    async def ask(self, function: str, arguments: tuple[Value, ...]) -> Value:
        raise AssertionError(f"a range asks nothing, yet asked {function}{arguments}")
