"""Connections between simulated voters. Each end learns of a connection, and of its loss, at a time of its own.

A connection has a number. A message travels on the connection that its sender believes in, and is handled when the
receiver believes in the same one: it waits for a receiver that is late to see the connection, and is lost (or, now
and then, delivered as an orphan) when the receiver has gone on to another. Within a connection the order is kept,
but a partition swallows messages, which is worse than TCP.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

import msgspec

from metadata.quorum.filters import Message
from tests.simulation.quorum.plan import Plan


class Voters(Protocol):
    """What the network needs of the machines that it joins."""

    @property
    def now_us(self) -> int: ...
    def is_up(self, i: int) -> bool: ...
    def after(self, ms: float, action: Callable[[], None]) -> None: ...
    def to(self, i: int, action: Callable[[], None]) -> None:
        """Run when voter `i`, the process that is there now, runs; never, if it has gone by then."""
        ...

    def on_connected(self, i: int, peer: int) -> None: ...
    def on_disconnected(self, i: int, peer: int) -> None: ...
    def on_message(self, i: int, peer: int, message: Message) -> None: ...


class Network:
    def __init__(self, plan: Plan, rng: random.Random, voters: Voters) -> None:
        self._plan = plan
        self._rng = rng
        self._voters = voters
        self._links: dict[tuple[int, int], int] = {}
        """The number of the connection that exists between a pair."""
        self._views: dict[tuple[int, int], int] = {}
        """(voter, peer): the connection that the voter believes in."""
        self._admitted_us: dict[tuple[int, int], int] = {}
        """(voter, connection): when the voter sees it."""
        self._count = 0
        self.blocked: set[tuple[int, int]] = set()
        """Directions in which messages vanish."""
        self.denied: set[tuple[int, int]] = set()
        """Pairs that cannot connect."""
        self.slow_ms: dict[tuple[int, int], float] = {}
        self._last_us: dict[tuple[int, int, int], int] = {}
        self.is_doubling = False
        """Every message arrives twice."""
        self.entries_sent = 0
        """Log entries in all messages, those sent again counted again."""

    def connect(self, a: int, b: int) -> None:
        pair = pair_of(a, b)
        if pair in self._links or pair in self.denied or not (self._voters.is_up(a) and self._voters.is_up(b)):
            return
        if (a, b) in self.blocked or (b, a) in self.blocked:
            return
        self._count += 1
        self._links[pair] = self._count
        self._admit_later(a, b, self._count)
        self._admit_later(b, a, self._count)

    def _admit_later(self, i: int, peer: int, number: int) -> None:
        delay_ms = self._rng.random() * self._plan.notice_ms * 0.3
        self._admitted_us[i, number] = self._voters.now_us + int(delay_ms * 1000)
        self._voters.after(delay_ms, lambda: self._voters.to(i, lambda: self._admit(i, peer, number)))

    def _admit(self, i: int, peer: int, number: int) -> None:
        if self._views.get((i, peer), 0) >= number:
            return
        self._forget(i, peer, self._views.get((i, peer), 0))
        self._views[i, peer] = number
        self._voters.on_connected(i, peer)
        if self._links.get(pair_of(i, peer)) != number:
            self._notice_later(i, peer, number)

    def disconnect(self, a: int, b: int) -> None:
        number = self._links.pop(pair_of(a, b), None)
        if number is not None:
            self._notice_later(a, b, number)
            self._notice_later(b, a, number)

    def _notice_later(self, i: int, peer: int, number: int) -> None:
        delay_ms = self._rng.random() * self._plan.notice_ms
        self._voters.after(delay_ms, lambda: self._voters.to(i, lambda: self._forget(i, peer, number)))

    def _forget(self, i: int, peer: int, number: int) -> None:
        if self._views.get((i, peer)) == number:
            del self._views[i, peer]
            self._voters.on_disconnected(i, peer)

    def gone(self, i: int, peers: list[int]) -> None:
        """Voter `i` was killed: the others see their connections end; it remembers none."""
        for peer in peers:
            self.disconnect(i, peer)
            self._views.pop((i, peer), None)

    # --- messages -----------------------------------------------------------------------------------------------

    def send(self, a: int, b: int, message: Message) -> bool:
        number = self._views.get((a, b))
        if number is None:
            return False
        if (a, b) in self.blocked:
            return True
        data = msgspec.msgpack.encode(message)
        low, high = self._plan.latency_ms
        delay_ms = low + self._rng.random() * (high - low) + self.slow_ms.get((a, b), 0)
        key = (a, b, number)
        earliest = max(self._last_us.get(key, 0), self._admitted_us[b, number] + 1)
        at = self._last_us[key] = max(self._voters.now_us + int(delay_ms * 1000), earliest)
        self.entries_sent += len(message.get("entries", ()))
        for _ in range(2 if self.is_doubling else 1):
            self._voters.after((at - self._voters.now_us) / 1000, lambda: self._arrive(a, b, number, data))
        return True

    def _arrive(self, a: int, b: int, number: int, data: bytes) -> None:
        if self._links.get(pair_of(a, b)) != number and self._rng.random() >= self._plan.orphan:
            return

        def handle() -> None:
            self._voters.on_message(b, a, msgspec.msgpack.decode(data))

        self._voters.to(b, handle)


def pair_of(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)
