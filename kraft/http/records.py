"""Conversion of JSON or raw records to batches and back: the HTTP server uses `kraft.protocol.batches` only here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar, cast

from msgspec import Struct

from kraft.broker.consumer_fetch import readable_batches
from kraft.protocol.batches.budget import INLINE_BYTES_MAX, OverBudget
from kraft.protocol.batches.compression import DECOMPRESSED_BYTES_MAX
from kraft.protocol.batches.header import end_within, whole_batches
from kraft.protocol.batches.records import NewRecord, ReadRecord, open_batch, unstamped_batch
from kraft.protocol.errors import CorruptMessage
from kraft.protocol.primitives import Buffer
from replication.partition.log import AbortedTransaction
from replication.record_workers import RecordWorkers

T = TypeVar("T")

INLINE_RECORDS_MAX = 2_500
"""Records that the event loop reads and encodes for one answer itself, of `INLINE_BYTES_MAX` at most: up to 5 ms. A
worker takes more; there the same costs half as much again while other threads want the processor."""
INLINE_HEADERS_MAX = 10_000
"""Headers of those records together: one can be as small as two bytes, and costs as much as a record."""


NO_HEADERS: list[tuple[str, bytes | None]] = []
"""The headers of all records that have none: the codec needs a list, and no code writes to this one."""


class OutRecord(Struct, frozen=True, gc=False):
    """A record to write, with the attributes of a `NewRecord`; the partition only where its producer named one.

    A body may hold thousands: a struct is made in a quarter of the time of a named tuple. Nothing in it leads back to
    it, so that the garbage collector need not know of it.
    """

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp_ms: int
    partition: int | None


InRecord = ReadRecord
_NO_BOUND = 2**63


def to_batch(records: Sequence[OutRecord]) -> bytearray:
    """One batch of all of them, however large."""
    # Only attributes are read.
    return unstamped_batch(cast(Iterable[NewRecord], records))


class Taken(NamedTuple):
    """Records out of batches, where to go on, and their size in bytes."""

    records: list[InRecord]
    next_offset: int
    """Where to go on."""
    size: int
    """Bytes of the records, decompressed."""


@dataclass(slots=True)
class _InlineBudget:
    """What records may still cost the event loop."""

    inflated_left: int
    headers_left: int = INLINE_HEADERS_MAX

    def watched(self, records: Iterator[InRecord]) -> Iterator[InRecord]:
        """Raises OverBudget at the first record whose headers are too many."""
        for record in records:
            if record.headers:
                self.headers_left -= len(record.headers)
                if self.headers_left < 0:
                    raise OverBudget(f"more than {INLINE_HEADERS_MAX} headers")
            yield record


def take_records(
    data: Buffer,
    offset: int,
    *,
    bytes_max: int,
    records_max: int,
    inflated_max: int = DECOMPRESSED_BYTES_MAX,
    aborted: Sequence[AbortedTransaction] = (),
) -> Taken:
    """Records from `offset` on, at least one if there is one, and not more than `bytes_max` of what comes out. Those of
    `aborted` transactions are skipped, as markers are: the next offset may grow without any record.

    Raises CorruptMessage when the first batch is damaged; what is sound before a damaged one is answered first. With an
    `inflated_max` below what any batch may have the records are for the event loop: raises OverBudget when all batches
    together decompress to more, or there are too many headers.
    """
    taken: list[InRecord] = []
    size, next_offset = 0, offset
    view = memoryview(data)
    inline = _InlineBudget(inflated_max) if inflated_max < DECOMPRESSED_BYTES_MAX else None
    for position, header, is_readable in readable_batches(data, aborted):
        if header.next_offset <= offset:
            continue
        if not is_readable:
            next_offset = header.next_offset
            continue
        try:
            batch = view[position : position + header.size]
            left = inflated_max if inline is None else inline.inflated_left
            bytes_all, records = open_batch(batch, header, from_offset=offset, bytes_max=left)
            if inline is not None:
                inline.inflated_left -= bytes_all if header.codec else 0
                records = inline.watched(records)
            if size + bytes_all <= bytes_max and len(taken) + header.record_count <= records_max:
                taken += records
                size += bytes_all
            else:
                for record in records:
                    size += _size(record)
                    if taken and (size > bytes_max or len(taken) >= records_max):
                        return Taken(taken, record.offset, size - _size(record))
                    taken.append(record)
        except CorruptMessage:
            if not taken:
                raise
            return Taken(taken, taken[-1].offset + 1, size)
        next_offset = header.next_offset
    return Taken(taken, next_offset, size)


def _size(record: InRecord) -> int:
    size = len(record.key or b"") + len(record.value or b"")
    return size + sum(len(name) + len(value or b"") for name, value in record.headers) if record.headers else size


async def on_records(work: RecordWorkers, data: Buffer, function: Callable[[int], T]) -> T:
    """`function(inflated_max)` here if that is little work, else on a worker: it takes records and makes an answer.

    Raises ThrottlingQuotaExceeded, or what the function raises beside OverBudget.
    """
    if len(data) <= INLINE_BYTES_MAX and _count(data) <= INLINE_RECORDS_MAX:
        try:
            return function(INLINE_BYTES_MAX)
        except OverBudget:
            pass
    return await work.run(function, DECOMPRESSED_BYTES_MAX)


def _count(data: Buffer) -> int:
    return sum(header.record_count for _, header in whole_batches(data))


def without_aborted(data: Buffer, aborted: Sequence[AbortedTransaction]) -> bytes:
    """Whole batches without those of aborted transactions, and without control batches."""
    view = memoryview(data)
    return b"".join(
        view[position : position + header.size]
        for position, header, is_readable in readable_batches(data, aborted)
        if is_readable
    )


def end_of_batches(data: Buffer, offset: int) -> int:
    """The offset after the last batch; `offset` when there is none."""
    _, next_offset = end_within(data, upper_bound=_NO_BOUND)
    return max(next_offset, offset)
