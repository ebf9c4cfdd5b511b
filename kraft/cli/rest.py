"""The cluster's REST API for commands: requests to any node, and to another one when a node is down.

A read goes to the next node whenever one does not answer, or answers that it cannot now. A change goes to the next node
only if it was certainly not done (the connection was refused, or the answer states it), and is never sent twice: an
unknown outcome is an error with that text. A command that can repeat it safely does so by `attempt`
(`kraft.cli.produce_command`). When no node can answer now (503 or 429, as while a cluster starts), all are tried again
for `BUSY_LIMIT_MS`.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final, TypeVar

import msgspec

from kraft.cli.output import CommandFailed, say
from kraft.client.blocking_transport import send
from kraft.client.response import (
    REQUEST_TIMEOUT_MS,
    TRY_AGAIN,
    Answer,
    Refused,
    Request,
    Response,
    Unknown,
    Untouched,
    failure_of,
    judge,
    segment,
    server_error,
)
from kraft.client.retries import Failure, RetryAfter, RetryPolicy, next_step
from kraft.launcher.runfile import load_run

DATA_DEFAULT: Final = "data"
REST_DEFAULT: Final = "http://127.0.0.1:8082"
JSON_TYPE: Final = "application/json"
LOOKUP_TIMEOUT_MS: Final = 5_000
BUSY_LIMIT_MS: Final = 15_000
"""Time that a command waits for nodes whose answer is that they cannot answer now."""
BUSY_POLICY: Final = RetryPolicy(backoff_ms=250, backoff_max_ms=250)
"""Wait between two rounds, if no node asks for more."""

Outcome = TypeVar("Outcome", bound=Response)


def base_urls(rest: str | None, data: str | None) -> list[str]:
    """--rest (several with commas), else the nodes of the cluster that runs from the data folder, else the default."""
    if rest:
        return [url if "://" in url else f"http://{url}" for url in rest.split(",")]
    run = load_run(os.path.abspath(data or DATA_DEFAULT))
    if run is None and data:
        raise CommandFailed(f"no cluster was started from {data}; name a node with --rest URL")
    return [node.rest for node in run.nodes] if run else [REST_DEFAULT]


class Rest:
    def __init__(self, rest: str | None = None, data: str | None = None) -> None:
        self._urls = base_urls(rest, data)

    @property
    def urls(self) -> list[str]:
        """URLs of all nodes, beginning with the one that answered last."""
        return list(self._urls)

    @cached_property
    def cluster_id(self) -> str:
        return str(self.get("/v3/clusters")["data"][0]["cluster_id"])

    def cluster(self, path: str) -> str:
        """A path of the v3 dialect, below the cluster."""
        return f"/v3/clusters/{segment(self.cluster_id)}{path}"

    def get(self, path: str, *, timeout_ms: int = LOOKUP_TIMEOUT_MS) -> Any:
        request = Request(method="GET", path=path, timeout_ms=timeout_ms)
        return checked(_patiently(lambda: self.read(request))).json()

    def read(self, request: Request) -> Answer:
        """Read from the first node that can answer; if none can, return the answer of one that cannot now. Safe to
        repeat, so a broken answer also leads to the next node. Raises CommandFailed when no node answers."""
        reasons, busy = [], None
        for url in list(self._urls):
            outcome = send(url, request)
            if not isinstance(outcome, Answer):
                reasons.append(outcome.reason)
            elif outcome.status in TRY_AGAIN:
                busy = outcome
            else:
                self._prefer(url)
                return outcome
        if busy is not None:
            return busy
        raise CommandFailed("no node answers: " + "; ".join(reasons))

    def change(self, request: Request) -> Answer:
        """Send a change to at most one node. Raises CommandFailed when it is not known whether it was done."""
        match _patiently(lambda: self.attempt(request)):
            case Answer() as answer:
                return answer
            case Refused(reason=reason):
                raise CommandFailed(f"no node can be reached, nothing was done: {reason}")
            case Unknown(reason=reason):
                raise CommandFailed(f"it is not known whether this was done, and it was not sent again: {reason}")

    def attempt(self, request: Request) -> Response:
        """Send a request to at most one node; `Refused` when none can be reached, the answer of one that is busy when
        all are. The next attempt begins at another node than one that did not answer."""
        reasons, busy = [], None
        for url in list(self._urls):
            outcome = send(url, request)
            if isinstance(outcome, Refused):
                reasons.append(outcome.reason)
                continue
            if is_busy(outcome):
                busy = outcome
                continue
            if isinstance(outcome, Answer):
                self._prefer(url)
            else:
                self._urls = [other for other in self._urls if other != url] + [url]
            return outcome
        return busy or Refused(reason="; ".join(reasons))

    def send_json(self, method: str, path: str, document: Any = None, *, media: str = JSON_TYPE) -> Any:
        body = b"" if document is None else msgspec.json.encode(document)
        headers = {"Content-Type": media} if body else {}
        request = Request(method=method, path=path, body=body, headers=headers, timeout_ms=REQUEST_TIMEOUT_MS)
        return checked(self.change(request)).json()

    def _prefer(self, url: str) -> None:
        self._urls.sort(key=lambda other: other != url)


def is_busy(outcome: Response) -> bool:
    """The node cannot do it now, and has certainly not done it."""
    return isinstance(outcome, Answer) and isinstance(judge(outcome), Untouched)


class Patience:
    """The time limit of a command that repeats a request: it waits for the next attempt, or ends the command."""

    def __init__(self, policy: RetryPolicy, *, limit_ms: int, words: str, reports_at: int | None = 1) -> None:
        """`words` are printed with the reason of a failure before the wait for another attempt: once, after
        `reports_at` failed attempts; before each where that is None."""
        self._policy = policy
        self._words = words
        self._reports_at = reports_at
        self._rng = random.Random()
        self._began_ms = _now_ms()
        self._deadline_ms = self._began_ms + limit_ms
        self.attempts = 0

    def extend(self, *, limit_ms: int) -> None:
        """Raise the limit, which counts from the start."""
        self._deadline_ms = max(self._deadline_ms, self._began_ms + limit_ms)

    def wait(self, failure: Failure | None) -> bool:
        """Wait after an attempt. False when it was the last: it has its result, or the time is over."""
        wait_ms = self.wait_ms(failure)
        if wait_ms is not None:
            time.sleep(wait_ms / 1_000)
        return wait_ms is not None

    def wait_ms(self, failure: Failure | None) -> float | None:
        """The wait for the next attempt; None when this was the last."""
        self.attempts += 1
        left_ms = self._deadline_ms - _now_ms()
        step = next_step(failure, attempts=self.attempts, left_ms=left_ms, policy=self._policy, rng=self._rng)
        if failure is None or not isinstance(step, RetryAfter):
            return None
        if self._reports_at in (None, self.attempts):
            say(f"{self._words}: {failure.reason}")
        return step.wait_ms


def _patiently(ask: Callable[[], Outcome]) -> Outcome:
    """Repeat while no node can do it now; return the last outcome when that lasts too long."""
    patience = Patience(BUSY_POLICY, limit_ms=BUSY_LIMIT_MS, words="trying again")
    while True:
        outcome = ask()
        if not patience.wait(failure_of(outcome, is_repeatable=False) if is_busy(outcome) else None):
            return outcome


def checked(answer: Answer) -> Answer:
    """The answer, if it is a success. Raises CommandFailed with the server's message otherwise."""
    if answer.is_success:
        return answer
    error = server_error(answer)
    raise CommandFailed(f"{error.message} (error_code {error.error_code})")


def _now_ms() -> float:
    return time.monotonic() * 1_000
