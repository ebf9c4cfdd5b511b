"""The bytes of a `.snapshot` file: each producer with its last batch, as Kafka writes it. Pure.

Big-endian: version int16 (1), CRC-32C uint32 of all that follows it, count int32, then per producer: id int64, epoch
int16, last sequence int32, last offset int64, offset delta int32, timestamp int64, coordinator epoch int32, first
offset of the open transaction int64 (-1). Of the last five batches only the newest is kept: after a restart a duplicate
of an older one is out of order (45), as in Kafka.
Source: org.apache.kafka.storage.internals.log.ProducerStateManager.writeSnapshot, readSnapshot.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from crc32c import crc32c

from replication.producers.state import Producer, ProducerBatch

VERSION = 1
_HEAD = struct.Struct(">hI")
_COUNT = struct.Struct(">i")
_ENTRY = struct.Struct(">qhiqiqiq")


class CorruptSnapshot(ValueError):
    """The bytes are no snapshot of producers; the message has the reason."""


def encode_snapshot(producers: Iterable[tuple[int, Producer]]) -> bytes:
    entries = [_encode(producer_id, producer) for producer_id, producer in producers]
    payload = _COUNT.pack(len(entries)) + b"".join(entries)
    return _HEAD.pack(VERSION, crc32c(payload)) + payload


def _encode(producer_id: int, producer: Producer) -> bytes:
    return _ENTRY.pack(
        producer_id,
        producer.epoch,
        producer.last_sequence,
        producer.last_offset,
        producer.batches[-1].offset_delta if producer.batches else 0,
        producer.timestamp,
        producer.coordinator_epoch,
        producer.current_txn_first_offset,
    )


def decode_snapshot(data: bytes) -> list[tuple[int, Producer]]:
    """The producers of a snapshot. Raises CorruptSnapshot."""
    if len(data) < _HEAD.size + _COUNT.size:
        raise CorruptSnapshot(f"{len(data)} bytes are no snapshot of producers")
    version, crc = _HEAD.unpack_from(data)
    if version != VERSION:
        raise CorruptSnapshot(f"version {version}; only version {VERSION} is known")
    payload = memoryview(data)[_HEAD.size :]
    if crc32c(payload) != crc:
        raise CorruptSnapshot(f"its CRC is not {crc:#010x}, which its header has")
    (count,) = _COUNT.unpack_from(payload)
    if len(payload) != _COUNT.size + count * _ENTRY.size:
        raise CorruptSnapshot(f"it announces {count} producers in {len(data)} bytes")
    return [_decode(*entry) for entry in _ENTRY.iter_unpack(payload[_COUNT.size :])]


def _decode(
    producer_id: int,
    epoch: int,
    last_sequence: int,
    last_offset: int,
    offset_delta: int,
    timestamp: int,
    coordinator_epoch: int,
    txn_first_offset: int,
) -> tuple[int, Producer]:
    batch = ProducerBatch(last_sequence, last_offset, offset_delta, timestamp)
    return producer_id, Producer(
        epoch=epoch,
        batches=(batch,) if last_offset >= 0 else (),
        timestamp=timestamp,
        seen_ms=-1,
        coordinator_epoch=coordinator_epoch,
        current_txn_first_offset=txn_first_offset,
    )
