"""A consumer of partitions: everything that their readers bring, in the order of each partition. No group."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType

from kraft.client.connection import Connection
from kraft.client.errors import ClientClosed, ConfigError
from kraft.client.fetching import Chunk, Reader
from kraft.client.iterating import AsyncIterated
from kraft.client.positions import Start, TopicPartition, check_start
from kraft.client.records import Record
from kraft.client.settings import ConsumerSettings


class AsyncReader(AsyncIterated):
    """From `AsyncClient.consumer` without a group. Leaving the `async with` ends its reads.

    With `follows=False` the iteration ends where the log ended when it began; else it goes on for ever.
    """

    def __init__(
        self,
        topics: Sequence[str],
        *,
        partitions: Sequence[int] | None,
        offset: Start | Mapping[int, Start] | None,
        follows: bool,
        connection: Connection,
        settings: ConsumerSettings,
    ) -> None:
        if settings.auto_offset_reset == "none" and offset is None:
            raise ConfigError("auto.offset.reset=none needs an offset to begin at")
        if partitions is not None and len(topics) > 1:
            raise ConfigError("partitions can be named for one topic only")
        for start in offset.values() if isinstance(offset, Mapping) else (offset,):
            if start is not None:
                check_start(start)
        super().__init__()
        self._topics = topics
        self._partitions = partitions
        self._offset = offset
        self._follows = follows
        self._connection = connection
        self._settings = settings
        self._chunks: deque[tuple[Chunk, asyncio.Future[None]]] = deque()
        self._changed = asyncio.Event()
        self._tasks: dict[TopicPartition, asyncio.Task[None]] = {}
        self._is_started = False
        self._is_closed = False

    @property
    def positions(self) -> Mapping[TopicPartition, int]:
        """The offset after the last record that was iterated over, by partition."""
        return self.progress.positions(with_current=True)

    async def __aenter__(self) -> AsyncReader:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        self._is_closed = True
        self._changed.set()
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def poll(self) -> Sequence[Record] | None:
        """As of AsyncIterated. Raises NoOffset, ServerError (the topic was deleted), NothingDone (no node answers)."""
        if not self._is_started:
            self._is_started = True
            await self._start()
        while (found := await self._next_chunk()) is not None:
            chunk, is_taken = found
            if not is_taken.done():
                is_taken.set_result(None)
            if chunk.records:
                return chunk.records
        return None

    async def _start(self) -> None:
        if self._is_closed:
            raise ClientClosed("the reader is closed; make another")
        loop = asyncio.get_running_loop()
        for where in await self._assigned():
            reader = Reader(
                where,
                self._start_of(where),
                connection=self._connection,
                settings=self._settings,
                deliver=self._deliver,
                follows=self._follows,
            )
            task = self._tasks[where] = loop.create_task(reader.run(), name=f"read {where}")
            task.add_done_callback(lambda _: self._changed.set())

    async def _assigned(self) -> list[TopicPartition]:
        found = []
        for name in self._topics:
            known = (await self._connection.topic(name)).partitions
            wrong = [number for number in self._partitions or () if not 0 <= number < known]
            if wrong:
                raise ConfigError(f"topic {name!r} has no partition {wrong[0]}; it has {known}, from 0")
            found += [TopicPartition(name, number) for number in self._partitions or range(known)]
        return found

    def _start_of(self, where: TopicPartition) -> Start:
        start = self._offset.get(where.partition) if isinstance(self._offset, Mapping) else self._offset
        return self._settings.auto_offset_reset if start is None else start

    async def _deliver(self, chunk: Chunk) -> None:
        is_taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._chunks.append((chunk, is_taken))
        self._changed.set()
        await is_taken

    async def _next_chunk(self) -> tuple[Chunk, asyncio.Future[None]] | None:
        """None at the end. What was read before a failure is handed out before it is raised."""
        while not self._is_closed:
            if self._chunks:
                return self._chunks.popleft()
            failed = next((task for task in self._tasks.values() if task.done() and task.exception()), None)
            if failed is not None:
                await failed
            if all(task.done() for task in self._tasks.values()):
                return None
            self._changed.clear()
            await self._changed.wait()
        return None
