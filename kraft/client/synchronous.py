"""The client of a program without an event loop: the same names, each call waits. One thread does the work of all.

Safe to leave in any way: by the end of the `with`, by an exception, by Ctrl-C, or by the end of the program, which
closes what was left open, within EXIT_LIMIT_MS.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, fields
from types import TracebackType
from typing import Any, Final, TypeVar

from kraft.client.admin import AsyncAdmin
from kraft.client.asynchronous import AsyncClient
from kraft.client.blocking_producer import Producer
from kraft.client.errors import KraftError
from kraft.client.group_consumer import AsyncConsumer
from kraft.client.loop_thread import Blocking, Entered, Facade, LoopThread, Making
from kraft.client.partition_consumer import AsyncReader
from kraft.client.positions import TopicPartition
from kraft.client.queue import AsyncQueue, AsyncQueueRecord, QueueCounts
from kraft.client.records import Record
from kraft.client.settings import ConsumerSettings
from kraft.client.transactions import AsyncTransaction, AsyncTransactionalProducer

EXIT_LIMIT_MS: Final = 5_000
"""How long the end of a program waits for what it forgot to close."""


IteratedT = TypeVar("IteratedT", AsyncReader, AsyncConsumer)


class Admin(Facade[AsyncAdmin]):
    """The blocking `AsyncAdmin`."""

    describe_cluster = Blocking(AsyncAdmin.describe_cluster)
    create_topic = Blocking(AsyncAdmin.create_topic)
    delete_topic = Blocking(AsyncAdmin.delete_topic)
    list_topics = Blocking(AsyncAdmin.list_topics)
    describe_topic = Blocking(AsyncAdmin.describe_topic)
    create_partitions = Blocking(AsyncAdmin.create_partitions)
    describe_configs = Blocking(AsyncAdmin.describe_configs)
    alter_configs = Blocking(AsyncAdmin.alter_configs)
    alter_cluster_configs = Blocking(AsyncAdmin.alter_cluster_configs)
    elect_leaders = Blocking(AsyncAdmin.elect_leaders)
    reassign = Blocking(AsyncAdmin.reassign)
    cancel_reassignment = Blocking(AsyncAdmin.cancel_reassignment)
    list_reassignments = Blocking(AsyncAdmin.list_reassignments)
    list_groups = Blocking(AsyncAdmin.list_groups)
    describe_group = Blocking(AsyncAdmin.describe_group)
    reset_offsets = Blocking(AsyncAdmin.reset_offsets)
    set_offsets = Blocking(AsyncAdmin.set_offsets)
    delete_group = Blocking(AsyncAdmin.delete_group)
    list_routes = Blocking(AsyncAdmin.list_routes)
    describe_route = Blocking(AsyncAdmin.describe_route)
    create_route = Blocking(AsyncAdmin.create_route)
    alter_route = Blocking(AsyncAdmin.alter_route)
    delete_route = Blocking(AsyncAdmin.delete_route)
    try_route = Blocking(AsyncAdmin.try_route)


class _Iterated(Entered[IteratedT]):
    """What a reader and a member of a group share: one thread at a time iterates."""

    @property
    def positions(self) -> Mapping[TopicPartition, int]:
        """Behind the last record that was iterated over, by partition."""
        return self._twin.positions

    def __iter__(self) -> Iterator[Record]:
        while True:
            record = self._twin.progress.next()
            if record is not None:
                yield record
            elif not self._poll():
                return

    def batches(self) -> Iterator[Sequence[Record]]:
        """The same in lists, as the answers brought them."""
        while True:
            rest = self._twin.progress.rest()
            if rest:
                yield rest
            elif not self._poll():
                return

    def _poll(self) -> bool:
        """Whether there is more."""
        records = self._thread.call(self._twin.poll())
        if records is not None:
            self._twin.progress.begin(records)
        return records is not None

    def close(self) -> None:
        self._thread.call(self._twin.close())


class Reader(_Iterated[AsyncReader]):
    """The blocking `AsyncReader`."""


class Consumer(_Iterated[AsyncConsumer]):
    """The blocking `AsyncConsumer`."""

    commit = Blocking(AsyncConsumer.commit)
    rewind = Blocking(AsyncConsumer.rewind)
    assignment = Blocking(AsyncConsumer.assignment)

    @property
    def settings(self) -> ConsumerSettings:
        return self._twin.settings

    @property
    def group(self) -> str:
        return self._twin.group

    @property
    def instance(self) -> str:
        """Its name in the group; empty before the iteration began."""
        return self._twin.instance

    @property
    def joins(self) -> int:
        """Number of times that it joined the group; after a second time records may be read again."""
        return self._twin.joins


@dataclass(frozen=True, kw_only=True)
class QueueRecord(Record, Entered[AsyncQueueRecord]):
    """The blocking `AsyncQueueRecord`: `with record:` accepts it at the end."""

    delivery_count: int
    _thread: LoopThread = field(repr=False, compare=False)
    _twin: AsyncQueueRecord = field(repr=False, compare=False)

    accept = Blocking(AsyncQueueRecord.accept)
    release = Blocking(AsyncQueueRecord.release)
    reject = Blocking(AsyncQueueRecord.reject)
    renew = Blocking(AsyncQueueRecord.renew)


class Queue(Entered[AsyncQueue]):
    """The blocking `AsyncQueue`. Any number of threads may iterate."""

    close = Blocking(AsyncQueue.close)

    @property
    def group(self) -> str:
        return self._twin.group

    @property
    def counts(self) -> QueueCounts:
        return self._twin.counts

    def __iter__(self) -> Iterator[QueueRecord]:
        while (record := self._thread.call(self._twin.next())) is not None:
            yield self._record(record)

    def poll(self, records_max: int | None = None) -> Sequence[QueueRecord]:
        """Does the same as `AsyncQueue.poll`."""
        return [self._record(each) for each in self._thread.call(self._twin.poll(records_max))]

    def run(self, handler: Callable[[QueueRecord], object], *, concurrency: int = 1) -> None:
        """Does the same as `AsyncQueue.run`, with `concurrency` threads. An interrupt (Ctrl-C) stops it: what is being
        handled is finished first."""
        loop = self._thread.loop
        with ThreadPoolExecutor(max(concurrency, 1), thread_name_prefix=f"kraft-queue-{self.group}") as pool:

            async def in_a_thread(record: AsyncQueueRecord) -> None:
                await loop.run_in_executor(pool, handler, self._record(record))

            running = self._thread.begin(self._twin.run(in_a_thread, concurrency=concurrency))
            try:
                running.result()
            except BaseException:
                self.stop()
                wait([running])
                raise

    def stop(self) -> None:
        """`run` takes no more records, and ends when those that it has are handled. Any thread may call it."""
        self._twin.stop()

    def _record(self, record: AsyncQueueRecord) -> QueueRecord:
        values = (getattr(record, each.name) for each in fields(Record))
        return QueueRecord(*values, delivery_count=record.delivery_count, _thread=self._thread, _twin=record)


class Transaction(Entered[AsyncTransaction]):
    """The blocking `AsyncTransaction`."""

    send = Blocking(AsyncTransaction.send)
    flush = Blocking(AsyncTransaction.flush)
    commit = Blocking(AsyncTransaction.commit)
    abort = Blocking(AsyncTransaction.abort)


class TransactionalProducer(Facade[AsyncTransactionalProducer]):
    """The blocking `AsyncTransactionalProducer`."""

    close = Blocking(AsyncTransactionalProducer.close)

    @property
    def transactional_id(self) -> str:
        return self._twin.transactional_id

    def transaction(self, consumer: Consumer | None = None) -> Transaction:
        """Does the same as `AsyncTransactionalProducer.transaction`. Raises ConfigError."""
        return Transaction(self._thread, self._twin.transaction(None if consumer is None else consumer._twin))


class Client(Facade[AsyncClient]):
    """A context manager, open from the beginning:

        with Client("127.0.0.1:8082") as kraft:
            kraft.admin.create_topic("flights", partitions=3)

    Options as `AsyncClient`. Any number of threads may use it.
    """

    def __init__(self, *bootstrap: str, **options: Any) -> None:
        twin = AsyncClient(*bootstrap, **options)
        super().__init__(LoopThread("kraft-client"), twin)
        try:
            self._thread.call(self._twin.__aenter__())
        except BaseException:
            self._thread.stop()
            raise
        self._producers: list[Producer] = []
        self._is_closed = False
        atexit.register(self._close_at_exit)

    nodes = Blocking(AsyncClient.nodes)
    send_to_route = Blocking(AsyncClient.send_to_route)

    @property
    def admin(self) -> Admin:
        return Admin(self._thread, self._twin.admin)

    def producer(self, **options: Any) -> Producer:
        """Options are those of `ProducerSettings`, as `linger_ms=20`. Raises ConfigError."""
        producer = Producer(self._thread, self._twin.producer(**options))
        self._producers.append(producer)
        return producer

    transactional_producer = Making(AsyncClient.transactional_producer, TransactionalProducer)
    consumer = Making(AsyncClient.consumer, Consumer)
    queue = Making(AsyncClient.queue, Queue)
    reader = Making(AsyncClient.reader, Reader)

    def close(self, *, timeout_ms: int | None = None) -> None:
        """Producers flush, for `timeout_ms` at most; consumers leave their groups; the thread ends. Twice: nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        atexit.unregister(self._close_at_exit)
        producers, self._producers = self._producers, []
        try:
            for producer in producers:
                producer.close(timeout_ms=timeout_ms)
            self._thread.call(self._twin.close(), timeout_s=None if timeout_ms is None else timeout_ms / 1_000)
        finally:
            self._thread.stop()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(timeout_ms=None if error is None else EXIT_LIMIT_MS)

    def _close_at_exit(self) -> None:
        try:
            self.close(timeout_ms=EXIT_LIMIT_MS)
        except (KraftError, TimeoutError):
            return  # the program ends, and its threads with it
