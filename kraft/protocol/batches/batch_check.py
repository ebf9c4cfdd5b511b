"""Whether batches that come from a file may be handed out: what a disk may have changed is found here. Pure.

The CRC covers a batch from its attributes on. What stands before is checked by what else is known: the length by the
CRC (a wrong one covers wrong bytes), the base offset by its neighbours, the leader epoch by the epochs of the log.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from crc32c import crc32c

from kraft.protocol.batches.header import CRC_START, HEADER_BYTES, LOG_OVERHEAD, MAGIC
from kraft.protocol.primitives import Buffer

_CHECKED = struct.Struct(">qiibI2xi")
"""Base offset, length, leader epoch, magic, CRC, last offset delta."""


UNKNOWN_EPOCH = -1
"""Below the first epoch that a log remembers: after a loss of power a log may start before it again."""


class DamagedBatch(ValueError):
    """What is wrong with a batch, and where in the bytes."""


def check_batches(data: Buffer, *, expected: int, epoch_of: Callable[[int], int]) -> tuple[int, bool]:
    """The next offset after the batches that `data` wholly consists of, and whether the last one follows a gap.

    `expected` is the offset after what precedes them; only compaction leaves gaps. Raises DamagedBatch.
    """
    view = memoryview(data)
    position, end, has_gap = 0, len(view), False
    while position < end:
        if position + HEADER_BYTES > end:
            raise DamagedBatch(f"{end - position} bytes are no batch")
        base_offset, length, leader_epoch, magic, crc, delta = _CHECKED.unpack_from(view, position)
        after = position + LOG_OVERHEAD + length
        if magic != MAGIC or not position + HEADER_BYTES <= after <= end:
            raise DamagedBatch(f"the batch for offset {expected} has magic {magic} and {length} bytes")
        if crc32c(view[position + CRC_START : after]) != crc:
            raise DamagedBatch(f"the batch for offset {expected} does not have the CRC of its header")
        if base_offset < expected or delta < 0:
            raise DamagedBatch(f"the batch for offset {expected} begins at {base_offset} by its header")
        if epoch_of(base_offset + delta) not in (leader_epoch, UNKNOWN_EPOCH):
            raise DamagedBatch(f"the batch for offset {expected} has leader epoch {leader_epoch}")
        has_gap = base_offset > expected
        position, expected = after, base_offset + delta + 1
    return expected, has_gap
