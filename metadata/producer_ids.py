"""The ranges of the 63 bits of producer ids, so that no two owners can ever have the same id.

0 .. 2^62 - 1        allocated: the controller hands them out in blocks, counting up (KIP-730)
2^62 .. 2^63 - 1     reserved: derived from an Idempotency-Key by hash, never handed out
"""

from __future__ import annotations

RESERVED_PRODUCER_IDS_FROM = 1 << 62
RESERVED_PRODUCER_IDS = 1 << 62
"""The number of reserved producer ids."""


def is_reserved(producer_id: int) -> bool:
    return producer_id >= RESERVED_PRODUCER_IDS_FROM
