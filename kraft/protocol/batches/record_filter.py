"""Batches with some of their records taken out, for compaction: offsets, order and everything else stay.

The base timestamp of a rewritten batch stays too, unless a delete horizon takes its place (KIP-534: attribute 0x40;
record timestamps are deltas to it). Source: org.apache.kafka.common.record.MemoryRecords.filterTo.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from aiokafka.errors import CorruptRecordException
from crc32c import crc32c

from kraft.protocol.batches.compression import compress
from kraft.protocol.batches.header import (
    CODEC_MASK,
    CRC_START,
    DELETE_HORIZON,
    HEADER,
    HEADER_BYTES,
    LOG_OVERHEAD,
    BatchHeader,
)
from kraft.protocol.batches.records import DefaultRecordBatch, DefaultRecordBatchBuilder, plain_batch
from kraft.protocol.errors import CorruptMessage
from kraft.protocol.primitives import Buffer

_BATCH_BYTES_MAX = 2**31 - 1
_ANCHOR_BYTES = 7
"""A record without key, value and headers at delta 0: it fixes the base timestamp of a batch and is cut off again."""


def decoding(batch: Buffer, header: BatchHeader) -> Iterable[Any]:
    """The records with offset, timestamp, key, value and headers, as they are asked for; none for an emptied batch."""
    return DefaultRecordBatch(plain_batch(batch, header)) if header.record_count else ()


def decoded(batch: Buffer, header: BatchHeader) -> list[Any]:
    """All of these records. Raises CorruptMessage."""
    try:
        return list(decoding(batch, header))
    except (CorruptRecordException, ValueError) as error:
        raise CorruptMessage(f"the batch at offset {header.base_offset} does not decode: {error}") from None


def delete_horizon_of(header: BatchHeader) -> int | None:
    """When the tombstones of the batch may go; None while no pass has set it."""
    return header.base_timestamp if header.attributes & DELETE_HORIZON else None


def with_records(header: BatchHeader, records: Sequence[Any], *, delete_horizon_ms: int | None) -> bytes:
    """The batch with only these of its records."""
    if not records:
        return emptied(header)
    base_timestamp = header.base_timestamp if delete_horizon_ms is None else delete_horizon_ms
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=_BATCH_BYTES_MAX,
    )
    builder.append(0, base_timestamp, None, None, [])
    for record in records:
        builder.append(record.offset - header.base_offset, record.timestamp, record.key, record.value, record.headers)
    payload = compress(bytes(builder.build()[HEADER_BYTES + _ANCHOR_BYTES :]), codec=header.codec)
    is_append_time = header.is_log_append_time
    horizon = 0 if delete_horizon_ms is None else DELETE_HORIZON
    return _packed(
        header._replace(
            attributes=header.attributes | horizon,
            base_timestamp=base_timestamp,
            max_timestamp=header.max_timestamp if is_append_time else max(record.timestamp for record in records),
            record_count=len(records),
        ),
        payload,
    )


def emptied(header: BatchHeader) -> bytes:
    """Header only: it keeps the offsets of the batch, and its producer's sequence (D9)."""
    attributes = header.attributes & ~(CODEC_MASK | DELETE_HORIZON)
    return _packed(header._replace(attributes=attributes, base_timestamp=header.max_timestamp, record_count=0), b"")


def _packed(header: BatchHeader, payload: bytes) -> bytes:
    header = header._replace(length=HEADER_BYTES - LOG_OVERHEAD + len(payload))
    crc: int = crc32c(payload, crc32c(HEADER.pack(*header)[CRC_START:]))
    return HEADER.pack(*header._replace(crc=crc)) + payload
