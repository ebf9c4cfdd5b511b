"""Does a repeated batch hold what the first one held? Pure.

Kafka looks at the sequence numbers only, which its clients count. A producer id that a person's Idempotency-Key stands
behind deserves more, and so do sequences that a program sends over HTTP: the key or the sequence may have been used for
something else, and to answer success would lose that.
"""

from __future__ import annotations

from kraft.protocol.batches.header import HEADER_BYTES, header_at
from kraft.protocol.batches.record_filter import decoding
from kraft.protocol.primitives import Buffer


def holds_same_records(original: Buffer, repeated: Buffer) -> bool:
    """Keys, values and headers in order. Timestamps may differ: a record without one got that of its arrival.

    True also where the original no longer tells: compaction took records out of it.
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
