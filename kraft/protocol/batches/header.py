"""The header of a RecordBatch v2 at an offset of a buffer; nothing here looks at the records behind it.

Bytes (big-endian): baseOffset i64, batchLength i32, partitionLeaderEpoch i32, magic i8, crc u32, attributes i16,
lastOffsetDelta i32, baseTimestamp i64, maxTimestamp i64, producerId i64, producerEpoch i16, baseSequence i32,
recordCount i32, records. The CRC (CRC-32C) covers everything from `attributes` on, so that a leader can stamp base
offset and leader epoch without touching it. Source: org.apache.kafka.common.record.DefaultRecordBatch.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from crc32c import crc32c

from kraft.protocol.primitives import Buffer

HEADER = struct.Struct(">qiibIhiqqqhii")
HEADER_BYTES = HEADER.size
LOG_OVERHEAD = 12
"""Base offset and length, which `batchLength` does not count."""
CRC_START = 21
"""Where the bytes that the CRC covers begin."""
MAGIC_OFFSET = 16
MAGIC = 2

CODEC_MASK = 0x07
LOG_APPEND_TIME = 0x08
TRANSACTIONAL = 0x10
CONTROL = 0x20
DELETE_HORIZON = 0x40
NO_PRODUCER_ID = -1
NO_SEQUENCE = -1
NO_TIMESTAMP = -1

CODEC_NAMES = ("none", "gzip", "snappy", "lz4", "zstd")

_STAMP_OFFSET = struct.Struct(">q")
_STAMP_EPOCH = struct.Struct(">i")
_STAMP = struct.Struct(">qii")
_EXTENT = struct.Struct(">qi")
_OFFSETS = struct.Struct(">qi11xi")

assert HEADER_BYTES == 61, HEADER_BYTES


class BatchHeader(NamedTuple):
    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.last_offset_delta + 1

    @property
    def size(self) -> int:
        """Bytes of the whole batch."""
        return self.length + LOG_OVERHEAD

    @property
    def codec(self) -> int:
        return self.attributes & CODEC_MASK

    @property
    def codec_name(self) -> str:
        codec = self.codec
        return CODEC_NAMES[codec] if codec < len(CODEC_NAMES) else f"unknown({codec})"

    @property
    def is_log_append_time(self) -> bool:
        return bool(self.attributes & LOG_APPEND_TIME)

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & TRANSACTIONAL)

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & CONTROL)


def header_at(data: Buffer, position: int = 0) -> BatchHeader:
    """The header that starts at `position`, which must have HEADER_BYTES behind it."""
    return tuple.__new__(BatchHeader, HEADER.unpack_from(data, position))  # what `_make` does, without its call


def whole_batches(data: Buffer, position: int = 0) -> Iterator[tuple[int, BatchHeader]]:
    """Position and header of each whole batch; stops before a partial one, or one of impossible length."""
    end = len(data)
    while position + HEADER_BYTES <= end:
        header = header_at(data, position)
        after = position + LOG_OVERHEAD + header.length
        if header.length < HEADER_BYTES - LOG_OVERHEAD or after > end:
            return
        yield position, header
        position = after


def extent_at(data: Buffer, position: int) -> tuple[int, int]:
    """Base offset and size of the batch at `position`, of which only the first 12 bytes are needed."""
    base_offset, length = _EXTENT.unpack_from(data, position)
    return base_offset, length + LOG_OVERHEAD


def end_within(data: Buffer, *, upper_bound: int) -> tuple[int, int]:
    """Bytes of the whole batches at the start of `data` that end at or before the bound, and their next offset.

    The next offset is -1 when there is none.
    """
    position, end, next_offset = 0, len(data), -1
    unpack = _OFFSETS.unpack_from
    while position + HEADER_BYTES <= end:
        base_offset, length, delta = unpack(data, position)
        after = position + LOG_OVERHEAD + length
        if after > end or after <= position or base_offset + delta >= upper_bound:
            break
        position, next_offset = after, base_offset + delta + 1
    return position, next_offset


def computed_crc(data: Buffer, position: int, size: int) -> int:
    value: int = crc32c(memoryview(data)[position + CRC_START : position + size])
    return value


def stamp(batch: bytearray | memoryview, position: int, *, base_offset: int, leader_epoch: int) -> None:
    """Write base offset and leader epoch in place; neither is covered by the CRC."""
    _STAMP_OFFSET.pack_into(batch, position, base_offset)
    _STAMP_EPOCH.pack_into(batch, position + LOG_OVERHEAD, leader_epoch)


def sequenced(
    batch: Buffer,
    header: BatchHeader,
    *,
    producer_id: int,
    producer_epoch: int = 0,
    base_sequence: int = 0,
    is_transactional: bool = False,
) -> bytearray:
    """A copy of the batch as that of this producer."""
    copy = bytearray(batch)
    header = header._replace(
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        attributes=header.attributes | TRANSACTIONAL if is_transactional else header.attributes,
    )
    copy[:HEADER_BYTES] = HEADER.pack(*header)
    copy[:HEADER_BYTES] = HEADER.pack(*header._replace(crc=computed_crc(copy, 0, len(copy))))
    return copy


def stamped(header: BatchHeader, *, base_offset: int, leader_epoch: int) -> tuple[BatchHeader, bytes]:
    """The header as the log keeps it, and the bytes that replace the batch's first `len(bytes)`."""
    header = tuple.__new__(BatchHeader, (base_offset, header.length, leader_epoch, *header[3:]))
    return header, _STAMP.pack(base_offset, header.length, leader_epoch)


def stamped_with_append_time(
    header: BatchHeader, records: Buffer, *, base_offset: int, leader_epoch: int, now_ms: int
) -> tuple[BatchHeader, bytes]:
    """The same under LogAppendTime: maximal timestamp, attribute and CRC are the leader's."""
    header = header._replace(
        base_offset=base_offset,
        leader_epoch=leader_epoch,
        attributes=header.attributes | LOG_APPEND_TIME,
        max_timestamp=now_ms,
    )
    crc: int = crc32c(records, crc32c(HEADER.pack(*header)[CRC_START:]))
    header = header._replace(crc=crc)
    return header, HEADER.pack(*header)
