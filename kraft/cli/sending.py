"""How `kraft produce` gets a request settled. With an Idempotency-Key it is sent again, to any node, until an answer
tells what became of it: what an attempt stored whose answer was lost is not stored twice.

Invariant: without a key a request reaches at most one node.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from typing import Final

from kraft.cli.options import Format
from kraft.cli.output import CommandFailed
from kraft.cli.produce_view import Place
from kraft.cli.rest import Patience, Rest, checked
from kraft.cli.sources import Entry
from kraft.client.response import Answer, Refused, Request, Response, failure_of, read_produce_response
from kraft.client.retrying import Failure, RetryPolicy

REPLY_MARGIN_MS: Final = 10_000
"""Added to the server's timeout, so that its verdict arrives before we give up."""
REPEAT_FOR_MS: Final = 120_000
"""As delivery.timeout.ms of Kafka's producers: when so long has passed since the first attempt, there is no other."""
REPEAT_POLICY: Final = RetryPolicy(backoff_ms=100, backoff_max_ms=1_000)


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
    words = "sent again, which stores nothing twice"
    patience = Patience(REPEAT_POLICY, limit_ms=REPEAT_FOR_MS, words=words, says_at=None)
    while True:
        outcome = client.attempt(request)
        if isinstance(outcome, Refused) and not patience.attempts:
            raise CommandFailed(f"no node can be reached, nothing was done: {outcome.reason}")
        if patience.wait(_failure(outcome)):
            continue
        if isinstance(outcome, Answer):
            return outcome
        attempts = patience.attempts
        raise CommandFailed(f"it is not known whether this was done, after {attempts} attempts: {outcome.reason}")


def _failure(outcome: Response) -> Failure | None:
    """None for an answer after which another attempt would come to nothing else: all is stored, or refused for good."""
    failure = failure_of(outcome, is_repeatable=True)
    if failure is not None:
        return replace(failure, is_node_gone=False)  # all nodes were asked
    if isinstance(outcome, Answer) and outcome.is_success and read_produce_response(outcome, acks="all").may_retry:
        return Failure(reason="some records were not stored yet")
    return None


def _places(answer: Answer) -> list[Place]:
    document = answer.json()
    return document["offsets"] if isinstance(document, dict) and "offsets" in document else []
