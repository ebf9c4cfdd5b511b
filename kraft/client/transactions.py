"""Transactions: records of several partitions and the offsets of a consumer, committed together or not at all.

A transaction is written by its producer's next batches, each with the sequence that its partition has come to; so each
request may be sent again, to any node, and writes nothing twice. Records wait here until a partition has
max.request.size of them, all together have buffer.memory, or the transaction ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Unpack

import msgspec

from kraft.client.connection import Connection
from kraft.client.errors import ClientClosed, ConfigError, KraftError, OutcomeUnknown, ServerError
from kraft.client.group_consumer import AsyncConsumer
from kraft.client.outcome import OK
from kraft.client.partitioner import Partitioner
from kraft.client.positions import TopicPartition
from kraft.client.records import Data, RecordOptions, outgoing
from kraft.client.response import Answer, Request, checked, read_produce_response, segment
from kraft.client.retries import Failure, RetryAfter
from kraft.client.sender import BatchKeys
from kraft.client.settings import TransactionSettings
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.errors import MessageTooLarge
from kraft.protocol.media_types import RECORD_BATCH, V2_JSON

FENCED: Final = 40905
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Producer:
    """The producer id and epoch of one transaction."""

    producer_id: int
    epoch: int


class AsyncTransactionalProducer:
    """From `AsyncClient.transactional_producer`. One transaction at a time:

        async with producer.transaction() as transaction:
            await transaction.send("flights", "on time", key="LGA")

    The first one takes the transactional id over: an older process with the same id is fenced, and what it left open is
    aborted. Leaving it commits; leaving it by an exception aborts.
    """

    def __init__(self, transactional_id: str, *, connection: Connection, settings: TransactionSettings) -> None:
        if not transactional_id:
            raise ConfigError("transactional.id is empty; it names this program's transactions, across its restarts")
        self.transactional_id = transactional_id
        self.settings = settings
        self.connection = connection
        self.partitioner = Partitioner(rng=connection.world.rng, batch_size=settings.max_request_size)
        self.path = f"/transactions/{segment(transactional_id)}"
        self._keys = BatchKeys(connection.world.rng.randbytes(16).hex())
        self._beginning: str | None = None
        """Idempotency-Key of a beginning that is not known to be answered: another try is the same request."""
        self._next: _Producer | None = None
        self._open: AsyncTransaction | None = None
        self._fenced: ServerError | None = None
        self._is_closed = False

    def transaction(self, consumer: AsyncConsumer | None = None) -> AsyncTransaction:
        """`consumer`: with the transaction the offsets of what was iterated over are committed, and when it is aborted
        that comes again. Raises ConfigError for a consumer that commits by itself."""
        if consumer is not None and consumer.settings.enable_auto_commit:
            raise ConfigError("a consumer whose offsets a transaction commits needs enable.auto.commit=False")
        return AsyncTransaction(self, consumer)

    async def close(self) -> None:
        """Abort what is open; where no node answers, its timeout does."""
        self._is_closed = True
        if self._open is not None:
            await self._open.abort_or_warn()

    async def begin(self, transaction: AsyncTransaction) -> _Producer:
        """Raises ServerError 40905 once fenced, ClientClosed."""
        if self._is_closed:
            raise ClientClosed("the producer is closed; make another")
        if self._fenced is not None:
            raise self._fenced
        if self._open is not None:
            raise KraftError(f"a transaction of {self.transactional_id!r} is open; end it first")
        if self._next is None:
            document = {"transaction.timeout.ms": self.settings.transaction_timeout_ms}
            key = self._beginning = self._beginning or self._keys.next()
            self._next = _producer(await self.post("", msgspec.json.encode(document), named=None, key=key))
            self._beginning = None
        self._open = transaction
        return self._next

    def ended(self, following: _Producer | None) -> None:
        """`following`: of the next transaction; None where that is not known."""
        self._open = None
        self._next = following

    async def post(
        self,
        path: str,
        body: bytes,
        *,
        named: _Producer | None,
        media: str = V2_JSON,
        query: str = "",
        key: str | None = None,
    ) -> Answer:
        """A request that may be repeated. Raises ServerError, NothingDone, OutcomeUnknown."""
        whose = "" if named is None else f"?producer_id={named.producer_id}&producer_epoch={named.epoch}{query}"
        request = Request(
            method="POST",
            path=f"{self.path}{path}{whose}",
            body=body,
            headers={"Content-Type": media} | ({} if key is None else {"Idempotency-Key": key}),
            timeout_ms=self.settings.request_timeout_ms,
        )
        try:
            return checked(await self.connection.ask(request))
        except ServerError as error:
            if error.error_code == FENCED:
                self._fenced = error
            raise


class AsyncTransaction:
    """From `AsyncTransactionalProducer.transaction`."""

    def __init__(self, producer: AsyncTransactionalProducer, consumer: AsyncConsumer | None) -> None:
        self._by = producer
        self._consumer = consumer
        self._named: _Producer | None = None
        self._waiting: dict[TopicPartition, list[NewRecord]] = {}
        self._sizes: dict[TopicPartition, int] = {}
        self._sequences: dict[TopicPartition, int] = {}

    async def __aenter__(self) -> AsyncTransaction:
        self._named = await self._by.begin(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self.commit()
            return
        await self.abort_or_warn()

    async def send(self, topic: str, value: Data, **options: Unpack[RecordOptions]) -> None:
        """Take a record; options as `AsyncProducer.send`. Raises ServerError when a node refused it or one before,
        KraftError for an unknown partition; then the transaction can only be aborted."""
        self._check_open()
        given = outgoing(value, **options)
        known = await self._by.connection.topic(topic)
        number = self._by.partitioner.choose(known, given.key, size=given.size, named=given.partition)
        time_ms = self._by.connection.world.clock.wall_ms() if given.timestamp_ms is None else given.timestamp_ms
        record = NewRecord(given.key, given.value, given.headers, time_ms)
        await self._take(TopicPartition(topic, number), record, given.size)

    async def flush(self) -> None:
        """Write what waits. Raises as `send`."""
        self._check_open()
        written = await asyncio.gather(*(self._write(where) for where in list(self._waiting)), return_exceptions=True)
        for failure in written:
            if failure is not None:
                raise failure

    async def commit(self) -> None:
        """All of it, or nothing. Raises ServerError when it was aborted meanwhile (its time was over) or fenced, and
        OutcomeUnknown when no node answers: what is committed shows then."""
        named = self._check_open()
        positions = {} if self._consumer is None else self._consumer.positions
        try:
            await self.flush()
            if positions:
                await self._add_offsets(named, positions)
            following = _producer(await self._by.post("/commit", b"", named=named))
        except KraftError as failure:
            await self._give_up(failure)
            raise
        self._end(following)
        if self._consumer is not None:
            self._consumer.progress.committed(positions)

    async def abort(self) -> None:
        """Aborts it: none of its records is ever committed. No effect once it has ended. Raises KraftError when no node
        took the request; the transaction then ends by its timeout."""
        if self._named is None:
            return
        named, following = self._named, None
        try:
            following = _producer(await self._by.post("/abort", b"", named=named))
        finally:
            self._end(following)
            if self._consumer is not None:
                await self._consumer.rewind()

    async def _give_up(self, failure: KraftError) -> None:
        """A commit that did not succeed. Where nobody knows whether it did, an abort would be as wrong as another try:
        the next transaction takes the id over, by which this one is ended as it stands."""
        if isinstance(failure, OutcomeUnknown):
            self._end(None)
            return
        await self.abort_or_warn()

    async def abort_or_warn(self) -> None:
        """For a caller that raises another error, or has no caller to raise it to."""
        try:
            await self.abort()
        except KraftError as failure:
            _log.warning("the transaction of %s ends by its timeout: %s", self._by.transactional_id, failure.message)

    def _end(self, following: _Producer | None) -> None:
        self._named = None
        self._waiting.clear()
        self._by.ended(following)

    # --- records and offsets ----------------------------------------------------------------------------------------

    async def _take(self, where: TopicPartition, record: NewRecord, size: int) -> None:
        settings = self._by.settings
        if size > settings.max_request_size:
            raise KraftError(
                f"a record of {size} bytes; max.request.size={settings.max_request_size}", code=MessageTooLarge.code
            )
        if self._sizes.get(where, 0) + size > settings.max_request_size:
            await self._write(where)
        self._waiting.setdefault(where, []).append(record)
        self._sizes[where] = self._sizes.get(where, 0) + size
        if sum(self._sizes.values()) > settings.buffer_memory:
            await self.flush()

    async def _write(self, where: TopicPartition) -> None:
        """One batch. It is asked for again, with the same sequence, until it is known to be written."""
        records = self._waiting.pop(where, [])
        self._sizes.pop(where, None)
        if not records:
            return
        named = self._check_open()
        settings, clock = self._by.settings, self._by.connection.world.clock
        body = build_batch(records, compression=settings.compression_type)
        sequence = self._sequences.get(where, 0)
        path = f"/topics/{segment(where.topic)}/partitions/{where.partition}"
        query = f"&sequence={where.partition}:{sequence}"
        deadline_ms, attempts = clock.monotonic_ms() + settings.delivery_timeout_ms, 0
        while True:
            answer = await self._by.post(path, body, named=named, media=RECORD_BATCH, query=query)
            result = read_produce_response(answer, acks="all")
            if result.outcome == OK:
                self._sequences[where] = sequence + len(records)
                return
            attempts += 1
            failure = Failure(reason=result.reason, may_retry=result.may_retry, retry_after_ms=result.retry_after_ms)
            match self._by.connection.next_step(failure, attempts=attempts, deadline_ms=deadline_ms):
                case RetryAfter(wait_ms=wait_ms):
                    await clock.sleep(wait_ms)
                case _:
                    raise ServerError(
                        result.reason, status=200, error_code=200, code=result.code, retriable=result.may_retry
                    )

    async def _add_offsets(self, named: _Producer, positions: Mapping[TopicPartition, int]) -> None:
        assert self._consumer is not None, "positions are a consumer's"
        document = {
            "group": self._consumer.group,
            "instance": self._consumer.instance,
            "partitions": [
                {"topic": where.topic, "partition": where.partition, "offset": offset}
                for where, offset in positions.items()
            ],
        }
        await self._by.post("/offsets", msgspec.json.encode(document), named=named)

    def _check_open(self) -> _Producer:
        if self._named is None:
            raise ClientClosed("the transaction has ended, or was not begun: use it in `async with`")
        return self._named


def _producer(answer: Answer) -> _Producer:
    document: Any = answer.json()
    return _Producer(int(document["producer_id"]), int(document["producer_epoch"]))
