"""Records of several partitions as one stream, in the order in which they are found; each partition's in its own.

A partition that may have more than was read is `behind` and read directly, in turn with the others; the rest are waited
for together. A leader that moves is followed; a partition without one keeps no other back, and only when nothing could
be read anywhere for `UNREADABLE_MS_MAX` the stream ends with the error of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from kraft.broker.gateway import Records
from kraft.http.context import Context
from kraft.http.embedded_records import encode_each
from kraft.http.errors import HttpError
from kraft.http.media import Format
from kraft.http.records import InRecord, on_records, take_records
from kraft.http.streaming.positions import Key, Positions
from kraft.http.streaming.streams import PIECE_BYTES, PIECE_RECORDS
from kraft.protocol.errors import KafkaError, RequestTimedOut, UnknownTopicOrPartition
from metadata.image import TopicIdPartition
from metadata.retries import ELECTION_RETRY_MS
from replication.requests import ReadOptions

UNREADABLE_MS_MAX = 30_000
READ_MS_MAX = 5_000
"""A leader that does not answer a read for so long is left alone until its partition moves, or the next round."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Records of one partition, none or more, and where it goes on."""

    key: Key
    offsets: list[int]
    lines: list[bytes]
    """The records as JSON, each on one line."""
    next_offset: int
    error: HttpError | None = None
    """The record at `next_offset` is not in the format that was asked for."""


class Merge:
    """Reads on from `positions`, which its owner moves when it has handed a piece on."""

    def __init__(self, context: Context, positions: Positions, form: Format, *, is_read_committed: bool) -> None:
        self._context = context
        self._options = ReadOptions(bytes_max=PIECE_BYTES, bytes_min=1, is_read_committed=is_read_committed)
        self._form = form
        self._clock = context.clock
        self.positions = positions
        self._behind: dict[Key, None] = dict.fromkeys(positions.offsets)
        self._unreadable_since_ms: int | None = None

    def add(self, keys: Iterable[Key]) -> None:
        """Partitions to read from now on; their positions are set already."""
        self._behind.update(dict.fromkeys(keys))

    def drop(self, key: Key) -> None:
        """No longer read from this partition."""
        self._behind.pop(key, None)

    async def next(self, *, wait_ms: int) -> list[Piece]:
        """What comes next; empty when nothing came in time. Raises KafkaError when there is no going on."""
        deadline_ms = self._clock.monotonic_ms() + wait_ms
        while True:
            pieces = await self._read_behind()
            if not pieces:
                left_ms = max(deadline_ms - self._clock.monotonic_ms(), 0)
                pieces = await self._wait(left_ms)
            if pieces or self._clock.monotonic_ms() >= deadline_ms:
                return pieces

    async def _read_behind(self) -> list[Piece]:
        for key in tuple(self._behind):
            del self._behind[key]
            try:
                piece = await self._read(key)
            except KafkaError as error:
                self._note_unreadable(error)
                await self._clock.sleep(ELECTION_RETRY_MS)
                continue
            self._unreadable_since_ms = None
            if piece is not None:
                return [piece]
        return []

    async def _read(self, key: Key) -> Piece | None:
        offset = self.positions[key]
        try:
            async with self._clock.timeout(READ_MS_MAX):
                found = await self._context.gateway.read(self._where(key), offset, self._options)
        except TimeoutError as error:
            raise RequestTimedOut(f"the leader of {key[0]}-{key[1]} did not answer in {READ_MS_MAX} ms") from error
        return await self._piece(key, offset, found)

    async def _wait(self, wait_ms: int) -> list[Piece]:
        asked = {self._where(key): key for key in self.positions.offsets}
        if not asked:
            await self._clock.sleep(wait_ms)
            return []
        offsets = {where: self.positions[key] for where, key in asked.items()}
        news = await self._context.gateway.tail(offsets, replace(self._options, wait_ms_max=wait_ms))
        pieces: list[Piece] = []
        for where, found in news.items():
            key = asked[where]
            if found is None:
                self._behind[key] = None
                continue
            self._unreadable_since_ms = None
            piece = await self._piece(key, self.positions[key], found)
            if piece is not None:
                pieces.append(piece)
        return pieces

    async def _piece(self, key: Key, offset: int, found: Records) -> Piece | None:
        data = found.data

        def encode(inflated_max: int) -> tuple[list[InRecord], int, list[bytes], HttpError | None]:
            records, next_offset, _ = take_records(
                data,
                offset,
                bytes_max=PIECE_BYTES,
                records_max=PIECE_RECORDS,
                inflated_max=inflated_max,
                aborted=found.aborted,
            )
            return records, next_offset, *encode_each(records, self._form, topic=key[0], partition=key[1])

        records, next_offset, lines, error = await on_records(self._context.record_workers, data, encode)
        self._context.metrics.fetched_bytes.inc(len(data))
        if offset < next_offset < found.end_offset:
            self._behind[key] = None
        if error is not None:
            next_offset = records[len(lines)].offset
        elif next_offset == offset:
            return None
        return Piece(key, [record.offset for record in records[: len(lines)]], lines, next_offset, error)

    def _note_unreadable(self, error: KafkaError) -> None:
        now_ms = self._clock.monotonic_ms()
        if self._unreadable_since_ms is None:
            self._unreadable_since_ms = now_ms
        if not error.retriable or now_ms - self._unreadable_since_ms > UNREADABLE_MS_MAX:
            raise error

    def _where(self, key: Key) -> TopicIdPartition:
        topic = self._context.gateway.image.topic(key[0])
        if topic is None:
            raise UnknownTopicOrPartition(f"topic {key[0]!r} does not exist any more")
        return TopicIdPartition(topic.topic_id, key[1])
