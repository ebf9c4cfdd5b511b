"""Reads one partition from its leader, one answer ahead of the application.

Reads keep no state at the nodes, so any node answers the next one. Memory: one answer waiting and one being iterated
over for each partition, of max.partition.fetch.bytes, or of one batch where a batch is larger.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from kraft.client.connection import Connection, segment
from kraft.client.errors import NoOffset
from kraft.client.judging import server_error
from kraft.client.outcome import Answer, Request
from kraft.client.positions import Start, TopicPartition, offsets_of, resolve
from kraft.client.records import Record
from kraft.client.settings import ConsumerSettings
from kraft.protocol.batches.records import read_batches
from kraft.protocol.errors import OffsetOutOfRange
from kraft.protocol.media_types import RECORD_BATCH

READ_SLACK_MS: Final = 10_000
"""Beyond fetch.max.wait.ms: a node that says nothing for so long is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What one answer brought of one partition."""

    where: TopicPartition
    records: Sequence[Record]
    next_offset: int
    """Where to go on: after the last record, and after what compaction took out behind it."""
    high_watermark: int


class Reader:
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
        self._deliver = deliver
        self._follows = follows

    async def run(self) -> None:
        """Until cancelled, or at the end. Raises NoOffset, ServerError, NothingDone."""
        end = None if self._follows else (await offsets_of(self._connection, self._where))[1]
        offset = await resolve(self._connection, self._where, self._start)
        while end is None or offset < end:
            found = await self._read(offset, end)
            if isinstance(found, int):
                offset = found
                continue
            has_moved, offset = found.next_offset > offset, found.next_offset
            if has_moved:
                await self._deliver(found)

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
        return await resolve(self._connection, where, reset)

    def _request(self, offset: int) -> Request:
        settings, where = self._settings, self._where
        wait_ms = settings.fetch_max_wait_ms
        query = f"offset={offset}&max_bytes={settings.max_partition_fetch_bytes}"
        query += f"&min_bytes={settings.fetch_min_bytes}&timeout={wait_ms}"
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
        high_watermark = int(answer.headers["x-high-watermark"])
        return Chunk(where=self._where, records=records, next_offset=next_offset, high_watermark=high_watermark)
