"""The producer of a program without an event loop: `send` puts a record into an inbox, the loop's thread takes it on.

Many records cross to the other thread at once, so that a record costs no switch of threads. The inbox holds
INBOX_RECORDS_MAX; when it is full, because buffer.memory is, `send` waits for max.block.ms.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Unpack

from kraft.client.errors import BufferExhausted, ClientClosed, KraftError
from kraft.client.loop_thread import LoopThread
from kraft.client.producer import AsyncProducer
from kraft.client.records import Data, Delivery, Outgoing, RecordOptions, Sent, outgoing
from kraft.client.sender import Counts

INBOX_RECORDS_MAX: Final = 2_000


class BlockingSent:
    """The one result of a record. Set on the client's thread, once; read on any."""

    __slots__ = ("_callbacks", "_error", "_producer", "_sent", "given", "topic")

    def __init__(self, producer: Producer, topic: str, given: Outgoing) -> None:
        self._producer = producer
        self.topic = topic
        self.given: Outgoing | None = given
        """None once the client's thread has it."""
        self._sent: Sent | None = None
        self._error: KraftError | None = None
        self._callbacks: deque[Callable[[BlockingSent], object]] = deque()

    @property
    def is_done(self) -> bool:
        return self._error is not None or (self._sent is not None and self._sent.is_done)

    def result(self, *, timeout_ms: int | None = None) -> Delivery:
        """Wait for it. Raises RecordRefused, RecordUnknown, what `AsyncProducer.send` raises, and TimeoutError."""
        if not self.is_done:
            self._producer._wait(self, timeout_ms)
        if self._error is not None:
            raise self._error
        assert self._sent is not None, "done without a result"
        return self._sent.result()

    def add_done_callback(self, callback: Callable[[BlockingSent], object]) -> None:
        """Called with this on the client's thread; it must not block."""
        self._callbacks.append(callback)
        if self.is_done:
            self._finish()

    def taken(self, sent: Sent) -> None:
        self._sent = sent
        sent.add_done_callback(lambda _: self._finish())

    def refused(self, error: KraftError) -> None:
        assert not self.is_done, "a second result"
        self._error = error
        self._finish()

    def _finish(self) -> None:
        while self._callbacks:
            self._callbacks.popleft()(self)


class Producer:
    """From `Client.producer`. Any number of threads may send. Leaving the `with` flushes; after an error, at once."""

    def __init__(self, thread: LoopThread, twin: AsyncProducer) -> None:
        self._thread = thread
        self._twin = twin
        self._lock = threading.Condition()
        self._inbox: list[BlockingSent] = []
        self._is_closed = False
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._pump: asyncio.Task[None] | None = None

    @property
    def counts(self) -> Counts:
        return self._twin.counts

    def send(self, topic: str, value: Data, **options: Unpack[RecordOptions]) -> BlockingSent:
        """Take a record; `.result()` waits for its Delivery. Options as `AsyncProducer.send`. Raises BufferExhausted
        and ClientClosed only.

        What else `AsyncProducer.send` raises, as for an unknown topic, is the record's result.
        """
        sent = BlockingSent(self, topic, outgoing(value, **options))
        with self._lock:
            if len(self._inbox) >= INBOX_RECORDS_MAX:
                self._wait_for_room()
            if self._is_closed:
                raise ClientClosed("the producer is closed; make another")
            self._inbox.append(sent)
            is_first = len(self._inbox) == 1
        if is_first:
            self._thread.loop.call_soon_threadsafe(self._start_pump)
        return sent

    def send_and_wait(self, topic: str, value: Data, **options: Unpack[RecordOptions]) -> Delivery:
        """`send` and its result."""
        return self.send(topic, value, **options).result()

    def flush(self) -> Counts:
        """Wait until every record that was taken before has its result."""
        return self._thread.call(self._flush())

    def close(self, *, timeout_ms: int | None = None) -> Counts:
        """Does the same as `AsyncProducer.close`."""
        with self._lock:
            self._is_closed = True
            self._lock.notify_all()
        try:
            return self._thread.call(self._close(timeout_ms))
        except ClientClosed:
            return self.counts

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(timeout_ms=None if error is None else 0)

    def _wait_for_room(self) -> None:
        """With the lock."""
        limit_ms = self._twin.settings.max_block_ms

        def has_room() -> bool:
            return self._is_closed or len(self._inbox) < INBOX_RECORDS_MAX

        if not self._lock.wait_for(has_room, timeout=limit_ms / 1_000):
            raise BufferExhausted(f"no room for the record within max.block.ms={limit_ms}")

    # --- on the client's thread -------------------------------------------------------------------------------------

    def _start_pump(self) -> None:
        if self._pump is None or self._pump.done():
            self._is_idle.clear()
            self._pump = self._thread.loop.create_task(self._run_pump())

    async def _run_pump(self) -> None:
        try:
            while taken := self._take():
                for position, sent in enumerate(taken):
                    try:
                        await self._hand_on(sent)
                    except asyncio.CancelledError:
                        for left in (*taken[position:], *self._take()):
                            left.refused(ClientClosed("the producer was closed before the record was taken"))
                        raise
        finally:
            self._is_idle.set()

    def _take(self) -> list[BlockingSent]:
        with self._lock:
            taken, self._inbox = self._inbox, []
            self._lock.notify_all()
        return taken

    async def _hand_on(self, sent: BlockingSent) -> None:
        given, sent.given = sent.given, None
        assert given is not None, "handed on twice"
        try:
            taken = await self._twin.take(sent.topic, given)
        except KraftError as error:
            sent.refused(error)
        else:
            sent.taken(taken)

    async def _flush(self) -> Counts:
        await self._is_idle.wait()
        return await self._twin.flush()

    async def _close(self, timeout_ms: int | None) -> Counts:
        if timeout_ms is None:
            await self._is_idle.wait()
        elif self._pump is not None:
            await asyncio.wait([self._pump], timeout=timeout_ms / 1_000)
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        return await self._twin.close(timeout_ms=timeout_ms)

    def _wait(self, sent: BlockingSent, timeout_ms: int | None) -> None:
        async def wait() -> None:
            done = asyncio.Event()
            sent.add_done_callback(lambda _: done.set())
            await done.wait()

        self._thread.call(wait(), timeout_s=None if timeout_ms is None else timeout_ms / 1_000)
