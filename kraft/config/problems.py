"""Problems of a configuration: one `Problem` per key, all of a file raised together as one `ConfigError`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kraft.suggestions import nearest_key_hint, what_is_right


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`key` as in the file; `wrong` and `right` are sentences without a full stop."""

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


# --- pydantic's errors in our words -------------------------------------------------------------------------------


def setting_problems(model: type[BaseModel], settings: Mapping[str, Any]) -> Iterator[Problem]:
    """Problems of settings by their Kafka names, without lines."""
    try:
        model.model_validate(dict(settings))
    except ValidationError as error:
        known = [str(field.alias) for field in model.model_fields.values()]
        for details in error.errors():
            name = str(details["loc"][0])
            right = nearest(name, known) if is_unknown(details) else f"it {expected(details)}{sentence(model, name)}"
            yield Problem(key=name, wrong=found(details, kind="setting"), right=right)


def is_unknown(details: ErrorDetails) -> bool:
    return details["type"] == "extra_forbidden"


def found(details: ErrorDetails, *, kind: str) -> str:
    """The problem in words. `kind` is the reader's word for a name: a key, a setting, an argument. A secret is not
    shown."""
    if is_unknown(details):
        return f"unknown {kind}"
    if details["type"] == "missing":
        return "missing"
    return f"{'the value' if {'secret', 'password'} & set(details['loc']) else repr(details['input'])} is not possible"


def expected(details: ErrorDetails) -> str:
    """The correct form, without its subject: `should be a whole number`."""
    return what_is_right(details["type"], details.get("ctx", {}))


def sentence(model: type[BaseModel], name: str) -> str:
    """The field's description, in brackets; empty when it has none."""
    for field_name, field in model.model_fields.items():
        if name in (field_name, field.alias) and field.description:
            return f" ({field.description.rstrip('.')})"
    return ""
