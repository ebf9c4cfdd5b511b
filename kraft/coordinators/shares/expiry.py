"""Which records are too old to be handed out to a share group: an addition of ours. Pure.

A queue may let records expire by their timestamps (share.record.expiry.ms of the group), and a record may name a time
in a header, which is looked for only in topics with record.expiry.enable. Both count by the clock of the partition's
leader, at the moment when a record would be handed out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from kraft.protocol.batches.budget import OverBudget
from kraft.protocol.batches.header import BatchHeader
from kraft.protocol.batches.records import ReadRecord, open_batch
from kraft.protocol.errors import CorruptMessage
from kraft.protocol.primitives import Buffer
from kraft.values import value
from replication.record_times import EXPIRES_HEADER, time_of
from replication.shares.partition import Acquired

INFLATED_BYTES_MAX: Final = 8_388_608
"""Batches that are larger, decompressed, are judged by their headers alone."""


@value(kw_only=True)
class Expiry:
    """What may expire in one share partition."""

    after_ms: int = 0
    """share.record.expiry.ms; 0: records do not expire by their timestamps."""
    reads_headers: bool = False
    """record.expiry.enable of the topic."""

    @property
    def is_possible(self) -> bool:
        """Whether batches have to be looked into."""
        return self.after_ms > 0 or self.reads_headers

    def is_over(self, record: ReadRecord, now_ms: int) -> bool:
        """Whether the record is too old now. A header that names no time does not count."""
        if self.after_ms and 0 <= record.timestamp <= now_ms - self.after_ms:
            return True
        if self.reads_headers:
            for name, text in record.headers:
                if name == EXPIRES_HEADER and (time_ms := time_of(text)) is not None:
                    return time_ms <= now_ms
        return False


def expired(
    records: Buffer,
    batches: Iterable[tuple[int, BatchHeader]],
    acquired: Sequence[Acquired],
    expiry: Expiry,
    now_ms: int,
) -> list[tuple[int, int]]:
    """First and last offset of acquired records that are too old. `batches`: position and header of each."""
    found: list[tuple[int, int]] = []
    for position, header in batches:
        ranges = [
            (max(first, header.base_offset), min(last, header.last_offset))
            for first, last, _ in acquired
            if first <= header.last_offset and last >= header.base_offset
        ]
        if not ranges:
            continue
        if expiry.after_ms and 0 <= header.max_timestamp <= now_ms - expiry.after_ms:
            found += ranges
            continue
        batch = memoryview(records)[position : position + header.size]
        for offset in _over(batch, header, ranges[0][0], expiry, now_ms):
            if any(first <= offset <= last for first, last in ranges):
                found.append((offset, offset))
    return joined(found)


def _over(batch: Buffer, header: BatchHeader, first: int, expiry: Expiry, now_ms: int) -> Iterator[int]:
    try:
        _, opened = open_batch(batch, header, from_offset=first, bytes_max=INFLATED_BYTES_MAX)
        yield from (record.offset for record in opened if expiry.is_over(record, now_ms))
    except (OverBudget, CorruptMessage):
        return  # the consumer that gets it sees what is wrong with it


def joined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges with neighbours as one."""
    found: list[tuple[int, int]] = []
    for first, last in ranges:
        if found and found[-1][1] + 1 == first:
            found[-1] = found[-1][0], last
        else:
            found.append((first, last))
    return found


def without(acquired: Sequence[Acquired], ranges: Sequence[tuple[int, int]]) -> list[Acquired]:
    """What was acquired, without these offsets."""
    left: list[Acquired] = []
    for first, last, count in acquired:
        at = first
        for low, high in ranges:
            if high < at or low > last:
                continue
            if low > at:
                left.append(Acquired(at, low - 1, count))
            at = high + 1
        if at <= last:
            left.append(Acquired(at, last, count))
    return left
