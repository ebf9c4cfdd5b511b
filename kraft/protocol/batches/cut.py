"""Some records of an uncompressed batch as a batch of their own, without decoding any: the header is a new one, and the
bytes of the records are copied as they are.

A record begins with its length, a zigzag varint; the offsets of the records stay, since each is relative to the base
offset, which stays, too. Source: org.apache.kafka.common.record.DefaultRecord.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from crc32c import crc32c

from kraft.protocol.batches.header import CRC_START, HEADER, HEADER_BYTES, LOG_OVERHEAD, BatchHeader
from kraft.protocol.primitives import Buffer


def record_positions(batch: memoryview, header: BatchHeader) -> Sequence[int] | None:
    """Where each record begins in the batch, and where the last one ends. None for a batch that cannot be cut: its
    records are compressed, some of its offsets have no record any more, or the lengths do not add up.
    """
    if header.codec or header.record_count != header.last_offset_delta + 1:
        return None
    positions = array("I")
    add = positions.append
    at = HEADER_BYTES
    try:
        for _ in range(header.record_count):
            add(at)
            length = batch[at]
            at += 1
            if length >= 0x80:
                length &= 0x7F
                shift = 7
                while True:
                    byte = batch[at]
                    at += 1
                    length |= (byte & 0x7F) << shift
                    if byte < 0x80:
                        break
                    shift += 7
            at += length >> 1
        add(at)
    except (IndexError, OverflowError):
        return None
    return positions if at == len(batch) else None


def cut_batch(
    batch: memoryview, header: BatchHeader, positions: Sequence[int], *, first_offset: int, last_offset: int
) -> Buffer:
    """The records from the first to the last offset, both of the batch; the whole batch if these are all."""
    first = max(0, first_offset - header.base_offset)
    end = min(header.record_count, last_offset - header.base_offset + 1)
    assert first < end, (first_offset, last_offset, header)
    if end - first == header.record_count:
        return batch
    records = batch[positions[first] : positions[end]]
    cut = bytearray(HEADER_BYTES + len(records))
    HEADER.pack_into(
        cut,
        0,
        *header._replace(length=len(cut) - LOG_OVERHEAD, crc=0, last_offset_delta=end - 1, record_count=end - first),
    )
    cut[HEADER_BYTES:] = records
    cut[CRC_START - 4 : CRC_START] = crc32c(memoryview(cut)[CRC_START:]).to_bytes(4, "big")
    return cut
