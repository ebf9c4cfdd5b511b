"""Differences from Apache Kafka that are meant, each with its reason."""

from __future__ import annotations

from tests.clients.golden.peer import Exchange

KNOWN: tuple[tuple[str, str, str], ...] = (
    ("*", "error_message", "Kafka leaves it null where we say what was wrong, and words it otherwise"),
)
"""API or *, the end of the path of what differs, and why."""


def is_known(exchange: Exchange, path: str) -> bool:
    return any(api in ("*", exchange.api) and path.endswith(end) for api, end, _ in KNOWN)
