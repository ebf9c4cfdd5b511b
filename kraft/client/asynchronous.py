"""The async client: one connection to the cluster, and what is made of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from kraft.client.admin import AsyncAdmin
from kraft.client.connection import Connection, World
from kraft.client.credentials import Credentials
from kraft.client.errors import ClientClosed
from kraft.client.group_consumer import AsyncConsumer
from kraft.client.metadata import Node
from kraft.client.nodes import parse_addresses
from kraft.client.partition_consumer import AsyncReader
from kraft.client.positions import Start
from kraft.client.producer import AsyncProducer
from kraft.client.queue import AsyncQueue, OnError
from kraft.client.records import Data, Delivery, Headers, outgoing
from kraft.client.routes import send_to_route
from kraft.client.settings import (
    ClientSettings,
    ConsumerSettings,
    QueueSettings,
    TransactionSettings,
    parse,
    parse_producer,
)
from kraft.client.transactions import AsyncTransactionalProducer
from kraft.client.transport import Transport
from kraft.system_clock import SystemClock


class AsyncClient:
    """An async context manager:

        async with AsyncClient("127.0.0.1:8082") as kraft:
            await kraft.admin.create_topic("flights", partitions=3)

    One address is enough; the others are asked for, and used when that node is gone. Options are those of
    `ClientSettings`, under Kafka's names. `user` and `password`, `token`, `certificate` and `ca` are the credentials;
    without them those of the environment count (`KRAFT_USER` and so on). `world` replaces clock, randomness and
    network.
    """

    def __init__(self, *bootstrap: str, world: World | None = None, **options: Any) -> None:
        self._bootstrap = parse_addresses(bootstrap)
        self._credentials = _credentials(options)
        self._settings = parse(ClientSettings, options)
        self._world = world
        self._transport: Transport | None = None
        self._connection: Connection | None = None
        self._opened: list[AsyncProducer | AsyncTransactionalProducer | AsyncConsumer | AsyncReader | AsyncQueue] = []

    async def __aenter__(self) -> AsyncClient:
        if self._world is None:
            loop = asyncio.get_running_loop()
            self._transport = Transport(credentials=self._credentials)
            self._world = World(clock=SystemClock(loop), rng=random.SystemRandom(), sender=self._transport)
        self._connection = Connection(self._bootstrap, settings=self._settings, world=self._world)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Producers that are still open flush, consumers leave their groups; then the connections go."""
        opened, self._opened = self._opened, []
        try:
            await asyncio.gather(*(each.close() for each in opened))
        finally:
            connection, self._connection = self._connection, None
            if connection is not None:
                await connection.close()
            if self._transport is not None:
                await self._transport.close()

    @property
    def admin(self) -> AsyncAdmin:
        return AsyncAdmin(self._open)

    def producer(self, **options: Any) -> AsyncProducer:
        """Options are those of `ProducerSettings`, as `linger_ms=20`. Raises ConfigError."""
        producer = AsyncProducer(self._open, parse_producer(options))
        self._opened.append(producer)
        return producer

    def transactional_producer(self, /, transactional_id: str, **options: Any) -> AsyncTransactionalProducer:
        """Options are those of `TransactionSettings`, as `transaction_timeout_ms=10_000`. Raises ConfigError."""
        producer = AsyncTransactionalProducer(
            transactional_id, connection=self._open, settings=parse(TransactionSettings, options)
        )
        self._opened.append(producer)
        return producer

    def consumer(self, /, *topics: str, group: str, topic_pattern: str | None = None, **options: Any) -> AsyncConsumer:
        """A member of a group. Options are those of `ConsumerSettings`. Raises ConfigError."""
        consumer = AsyncConsumer(
            topics,
            group=group,
            topic_pattern=topic_pattern,
            connection=self._open,
            settings=parse(ConsumerSettings, options),
        )
        self._opened.append(consumer)
        return consumer

    def queue(
        self, /, *topics: str, group: str, on_error: OnError = "release", follows: bool = True, **options: Any
    ) -> AsyncQueue:
        """A worker at a share group; of several topics the first one has priority. Options are those of
        `QueueSettings`.

        `on_error`: what becomes of a record whose work raises, release or reject. `follows=False`: to the end only.
        Raises ConfigError.
        """
        queue = AsyncQueue(
            topics,
            group=group,
            on_error=on_error,
            follows=follows,
            connection=self._open,
            settings=parse(QueueSettings, options),
        )
        self._opened.append(queue)
        return queue

    def reader(
        self,
        /,
        *topics: str,
        partitions: Sequence[int] | None = None,
        offset: Start | Mapping[int, Start] | None = None,
        follows: bool = True,
        **options: Any,
    ) -> AsyncReader:
        """Partitions without a group: from `offset` (earliest, latest, a number, a time; or one for each partition).

        Without `offset`, from auto.offset.reset. `follows=False`: to the present end only. Raises ConfigError.
        """
        reader = AsyncReader(
            topics,
            partitions=partitions,
            offset=offset,
            follows=follows,
            connection=self._open,
            settings=parse(ConsumerSettings, options),
        )
        self._opened.append(reader)
        return reader

    async def send_to_route(
        self, route: str, value: Data = None, *, routing_key: str | None = None, key: Data = None,
        headers: Headers = (), timestamp: int | None = None,
    ) -> tuple[Delivery, ...]:  # fmt: skip
        """One record to every topic that the route binds to its routing key (None: the key as text): all of them or
        none for readers of committed records. Returns where it is; it is not sent again when its answer was lost.

        Raises RecordRefused, also when no binding matches, RecordUnknown, ServerError for an unknown route,
        NothingDone, and OutcomeUnknown.
        """
        given = outgoing(value, key=key, headers=headers, timestamp=timestamp)
        return await send_to_route(self._open, route, given, routing_key=routing_key)

    async def nodes(self) -> tuple[Node, ...]:
        """The cluster's nodes, asked for now."""
        return await self._open.discover()

    @property
    def _open(self) -> Connection:
        if self._connection is None:
            raise ClientClosed("the client is not open; use it in `async with`")
        return self._connection


def _credentials(options: dict[str, Any]) -> Credentials | None:
    """Takes the credentials out of the options; None where there are none."""
    given = {name: options.pop(name) for name in ("user", "password", "token", "certificate", "ca") if name in options}
    return Credentials(**given) if given else None
