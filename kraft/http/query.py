"""Query parameters: parsed with a message that says what would be right, and declared for the OpenAPI document."""

from __future__ import annotations

from kraft.http.endpoint import Call, Parameter
from kraft.http.errors import BAD_REQUEST, HttpError
from kraft.protocol.errors import InvalidRequiredAcks
from kraft.protocol.primitives import INT32_MAX

_ACKS = {"0": 0, "1": 1, "all": -1, "-1": -1}
ALL = -1

ACKS = Parameter(
    name="acks",
    description="Who must have the records before the answer: nobody (0), the leader (1), all in-sync replicas (all).",
    schema={"type": "string", "enum": list(_ACKS), "default": "all"},
)
TIMEOUT = Parameter(
    name="timeout",
    description="Milliseconds to wait at most.",
    schema={"type": "integer", "minimum": 0, "maximum": INT32_MAX},
)


ASYNC = Parameter(
    name="async",
    description="true: acks=0, answered 204 without a body, as the Strimzi bridge does.",
    schema={"type": "boolean", "default": False},
)


def acks_of(call: Call) -> int:
    if ASYNC.name in call.request.query and flag(call, ASYNC.name):
        return 0
    text = call.request.query.get("acks", "all")
    acks = _ACKS.get(text)
    if acks is None:
        raise InvalidRequiredAcks(f"acks={text} is not known; it is one of 0, 1, all (or -1)")
    return acks


def integer(call: Call, name: str, *, default: int, low: int = 0, high: int = INT32_MAX) -> int:
    text = call.request.query.get(name)
    return default if text is None else parse_integer(text, name, low=low, high=high)


def parse_integer(text: str, name: str, *, low: int = 0, high: int = INT32_MAX) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
        raise HttpError(BAD_REQUEST, f"{name}={text} is not a number")
    value = int(text)
    if not low <= value <= high:
        raise HttpError(BAD_REQUEST, f"{name}={text} is out of range: it is from {low} to {high}")
    return value


def flag(call: Call, name: str) -> bool:
    text = call.request.query.get(name, "false").lower()
    if text not in ("true", "false"):
        raise HttpError(BAD_REQUEST, f"{name}={text} is neither true nor false")
    return text == "true"
