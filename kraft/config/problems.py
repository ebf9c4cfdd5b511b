"""What is wrong with a configuration: one `Problem` per key, all of a file raised together as one `ConfigError`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kraft.suggestions import nearest_key_hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`key` as the reader wrote it; `wrong` and `right` are sentences without a full stop."""

    key: str
    wrong: str
    right: str
    line: int = 0
    """Line in the file, counted from 1; 0 when the key is not in the file."""

    def describe(self, file: str) -> str:
        place = f"{file}:{self.line}" if self.line else file
        subject = f"{self.key}: " if self.key else ""
        return f"{place}: {subject}{self.wrong}; {self.right}" + ("" if self.right.endswith("?") else ".")


class ConfigError(Exception):
    """A configuration that must not start a node. The message has one line per problem."""

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        self.file = file
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line))
        super().__init__("\n".join(problem.describe(file) for problem in self.problems))


def nearest(key: str, known: Iterable[str]) -> str:
    """A hint that names the known key closest to a misspelled one."""
    names = sorted(known)
    listed = "known keys are " + ", ".join(names) if len(names) <= 16 else "`kraft config` lists the known keys"
    return nearest_key_hint(key, names, otherwise=listed)
