"""Records on their way between JSON (or raw records) and batches: the door's only use of `replication.batches`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

from metadata.environment import Buffer
from metadata.errors import CorruptMessage
from replication.batches.header import end_within
from replication.batches.records import NewRecord, ReadRecord, read_batches, unstamped_batch


class OutRecord(NamedTuple):
    """A record to write, with the attributes of a `NewRecord`; the partition only where its producer named one."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp_ms: int
    partition: int | None


InRecord = ReadRecord
_NO_BOUND = 2**63


def to_batch(records: Sequence[OutRecord]) -> bytearray:
    """One batch of all of them, however large."""
    # Only attributes are read, and a tuple is made three times as fast as a frozen dataclass.
    return unstamped_batch(cast(Iterable[NewRecord], records))


def take_records(data: Buffer, offset: int, *, bytes_max: int) -> tuple[list[InRecord], int]:
    """Records from `offset` on, at least one if there is one, and the offset to go on from.

    Raises CorruptMessage when the first batch is damaged; what is sound before a damaged one is answered first.
    """
    if len(data) <= bytes_max:
        try:
            return list(read_batches(data, from_offset=offset, checks_crc=True)), end_of_batches(data, offset)
        except CorruptMessage:
            pass  # one by one then, up to the damage
    taken: list[InRecord] = []
    size = 0
    try:
        for record in read_batches(data, from_offset=offset, checks_crc=True):
            size += len(record.key or b"") + len(record.value or b"")
            if taken and size > bytes_max:
                return taken, record.offset
            taken.append(record)
    except CorruptMessage:
        if not taken:
            raise
        return taken, taken[-1].offset + 1
    return taken, end_of_batches(data, offset)


def end_of_batches(data: Buffer, offset: int) -> int:
    """The offset after the last batch; `offset` when there is none."""
    _, next_offset = end_within(data, upper_bound=_NO_BOUND)
    return max(next_offset, offset)
