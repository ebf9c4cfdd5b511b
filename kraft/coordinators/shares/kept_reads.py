"""What was read of share partitions and not handed out yet. A receive over REST takes a hundred records of a read that
has a thousand: the next one finds the rest here, and each gets the records that it has acquired instead of whole
batches. The owner drops what it has kept of a share partition that ends, and compares with the start of the log.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Final

from kraft.protocol.batches.cut import cut_batch, record_positions
from kraft.protocol.batches.header import BatchHeader
from kraft.protocol.primitives import Buffer

KEPT_BYTES_MAX: Final = 16 * 1_048_576
"""All that one node keeps. The read that was used the longest time ago goes first."""

Batch = tuple[int, BatchHeader, bool]
"""Position and header, and whether consumers may see its records."""


class Read:
    """Whole batches, as they were read from a log."""

    def __init__(self, records: Buffer, batches: Sequence[Batch]) -> None:
        self.batches = batches
        self.size = len(records)
        self.records = memoryview(records)
        self._positions: dict[int, Sequence[int] | None] = {}
        """Where the records begin in each batch that was cut before, by its base offset."""

    def has(self, offset: int) -> bool:
        """Whether the offset is in one of its batches."""
        return self.batches[0][1].base_offset <= offset <= self.batches[-1][1].last_offset

    def since(self, offset: int) -> Sequence[Batch]:
        """Its batches from that of the offset on."""
        return [batch for batch in self.batches if batch[1].last_offset >= offset]

    def whole(self, first_offset: int, last_offset: int) -> Buffer:
        """The batches that have these offsets, and what is between them."""
        sent = self._between(first_offset, last_offset)
        return self.records[sent[0][0] : sent[-1][0] + sent[-1][1].size]

    def cut(self, first_offset: int, last_offset: int) -> Buffer:
        """The records with these offsets; more of a batch that cannot be cut."""
        parts = [
            self._part(*batch[:2], first_offset, last_offset) for batch in self._between(first_offset, last_offset)
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _between(self, first_offset: int, last_offset: int) -> Sequence[Batch]:
        return [
            batch
            for batch in self.batches
            if batch[1].last_offset >= first_offset and batch[1].base_offset <= last_offset
        ]

    def _part(self, position: int, header: BatchHeader, first_offset: int, last_offset: int) -> Buffer:
        batch = self.records[position : position + header.size]
        if first_offset <= header.base_offset and header.last_offset <= last_offset:
            return batch
        if header.base_offset not in self._positions:
            self._positions[header.base_offset] = record_positions(batch, header)
        positions = self._positions[header.base_offset]
        if positions is None:
            return batch
        return cut_batch(batch, header, positions, first_offset=first_offset, last_offset=last_offset)


class KeptReads:
    """The last read of each share partition, while there is room."""

    def __init__(self, bytes_max: int = KEPT_BYTES_MAX) -> None:
        self._reads: OrderedDict[Hashable, Read] = OrderedDict()
        self._bytes_max = bytes_max
        self._bytes = 0

    def of(self, key: Hashable, offset: int) -> Read | None:
        """The read that has the offset."""
        read = self._reads.get(key)
        if read is None or not read.has(offset):
            return None
        self._reads.move_to_end(key)
        return read

    def keep(self, key: Hashable, read: Read) -> None:
        """In the place of the one before."""
        self.drop(key)
        if read.size > self._bytes_max:
            return
        self._reads[key] = read
        self._bytes += read.size
        while self._bytes > self._bytes_max:
            _, gone = self._reads.popitem(last=False)
            self._bytes -= gone.size

    def drop(self, key: Hashable) -> None:
        """The share partition ends, or all of the read was handed out."""
        if (gone := self._reads.pop(key, None)) is not None:
            self._bytes -= gone.size
