"""A consumer of partitions: everything that their readers bring, in the order of each partition. No group."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from kraft.client.connection import Connection
from kraft.client.errors import ClientClosed, ConfigError, NoOffset
from kraft.client.positions import Start, TopicPartition, check_start, offsets_of, resolve
from kraft.client.record_iterator import AsyncIterated
from kraft.client.records import Record
from kraft.client.response import Answer, Request, segment, server_error
from kraft.client.settings import ConsumerSettings
from kraft.protocol.batches.records import read_batches
from kraft.protocol.errors import OffsetOutOfRange
from kraft.protocol.media_types import RECORD_BATCH


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
        """The next records, as in AsyncIterated. Raises NoOffset, ServerError (deleted topic), NothingDone."""
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
            reader = PartitionReader(
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


READ_SLACK_MS: Final = 10_000
"""Wait beyond fetch.max.wait.ms for a node that sends nothing; then the read goes to another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What one answer brought of one partition."""

    where: TopicPartition
    records: Sequence[Record]
    next_offset: int
    """Where to go on: after the last record, and after what compaction took out behind it, or what was aborted."""


class PartitionReader:
    """One partition from `start` on, or to its present end only. `deliver` returns when the next read may begin."""

    def __init__(
        self,
        where: TopicPartition,
        start: Start,
        *,
        connection: Connection,
        settings: ConsumerSettings,
        deliver: Callable[[Chunk], Awaitable[None]],
        follows: bool,
    ) -> None:
        self._where = where
        self._start = start
        self._connection = connection
        self._settings = settings
        self._hand_over = deliver
        self._follows = follows

    async def run(self) -> None:
        """Until cancelled, or at the end. Raises NoOffset, ServerError, NothingDone."""
        isolation_level = self._settings.isolation_level
        end = None
        if not self._follows:
            _, end = await offsets_of(self._connection, self._where, isolation_level=isolation_level)
        offset = await resolve(self._connection, self._where, self._start, isolation_level=isolation_level)
        while end is None or offset < end:
            found = await self._read(offset, end)
            if isinstance(found, int):
                offset = found
                continue
            has_moved, offset = found.next_offset > offset, found.next_offset
            if has_moved:
                await self._hand_over(found)

    async def _read(self, offset: int, end: int | None) -> Chunk | int:
        """What is there; or the offset to go on from, when this one is not in the log any more."""
        where = self._where
        leader = await self._connection.leader(where.topic, where.partition)
        answer = await self._connection.ask(self._request(offset), prefer=leader)
        if answer.is_success:
            return self._chunk(answer, offset, end)
        error = server_error(answer)
        if error.code != OffsetOutOfRange.code:
            raise error
        reset = self._settings.auto_offset_reset
        if reset == "none":
            raise NoOffset(f"offset {offset} of {where} is not valid and auto.offset.reset is none: {error.message}")
        return await resolve(self._connection, where, reset, isolation_level=self._settings.isolation_level)

    def _request(self, offset: int) -> Request:
        settings, where = self._settings, self._where
        wait_ms = settings.fetch_max_wait_ms
        query = f"offset={offset}&max_bytes={settings.max_partition_fetch_bytes}"
        query += f"&min_bytes={settings.fetch_min_bytes}&timeout={wait_ms}&isolation_level={settings.isolation_level}"
        path = f"/topics/{segment(where.topic)}/partitions/{where.partition}/records?{query}"
        headers = {"Accept": RECORD_BATCH}
        return Request(method="GET", path=path, headers=headers, timeout_ms=wait_ms + READ_SLACK_MS)

    def _chunk(self, answer: Answer, offset: int, end: int | None) -> Chunk:
        next_offset = int(answer.headers["x-next-offset"])
        limit = next_offset if end is None else end
        topic, partition = self._where.topic, self._where.partition
        # The first batch may begin before the asked offset.
        records = [
            Record(topic, partition, each.offset, each.timestamp, each.key, each.value, tuple(each.headers))
            for each in read_batches(answer.body, from_offset=offset, checks_crc=True)
            if each.offset < limit
        ]
        return Chunk(where=self._where, records=records, next_offset=next_offset)
