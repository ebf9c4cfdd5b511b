"""What one attempt at a request brought back, and what its sender may do next. Pure.

`Answer`: the server answered, whatever the status. `Refused`: the request surely was not done, because it never left.
`Unknown`: it was sent, and nobody knows whether it was done; repeating a produce could write it twice. `judge` reads
an answer that no node could give yet in the same way: `Untouched` is surely not done, `Lost` may have been done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import quote

from kraft.client.errors import ServerError
from kraft.client.outcome import (
    FAIL,
    INDEFINITE,
    INFO,
    OK,
    Outcome,
    of_answer,
    of_broken_connection,
    of_code,
    of_refused_connection,
    of_sent_without_answer,
)
from kraft.client.retries import Failure
from kraft.protocol.errors import MessageTooLarge, RecordListTooLarge, for_code

if TYPE_CHECKING:
    from kraft.client.settings import Acks

CONNECT_TIMEOUT_MS: Final = 2_000
REQUEST_TIMEOUT_MS: Final = 40_000
"""Longer than request.timeout.ms, so that the server's own verdict arrives first."""

ALWAYS: Final[Mapping[str, str]] = {"Prefer": "kraft-fields"}
"""Headers of every request: a strict node answers with the fields that other proxies do not have."""


def segment(text: str | int) -> str:
    """One part of a path."""
    return quote(str(text), safe="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    path: str
    """Path and query, beginning with a slash."""
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_ms: int = REQUEST_TIMEOUT_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        """None for an empty body. Raises ValueError when the body is not JSON."""
        return json.loads(self.body) if self.body else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    reason: str


Response: TypeAlias = Answer | Refused | Unknown


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


def judge(response: Response) -> Judged:
    match response:
        case Refused(reason=reason):
            return Untouched(reason=reason)
        case Unknown(reason=reason):
            return Lost(reason=reason)
    if response.status == TIMED_OUT:
        return Lost(reason=server_error(response).message)
    if response.status not in TRY_AGAIN:
        return response
    error = server_error(response)
    if error.code in INDEFINITE:
        return Lost(reason=error.message)
    return Untouched(reason=error.message, retry_after_ms=retry_after_ms(response))


def failure_of(response: Response, *, is_repeatable: bool) -> Failure | None:
    """The verdict of `judge` as a Failure, for `next_step`. None for an answer that is final, whatever its status.

    `is_repeatable`: the request does no harm when it is done twice; otherwise it is sent again only while it surely was
    not done.
    """
    match judge(response):
        case Untouched(reason=reason, retry_after_ms=retry_after_ms):
            return Failure(reason=reason, retry_after_ms=retry_after_ms, is_node_gone=not isinstance(response, Answer))
        case Lost(reason=reason):
            return Failure(reason=reason, may_retry=is_repeatable, is_node_gone=not isinstance(response, Answer))
    return None


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


NO_OFFSET: Final = -1
"""The offset of a record that was sent with acks=0: no answer has it."""
TOO_LARGE: Final = (MessageTooLarge.code, RecordListTooLarge.code)
TOO_LARGE_STATUS: Final = 413


@dataclass(frozen=True, slots=True, kw_only=True)
class ProduceResponse:
    """What an answer to a produce means. Where only some of its records failed, the first of those speaks for all."""

    outcome: Outcome
    reason: str = ""
    code: int | None = None
    may_retry: bool = False
    is_too_large: bool = False
    is_node_gone: bool = False
    retry_after_ms: int = 0
    offsets: tuple[int, ...] = ()
    """The offset of each record, where the answer has them; for a batch, that of its first record."""
    leader_epoch: int | None = None

    @property
    def base_offset(self) -> int:
        return self.offsets[0] if self.offsets else NO_OFFSET


def read_produce_response(response: Response, *, acks: Acks) -> ProduceResponse:
    match response:
        case Refused(reason=reason):
            return ProduceResponse(outcome=of_refused_connection(), reason=reason, may_retry=True, is_node_gone=True)
        case Unknown(reason=reason):
            outcome = of_sent_without_answer() if acks == "0" else of_broken_connection()
            return ProduceResponse(outcome=outcome, reason=reason, may_retry=True, is_node_gone=True)
    document = document_of(response)
    entries = document.get("offsets")
    if not response.is_success:
        return _of_a_refused_request(response, document)
    if not entries:
        return ProduceResponse(outcome=OK)
    return _of_entries(entries)


def _of_entries(entries: Sequence[Mapping[str, Any]]) -> ProduceResponse:
    failed = [entry for entry in entries if entry["error_code"] is not None]
    if not failed:
        offsets = tuple(entry["offset"] for entry in entries)
        return ProduceResponse(outcome=OK, offsets=offsets, leader_epoch=entries[0].get("leader_epoch"))
    first: int | None = failed[0].get("kafka_code")
    name = "" if first is None else f"{for_code(first).name}: "
    return ProduceResponse(
        outcome=INFO if first is None else of_code(first),
        reason=f"{name}{failed[0].get('error')}",
        code=first,
        may_retry=any(_may_pass(entry.get("kafka_code")) for entry in failed),
        is_too_large=first in TOO_LARGE,
    )


def _may_pass(code: int | None) -> bool:
    return code is not None and for_code(code).retriable


def _of_a_refused_request(answer: Answer, document: Any) -> ProduceResponse:
    code = document.get("kafka_code")
    is_busy = answer.status in TRY_AGAIN
    if is_busy and code is None:
        outcome: Outcome = FAIL
    else:
        outcome = of_answer(answer.status, code)
    return ProduceResponse(
        outcome=outcome,
        reason=str(document.get("message") or f"HTTP status {answer.status}"),
        code=code,
        may_retry=is_busy or answer.status >= 500 or _may_pass(code),
        is_too_large=answer.status == TOO_LARGE_STATUS,
        retry_after_ms=retry_after_ms(answer),
    )
