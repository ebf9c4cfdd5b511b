"""A body of RecordBatch v2 whose batches get a producer from the request: from its Idempotency-Key or its transaction.

They must not have one already, and the bytes' own CRC is checked: the one that the new header gets would hide what was
damaged on the way. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from kraft.http.errors import UNPROCESSABLE, HttpError
from kraft.protocol.batches.header import NO_PRODUCER_ID, BatchHeader, computed_crc, whole_batches
from kraft.protocol.primitives import Buffer


def unowned_batches(data: Buffer, *, instead: str) -> Iterator[tuple[BatchHeader, Buffer]]:
    """Header and bytes of each batch. Raises HttpError 422; `instead` ends the sentence about a batch that carries a
    producer id of its own."""
    end = 0
    for number, (position, header) in enumerate(whole_batches(data)):
        end = position + header.size
        if header.producer_id != NO_PRODUCER_ID:
            raise HttpError(UNPROCESSABLE, f"batch {number} carries producer id {header.producer_id}{instead}")
        if computed_crc(data, position, header.size) != header.crc:
            raise HttpError(UNPROCESSABLE, f"batch {number} does not have the CRC of its header")
        yield header, memoryview(data)[position:end]
    if end != len(data):
        raise HttpError(UNPROCESSABLE, f"the {len(data) - end} bytes at {end} are no whole RecordBatch v2")
