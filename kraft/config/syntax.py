"""A file that is no TOML at all -> one `Problem`: its line, the error, and the correct form.

`tomllib` names what it expected, in the words of TOML's grammar; this adds the text that a person would write. Pure.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence

from kraft.config.problems import Problem

SHOWN_CHARACTERS_MAX = 60
_PLACE = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")
_SECRET = re.compile(r"[\"']?secret\b(?!_)")
_SECRET_RIGHT = 'write secret = "..." in quotes on one line'
"""The advice for a line whose text is not shown."""
_BARE_WORD = re.compile(r"=\s*([^\s\"'\[{#][^#]*?)\s*(?:#.*)?$")
_RIGHT: Sequence[tuple[str, str]] = (
    ("Expected '=' after a key", "write `key = value`, or `[table]`, or `# comment`"),
    ("Invalid statement", "a line is `key = value`, `[table]` or `# comment`"),
    ("Expected newline or end of document", 'one `key = value` per line; a text needs "quotes" around all of it'),
    ("Cannot overwrite a value", "it is set already, further up: keep one of the two"),
    ("Cannot declare", "it is there already, further up: keep one of the two, or write [[name]] for each of several"),
    ("Cannot mutate", "it is set already as a whole, further up: keep one of the two"),
    ("Unterminated string", 'end the text with the quote that it begins with: "text"'),
    ('Expected "\'"', "end the text with the quote that it begins with: 'text'"),
    ("Illegal character", 'end the text on its line with the quote that it begins with: "text"'),
    ("Unescaped '\\'", r"""write \\ for a backslash, or 'C:\path' in single quotes"""),
    ("Unclosed array", "close the list with ]"),
    ("Unclosed inline table", "close the table with } on the line where it begins"),
    ("Expected ']]'", "a list of tables begins with [[name]] on a line of its own"),
    ("Expected ']'", "a table begins with [name] on a line of its own"),
    ("Invalid value", 'a value is "text" in quotes, a number, true or false, or a [list]'),
)
_ANYTHING = 'a line is `key = value`, `[table]` or `# comment`, and a text is in "quotes"'


def syntax_problem(error: tomllib.TOMLDecodeError, text: str) -> Problem:
    lines = text.splitlines()
    place = _PLACE.search(str(error))
    what = _PLACE.sub("", str(error))
    number = int(place[1]) if place and place[1] else _last_line(lines)
    line = lines[number - 1].strip() if 0 < number <= len(lines) else ""
    if _SECRET.match(line):
        return Problem(key="", wrong=f"the secret is not TOML: {what}", right=_SECRET_RIGHT, line=number)
    shown = line if len(line) <= SHOWN_CHARACTERS_MAX else line[:SHOWN_CHARACTERS_MAX] + "..."
    where = f" at column {place[2]}" if place and place[2] else " where the file ends"
    wrong = f"this is not TOML: `{shown}`: {what[:1].lower()}{what[1:]}{where}"
    return Problem(key="", wrong=wrong, right=_right(what, line), line=number)


def _last_line(lines: Sequence[str]) -> int:
    """The last line that is not empty; 0 in an empty file."""
    return max((number for number, line in enumerate(lines, start=1) if line.strip()), default=0)


def _right(what: str, line: str) -> str:
    if what.startswith("Invalid value") and (word := _BARE_WORD.search(line)):
        if word[1].lower() in ("true", "false"):
            return f"write {word[1].lower()}, in small letters"
        return f'write "{word[1].strip()}" in straight quotes if it is a text'
    return next((right for start, right in _RIGHT if what.startswith(start)), _ANYTHING)
