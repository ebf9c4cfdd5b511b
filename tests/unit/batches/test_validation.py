"""What a client's batches are refused for, each with Kafka's code (P12)."""

from __future__ import annotations

import random
import struct
import tracemalloc
from typing import Any

import pytest

from kraft.protocol.batches.budget import INLINE_RECORDS_MAX, Budget, OverBudget
from kraft.protocol.batches.header import CODEC_NAMES, CRC_START, computed_crc, header_at
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches
from kraft.protocol.errors import InvalidConfig, KafkaError
from metadata.settings import TopicSettings, broker_settings, canonical_value, topic_settings
from replication.log_validator import BatchRules, PreparedRecords, prepare_or_refuse, prepare_records

NOW_MS = 1_700_000_000_000


def _batch(count: int = 10, *, timestamp_ms: int = NOW_MS, key: bytes | None = b"k", **options: Any) -> bytearray:
    records = [NewRecord(key, b"value %d" % i, [("h", b"x")], timestamp_ms) for i in range(count)]
    return bytearray(build_batch(records, **options))


def _code(data: bytes | bytearray, *, budget: Budget | None = None, **settings: Any) -> int:
    try:
        rules = BatchRules.of(TopicSettings(**settings))
        prepare_or_refuse(data, rules=rules, now_ms=NOW_MS, budget=budget or Budget())
    except KafkaError as error:
        return error.code
    return 0


def _prepared(data: bytes | bytearray, **settings: Any) -> PreparedRecords:
    return prepare_or_refuse(data, rules=BatchRules.of(TopicSettings(**settings)), now_ms=NOW_MS, budget=Budget())


def _record_errors(data: bytes | bytearray, **settings: Any) -> list[int]:
    with pytest.raises(KafkaError) as caught:
        _prepared(data, **settings)
    return [error.place for error in caught.value.record_errors]


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
    prepared = prepare_or_refuse(data, rules=rules, now_ms=NOW_MS, budget=Budget())
    assert [header.record_count for header in prepared.headers] == [10, 3]
    assert prepared.data == data
    assert [record.offset for record in read_batches(data, from_offset=4)] == list(range(4, 13))


@pytest.mark.parametrize("count", [1, 4_095, 4_096, 4_097, 8_192, 8_193])
def test_batches_of_any_count_are_walked_to_their_end(count: int) -> None:
    assert _code(_batch(count)) == 0
    late = _batch(count)
    prepared = _prepared(_with(late[:], 35, ">q", NOW_MS + 1))
    assert prepared.data == late, "the largest timestamp is that of the records, as Kafka mends it"
    batch = _batch(count)
    assert _code(_sealed(batch[:8] + struct.pack(">i", len(batch) - 11) + batch[12:] + b"\0")) == 2


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
    assert _record_errors(batch) == [1]


@pytest.mark.parametrize("codec", CODEC_NAMES)
def test_a_refusal_names_the_records_at_fault(codec: str) -> None:
    """KIP-467: a producer may send the others again."""
    early = NOW_MS - 1_000
    records = [
        NewRecord(None if number % 3 == 0 else b"k", b"v", [], early if number in (4, 9) else NOW_MS)
        for number in range(10)
    ]
    batch = build_batch(records, compression=codec)
    assert _record_errors(batch, cleanup_policy="compact") == [0, 3, 6, 9]
    assert _record_errors(batch, message_timestamp_before_max_ms=999) == [4, 9]
    assert _code(batch, message_timestamp_before_max_ms=999) == 32
    ahead = build_batch([NewRecord(b"k", b"v", [], NOW_MS + 5 * number) for number in range(3)], compression=codec)
    assert _record_errors(ahead, message_timestamp_after_max_ms=5) == [2]


def test_wrong_max_timestamp_is_corrected_in_any_codec() -> None:
    """kafka-go does. Timestamps are looked up by what the header says."""
    for codec in CODEC_NAMES:
        records = [NewRecord(b"k", b"v", [], NOW_MS - number) for number in range(3)]
        right = bytearray(build_batch(records, compression=codec))
        wrong = _with(right[:], 35, ">q", NOW_MS - 2)
        assert _prepared(wrong).data == right
        two = _prepared(wrong + wrong)
        assert two.data == right + right
        assert [header.max_timestamp for header in two.headers] == [NOW_MS, NOW_MS]
        stored = _prepared(wrong, compression_type="lz4")
        assert header_at(stored.data).max_timestamp == NOW_MS
        assert computed_crc(stored.data, 0, len(stored.data)) == header_at(stored.data).crc


