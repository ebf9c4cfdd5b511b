"""Moments of a run for ambushes: a leader has just sent an AlterPartition, a controller has just begun.

Faults at random times seldom meet the few milliseconds in which a protocol is between two steps; one that waits for
the step does. A moment names the node where it was, and another that it concerns.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from kraft.chaos.worlds.simulated.loop import VirtualLoop

ALTERATION_SENT = "alteration sent"
JOIN_SENT = "join sent"
"""An alteration that takes somebody into an ISR."""
APPEND_SENT = "metadata append sent"
TRANSACTION_OPEN = "metadata transaction open"
"""A part of a decision is committed (KIP-868). Only for ambushes that name this moment."""

MOMENTS = (
    ALTERATION_SENT,
    ALTERATION_SENT,
    APPEND_SENT,
    "became_follower",
    "became_leader",
    "broker_registered",
    "broker_unfenced",
    "controller_changed",
    "isr_expanded",
    "isr_shrunk",
    "replica_removed",
    "stray_log_deleted",
    "topic_created",
    "topic_deleted",
    "truncated",
)
"""Which an ambush can wait for; the one that most depends on the order of messages stands twice."""

Moment = tuple[int, int | None]
"""The node where it was, and another node that it concerns."""


class Moments:
    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._waiting: dict[str, list[asyncio.Future[Moment]]] = defaultdict(list)

    def happened(self, kind: str, node_id: int, other: int | None = None) -> None:
        for future in self._waiting.pop(kind, ()):
            if not future.done():
                self._loop.outside(_resolve, future, (node_id, other))

    async def next(self, kind: str, *, within_s: float) -> Moment | None:
        """None: it did not happen in time."""
        future: asyncio.Future[Moment] = self._loop.create_future()
        self._waiting[kind].append(future)
        try:
            async with asyncio.timeout(within_s):
                return await future
        except TimeoutError:
            return None


def _resolve(future: asyncio.Future[Moment], moment: Moment) -> None:
    if not future.done():
        future.set_result(moment)
