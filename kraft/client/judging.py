"""What one attempt at a request came to, and whether another node may be asked. Pure.

`Untouched`: surely nothing was done. `Lost`: it may have been done. Everything else is an answer to hand on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from kraft.client.errors import ServerError
from kraft.client.outcome import Answer, Outcome, Refused, Unknown
from kraft.client.verdicts import INDEFINITE
from kraft.protocol.errors import for_code

TRY_AGAIN: Final = (429, 503)
TIMED_OUT: Final = 504
RETRY_AFTER_MS_MAX: Final = 5_000
"""A node that asks for more patience than this is asked again sooner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Untouched:
    reason: str
    retry_after_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    reason: str


Judged: TypeAlias = Answer | Untouched | Lost


def judge(outcome: Outcome) -> Judged:
    match outcome:
        case Refused(reason=reason):
            return Untouched(reason=reason)
        case Unknown(reason=reason):
            return Lost(reason=reason)
    if outcome.status == TIMED_OUT:
        return Lost(reason=server_error(outcome).message)
    if outcome.status not in TRY_AGAIN:
        return outcome
    error = server_error(outcome)
    if error.code in INDEFINITE:
        return Lost(reason=error.message)
    return Untouched(reason=error.message, retry_after_ms=retry_after_ms(outcome))


def retry_after_ms(answer: Answer) -> int:
    text = answer.headers.get("retry-after", "")
    return min(int(text) * 1_000, RETRY_AFTER_MS_MAX) if text.isdecimal() else 0


def document_of(answer: Answer) -> Mapping[str, Any]:
    """Empty when the body is no JSON object."""
    try:
        document = answer.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def server_error(answer: Answer) -> ServerError:
    """The error of an answer that is no success, in the server's own words."""
    document = document_of(answer)
    code = document.get("kafka_code")
    text = answer.body[:200].decode("utf-8", "replace")
    return ServerError(
        str(document.get("message") or f"HTTP status {answer.status}: {text}"),
        status=answer.status,
        error_code=int(document.get("error_code", answer.status)),
        code=code,
        retriable=bool(document.get("retriable", code is not None and for_code(code).retriable)),
    )


def checked(answer: Answer) -> Answer:
    """Raises ServerError unless the answer is a success."""
    if not answer.is_success:
        raise server_error(answer)
    return answer
