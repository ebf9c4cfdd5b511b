"""Events about clients that do not get what they ask for: a login that fails, a connection that is refused, a client
that is over its quota. Refusals by ACLs are lines of the audit (`kraft.broker.audit`).

Strangers cause them as often as they like, so each client has at most one event of a kind in ten seconds, all clients
together `LINES_MAX`, and `left_out` counts what was left out before.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from kraft.broker.client_quotas import Owner
from kraft.protocol.text import visible
from metadata.environment import Clock
from metadata.events import Events
from metadata.rate_limited_log import RateLimitedLog

CLIENTS_MAX: Final = 1_000
"""Clients that are limited each for itself; a further one takes the place of the one that was first."""
TEXT_LENGTH_MAX: Final = 100
"""Characters of a text that a client has chosen."""
LOGIN_FAILED: Final = "login_failed"
CLIENT_REFUSED: Final = "client_refused"
CLIENT_THROTTLED: Final = "client_throttled"


class ClientEvents:
    """What happened to clients of this node, on all of its ports."""

    def __init__(self, events: Events, clock: Clock) -> None:
        self._events = events
        self._clock = clock
        self._clients: OrderedDict[tuple[str, ...], RateLimitedLog] = OrderedDict()
        self._all: dict[str, RateLimitedLog] = {}

    def login_failed(self, *, host: str, mechanism: str, user: str, reason: str) -> None:
        """`user` is one that exists, or empty: a name that nobody has may be a password in the wrong field."""
        self._emit(LOGIN_FAILED, host=host, mechanism=_cut(mechanism), user=_cut(user), reason=_cut(reason))

    def refused(self, *, host: str, reason: str) -> None:
        """A connection that is closed before anything is asked over it. `reason` names the setting."""
        self._emit(CLIENT_REFUSED, host=host, reason=reason)

    def throttled(self, quota: str, owner: Owner, bound: float, wait_ms: int) -> None:
        """A client is over `quota`, which is `bound` per second, and has to wait."""
        user, client_id = _cut(owner.user), _cut(owner.client_id or "")
        self._emit(CLIENT_THROTTLED, {"bound": bound, "wait_ms": wait_ms}, user=user, client_id=client_id, quota=quota)

    def _emit(self, event: str, more: dict[str, object] | None = None, **key: str) -> None:
        """`key` is who and what; `more` may be another the next time."""
        now_ms, place = self._clock.monotonic_ms(), (event, *key.values())
        limited = self._clients.get(place)
        if limited is None:
            if len(self._clients) >= CLIENTS_MAX:
                self._clients.popitem(last=False)
            limited = self._clients[place] = RateLimitedLog(1)
        left_out = limited.admit(now_ms)
        if left_out is None:
            return
        left_out_of_others = self._all.setdefault(event, RateLimitedLog()).admit(now_ms)
        if left_out_of_others is None:
            return
        self._events.emit(event, **key, **(more or {}), left_out=left_out, left_out_of_others=left_out_of_others)


def _cut(text: str) -> str:
    return visible(text[:TEXT_LENGTH_MAX], keep="")
