"""Clients whose connections are to be closed: idle for `connections.max.idle.ms`, or such as read no answers while all
together leave too much unread.

A client that reads slowly keeps its connection: a consumer may work for minutes before it reads what it has asked for.
Its session begins nothing more meanwhile, so what it leaves unread is one answer and a little.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from kraft.broker.answer_budget import AnswerBudget
from kraft.wire.api_handler import ClientConnection
from metadata.environment import Clock, TimerHandle

LOG = logging.getLogger(__name__)

LOOK_MS = 500
"""A login that is over ends its connection within that."""
STANDSTILL_MS = 10_000
"""When there is no room for answers: a client that has read nearly nothing for so long may lose its connection."""
TAKEN_BYTES_MIN = 64 * 1024
"""A client that reads less within `STANDSTILL_MS`, and not all, stands still."""


class Watched(Protocol):
    """A client's connection, as far as its end is decided here."""

    client: ClientConnection

    @property
    def peer(self) -> str: ...
    @property
    def activity(self) -> int:
        """Rises with each request and each answer."""
        ...

    @property
    def is_closed(self) -> bool: ...
    @property
    def waits(self) -> bool:
        """For an answer that is not there yet."""
        ...

    @property
    def unread_bytes(self) -> int:
        """Bytes of answers that the client's side of the connection has not taken."""
        ...

    def close(self) -> None: ...
    def abort(self) -> None: ...
    def give_up(self) -> None:
        """Ends what was begun for the connection, which is closed."""
        ...


@dataclass(slots=True)
class _Seen:
    activity: int
    unread: int
    active_ms: int
    """When something happened last."""
    read_ms: int
    """When it had read all that it was sent, or `TAKEN_BYTES_MIN` of it, last."""
    mark: int = 0
    """What was unread then, and what has come since."""


class ClientWatch:
    """Looks at all clients every `LOOK_MS` and closes those that the module's text names."""

    def __init__(self, clock: Clock, *, idle_ms_max: int, answers: AnswerBudget) -> None:
        """`idle_ms_max` below 0: a client may be idle for ever."""
        self._clock = clock
        self._idle_ms_max = idle_ms_max
        self._answers = answers
        self._seen: dict[Watched, _Seen] = {}
        self._timer: TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._seen)

    @property
    def clients(self) -> Iterator[ClientConnection]:
        """The clients that are connected now."""
        return (each.client for each in self._seen)

    @contextmanager
    def watching(self, client: Watched) -> Iterator[None]:
        """Watches the client for as long as the block lasts."""
        now_ms = self._clock.monotonic_ms()
        self._seen[client] = _Seen(client.activity, 0, now_ms, now_ms)
        if self._timer is None:
            self._timer = self._clock.call_later(LOOK_MS, self._look)
        try:
            yield
        finally:
            del self._seen[client]
            if not self._seen and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _look(self) -> None:
        now_ms, unread_of_all = self._clock.monotonic_ms(), 0
        for client, seen in list(self._seen.items()):
            if client.is_closed:
                client.give_up()
                continue
            login = client.client.login
            if login is not None and not login.is_current:
                LOG.info("closing %s: its login is over", client.peer)
                client.close()
                continue
            unread, activity = client.unread_bytes, client.activity
            unread_of_all += unread
            if not unread or unread <= seen.mark - TAKEN_BYTES_MIN:
                seen.read_ms, seen.mark = now_ms, unread
            elif unread > seen.unread:
                seen.mark += unread - seen.unread
            if activity != seen.activity or unread != seen.unread or (client.waits and not unread):
                seen.active_ms = now_ms
            elif 0 <= self._idle_ms_max <= now_ms - seen.active_ms:
                self._end_idle(client, unread)
            seen.activity, seen.unread = activity, unread
        excess = unread_of_all - self._answers.limit
        if self._answers.is_waited_for:
            excess = max(excess, self._answers.limit // 2)
        if excess > 0:
            self._make_room(excess, now_ms)
        self._timer = self._clock.call_later(LOOK_MS, self._look)

    def _end_idle(self, client: Watched, unread: int) -> None:
        LOG.info("closing %s: idle for %d ms (connections.max.idle.ms)", client.peer, self._idle_ms_max)
        if unread:
            client.abort()  # it would be waited for to be read, for ever
        else:
            client.close()

    def _make_room(self, excess: int, now_ms: int) -> None:
        standing = [
            (seen.unread, client)
            for client, seen in self._seen.items()
            if seen.unread and now_ms - seen.read_ms >= STANDSTILL_MS
        ]
        for unread, client in sorted(standing, key=lambda each: each[0], reverse=True):
            if excess <= 0:
                return
            LOG.warning("closing %s: it leaves %d bytes of answers unread", client.peer, unread)
            client.abort()
            excess -= unread
