"""One lane for each partition that is written to: its waiting records, and the task that delivers them in order.

Invariant: a lane has at most one batch on its way, so records of a partition are in the log in the order of send(),
whatever had to be repeated.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from kraft.client.buffer import PartitionBuffer
from kraft.client.posting import Poster, expired, never_sent
from kraft.client.records import Sent
from kraft.client.settings import ProducerSettings
from metadata.environment import Clock


class Lane:
    def __init__(
        self, name: str, *, poster: Poster, settings: ProducerSettings, clock: Clock, release: Callable[[int], None]
    ) -> None:
        self._buffer = PartitionBuffer(settings)
        self._poster = poster
        self._settings = settings
        self._clock = clock
        self._release = release
        self._grown = asyncio.Event()
        self._flushes: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._appended = 0
        self._settled = 0
        self._task = asyncio.get_running_loop().create_task(self._run(), name=name)

    def append(self, record: Sent) -> bool:
        """Whether the lane has to look at it soon, and so wants to run."""
        self._appended += 1
        if not self._buffer.append(record):
            return False
        self._grown.set()
        return True

    async def flush(self) -> None:
        """Until everything that was appended before has its result."""
        if self._settled < self._appended:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._flushes.append((self._appended, future))
            self._grown.set()
            await future

    async def close(self) -> None:
        """End at once; what has no result yet gets one."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def failure(self) -> BaseException | None:
        """Why the lane ended by itself, which it never should."""
        return self._task.exception() if self._task.done() and not self._task.cancelled() else None

    async def _run(self) -> None:
        try:
            while True:
                await self._wait_until_due()
                await self._deliver_one()
        finally:
            rest = self._buffer.take_all()
            self._poster.fail(rest, never_sent())
            self._settle(rest)

    async def _wait_until_due(self) -> None:
        while True:
            self._grown.clear()
            wait_ms = self._buffer.wait_ms(self._clock.monotonic_ms())
            if wait_ms is None:
                await self._grown.wait()
            elif wait_ms == 0 or self._flushes:
                return
            else:
                timer = self._clock.call_later(wait_ms, self._grown.set)
                try:
                    await self._grown.wait()
                finally:
                    timer.cancel()

    async def _deliver_one(self) -> None:
        late = self._buffer.take_expired(self._clock.monotonic_ms())
        self._poster.fail(late, expired(self._settings.delivery_timeout_ms))
        self._settle(late)
        if not self._buffer:
            return
        batch = self._buffer.take()
        try:
            await self._poster.deliver(batch)
        finally:
            self._settle(batch)

    def _settle(self, records: Sequence[Sent]) -> None:
        """They have their results: their room is free, and so is who waited for them."""
        self._settled += len(records)
        self._release(sum(record.size for record in records))
        while self._flushes and self._flushes[0][0] <= self._settled:
            _, future = self._flushes.popleft()
            if not future.done():
                future.set_result(None)
