"""Comparison of the records of a repeated batch with those of the first one. Pure.

Kafka compares only the sequence numbers, which its clients count. A producer id of a person's Idempotency-Key needs
more, and so do sequences that a program sends over HTTP: the key or the sequence may have been used for other records,
which a success would lose.
"""

from __future__ import annotations

from kraft.protocol.batches.header import HEADER_BYTES, header_at
from kraft.protocol.batches.record_filter import decoding
from kraft.protocol.primitives import Buffer


def holds_same_records(original: Buffer, repeated: Buffer) -> bool:
    """Compare keys, values and headers in order. Timestamps may differ: a record without one got that of its arrival.

    Also True where it cannot be decided any more, because compaction took records out of the original.
    """
    first, second = header_at(original), header_at(repeated)
    if first.record_count != first.last_offset_delta + 1:
        return True
    old, new = memoryview(original)[HEADER_BYTES : first.size], memoryview(repeated)[HEADER_BYTES : second.size]
    if first.codec == second.codec and old == new:
        return True
    if first.record_count != second.record_count:
        return False
    pairs = zip(decoding(original, first), decoding(repeated, second), strict=True)  # ends with the first that differ
    return all(one.key == two.key and one.value == two.value and one.headers == two.headers for one, two in pairs)
