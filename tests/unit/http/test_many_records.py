"""Bodies of many tiny things: refused while they are counted, and what is taken keeps the loop for nobody else."""

from __future__ import annotations

import asyncio
import struct
import tracemalloc
from contextlib import nullcontext
from time import thread_time
from typing import Any

import msgspec
import pytest

from kraft.http.errors import HttpError
from kraft.http.limits import Limits
from kraft.http.partitioner import UNPLACED, Partitioner, places_of
from kraft.http.raw_records import decode_records
from kraft.http.record_counts import NESTED_MAX, check_counts, check_values, objects_max
from kraft.http.v3.produce_stream import portions
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import BINARY, JSON, RAW_RECORDS, TEXT, V3, Door, raw_records, with_door

MIB = 1024 * 1024
TURN_S_MAX = 0.05
"""Of the loop's own processor time."""
SOME = Limits(produce_records_max=1_000, produce_headers_max=2_000, batch_entries_max=1_000)


def gateway(partitions: int = 1) -> FakeGateway:
    fake = FakeGateway()
    fake.add_topic("t", partitions)
    return fake


def body(item: bytes, count: int, field: str = "records") -> bytes:
    return b'{"%b":[' % field.encode() + b",".join([item] * count) + b"]}"


@pytest.mark.parametrize("form", [BINARY, JSON, TEXT])
def test_8_mib_of_empty_records_are_refused_in_words(form: str) -> None:
    async def story(door: Door) -> None:
        large = body(b"{}", 2_796_202)
        assert len(large) > 8 * MIB
        refused = await door.ask("POST", "/topics/t", large, Content_Type=form)
        assert (refused.status, refused.json["error_code"]) == (413, 413)
        assert refused.json["message"] == "more than 100000 records in a request; send them in several"
        dense = await door.ask("POST", "/topics/t", body(b"{}", 20_000), Content_Type=form)
        assert dense.json["message"] == "more than 7049 records in a request; send them in several"
        assert door.gateway.log("t").end == 0
        taken = await door.ask("POST", "/topics/t", body(b'{"value":null}', 20_000), Content_Type=form)
        assert [each["offset"] for each in taken.json["offsets"]] == list(range(20_000))

    with_door(story, gateway())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (body(b"{}", 1_001), "more than 1000 records"),
        (body(b'{"headers":[' + b",".join([b"{}"] * 101) + b"]}", 20), "more than 2000 headers"),
        (body(b"{}", 600)[:-1] + b"," + body(b"{}", 600)[1:], "more than 1000 records"),
        (body(b"{}", 1_000), ""),
        (body(b'{"headers":[{},{}]}', 1_000), ""),
        (body(b'{"value":{"a":[{},{},{}],"b":"{{{"}}', 1_000), ""),
        (body(b'{"value":"' + b"{" * 5_000 + b'"}', 1), ""),
        (b"{" * 5_000, ""),
        (b'{"records":' + b"[" * 5_000 + b"{" * 5_000, ""),
        (b'{"records":[{"headers":7},' + b"{}," * 3_000, ""),
        (b"\xff{" * 3_000, ""),
    ],
)
def test_what_is_counted(text: bytes, said: str) -> None:
    """What is no body of records is left to the parser that says so."""
    expected: Any = pytest.raises(HttpError, match=f"^{said}") if said else nullcontext()
    with expected:
        check_counts(text, "records", objects=objects_max(text), items_max=1_000, headers_max=2_000, code=413)


CHANGE = b'{"topic_name":"orders","configs":[{"name":"retention.ms","value":"86400000"}]}'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (body(CHANGE, 1_500, "data"), ""),
        (body(b'{"topic_name":"t","configs":[{"name":"t"}]}', 1_500, "data"), "more than 3698 objects and lists"),
        (body(CHANGE[:-4] + b" " * 200 + CHANGE[-4:], NESTED_MAX // 3, "data"), "more than 16384 objects and lists"),
        (body(b"{}", 5_000, "data"), "more than 3298 values"),
    ],
)
def test_the_values_of_other_bodies_are_counted(text: bytes, said: str) -> None:
    expected: Any = pytest.raises(HttpError, match=f"^{said}") if said else nullcontext()
    with expected:
        check_values(text, values_max=50_000)


