"""REST requests of clients, and the meaning of the answers. Pure.

A value is `<process>:<counter>`, padded with spaces to the configured length; readers strip them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import quote

import msgspec

from kraft.chaos.history import Acks
from kraft.chaos.workload.client import FetchResult, KeyValue, ProduceResult
from kraft.client.outcome import of_answer, of_broken_connection, of_refused_connection
from kraft.client.response import TRY_AGAIN, Answer, Refused, Request, Unknown, document_of, read_produce_response

TEXT: Final = "application/vnd.kafka.text.v2+json"
ANSWER_SLACK_MS: Final = 500
"""Time beyond the limit of the server, so that the server's error arrives first."""


def value_text(process: str, counter: int) -> str:
    return f"{process}:{counter}"


def value_of(stored: str) -> str:
    """The value without its padding."""
    return stored.rstrip(" ")


def produce_request(
    topic: str,
    partition: int,
    records: Sequence[KeyValue],
    *,
    acks: Acks,
    timeout_ms: int,
    value_bytes: int = 0,
    idempotency_key: str = "",
) -> Request:
    body = {
        "records": [
            {"value": value.ljust(value_bytes)} if key is None else {"key": key, "value": value.ljust(value_bytes)}
            for key, value in records
        ]
    }
    return Request(
        method="POST",
        path=f"/topics/{quote(topic)}/partitions/{partition}?acks={acks}&timeout={timeout_ms}",
        body=msgspec.json.encode(body),
        headers={"Content-Type": TEXT} | ({"Idempotency-Key": idempotency_key} if idempotency_key else {}),
        timeout_ms=timeout_ms + ANSWER_SLACK_MS,
    )


def cannot_now(answer: Answer | Refused | Unknown) -> bool:
    """Another node may accept the request: this one refuses connections, or answers that it is not ready."""
    return isinstance(answer, Refused) or (isinstance(answer, Answer) and answer.status in TRY_AGAIN)


def produce_result(answer: Answer | Refused | Unknown, *, acks: Acks) -> ProduceResult:
    read = read_produce_response(answer, acks=acks)
    return ProduceResult(
        outcome=read.outcome,
        kafka_code=0 if read.offsets else read.code,
        error=read.reason or None,
        offsets=read.offsets or None,
        may_try_again=read.may_retry,
        cannot_now=cannot_now(answer),
    )


def read_request(
    topic: str,
    partition: int,
    offset: int | str,
    *,
    wait_ms: int,
    bytes_max: int,
    timeout_ms: int,
    is_read_committed: bool = False,
) -> Request:
    query = f"offset={offset}&timeout={wait_ms}&max_bytes={bytes_max}"
    if is_read_committed:
        query += "&isolation_level=read_committed"
    return Request(
        method="GET",
        path=f"/topics/{quote(topic)}/partitions/{partition}/records?{query}",
        headers={"Accept": TEXT},
        timeout_ms=timeout_ms,
    )


def fetched(answer: Answer | Refused | Unknown) -> FetchResult:
    return replace(_fetched(answer), cannot_now=cannot_now(answer))


def _fetched(answer: Answer | Refused | Unknown) -> FetchResult:
    match answer:
        case Refused(reason=reason):
            return FetchResult(outcome=of_refused_connection(), error=reason)
        case Unknown(reason=reason):
            return FetchResult(outcome=of_broken_connection(), error=reason)
    if not answer.is_success:
        document = document_of(answer)
        code = document.get("kafka_code")
        message = document.get("message") or f"HTTP status {answer.status}"
        return FetchResult(outcome=of_answer(answer.status, code), kafka_code=code, error=message)
    return FetchResult(
        outcome="ok",
        kafka_code=0,
        next_offset=int(answer.headers["x-next-offset"]),
        high_watermark=int(answer.headers["x-high-watermark"]),
        log_start_offset=int(answer.headers["x-log-start-offset"]),
        records=tuple((r["offset"], value_of(r["value"] or "")) for r in msgspec.json.decode(answer.body)),
    )
