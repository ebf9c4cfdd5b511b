"""Functions whose source is made from a description, as `dataclasses` makes `__init__`: straight lines, no loops.

A message is read and written many thousand times for each time that its class is described. Walking the description
costs more than the work itself, so `readers` and `writers` walk it once and keep the lines that it asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Function:
    """The source of one function, and the values that it mentions."""

    def __init__(self, name: str, parameters: str) -> None:
        self._name = name
        self._lines = [f"def {name}({parameters}):"]
        self._values: dict[str, Any] = {}

    def line(self, text: str) -> None:
        self._lines.append(f"    {text}")

    def value(self, prefix: str, value: Any) -> str:
        """The name by which the source mentions a value."""
        for name, known in self._values.items():
            if known is value:
                return name
        name = f"{prefix}_{len(self._values)}"
        self._values[name] = value
        return name

    def mention(self, function: Callable[..., Any]) -> str:
        """As `value`, by the function's own name."""
        return self.value(function.__name__.lstrip("_"), function)

    def compiled(self) -> Callable[..., Any]:
        source = "\n".join(self._lines) if len(self._lines) > 1 else f"{self._lines[0]} pass"
        exec(compile(source, f"<{self._name}>", "exec"), self._values)
        made: Callable[..., Any] = self._values[self._name]
        return made
