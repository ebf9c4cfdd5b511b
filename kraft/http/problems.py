"""What is wrong with a body, in sentences of ours: parsers name their own types and rules, and change their words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import ValidationError

from kraft.protocol.text import visible
from kraft.suggestions import what_is_right

PROBLEMS_MAX = 5
"""Problems of one body that its answer names."""
SHOWN_LENGTH_MAX = 200
"""Characters of a name or a value of the client's own."""

_KINDS: Mapping[str, str] = {
    "array": "an array",
    "object": "an object",
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
    "bytes": "base64",
}
_EXPECTED = re.compile(
    r"Expected `(?P<kinds>[^`]+)`(?P<limit> (?:of length )?[<>]=? [-0-9.]+)?(?:, got `(?P<got>[^`]+)`)?"
)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`")
_CHOICE = re.compile(r"Invalid enum value (?P<value>.*)", re.DOTALL)
_BYTE = re.compile(r"\(byte (?P<byte>\d+)\)")
_COLUMN = re.compile(r"line (?P<line>\d+) column (?P<column>\d+)")
_TOO_DEEP = "malformed JSON: arrays and objects are nested too deeply"


def malformed_json(error: Exception) -> str:
    """The message about a body that is no JSON, from the error of the parser."""
    text = str(error)
    if isinstance(error, RecursionError) or "recursion" in text:
        return _TOO_DEEP
    if isinstance(error, UnicodeDecodeError):
        return f"malformed JSON: it is not UTF-8 at byte {error.start}"
    if "truncated" in text or text.startswith("EOF"):
        return "malformed JSON: it ends too early"
    if found := _BYTE.search(text):
        return f"malformed JSON at byte {found['byte']}; send JSON as RFC 8259 has it"
    if found := _COLUMN.search(text):
        return f"malformed JSON at line {found['line']}, column {found['column']}; send JSON as RFC 8259 has it"
    return "malformed JSON; send JSON as RFC 8259 has it"


def unreadable(error: Exception) -> str:
    """The message about a body that is cut short, or not compressed as its header claims."""
    if "encoding" in str(error).lower():
        return "the body cannot be read: it is not compressed as its Content-Encoding names it"
    return "the body cannot be read: it ends before its Content-Length, or its chunks are malformed"


def is_of_another_type(error: msgspec.ValidationError) -> bool:
    """Has a value another type than it should have? Otherwise a field, a text, a number or a count is wrong. Null is no
    type: it is as good as absent."""
    found = _EXPECTED.fullmatch(_parts(error)[0])
    return found is not None and found["got"] not in (None, "null")


def misshapen(error: msgspec.ValidationError) -> str:
    """The message about JSON of the wrong shape, from an error of the compiled parsers of records."""
    text, where = _parts(error)
    if found := _UNKNOWN.fullmatch(text):
        return f"{where} has a field '{_shown(found['name'])}', which is not known here; leave it out"
    if found := _MISSING.fullmatch(text):
        return f"{where} has no field '{found['name']}', which must be there"
    if found := _EXPECTED.fullmatch(text):
        wanted = " or ".join(_KINDS.get(kind.strip(), kind.strip()) for kind in found["kinds"].split("|"))
        instead = f", not {_KINDS.get(found['got'], found['got'])}" if found["got"] else ""
        return f"{where} should be {wanted}{found['limit'] or ''}{instead}"
    if text.startswith("Invalid base64"):
        return f"{where} should be base64"
    if found := _CHOICE.fullmatch(text):
        return f"{where} should be one of those in /openapi.json, not {_shown(found['value'])}"
    return f"{where} should be a number within the range of 64 bits" if "range" in text else f"{where} is malformed"


def _parts(error: msgspec.ValidationError) -> tuple[str, str]:
    """What is wrong, and where."""
    text, _, place = str(error).partition(" - at `")
    where = place.removesuffix("`").removeprefix("key in ").removeprefix("$").removeprefix(".")
    return text, f"`{where}`" if where else "the body"


def problems_of(error: ValidationError) -> str:
    """The message about JSON of the wrong shape: the first few problems, each with its place."""
    return "; ".join(map(_problem, error.errors(include_url=False, include_input=False)[:PROBLEMS_MAX]))


def _problem(problem: Any) -> str:
    where = _shown(".".join(str(part) for part in problem["loc"]) or "the body")
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in ("value_error", "assertion_error"):
        return f"{where}: {context['error']}"
    if kind == "json_invalid":
        return malformed_json(ValueError(context["error"]))
    if kind == "extra_forbidden":
        return f"{where} is not known here; leave it out"
    return f"{where} {what_is_right(kind, context)}"


def _shown(text: str) -> str:
    """What a client chose, on one line and not too long."""
    return visible(text if len(text) <= SHOWN_LENGTH_MAX else f"{text[:SHOWN_LENGTH_MAX]}...", keep="")
