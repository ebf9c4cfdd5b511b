"""Request bodies, made once: what a record is in each format, and how to see the same record when it is read back."""

from __future__ import annotations

import base64
import json
import random
import time
from dataclasses import dataclass

from kraft.protocol.batches.records import NewRecord, build_batch

RECORD_BATCH = "application/vnd.kafka.recordbatch.v2"
MEDIA = {
    "json": "application/vnd.kafka.json.v2+json",
    "binary": "application/vnd.kafka.binary.v2+json",
    "raw": RECORD_BATCH,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    media_type: str
    data: bytes
    records: int
    value_bytes: int
    """The bytes of all values, without keys, framing and encoding: MB/s counts them."""
    first: bytes
    """The value of the first record, as bytes in the log."""


def _text(size: int) -> str:
    """Text that does not compress to nothing, the same in every run."""
    rng = random.Random(size)
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=size))


def json_body(records: int, size: int) -> Body:
    """JSON strings: with its quotes a value has `size` bytes in the log."""
    value = _text(size - 2)
    data = json.dumps({"records": [{"value": value}] * records}).encode()
    first = json.dumps(value).encode()
    return Body(media_type=MEDIA["json"], data=data, records=records, value_bytes=records * size, first=first)


def binary_body(records: int, size: int) -> Body:
    value = _text(size).encode()
    data = json.dumps({"records": [{"value": base64.b64encode(value).decode()}] * records}).encode()
    return Body(media_type=MEDIA["binary"], data=data, records=records, value_bytes=records * size, first=value)


def raw_body(batch_bytes: int, size: int) -> Body:
    """One batch with as many records as fit in `batch_bytes`."""
    value, now_ms = json.dumps(_text(size - 2)).encode(), time.time_ns() // 1_000_000
    record = NewRecord(None, value, [], now_ms)
    count = max(1, batch_bytes // size)
    while len(data := build_batch([record] * count)) > batch_bytes and count > 1:
        count -= 1
    return Body(media_type=RECORD_BATCH, data=data, records=count, value_bytes=count * size, first=value)
