"""How `kraft produce` gets a request settled. With an Idempotency-Key it is sent again, to any node, until an answer
tells what became of it: what an attempt stored whose answer was lost is not stored twice.

Invariant: without a key a request reaches at most one node.
"""

from __future__ import annotations

import json
import random
import secrets
import time
from dataclasses import replace
from typing import Final

from kraft.cli.options import Format
from kraft.cli.output import CommandFailed, say
from kraft.cli.produce_view import Place, is_failed
from kraft.cli.rest import Rest, checked
from kraft.cli.sources import Entry
from kraft.client.backoff import backoff_ms
from kraft.client.response import Answer, Refused, Request, Untouched, judge
from kraft.protocol.errors import for_code

REPLY_MARGIN_MS: Final = 10_000
"""Added to the server's timeout, so that its verdict arrives before we give up."""
REPEAT_FOR_MS: Final = 120_000
"""As delivery.timeout.ms of Kafka's producers: when so long has passed since the first attempt, there is no other."""
REPEAT_WAIT_MS: Final = 100
REPEAT_WAIT_MS_MAX: Final = 1_000


class Sender:
    """One request after the other; `is_idempotent`: each with a key of its own."""

    def __init__(self, client: Rest, path: str, *, form: Format, timeout_ms: int, is_idempotent: bool) -> None:
        self._client = client
        self._path = path
        self._headers = {"Content-Type": f"application/vnd.kafka.{form}.v2+json"}
        self._timeout_ms = timeout_ms + REPLY_MARGIN_MS
        self._name = f"kraft-produce-{secrets.token_hex(16)}" if is_idempotent else None
        self._sent = 0

    def send(self, batch: list[Entry]) -> list[Place]:
        """Where each record is, or why not; empty with acks=0. Raises CommandFailed when the request failed whole."""
        body = json.dumps({"records": batch}, ensure_ascii=False).encode()
        request = Request(method="POST", path=self._path, body=body, headers=self._headers, timeout_ms=self._timeout_ms)
        self._sent += 1
        if self._name is None:
            answer = self._client.change(request)
        else:
            key = {"Idempotency-Key": f"{self._name}-{self._sent}"}
            answer = settle(self._client, replace(request, headers={**self._headers, **key}))
        return _places(checked(answer))


def settle(client: Rest, request: Request) -> Answer:
    """Attempts until an answer is final. Raises CommandFailed when none came in time, or nobody can be reached."""
    deadline_ms = _now_ms() + REPEAT_FOR_MS
    attempts = 0
    while True:
        attempts += 1
        outcome = client.attempt(request)
        if isinstance(outcome, Refused) and attempts == 1:
            raise CommandFailed(f"no node can be reached, nothing was done: {outcome.reason}")
        if isinstance(outcome, Answer) and is_final(outcome):
            return outcome
        judged = judge(outcome)
        reason = "some records were not stored yet" if isinstance(judged, Answer) else judged.reason
        asked_ms = judged.retry_after_ms if isinstance(judged, Untouched) else 0
        wait_ms = backoff_ms(attempts, base_ms=REPEAT_WAIT_MS, max_ms=REPEAT_WAIT_MS_MAX, rng=random.Random())
        wait_ms = max(wait_ms, asked_ms)
        if _now_ms() + wait_ms >= deadline_ms:
            if isinstance(outcome, Answer):
                return outcome
            raise CommandFailed(f"it is not known whether this was done, after {attempts} attempts: {reason}")
        say(f"sent again, which stores nothing twice: {reason}")
        time.sleep(wait_ms / 1_000)


def is_final(answer: Answer) -> bool:
    """Another attempt would come to nothing else: all is stored, or refused for good."""
    if not isinstance(judge(answer), Answer):
        return False
    if not answer.is_success:
        return True
    return not any(is_failed(place) and _may_pass(place) for place in _places(answer))


def _may_pass(place: Place) -> bool:
    code = place.get("kafka_code")
    return code is not None and for_code(code).retriable


def _places(answer: Answer) -> list[Place]:
    document = answer.json()
    return document["offsets"] if isinstance(document, dict) and "offsets" in document else []


def _now_ms() -> float:
    return time.monotonic() * 1_000