@pytest.mark.parametrize(
    ("position", "form", "value", "code"),
    [
        (16, ">b", 1, 43),
        (8, ">i", 10, 2),
        (8, ">i", 10_000, 2),
        (21, ">h", 5, 76),
        (21, ">h", 0x20, 87),
        (21, ">h", 0x10, 87),
        (21, ">h", 0x08, 32),
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
@pytest.mark.parametrize("kind", ["producer", "gzip", "uncompressed"])
def test_decompression_bombs_are_refused_before_they_fill_the_memory(kind: str, codec: str) -> None:
    bomb = build_batch([NewRecord(None, bytes(3_000_000), [], NOW_MS)], compression=codec)
    assert _code(bomb, compression_type=kind, max_message_bytes=4_000_000) == 0
    assert _code(bomb, compression_type=kind, max_message_bytes=4_000_000, budget=Budget(bytes_left=2_000_000)) == 10
    tracemalloc.start()
    try:
        assert _code(bomb, compression_type=kind, budget=Budget(bytes_left=500_000)) == 10
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("codec", CODEC_NAMES)
def test_the_bounds_are_those_of_all_batches_of_a_record_set(codec: str) -> None:
    batches = b"".join(bytes(_batch(100, compression=codec)) for _ in range(10))
    assert _code(batches, budget=Budget(records_left=1_000)) == 0
    assert _code(batches, budget=Budget(records_left=999)) == 10
    size = 10 * (len(_batch(100)) - 61)
    assert _code(batches, budget=Budget(bytes_left=size)) == 0
    assert _code(batches, budget=Budget(bytes_left=size - 1)) == 10


@pytest.mark.parametrize("codec", CODEC_NAMES)
@pytest.mark.parametrize("kind", ["uncompressed", "gzip", "snappy", "lz4", "zstd"])
def test_batches_are_stored_as_the_topic_asks(kind: str, codec: str) -> None:
    """Everything but codec, length and CRC stays, also of several batches with different codecs."""
    first = _batch(compression=codec, producer_id=7, producer_epoch=2, base_sequence=5)
    data = bytes(first) + bytes(_batch(3, base_offset=10)) + bytes(_batch(4, compression="zstd", base_offset=13))
    rules = BatchRules.of(TopicSettings(compression_type=kind))
    prepared = prepare_or_refuse(data, rules=rules, now_ms=NOW_MS, budget=Budget())
    assert {header.codec_name for header in prepared.headers} == {"none" if kind == "uncompressed" else kind}
    sent, stored = list(read_batches(data)), list(read_batches(prepared.data, checks_crc=True))
    assert [(r.offset, r.timestamp, r.key, r.value, r.headers) for r in stored] == [
        (r.offset, r.timestamp, r.key, r.value, r.headers) for r in sent
    ]
    old, new = header_at(first), prepared.headers[0]
    assert new == header_at(prepared.data)
    assert old._replace(length=0, crc=0, attributes=0) == new._replace(length=0, crc=0, attributes=0)
    assert prepare_or_refuse(prepared.data, rules=rules, now_ms=NOW_MS, budget=Budget()).data == prepared.data


def test_a_batch_that_grows_when_it_is_stored_is_bounded_too() -> None:
    batch = build_batch([NewRecord(None, bytes(100_000), [], NOW_MS)], compression="zstd")
    assert _code(batch, compression_type="uncompressed", max_message_bytes=50_000) == 10
    assert _code(batch, compression_type="uncompressed", segment_bytes=50_000) == 18
    assert _code(batch, compression_type="lz4", max_message_bytes=50_000) == 0


def test_the_event_loop_takes_on_little_and_leaves_what_it_was_given_as_it_was() -> None:
    rules = BatchRules.of(TopicSettings(compression_type="gzip", max_message_bytes=10_000_000))
    for batch in (
        build_batch([NewRecord(None, bytes(2_000_000), [], NOW_MS)], compression="zstd"),
        bytes(_batch(INLINE_RECORDS_MAX + 1)),
        build_batch([NewRecord(None, bytes(70_000), [], NOW_MS)]),
    ):
        mine = bytearray(batch)
        with pytest.raises(OverBudget):
            prepare_records(mine, rules=rules, now_ms=NOW_MS, budget=Budget.inline())
        assert mine == batch


@pytest.mark.parametrize("codec", CODEC_NAMES)
def test_garbage_behind_a_good_header_is_refused_or_read(codec: str) -> None:
    rng = random.Random(codec)
    for _ in range(400):
        batch = _batch(compression=codec)
        for _ in range(rng.choice([1, 3, 20])):
            batch[rng.randrange(61, len(batch))] = rng.randrange(256)
        if _code(_sealed(batch)) == 0:
            assert [record.offset for record in read_batches(batch)] == list(range(10))


def test_values_of_compression_type() -> None:
    broker = broker_settings({"compression.type": "zstd"})
    assert topic_settings(broker, {}).compression_type == "zstd"
    for kind in ("producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"):
        assert topic_settings(broker, {"compression.type": kind}).compression_type == kind
        assert canonical_value(TopicSettings, "compression.type", kind) == kind
    with pytest.raises(InvalidConfig, match="uncompressed"):
        canonical_value(TopicSettings, "compression.type", "none")


def test_log_keeps_bytes_of_large_frames() -> None:
    """Records are copied nowhere between the socket and the file; and one small batch does not keep a large frame."""
    batch = bytes(_batch())
    frame = bytearray(b"head" + batch + b"tail")
    whole = memoryview(frame)[4 : 4 + len(batch)]
    assert _prepared(whole).data.obj is frame
    large = bytearray(batch + b"x" * len(batch))
    part = memoryview(large)[: len(batch)]
    assert _prepared(part).data.obj is large, "half of it"
    larger = bytearray(batch + b"x" * (len(batch) + 1))
    copied = _prepared(memoryview(larger)[: len(batch)]).data
    assert copied.obj is not larger
    assert copied == batch
    assert not _prepared(batch).data.readonly
