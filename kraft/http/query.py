"""Query parameters: parsed with a message that says what would be right, and declared for the OpenAPI document."""

from __future__ import annotations

from kraft.http.endpoint import Call, Parameter
from kraft.http.errors import BAD_REQUEST, HttpError
from kraft.protocol.primitives import INT32_MAX

TIMEOUT = Parameter(
    name="timeout",
    description="Milliseconds to wait at most.",
    schema={"type": "integer", "minimum": 0, "maximum": INT32_MAX},
)


def integer(call: Call, name: str, *, default: int, low: int = 0, high: int = INT32_MAX) -> int:
    """The number of this name in the query, or `default`. Raises HttpError 40002 unless it is from `low` to `high`."""
    text = call.request.query.get(name)
    return default if text is None else parse_integer(text, name, low=low, high=high)


def parse_integer(text: str, name: str, *, low: int = 0, high: int = INT32_MAX) -> int:
    """`name` is what the refusal calls the number. Raises HttpError 40002 unless it is from `low` to `high`."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
        raise HttpError(BAD_REQUEST, f"{name}={text} is not a number")
    value = int(text)
    if not low <= value <= high:
        raise HttpError(BAD_REQUEST, f"{name}={text} is out of range: it is from {low} to {high}")
    return value


def flag(call: Call, name: str) -> bool:
    """False where the query does not have it. Raises HttpError 40002 for what is neither true nor false."""
    text = call.request.query.get(name, "false").lower()
    if text not in ("true", "false"):
        raise HttpError(BAD_REQUEST, f"{name}={text} is neither true nor false")
    return text == "true"
