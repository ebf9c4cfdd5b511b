"""What a client's batches are refused for, each with Kafka's code (P12)."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest

from metadata.errors import KafkaError
from metadata.settings import TopicSettings
from replication.batches.header import CODEC_NAMES, CRC_START, computed_crc
from replication.batches.records import NewRecord, build_batch, read_batches
from replication.batches.validation import BatchRules, validate_batches

NOW_MS = 1_700_000_000_000


def _batch(count: int = 10, *, timestamp_ms: int = NOW_MS, key: bytes | None = b"k", **options: Any) -> bytearray:
    records = [NewRecord(key, b"value %d" % i, [("h", b"x")], timestamp_ms) for i in range(count)]
    return bytearray(build_batch(records, **options))


def _code(data: bytes | bytearray, **settings: Any) -> int:
    try:
        validate_batches(data, rules=BatchRules.of(TopicSettings(**settings)), now_ms=NOW_MS)
    except KafkaError as error:
        return error.code
    return 0


def _sealed(batch: bytearray) -> bytearray:
    """With a CRC that fits again."""
    struct.pack_into(">I", batch, 17, computed_crc(batch, 0, len(batch)))
    return batch


def _with(batch: bytearray, position: int, form: str, value: int) -> bytearray:
    struct.pack_into(form, batch, position, value)
    return _sealed(batch) if position >= CRC_START else batch


@pytest.mark.parametrize("codec", CODEC_NAMES)
def test_good_batches_pass_and_read_back(codec: str) -> None:
    data = bytes(_batch(compression=codec)) + bytes(_batch(3, compression=codec, base_offset=10))
    rules = BatchRules.of(TopicSettings())
    assert [valid.header.record_count for valid in validate_batches(data, rules=rules, now_ms=NOW_MS)] == [10, 3]
    assert [record.offset for record in read_batches(data, from_offset=4)] == list(range(4, 13))


@pytest.mark.parametrize("codec", CODEC_NAMES)
def test_a_false_record_count_cannot_poison_offsets(codec: str) -> None:
    assert _code(_with(_batch(compression=codec), 57, ">i", 9)) == 87
    both = _with(_with(_batch(compression=codec), 57, ">i", 9), 23, ">i", 8)
    assert _code(both) == 2
    more = _with(_with(_batch(compression=codec), 57, ">i", 11), 23, ">i", 10)
    assert _code(more) == 2


def test_offset_deltas_must_count_up() -> None:
    batch = _batch(2, key=None)
    second = 61 + 1 + batch[61] // 2
    assert batch[second + 3] == 2, "the zigzag offset delta of the second record"
    batch[second + 3] = 4
    assert _code(_sealed(batch)) == 87


@pytest.mark.parametrize(
    ("position", "form", "value", "code"),
    [
        (16, ">b", 1, 43),
        (8, ">i", 10, 2),
        (8, ">i", 10_000, 2),
        (21, ">h", 5, 76),
        (21, ">h", 0x20, 87),
        (21, ">h", 0x10, 87),
        (35, ">q", NOW_MS + 1, 87),
        (43, ">q", -2, 87),
        (43, ">q", 7, 87),
    ],
)
def test_bad_headers(position: int, form: str, value: int, code: int) -> None:
    assert _code(_with(_batch(), position, form, value)) == code


def test_sizes_crc_timestamps_and_keys() -> None:
    batch = _batch()
    assert _code(b"") == 87
    assert _code(batch[:-1]) == 2
    assert _code(batch + b"xx") == 2
    assert _code(batch[:-1] + b"?") == 2
    assert _code(batch, max_message_bytes=len(batch) - 1) == 10
    assert _code(batch, max_message_bytes=len(batch)) == 0
    assert _code(batch, segment_bytes=len(batch) - 1) == 18
    assert _code(_batch(timestamp_ms=NOW_MS + 3_600_001)) == 32
    assert _code(_batch(timestamp_ms=NOW_MS + 3_600_000)) == 0
    assert _code(_batch(timestamp_ms=NOW_MS - 11), message_timestamp_before_max_ms=10) == 32
    assert _code(_batch(timestamp_ms=NOW_MS - 11), message_timestamp_type="LogAppendTime") == 0
    assert _code(_batch(key=None), cleanup_policy="compact") == 87
    assert _code(_batch(), cleanup_policy="compact") == 0


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_decompression_bombs_are_refused(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = build_batch([NewRecord(None, bytes(3_000_000), [], NOW_MS)], compression=codec)
    assert _code(bomb) == 0
    monkeypatch.setattr("replication.batches.validation.DECOMPRESSED_BYTES_MAX", 2_000_000)
    assert _code(bomb) == 2


@pytest.mark.parametrize("codec", CODEC_NAMES)
def test_garbage_behind_a_good_header_is_refused_or_read(codec: str) -> None:
    rng = random.Random(codec)
    for _ in range(400):
        batch = _batch(compression=codec)
        for _ in range(rng.choice([1, 3, 20])):
            batch[rng.randrange(61, len(batch))] = rng.randrange(256)
        if _code(_sealed(batch)) == 0:
            assert [record.offset for record in read_batches(batch)] == list(range(10))
