"""One request is one attempt, and an attempt has one of three outcomes. Who repeats a request decides by its type.

`Answer`: the server answered, whatever the status. `Refused`: the request surely was not done, because it never
left. `Unknown`: it was sent, and nobody knows whether it was done; repeating a produce could write it twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

CONNECT_TIMEOUT_MS: Final = 2_000
REQUEST_TIMEOUT_MS: Final = 40_000
"""Longer than request.timeout.ms, so that the server's own verdict arrives first."""

ALWAYS: Final[Mapping[str, str]] = {"Prefer": "kraft-fields"}
"""Headers of every request: a strict node answers with the fields that other proxies do not have."""


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


Outcome: TypeAlias = Answer | Refused | Unknown
