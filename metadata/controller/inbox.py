"""The active controller's queue: a bounded number of requests, and its own events beside them."""

from __future__ import annotations

import asyncio
from collections import deque

from kraft.protocol.errors import KafkaError, ThrottlingQuotaExceeded
from kraft.values import value
from metadata.controller.decide import Input, InternalEvent, PreferredElectionTick, SessionsTick, UncleanSweepTick

REQUESTS_WAITING_MAX = 4096
"""Requests queued for the active controller; one more is refused with THROTTLING_QUOTA_EXCEEDED 89."""

_TICKS = (SessionsTick, PreferredElectionTick, UncleanSweepTick)


@value(kw_only=True)
class Item:
    """A request or event to decide, and the future that waits for its answer."""

    request: Input
    enqueued_ms: int
    waiter: asyncio.Future[object] | None = None

    def resolve(self, reply: object) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(reply)

    def refuse(self, error: KafkaError) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(error)

    @property
    def is_abandoned(self) -> bool:
        """The sender has stopped waiting."""
        return self.waiter is not None and self.waiter.done()


class Inbox:
    """Internal events are bounded by their sources: one tick of each kind, one probe per broker, queries in flight."""

    def __init__(self) -> None:
        self._requests: deque[Item] = deque()
        self._internal: deque[Item] = deque()
        self._wake = asyncio.Event()

    def put_request(self, item: Item) -> None:
        """Queue a request. Raises ThrottlingQuotaExceeded 89 when full."""
        if len(self._requests) >= REQUESTS_WAITING_MAX:
            raise ThrottlingQuotaExceeded(f"{REQUESTS_WAITING_MAX} requests wait for the controller: try again later")
        self._requests.append(item)
        self._wake.set()

    def put_event(self, event: InternalEvent, *, now_ms: int, waiter: asyncio.Future[object] | None = None) -> None:
        if isinstance(event, _TICKS) and any(type(item.request) is type(event) for item in self._internal):
            return
        self._internal.append(Item(request=event, enqueued_ms=now_ms, waiter=waiter))
        self._wake.set()

    def put_back(self, items: list[Item]) -> None:
        self._requests.extendleft(reversed(items))
        self._wake.set()

    def wake(self) -> None:
        self._wake.set()

    async def wait(self) -> None:
        await self._wake.wait()
        self._wake.clear()

    def take_all(self) -> list[Item]:
        """Remove and return everything. Session ticks are last, after every heartbeat that was already here (B5)."""
        internal = sorted(self._internal, key=lambda item: isinstance(item.request, SessionsTick))
        items = [*self._requests, *internal]
        self._requests.clear()
        self._internal.clear()
        return items
