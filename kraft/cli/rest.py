"""The cluster as commands see it: REST to any node, another node when one is down.

A read goes to the next node whenever one does not answer. A change goes on only when it surely was not done
(the connection was refused), and is never sent twice: an unknown outcome is an error that says so. Whoever can send
it again safely does so by `attempt` (`kraft.cli.sending`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote

from kraft.cli.output import CommandFailed
from kraft.client.blocking import send
from kraft.client.outcome import REQUEST_TIMEOUT_MS, Answer, Outcome, Refused, Request, Unknown
from kraft.launcher.runfile import load_run

DATA_DEFAULT: Final = "data"
REST_DEFAULT: Final = "http://127.0.0.1:8082"
JSON_TYPE: Final = "application/json"
LOOKUP_TIMEOUT_MS: Final = 5_000


def base_urls(rest: str | None, data: str | None) -> list[str]:
    """--rest (several with commas), else the nodes of the cluster that runs from the data folder, else the default."""
    if rest:
        return [url if "://" in url else f"http://{url}" for url in rest.split(",")]
    run = load_run(os.path.abspath(data or DATA_DEFAULT))
    if run is None and data:
        raise CommandFailed(f"no cluster was started from {data}; --rest URL names a node")
    return [node.rest for node in run.nodes] if run else [REST_DEFAULT]


class Rest:
    def __init__(self, rest: str | None = None, data: str | None = None) -> None:
        self._urls = base_urls(rest, data)

    @property
    def urls(self) -> list[str]:
        """Of all nodes, the one that answered last first."""
        return list(self._urls)

    @cached_property
    def cluster_id(self) -> str:
        return str(self.get("/v3/clusters")["data"][0]["cluster_id"])

    def cluster(self, path: str) -> str:
        """A path of the v3 dialect, below the cluster."""
        return f"/v3/clusters/{segment(self.cluster_id)}{path}"

    def get(self, path: str, *, timeout_ms: int = LOOKUP_TIMEOUT_MS) -> Any:
        return checked(self.read(Request(method="GET", path=path, timeout_ms=timeout_ms))).json()

    def read(self, request: Request) -> Answer:
        """From the first node that answers. Safe to repeat, so a broken answer also leads to the next node."""
        reasons = []
        for url in self._urls:
            outcome = send(url, request)
            if isinstance(outcome, Answer):
                self._prefer(url)
                return outcome
            reasons.append(outcome.reason)
        raise CommandFailed("no node answers: " + "; ".join(reasons))

    def change(self, request: Request) -> Answer:
        """At most one node gets it. Raises CommandFailed when it is not known whether it was done."""
        match self.attempt(request):
            case Answer() as answer:
                return answer
            case Refused(reason=reason):
                raise CommandFailed(f"no node can be reached, nothing was done: {reason}")
            case Unknown(reason=reason):
                raise CommandFailed(f"it is not known whether this was done, and it was not sent again: {reason}")

    def attempt(self, request: Request) -> Outcome:
        """At most one node gets it; `Refused` when none can be reached. The next attempt begins at another node than
        one that did not answer."""
        reasons = []
        for url in list(self._urls):
            outcome = send(url, request)
            if isinstance(outcome, Refused):
                reasons.append(outcome.reason)
                continue
            if isinstance(outcome, Answer):
                self._prefer(url)
            else:
                self._urls = [other for other in self._urls if other != url] + [url]
            return outcome
        return Refused(reason="; ".join(reasons))

    def send_json(self, method: str, path: str, document: Any = None) -> Any:
        body = b"" if document is None else json.dumps(document).encode()
        headers = {"Content-Type": JSON_TYPE} if body else {}
        request = Request(method=method, path=path, body=body, headers=headers, timeout_ms=REQUEST_TIMEOUT_MS)
        return checked(self.change(request)).json()

    def _prefer(self, url: str) -> None:
        self._urls.sort(key=lambda other: other != url)


def segment(text: str | int) -> str:
    """One part of a path."""
    return quote(str(text), safe="")


def checked(answer: Answer) -> Answer:
    """Raises CommandFailed with the server's own words unless the answer is a success."""
    if not answer.is_success:
        raise CommandFailed(_server_words(answer))
    return answer


def _server_words(answer: Answer) -> str:
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, Mapping):
        return f"HTTP status {answer.status}: {answer.body[:200].decode('utf-8', 'replace')}"
    return f"{document.get('message', document)} (error_code {document.get('error_code', answer.status)})"
