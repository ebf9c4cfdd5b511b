"""Transaction markers: control batches of one record that say how a producer's open transaction ended. Pure.

The record, big-endian: key {version int16 = 0, type int16: 0 abort, 1 commit}, value {version int16 = 0, coordinator
epoch int32}. The batch is transactional, uncompressed, and has no sequence. Other types of control records have nothing
to do with transactions. Source: org.apache.kafka.common.record.ControlRecordType, EndTransactionMarker.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from crc32c import crc32c

from kraft.protocol.batches.header import CONTROL, CRC_START, HEADER, HEADER_BYTES, BatchHeader, header_at
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches
from kraft.protocol.errors import InvalidRecord
from kraft.protocol.primitives import Buffer

VERSION = 0
ABORT = 0
COMMIT = 1
_KEY = struct.Struct(">hh")
_VALUE = struct.Struct(">hi")


@dataclass(frozen=True, slots=True)
class Marker:
    is_commit: bool
    coordinator_epoch: int


def build_marker(marker: Marker, *, producer_id: int, producer_epoch: int, timestamp_ms: int) -> bytes:
    """The batch that ends the producer's open transaction in one partition."""
    record = NewRecord(
        _KEY.pack(VERSION, COMMIT if marker.is_commit else ABORT),
        _VALUE.pack(VERSION, marker.coordinator_epoch),
        [],
        timestamp_ms,
    )
    return as_control(
        build_batch([record], producer_id=producer_id, producer_epoch=producer_epoch, is_transactional=True)
    )


def as_control(batch: bytes) -> bytes:
    """The same uncompressed batch as a control batch."""
    header = header_at(batch)
    header = header._replace(attributes=header.attributes | CONTROL)
    crc: int = crc32c(batch[HEADER_BYTES:], crc32c(HEADER.pack(*header)[CRC_START:]))
    return HEADER.pack(*header._replace(crc=crc)) + batch[HEADER_BYTES:]


def marker_of(batch: Buffer, header: BatchHeader) -> Marker | None:
    """The marker in a control batch; None when the batch is of another type, or a compaction has emptied it.

    Raises InvalidRecord, CorruptMessage when it is broken."""
    record = next(read_batches(batch, with_control=True), None)
    if record is None:
        return None
    key, value = record.key, record.value
    if key is None or len(key) < _KEY.size or _KEY.unpack_from(key)[0] < VERSION:
        raise InvalidRecord(f"the key of the control record at offset {header.base_offset} is no version and type")
    kind = _KEY.unpack_from(key)[1]
    if kind not in (ABORT, COMMIT):
        return None
    if value is None or len(value) < _VALUE.size or _VALUE.unpack_from(value)[0] < VERSION:
        raise InvalidRecord(f"the marker at offset {header.base_offset} has no coordinator epoch")
    return Marker(is_commit=kind == COMMIT, coordinator_epoch=_VALUE.unpack_from(value)[1])
