"""Reading one partition of a coordinator's topic from its start to the high watermark.

A coordinator is the only writer of its partition and writes nothing before it has loaded, so once the high watermark
has reached the start of its leader epoch (L10), all of others is below it. What an earlier load of the same epoch
wrote and gave up on may still be replicated: the end is that of the epoch in the log, and the load waits for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeAlias, TypeVar

from kraft.broker.consumer_fetch import consumer_fetch
from kraft.protocol.batches.header import CONTROL, TRANSACTIONAL, BatchHeader, whole_batches
from kraft.protocol.batches.markers import Marker, marker_of
from kraft.protocol.batches.records import read_batches
from kraft.protocol.errors import CorruptMessage, InvalidRecord, OffsetNotAvailable, for_code
from kraft.protocol.primitives import Buffer
from metadata.environment import Clock
from metadata.image import TopicIdPartition
from metadata.retries import ELECTION_RETRY_MS
from replication.manager.manager import ReplicaManager
from replication.requests import (
    EARLIEST_TIMESTAMP,
    LATEST_TIMESTAMP,
    ReadOptions,
)

LOAD_BYTES = 256 * 1024
"""Read at once while loading: some ten milliseconds of decoding, after which others have a turn."""

Record = TypeVar("Record")
Decode: TypeAlias = Callable[[bytes, bytes | None], Record | None]
"""Key and value of a record -> what they say; None for what is not this coordinator's to read. Raises ValueError."""


@dataclass(frozen=True, slots=True)
class InTransactions(Generic[Record]):
    """What a coordinator makes of batches that producers write to its partition in transactions."""

    record: Callable[[BatchHeader, Record], Record]
    marker: Callable[[BatchHeader, Marker], Record]


@dataclass(slots=True)
class Piece(Generic[Record]):
    """What was read at once."""

    records: list[Record] = field(default_factory=list)
    unreadable: list[tuple[int, str]] = field(default_factory=list)
    """Offset and reason of what is no record of a coordinator. One of those must not make its neighbours unloadable."""


async def replay(
    replicas: ReplicaManager,
    partition: TopicIdPartition,
    decode: Decode[Record],
    *,
    leader_epoch: int,
    clock: Clock,
    transactions: InTransactions[Record] | None = None,
) -> AsyncIterator[Piece[Record]]:
    """The records in pieces. Raises KafkaError when this broker does not lead the partition any more. Without
    `transactions` there are none in the partition."""
    end_offset = await _end(replicas, partition, leader_epoch=leader_epoch, clock=clock)
    offset = (await replicas.offsets.list_offset(partition, EARLIEST_TIMESTAMP)).offset
    while offset < end_offset:
        data = await _read(replicas, partition, offset)
        piece, next_offset = decoded_piece(data, offset, decode, transactions)
        if next_offset == offset:
            return
        yield piece
        await clock.sleep(0)
        offset = next_offset


async def _end(replicas: ReplicaManager, partition: TopicIdPartition, *, leader_epoch: int, clock: Clock) -> int:
    written = replicas.offsets.offset_for_leader_epoch(partition, leader_epoch)
    while True:
        try:
            replicated = (await replicas.offsets.list_offset(partition, LATEST_TIMESTAMP)).offset
            if written is None or replicated >= written.end_offset:
                return replicated
        except OffsetNotAvailable:
            pass
        await clock.sleep(ELECTION_RETRY_MS)


async def _read(replicas: ReplicaManager, partition: TopicIdPartition, offset: int) -> bytes:
    response = await replicas.fetch.response(consumer_fetch(partition, offset, ReadOptions(bytes_max=LOAD_BYTES)))
    code = response.error_code or response.partitions[0].error_code
    if code:
        raise for_code(code)
    return bytes(response.partitions[0].records)


def decoded_piece(
    data: bytes, offset: int, decode: Decode[Record], transactions: InTransactions[Record] | None = None
) -> tuple[Piece[Record], int]:
    """The records at or after the offset, and the offset after the last batch."""
    piece: Piece[Record] = Piece()
    end = offset
    for position, header in whole_batches(data):
        end = max(header.next_offset, end)
        batch = memoryview(data)[position : position + header.size]
        try:
            if transactions is None or not header.attributes & (TRANSACTIONAL | CONTROL):
                take = decode
            elif header.attributes & CONTROL:
                _take_marker(piece, batch, header, transactions)
                continue
            else:
                take = partial(_in_transaction, decode, transactions, header)
            for record in read_batches(batch, from_offset=offset):
                if record.key is not None:
                    _take(piece, record.offset, record.key, record.value, take)
        except (CorruptMessage, InvalidRecord) as error:
            piece.unreadable.append((header.base_offset, error.message))
    return piece, end


def _take_marker(
    piece: Piece[Record], batch: Buffer, header: BatchHeader, transactions: InTransactions[Record]
) -> None:
    marker = marker_of(batch, header)
    if marker is not None:
        piece.records.append(transactions.marker(header, marker))


def _in_transaction(
    decode: Decode[Record], transactions: InTransactions[Record], header: BatchHeader, key: bytes, value: bytes | None
) -> Record | None:
    decoded = decode(key, value)
    return None if decoded is None else transactions.record(header, decoded)


def _take(piece: Piece[Record], offset: int, key: bytes, value: bytes | None, decode: Decode[Record]) -> None:
    try:
        decoded = decode(key, value)
    except ValueError as error:
        piece.unreadable.append((offset, str(error)))
        return
    if decoded is not None:
        piece.records.append(decoded)
