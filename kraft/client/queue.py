"""A queue: records of a share group, each of which one worker has at a time, and settles by itself (KIP-932).

What is received is locked for its time. The lock is renewed while the record waits here for its turn, and inside the
`async with` of the record, for max.poll.interval.ms at most: a worker that hangs does not keep it for ever.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import b64decode
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Literal, TypeAlias

from kraft.client.acknowledgements import Ack, Acknowledgements, Waiting, Word, documents
from kraft.client.clock import Timer
from kraft.client.connection import Connection
from kraft.client.errors import ClientClosed, ConfigError, KraftError
from kraft.client.records import Record
from kraft.client.response import checked, segment
from kraft.client.settings import QueueSettings

OnError: TypeAlias = Literal["release", "reject"]
REASON_CHARACTERS_MAX: Final = 1_000
"""The longest reason that a node takes; it goes with the record to the dead letters."""
RECORDS_MAX: Final = 500
"""Records that one receive may ask for, however many handlers run; and handled ones whose acceptance has no answer."""
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class QueueCounts:
    """Records since the queue was opened."""

    received: int = 0
    accepted: int = 0
    released: int = 0
    rejected: int = 0
    renewed: int = 0
    unsettled: int = 0
    """Records that this program had, and whose locks end by their time: others get them."""


@dataclass(slots=True, eq=False, kw_only=True)
class Lock:
    """What holds one record for this program."""

    ack_id: str
    lock_ms: int
    until_ms: float
    """The end of the lock, on this program's clock."""
    renewed_until_ms: float
    """It is not renewed after this."""
    settled: Word | None = None
    timer: Timer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AsyncQueueRecord(Record):
    """A record that nobody else gets while its lock lasts. `async with record:` accepts it at the end."""

    delivery_count: int
    """How often it was handed out, with this time."""
    lock: Lock = field(repr=False, compare=False)
    queue: AsyncQueue = field(repr=False, compare=False)

    async def accept(self) -> None:
        """The record is done. Raises ServerError: 121 when the lock had ended, and others may have it."""
        await self.queue.settle(self, "accept")

    async def release(self, reason: str = "", *, delay_ms: int | None = None) -> None:
        """Hand it out again, to any worker, after `delay_ms` (None: share.retry.backoff.ms of the group decides). After
        share.delivery.count.limit deliveries it is a dead letter."""
        await self.queue.settle(self, "release", reason, delay_ms)

    async def reject(self, reason: str = "") -> None:
        """Do not hand it out again. With a dead letter topic it goes there, with the reason."""
        await self.queue.settle(self, "reject", reason)

    async def renew(self, lock_ms: int | None = None) -> None:
        """The lock begins again, for as long as before or for `lock_ms`."""
        await self.queue.renew(self, lock_ms)

    async def __aenter__(self) -> AsyncQueueRecord:
        self.queue.begin(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            await self.queue.give_up(self, error)
        elif self.lock.settled is None:
            await self.accept()


Handler: TypeAlias = Callable[[AsyncQueueRecord], Awaitable[object]]


class AsyncQueue:
    """From `AsyncClient.queue`."""

    def __init__(
        self,
        topics: Sequence[str],
        *,
        group: str,
        on_error: OnError,
        follows: bool,
        connection: Connection,
        settings: QueueSettings,
    ) -> None:
        if not topics:
            raise ConfigError("name the topics of the queue, the first one has priority")
        if on_error not in ("release", "reject"):
            raise ConfigError(f"on_error={on_error!r} is not valid: it is release or reject")
        self.group = group
        self.settings = settings
        self.counts = QueueCounts()
        self._topics = topics
        self._on_error: OnError = on_error
        self._follows = follows
        self._connection = connection
        self._acknowledgements = Acknowledgements(group, connection)
        self._buffer: deque[AsyncQueueRecord] = deque()
        self._receiving: asyncio.Task[None] | None = None
        self._renewing: set[asyncio.Task[None]] = set()
        self._settling: set[asyncio.Task[None]] = set()
        self._has_waited = False
        """Whether the last receive would have waited for records."""
        self._is_stopping = False
        self._is_closed = False

    # --- iterate ----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> AsyncQueue:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[AsyncQueueRecord]:
        return self

    async def __anext__(self) -> AsyncQueueRecord:
        record = await self.next()
        if record is None:
            raise StopAsyncIteration
        return record

    async def next(self) -> AsyncQueueRecord | None:
        """The next record; None once the queue is closed, and with follows=False when nothing waits."""
        while not self._is_closed:
            for record in await self._get(1, received_max=self.settings.max_poll_records):
                return record
            if not self._follows:
                break
        return None

    async def poll(self, records_max: int | None = None) -> Sequence[AsyncQueueRecord]:
        """What there is, else what comes within fetch.max.wait.ms; at most max.poll.records. A wait that is cancelled
        loses nothing: the next one goes on with it. Raises ServerError, NothingDone, OutcomeUnknown."""
        count = self.settings.max_poll_records if records_max is None else records_max
        return await self._get(count, received_max=count)

    async def _get(self, count: int, *, received_max: int) -> Sequence[AsyncQueueRecord]:
        while not self._is_closed:
            if not self._buffer:
                await self._received(received_max)
                if self._is_closed or not self._buffer:
                    break
            if taken := self._taken(count):
                return taken
        return ()

    def _taken(self, count: int) -> Sequence[AsyncQueueRecord]:
        """From the buffer, without those whose lock has ended meanwhile."""
        taken: list[AsyncQueueRecord] = []
        while self._buffer and len(taken) < count:
            record = self._buffer.popleft()
            self._let(record)
            if record.lock.until_ms > self._now_ms():
                taken.append(record)
            else:
                self.counts.unsettled += 1
        return taken

    async def _received(self, count: int) -> None:
        """The receive that is under way, else a new one."""
        if self._receiving is None or self._receiving.done():
            self._receiving = asyncio.get_running_loop().create_task(self._receive(count))
            self._receiving.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(self._receiving)

    async def _receive(self, count: int) -> None:
        asked: dict[str, Any] = {
            "topics": list(self._topics),
            "max_records": min(count, RECORDS_MAX),
            "max_wait_ms": self.settings.fetch_max_wait_ms,
        }
        if self.settings.share_record_lock_duration_ms is not None:
            asked["lock_ms"] = self.settings.share_record_lock_duration_ms
        try:
            path = await self._connection.v3(f"/share-groups/{segment(self.group)}/records:receive")
            document = await self._received_with(self._acknowledgements.take(), path, asked)
        finally:
            self._receiving = None
        records = [self._record(row, document["lock_ms"]) for row in document["records"]]
        self.counts.received += len(records)
        self._buffer.extend(records)
        for record in records:
            self.keep(record)

    async def _received_with(self, along: Sequence[Waiting], path: str, asked: dict[str, Any]) -> Mapping[str, Any]:
        """One request for what was acknowledged and what comes next; it does not wait for records then."""
        if along:
            asked |= {"acknowledge": documents(along), "max_wait_ms": 0}
        try:
            document: Mapping[str, Any] = checked(
                await self._connection.ask(self._connection.request("POST", path, asked))
            ).json()
        except BaseException:
            self._acknowledgements.alone(along)
            raise
        self._has_waited = not along
        if along:
            self._acknowledgements.answered(along, document["results"])
        return document

    def _record(self, row: Mapping[str, Any], lock_ms: int) -> AsyncQueueRecord:
        now_ms = self._now_ms()
        return AsyncQueueRecord(
            row["topic_name"],
            row["partition_id"],
            row["offset"],
            row["timestamp"],
            _bytes(row["key"]),
            _bytes(row["value"]),
            tuple((each["name"], _decoded(each["value"])) for each in row["headers"]),
            delivery_count=row["delivery_count"],
            lock=Lock(
                ack_id=row["ack_id"],
                lock_ms=lock_ms,
                until_ms=now_ms + lock_ms,
                renewed_until_ms=now_ms + self.settings.max_poll_interval_ms,
            ),
            queue=self,
        )

    # --- work -------------------------------------------------------------------------------------------------------

    async def run(self, handler: Handler, *, concurrency: int = 1) -> None:
        """Hands each record to `handler`, at most `concurrency` at a time, and accepts it when the handler is done. One
        whose handler raises is released or rejected, as `on_error` is set, and the others go on. Ends by `stop()`, and
        with follows=False when nothing waits; what is being handled is finished then. Raises what `poll` raises.
        """
        if concurrency < 1:
            raise ConfigError(f"concurrency={concurrency} is not valid: it is at least 1")
        if self._is_closed:
            raise ClientClosed("the queue is closed; make another")
        self._is_stopping = False
        running: set[asyncio.Task[None]] = set()
        try:
            await self._run(handler, concurrency, running)
            await _all_of(running)
        except asyncio.CancelledError:
            for task in running:
                task.cancel()
            raise
        finally:
            await _all_of(running)
            await self._give_back()
            await _all_of(self._settling)

    async def _run(self, handler: Handler, concurrency: int, running: set[asyncio.Task[None]]) -> None:
        while not self._is_stopping:
            working = [task for task in running if not task.done()]
            if len(working) >= concurrency:
                await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
                continue
            if len(self._settling) >= RECORDS_MAX:
                await asyncio.wait(self._settling, return_when=asyncio.FIRST_COMPLETED)
                continue
            free = concurrency - len(working)
            records = await self._get(free, received_max=free)
            if self._is_stopping:
                self._buffer.extend(records)
                return
            for record in records:
                task = asyncio.get_running_loop().create_task(self._handle(handler, record))
                running.add(task)
                task.add_done_callback(running.discard)
            if not records and not self._follows and self._has_waited:
                return

    def stop(self) -> None:
        """`run` takes no more records, and ends when those that it has are handled."""
        self._is_stopping = True

    async def _handle(self, handler: Handler, record: AsyncQueueRecord) -> None:
        self.begin(record)
        try:
            await handler(record)
        except Exception as error:  # noqa: BLE001 - the handler's own: it is logged, and the record given up
            _log.exception("queue %s: the handler of %s failed: %s", self.group, _place(record), self._on_error)
            await self.give_up(record, error)
        except BaseException as error:
            await self.give_up(record, error)
            raise
        else:
            if record.lock.settled is None:
                self._settling.add(task := self._begin_accepting(record))
                task.add_done_callback(self._settling.discard)

    def _begin_accepting(self, record: AsyncQueueRecord) -> asyncio.Task[None]:
        """The handler is done: the next record takes its place while the acceptance goes with the next receive."""
        record.lock.settled = "accept"
        self._let(record)
        accepting = self._settle_or_log(record, "accept", "", may_wait=True)
        return asyncio.get_running_loop().create_task(accepting)

    async def close(self) -> None:
        """Releases what was received and not handed out; records that were keep their locks until they end."""
        if self._is_closed:
            return
        self._is_closed = self._is_stopping = True
        if self._receiving is not None:
            await asyncio.wait([self._receiving])
        await self._give_back()
        for task in self._renewing:
            task.cancel()
        await self._acknowledgements.drain()
        await _all_of(self._settling)

    async def _give_back(self) -> None:
        records, self._buffer = self._buffer, deque()
        await asyncio.gather(*(self._settle_or_log(each, "release", "the worker has stopped", 0) for each in records))

    # --- settle -----------------------------------------------------------------------------------------------------

    async def settle(
        self,
        record: AsyncQueueRecord,
        word: Word,
        reason: str = "",
        delay_ms: int | None = None,
        *,
        may_wait: bool = False,
    ) -> None:
        """What became of a record; the same may be repeated. Raises ServerError, NothingDone, OutcomeUnknown."""
        lock = record.lock
        lock.settled = word
        self._let(record)
        try:
            ack = Ack(ack_id=lock.ack_id, type=word, reason=reason, delay_ms=delay_ms)
            await self._acknowledgements.send(ack, may_wait=may_wait)
        except KraftError:
            self.counts.unsettled += 1
            raise
        match word:
            case "accept":
                self.counts.accepted += 1
            case "release":
                self.counts.released += 1
            case "reject":
                self.counts.rejected += 1

    async def give_up(self, record: AsyncQueueRecord, error: BaseException) -> None:
        """After an exception: as `on_error` is set. A record is not to blame for a worker that is cancelled."""
        if record.lock.settled is None:
            has_failed = isinstance(error, Exception)
            word: Word = self._on_error if has_failed else "release"
            reason = f"{type(error).__name__}: {error}"[:REASON_CHARACTERS_MAX]
            await self._settle_or_log(record, word, reason, None if has_failed else 0)

    async def _settle_or_log(
        self,
        record: AsyncQueueRecord,
        word: Word,
        reason: str,
        delay_ms: int | None = None,
        *,
        may_wait: bool = False,
    ) -> None:
        try:
            await self.settle(record, word, reason, delay_ms, may_wait=may_wait)
        except KraftError as error:
            message = "queue %s: %s of %s had no effect, its lock ends by its time: %s"
            _log.warning(message, self.group, word, _place(record), error.message)

    async def renew(self, record: AsyncQueueRecord, lock_ms: int | None = None) -> None:
        """The lock begins again. Raises ServerError: 121 when it has ended."""
        lock = record.lock
        row = await self._acknowledgements.send(Ack(ack_id=lock.ack_id, type="renew", lock_ms=lock_ms))
        lock.ack_id = row["renewed_ack_id"]
        lock.lock_ms = lock_ms or lock.lock_ms
        lock.until_ms = self._now_ms() + lock.lock_ms
        self.counts.renewed += 1

    def begin(self, record: AsyncQueueRecord) -> None:
        """The work on it begins; its lock is renewed for as long as it may take."""
        record.lock.renewed_until_ms = self._now_ms() + self.settings.max_poll_interval_ms
        self.keep(record)

    def keep(self, record: AsyncQueueRecord) -> None:
        """Renew the lock from now on, each time when half of it is over."""
        lock = record.lock
        due_ms = lock.until_ms - lock.lock_ms / 2
        if lock.settled is None and lock.timer is None and due_ms < lock.renewed_until_ms:
            wait_ms = max(0, due_ms - self._now_ms())
            lock.timer = self._connection.world.clock.call_later(wait_ms, self._renew_later, record)

    def _let(self, record: AsyncQueueRecord) -> None:
        if record.lock.timer is not None:
            record.lock.timer.cancel()
            record.lock.timer = None

    def _renew_later(self, record: AsyncQueueRecord) -> None:
        task = asyncio.get_running_loop().create_task(self._renew(record))
        self._renewing.add(task)
        task.add_done_callback(self._renewing.discard)

    async def _renew(self, record: AsyncQueueRecord) -> None:
        timer = record.lock.timer
        try:
            await self.renew(record)
        except KraftError as error:
            if record.lock.settled is None:
                _log.warning("queue %s: the lock of %s was not renewed: %s", self.group, _place(record), error.message)
            return
        if record.lock.timer is timer:
            record.lock.timer = None
            self.keep(record)

    def _now_ms(self) -> float:
        return self._connection.world.clock.monotonic_ms()


def _place(record: Record) -> str:
    return f"{record.topic}-{record.partition}@{record.offset}"


async def _all_of(tasks: Iterable[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


def _bytes(data: Mapping[str, Any] | None) -> bytes | None:
    return None if data is None else b64decode(data["data"])


def _decoded(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)
