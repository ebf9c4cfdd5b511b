"""Parameters of requests: those of queries, parsed with a message that names the right values, and those in paths.
Both are declared for the OpenAPI document.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kraft.http.docs.assets import ASSETS
from kraft.http.endpoint import Call, Parameter
from kraft.http.errors import BAD_REQUEST, HttpError
from kraft.protocol.primitives import INT32_MAX, INT64_MAX

TIMEOUT = Parameter(
    name="timeout",
    description="Milliseconds to wait at most.",
    schema={"type": "integer", "minimum": 0, "maximum": INT32_MAX},
)

READ_COMMITTED, READ_UNCOMMITTED = "read_committed", "read_uncommitted"
ISOLATION_LEVELS = (READ_UNCOMMITTED, READ_COMMITTED)
ISOLATION_LEVEL = Parameter(
    name="isolation_level",
    description=(
        "read_committed: only what is no part of a transaction, or of one that was committed, up to the last stable "
        "offset. read_uncommitted: all records, up to the high watermark."
    ),
    schema={"type": "string", "enum": list(ISOLATION_LEVELS), "default": READ_UNCOMMITTED},
)


DIGITS_MAX = 19
"""Digits that a number may have; a number with more is beyond every range."""


def integer(call: Call, name: str, *, default: int, low: int = 0, high: int = INT32_MAX) -> int:
    """The number of this name in the query, or `default`. Raises HttpError 40002 unless it is from `low` to `high`."""
    text = call.request.query.get(name)
    return default if text is None else parse_integer(text, name, low=low, high=high)


def parse_integer(text: str, name: str, *, low: int = 0, high: int = INT32_MAX) -> int:
    """`name` is what the refusal calls the number. Raises HttpError 40002 unless it is from `low` to `high`."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise HttpError(BAD_REQUEST, f"{name}={text} is not a number; send one from {low} to {high}")
    if len(digits) > DIGITS_MAX or not low <= int(text) <= high:
        shown = text if len(digits) <= DIGITS_MAX else f"{text[:DIGITS_MAX]}... ({len(digits)} digits)"
        raise HttpError(BAD_REQUEST, f"{name}={shown} is out of range: it is from {low} to {high}")
    return int(text)


def flag(call: Call, name: str) -> bool:
    """False where the query does not have it. Raises HttpError 40002 for what is neither true nor false."""
    text = call.request.query.get(name, "false").lower()
    if text not in ("true", "false"):
        raise HttpError(BAD_REQUEST, f"{name}={text} is neither true nor false")
    return text == "true"


def topic_in_query(call: Call) -> str | None:
    """Value of `topic`; None where the query does not have it. Raises HttpError 40002 for what is no topic's name."""
    topic = call.request.query.get("topic")
    if topic is not None and not _TOPIC.fullmatch(topic):
        raise HttpError(BAD_REQUEST, "topic has 1 to 249 of the characters a-z, A-Z, 0-9, '.', '_' and '-'")
    return topic


def is_read_committed(call: Call) -> bool:
    """Whether `isolation_level` of the query is read_committed. Raises HttpError 40002 for an unknown level."""
    text = call.request.query.get(ISOLATION_LEVEL.name, READ_UNCOMMITTED)
    if text not in ISOLATION_LEVELS:
        raise HttpError(BAD_REQUEST, f"isolation_level={text} is not known; it is {' or '.join(ISOLATION_LEVELS)}")
    return text == READ_COMMITTED


# --- in paths --------------------------------------------------------------------------------------------------

TOPIC_PATTERN = "^[a-zA-Z0-9._-]{1,249}$"
_TOPIC = re.compile(TOPIC_PATTERN)
_NUMBER: Mapping[str, Any] = {"type": "integer", "minimum": 0, "maximum": INT32_MAX}
_TEXT: Mapping[str, Any] = {"type": "string", "minLength": 1}


@dataclass(frozen=True, slots=True)
class PathParameter:
    """A parameter in a path, as the OpenAPI document has it."""

    description: str
    schema: Mapping[str, Any]


PATH_PARAMETERS: Mapping[str, PathParameter] = {
    "topic": PathParameter("Name of a topic.", {"type": "string", "pattern": TOPIC_PATTERN}),
    "partition": PathParameter("Number of a partition, from 0.", _NUMBER),
    "offset": PathParameter("Offset of a record.", {"type": "integer", "minimum": 0, "maximum": INT64_MAX}),
    "broker_id": PathParameter("Id of a broker.", _NUMBER),
    "cluster_id": PathParameter("Id of this cluster, as in the answer of `GET /v3/clusters`.", _TEXT),
    "group": PathParameter("Name of a consumer group.", _TEXT),
    "instance": PathParameter("Name of a consumer instance: `instance_id` of its creation.", _TEXT),
    "route": PathParameter("Name of a route.", {"type": "string", "pattern": TOPIC_PATTERN}),
    "user": PathParameter("Name of a user.", _TEXT),
    "transactional_id": PathParameter("The transactional.id of a producer.", _TEXT),
    "consumer": PathParameter("Member id of a consumer.", _TEXT),
    "client": PathParameter("Client id, principal or address of a client.", _TEXT),
    "asset": PathParameter("Name of a file.", {"type": "string", "enum": list(ASSETS)}),
    "file": PathParameter("Name of a file of the console.", {"type": "string", "pattern": r"^[a-z_]+\.[a-z]+$"}),
    "name": PathParameter("Name of a setting, as Kafka names it.", _TEXT),
}


def parameters_in(path: str) -> list[str]:
    """The names of the parameters in a path such as `/topics/{topic}`."""
    return re.findall(r"{(\w+)}", path)


def check_names_in_path(call: Call) -> None:
    """Raises HttpError 40002, in Redpanda's words, for a name with a control character."""
    for text in call.path.values():
        if any(character < " " or character == "\x7f" for character in text):
            shown = "".join(_picture(character) for character in text)
            raise HttpError(BAD_REQUEST, f"Parameter contained invalid control characters: {shown}")


def _picture(character: str) -> str:
    """A control character as its Unicode picture."""
    return "\u2421" if character == "\x7f" else chr(0x2400 + ord(character)) if character < " " else character
