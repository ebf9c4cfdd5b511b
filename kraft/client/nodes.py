"""Which node to ask next: the one that is wanted if it lives, else the last that answered, else any. Pure.

A node that fails is left alone for reconnect.backoff.ms, then twice as long each time, up to reconnect.backoff.max.ms.
When all are left alone the one whose time is over first is asked: there is always an answer. The addresses that the
caller named stay known for ever, also when the cluster calls itself something else.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from kraft.client.errors import ConfigError
from kraft.client.retries import backoff_ms


@dataclass(slots=True)
class _Liveness:
    failures: int = 0
    retry_at_ms: float = 0


class Nodes:
    def __init__(
        self, bootstrap: Sequence[str], *, rng: random.Random, reconnect_backoff_ms: int, reconnect_backoff_max_ms: int
    ) -> None:
        self._bootstrap = parse_addresses(bootstrap)
        self._rng = rng
        self._base_ms = reconnect_backoff_ms
        self._max_ms = reconnect_backoff_max_ms
        self._by_id: dict[int, str] = {}
        self._liveness: dict[str, _Liveness] = {url: _Liveness() for url in self._bootstrap}
        self._current = self._bootstrap[0]

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(self._liveness)

    def learn(self, by_id: Mapping[int, str]) -> None:
        """The nodes of the cluster as one of them knows them. Those that are gone are forgotten."""
        self._by_id = dict(by_id)
        known = dict.fromkeys((*self._bootstrap, *by_id.values()))
        self._liveness = {url: self._liveness.get(url) or _Liveness() for url in known}
        if self._current not in self._liveness:
            self._current = self._bootstrap[0]

    def choose(self, now_ms: float, *, prefer: int | None = None, avoid: str | None = None) -> str:
        """`prefer`: the id of a node, as a partition's leader. `avoid`: one that just could not help."""
        wanted = None if prefer is None else self._by_id.get(prefer)
        for url in (wanted, self._current):
            if url is not None and url != avoid and self._is_due(url, now_ms):
                return url
        others = [url for url in self._liveness if url != avoid and self._is_due(url, now_ms)]
        if others:
            return self._rng.choice(others)
        return min(self._liveness, key=lambda url: (self._liveness[url].retry_at_ms, url == avoid))

    def answered(self, url: str) -> None:
        if url in self._liveness:
            self._liveness[url] = _Liveness()
            self._current = url

    def failed(self, url: str, now_ms: float) -> None:
        """No connection, no answer, or an answer that it cannot serve now."""
        found = self._liveness.get(url)
        if found is None:
            return
        found.failures += 1
        wait_ms = backoff_ms(found.failures, base_ms=self._base_ms, max_ms=self._max_ms, rng=self._rng)
        found.retry_at_ms = now_ms + wait_ms

    def wait_ms(self, url: str, now_ms: float) -> float:
        """How long this one is still to be left alone; 0 for one that lives."""
        found = self._liveness.get(url)
        return 0 if found is None else max(0.0, found.retry_at_ms - now_ms)

    def _is_due(self, url: str, now_ms: float) -> bool:
        return self._liveness[url].retry_at_ms <= now_ms


def parse_addresses(texts: Sequence[str]) -> tuple[str, ...]:
    """Base URLs, each once. Raises ConfigError."""
    if not texts:
        raise ConfigError("no address given; name at least one node, as http://127.0.0.1:8082")
    return tuple(dict.fromkeys(map(base_url, texts)))


def base_url(text: str) -> str:
    """`host:port` or a URL, without a slash at its end. Raises ConfigError."""
    url = (text if "://" in text else f"http://{text}").rstrip("/")
    try:
        parts = urlsplit(url)
        is_good = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and not any(map(str.isspace, url))
            and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        is_good = False
    if not is_good:
        raise ConfigError(f"{text!r} is no address of a node; it is like http://127.0.0.1:8082 or 127.0.0.1:8082")
    return url
