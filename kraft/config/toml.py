"""TOML text -> its document, or one `ConfigError` for any text. Pure.

`tomllib` raises more than its own error: it recurses for each level of nesting, and Python limits the digits of a
number. A document that is nested within the limits of Python but deeper than any known key is refused as well, so that
code may recurse over a document.
"""

from __future__ import annotations

import tomllib
from typing import Any, Final

from kraft.config.problems import ConfigError, Problem
from kraft.config.syntax import syntax_problem

LEVELS_MAX: Final = 32
"""A setting with a long name, written bare, is nested by each of its dots: about ten levels."""
_NESTED: Final = Problem(
    key="",
    wrong=f"tables and lists are nested more than {LEVELS_MAX} levels deep",
    right="no key needs more than a table in a list of tables",
)


def parse_toml(text: str, *, file: str) -> dict[str, Any]:
    """The document of a text. Raises ConfigError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(file, [syntax_problem(error, text)]) from error
    except RecursionError as error:
        raise ConfigError(file, [_NESTED]) from error
    except ValueError as error:
        wrong = f"a value cannot be read: {error}"
        raise ConfigError(file, [Problem(key="", wrong=wrong, right="write a shorter number")]) from error
    if _is_too_deep(document):
        raise ConfigError(file, [_NESTED])
    return document


def _is_too_deep(document: dict[str, Any]) -> bool:
    """Checks level by level, without recursion."""
    level: list[Any] = [document]
    for _ in range(LEVELS_MAX):
        level = [
            child
            for each in level
            for child in (each.values() if isinstance(each, dict) else each)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True
