"""What decompressing and walking the records of a request may still cost. Pure.

A batch of 40 KB can hold 64 MiB of records or a million of them, so neither its size nor the number of batches bounds
what it costs to look at it. Each step takes what it costs from a budget beforehand, and stops where nothing is left.
"""

from __future__ import annotations

from dataclasses import dataclass

from kraft.protocol.batches.compression import DECOMPRESSED_BYTES_MAX

RECORDS_MAX = 1_000_000
"""Most records of one record set: of what a produce request holds for one partition."""
REQUEST_BYTES_MAX = 4 * DECOMPRESSED_BYTES_MAX
REQUEST_RECORDS_MAX = 4 * RECORDS_MAX
"""Limit of all record sets of a request together."""
INLINE_BYTES_MAX = 1024 * 1024 + 65_536
"""What the event loop takes on itself for one request: a batch of Kafka's default size, and 5 ms."""
INLINE_RECORDS_MAX = 20_000
INLINE_COMPRESSED_BYTES_MAX = 65_536
"""Limit of the bytes among them that may have to be compressed, which takes ten times as long as reading them."""


class OverBudget(Exception):
    """Nothing was changed. The message names what there is too much of."""


@dataclass(slots=True)
class Budget:
    bytes_left: int = DECOMPRESSED_BYTES_MAX
    records_left: int = RECORDS_MAX
    compressed_left: int = DECOMPRESSED_BYTES_MAX
    """Bytes that may be compressed again."""

    @classmethod
    def inline(cls) -> Budget:
        return cls(INLINE_BYTES_MAX, INLINE_RECORDS_MAX, INLINE_COMPRESSED_BYTES_MAX)

    @classmethod
    def of_request(cls) -> Budget:
        return cls(REQUEST_BYTES_MAX, REQUEST_RECORDS_MAX, REQUEST_BYTES_MAX)

    def share(self) -> Budget:
        """What one record set may take of it."""
        size = min(self.bytes_left, DECOMPRESSED_BYTES_MAX)
        return Budget(size, min(self.records_left, RECORDS_MAX), size)

    def spent(self, share: Budget, left: Budget) -> None:
        """What has become of a share."""
        self.bytes_left -= share.bytes_left - left.bytes_left
        self.records_left -= share.records_left - left.records_left

    def take(self, size: int, records: int) -> None:
        """Raises OverBudget, with nothing taken."""
        if size > self.bytes_left:
            raise OverBudget(f"more than {self.bytes_left} bytes of records")
        if records > self.records_left:
            raise OverBudget(f"more than {self.records_left} records")
        self.bytes_left -= size
        self.records_left -= records

    def take_compression(self, size: int) -> None:
        """Raises OverBudget."""
        if size > self.compressed_left:
            raise OverBudget(f"more than {self.compressed_left} bytes to be compressed")
        self.compressed_left -= size
