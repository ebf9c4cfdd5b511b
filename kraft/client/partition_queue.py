"""One queue for each partition that is written to: its waiting records, and the task that delivers them in order.

Invariant: a queue has at most one batch on its way, so records of a partition are in the log in the order of send(),
whatever had to be repeated.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from kraft.client.clock import Clock
from kraft.client.records import Sent
from kraft.client.sender import Sender, expired, never_sent
from kraft.client.settings import ProducerSettings


class PartitionQueue:
    def __init__(
        self, name: str, *, sender: Sender, settings: ProducerSettings, clock: Clock, release: Callable[[int], None]
    ) -> None:
        self._buffer = PartitionBuffer(settings)
        self._sender = sender
        self._settings = settings
        self._clock = clock
        self._release = release
        self._grown = asyncio.Event()
        self._flushes: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._appended = 0
        self._settled = 0
        self._task = asyncio.get_running_loop().create_task(self._run(), name=name)

    def append(self, record: Sent) -> bool:
        """Whether the queue has to look at it soon, and so wants to run."""
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
        """Why the queue ended by itself, which it never should."""
        return self._task.exception() if self._task.done() and not self._task.cancelled() else None

    async def _run(self) -> None:
        try:
            while True:
                await self._wait_until_due()
                await self._deliver_one()
        finally:
            rest = self._buffer.take_all()
            self._sender.fail(rest, never_sent())
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
        self._sender.fail(late, expired(self._settings.delivery_timeout_ms))
        self._settle(late)
        if not self._buffer:
            return
        batch = self._buffer.take()
        try:
            await self._sender.deliver(batch)
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


HEADER_BYTES = 61


class PartitionBuffer:
    def __init__(self, settings: ProducerSettings) -> None:
        self._settings = settings
        self._waiting: deque[Sent] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def append(self, record: Sent) -> bool:
        """Whether somebody has to look: it is the first that waits, or the batch is full now."""
        before = self.bytes
        self._waiting.append(record)
        self.bytes += record.size
        return before == 0 or (before < self._settings.batch_size <= self.bytes)

    def wait_ms(self, now_ms: float) -> float | None:
        """How long until a batch is due: 0 for now, None when nothing waits."""
        if not self._waiting:
            return None
        if self.bytes >= self._settings.batch_size:
            return 0
        return max(0.0, self._waiting[0].created_ms + self._settings.linger_ms - now_ms)

    def take_expired(self, now_ms: float) -> list[Sent]:
        """Those that waited for delivery.timeout.ms and never left."""
        expired: list[Sent] = []
        while self._waiting and self._waiting[0].created_ms + self._settings.delivery_timeout_ms <= now_ms:
            expired.append(self._waiting.popleft())
        self.bytes -= sum(record.size for record in expired)
        return expired

    def take(self) -> list[Sent]:
        """The next batch, of at least one record."""
        assert self._waiting, "nothing waits"
        limit = self._settings.max_request_size - HEADER_BYTES if self._settings.batch_size else 0
        count = size = 0
        for record in self._waiting:
            if count and size + record.size > limit:
                break
            count += 1
            size += record.size
        batch = list(islice(self._waiting, count))
        if count == len(self._waiting):
            self._waiting.clear()
        else:
            for _ in batch:
                self._waiting.popleft()
        self.bytes -= size
        return batch

    def take_all(self) -> list[Sent]:
        everything = list(self._waiting)
        self._waiting.clear()
        self.bytes = 0
        return everything