def test_counting_takes_no_memory() -> None:
    large = body(b"{}", 2_796_202)
    tracemalloc.start()
    try:
        with pytest.raises(HttpError):
            check_counts(large, "records", objects=objects_max(large), items_max=100_000, headers_max=1, code=413)
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()


def test_raw_records_are_counted_too() -> None:
    many = raw_records([(None, b"v")] * 1_001)
    with pytest.raises(HttpError, match="more than 1000 records"):
        decode_records(many, now_ms=1, records_max=1_000, headers_max=5)
    headers = struct.pack(">iiqi", -1, -1, 1, 6) + struct.pack(">i1si", 1, b"h", -1) * 6
    with pytest.raises(HttpError, match="more than 5 headers"):
        decode_records(headers, now_ms=1, records_max=1_000, headers_max=5)

    async def story(door: Door) -> None:
        assert (await door.ask("POST", "/topics/t", many, Content_Type=RAW_RECORDS)).status == 413

    with_door(story, gateway(), limits=SOME)


def test_a_batch_of_too_many_entries_is_refused_before_they_are_looked_at() -> None:
    async def story(door: Door) -> None:
        for entries in (body(b"{}", 1_001, "entries"), body(b"{}", 2_000_000, "entries")):
            refused = await door.ask("POST", f"{V3}/topics/t/records:batch", entries)
            assert refused.json["error_code"] == 42208, refused.json
            assert "more than 1000 entries" in refused.json["message"]

    with_door(story, gateway(), limits=SOME)


def test_a_bad_item_is_reported_once() -> None:
    async def story(door: Door) -> None:
        changes = body(b'{"value":"another"}', 4_000, "data")
        refused = await door.ask("POST", f"{V3}/topics/t/configs:alter", changes)
        assert refused.status in (400, 422)
        assert refused.json["message"].count("data.") == 1
        too_many = await door.ask("POST", f"{V3}/topics/t/configs:alter", body(b"1" * 20, 60_000, "data"))
        assert too_many.status == 413
        assert "more than 50000 values" in too_many.json["message"]

    with_door(story, gateway())


def test_the_loop_goes_on_while_many_records_are_read() -> None:
    """Keys of 1 MiB in all are hashed, too, by the worker."""

    async def story(door: Door) -> None:
        longest_s = 0.0
        turns = 0

        async def turn() -> None:
            nonlocal longest_s, turns
            while True:
                begun = thread_time()
                await asyncio.sleep(0.001)
                longest_s = max(longest_s, thread_time() - begun)
                turns += 1

        records: list[Any] = [{"key": f"{number}".zfill(20), "value": "v"} for number in range(50_000)]
        encoded = msgspec.json.encode({"records": records})
        turning = asyncio.ensure_future(turn())
        answer = await door.ask("POST", "/topics/t", encoded, Content_Type=TEXT)
        turning.cancel()
        assert turns > 5
        assert longest_s <= TURN_S_MAX
        where = places_of(door.gateway.image.topics_by_name["t"], [_Key(each["key"].encode()) for each in records])
        assert [each["partition"] for each in answer.json["offsets"]] == where
        assert {each["error_code"] for each in answer.json["offsets"]} == {None}

    with_door(story, gateway(3))


class _Key:
    def __init__(self, key: bytes | None) -> None:
        self.key = key
        self.partition = None


def test_keyless_records_of_a_request_share_the_partition_whose_turn_it_is() -> None:
    topic, partitioner = gateway(3).image.topics_by_name["t"], Partitioner()
    records = [_Key(None), _Key(b"k"), _Key(None)]
    assert places_of(topic, records)[0] == UNPLACED
    seen = []
    for _ in range(3):
        first, keyed, last = partitioner.place(topic, records)
        assert (first == last, keyed) == (True, places_of(topic, [_Key(b"k")])[0])
        seen.append(first)
    assert sorted(seen) == [0, 1, 2]


@pytest.mark.parametrize("data", [b"{}" * 300_000, b'{"value":{"data":"' + b"x" * 400_000 + b'"}}', b"", b"{" * 10])
def test_what_a_stream_brings_at_once_is_taken_in_portions(data: bytes) -> None:
    parts = list(portions(data))
    assert b"".join(parts) == data
    assert all(part.count(b"{") <= 1_024 for part in parts)
    assert len(parts) <= 1 or data.count(b"{") > 1_000
