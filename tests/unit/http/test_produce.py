"""Produce: batches as they arrive at the cluster, and answers in the order of the request."""

from __future__ import annotations

from typing import Any

import pytest

from kraft.http.partitioner import Partitioner
from kraft.protocol.batches.header import whole_batches
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches
from kraft.protocol.partitioner import murmur2, partition_of_key
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import BINARY, JSON, RAW_BATCH, RAW_RECORDS, TEXT, V3, Door, b64, raw_records, with_door


def gateway(partitions: int = 3, **settings: Any) -> FakeGateway:
    fake = FakeGateway(static={name.replace("_", "."): value for name, value in settings.items()})
    fake.add_topic("t", partitions)
    return fake


def stored(fake: FakeGateway, partition: int = 0) -> list[tuple[bytes | None, bytes | None]]:
    return [(record.key, record.value) for record in read_batches(fake.log("t", partition).data)]


@pytest.mark.parametrize(
    ("key", "digest"),
    # From org.apache.kafka.common.utils.UtilsTest.testMurmur2.
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536),
     (b"a-little-bit-longer-string", -1486304829), (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
     (b"abc", 479470107)],
)  # fmt: skip
def test_murmur2_is_kafkas(key: bytes, digest: int) -> None:
    assert murmur2(key) == digest & 0xFFFFFFFF
    assert partition_of_key(key, 7) == (digest & 0x7FFFFFFF) % 7


def test_keyless_requests_take_turns_over_partitions_with_a_leader() -> None:
    fake = gateway(3)
    fake.change("t", 1, leader=-1)
    topic = fake.image.topics_by_name["t"]
    partitioner = Partitioner()
    assert [partitioner.next_for(topic) for _ in range(4)] == [0, 2, 0, 2]


def test_all_records_of_a_partition_are_one_batch_and_answers_keep_the_order() -> None:
    async def story(door: Door) -> None:
        records = [
            {"partition": 2, "value": 0},
            {"partition": 1, "value": 1},
            {"partition": 2, "value": 2},
            {"key": "abc", "value": 3},
            {"value": 4},
            {"value": 5},
        ]
        offsets = (await door.ask("POST", "/topics/t", {"records": records}, Content_Type=JSON)).json["offsets"]
        for value, entry in enumerate(offsets):
            found = [
                r for r in read_batches(door.gateway.log("t", entry["partition"]).data) if r.offset == entry["offset"]
            ]
            assert [record.value for record in found] == [str(value).encode()]
        assert [entry["partition"] for entry in offsets[:3]] == [2, 1, 2]
        assert offsets[3]["partition"] == partition_of_key(b'"abc"', 3)
        assert offsets[4]["partition"] == offsets[5]["partition"]
        for number in range(3):
            assert len(list(whole_batches(door.gateway.log("t", number).data))) <= 1

    with_door(story, gateway())


def test_formats_headers_and_timestamps_are_stored_as_sent() -> None:
    async def story(door: Door) -> None:
        headers = [{"key": "h", "value": b64(b"\x00")}, {"name": "n", "value": None}]
        record = {"key": b64(b"\xffk"), "value": b64(b"\xffv"), "timestamp": 5, "headers": headers}
        await door.ask("POST", "/topics/t/partitions/0", {"records": [record]}, Content_Type=BINARY)
        await door.ask("POST", "/topics/t/partitions/0", b'{"records":[{"value": {"a": [1, 2]}}]}', Content_Type=JSON)
        await door.ask("POST", "/topics/t/partitions/0", {"records": [{"key": "é", "value": ""}]}, Content_Type=TEXT)
        first, second, third = read_batches(door.gateway.log("t").data)
        assert (first.key, first.value, first.timestamp) == (b"\xffk", b"\xffv", 5)
        assert list(first.headers) == [("h", b"\x00"), ("n", None)]
        assert (second.key, second.value) == (None, b'{"a":[1,2]}')
        assert second.timestamp > 1_600_000_000_000
        assert (third.key, third.value) == ("é".encode(), b"")

    with_door(story, gateway())


def test_acks_and_timeout_go_on_as_asked() -> None:
    async def story(door: Door) -> None:
        for query in ("", "?acks=1&timeout=7", "?acks=-1", "?acks=all&timeout=0", "?acks=0"):
            await door.ask("POST", f"/topics/t{query}", {"records": [{}]}, Content_Type=JSON)
        assert door.gateway.produced == [(-1, 30_000), (1, 7), (-1, 30_000), (-1, 0), (0, 30_000)]

    with_door(story, gateway())


def test_a_request_may_ask_for_a_larger_isr_than_its_topic() -> None:
    async def story(door: Door) -> None:
        async def ask(wanted: int) -> dict[str, Any]:
            path = f"/topics/t/partitions/0?min_isr={wanted}"
            return (await door.ask("POST", path, {"records": [{}]}, Content_Type=JSON)).json

        fine = await ask(3)
        assert fine["offsets"][0]["error_code"] is None
        assert fine["partitions"] == [{"partition": 0, "leader": 1, "leader_epoch": -1, "isr": [1, 2, 3]}]
        refused = (await ask(4))["offsets"][0]
        assert (refused["error_code"], refused["kafka_code"], refused["is_appended"]) == (50003, 19, False)
        assert (refused["isr"], refused["min_isr"], refused["leader"]) == ([1, 2, 3], 4, 1)
        assert door.gateway.log("t").end == 1
        door.gateway.acked_by = (1,)  # the ISR has shrunk, and this node does not know it yet
        shrunk = await ask(2)
        entry = shrunk["offsets"][0]
        assert (entry["kafka_code"], entry["is_appended"], entry["isr"], entry["min_isr"]) == (20, True, [1], 2)
        assert door.gateway.log("t").end == 2
        batch = await door.ask("POST", f"{V3}/topics/t/records:batch?min_isr=4", {"entries": [{"id": "a"}]})
        assert batch.json["failures"][0]["kafka_code"] == 19

    with_door(story, gateway())


def test_a_raw_batch_arrives_byte_for_byte() -> None:
    batch = build_batch([NewRecord(b"k", b"v", [], 1), NewRecord(None, b"w" * 300_000, [], 2)], compression="gzip")

    async def story(door: Door) -> None:
        answer = await door.ask("POST", "/topics/t/partitions/1", batch * 2, Content_Type=RAW_BATCH)
        assert answer.json["offsets"] == [
            {"partition": 1, "offset": 0, "error_code": None, "error": None, "last_offset": 3}
        ]
        assert len(stored(door.gateway, 1)) == 4
        read = await door.ask("GET", "/topics/t/partitions/1/records", Accept=RAW_BATCH)
        assert read.headers["Content-Type"] == RAW_BATCH
        assert read.body == bytes(door.gateway.log("t", 1).data)
        assert read.headers["X-Next-Offset"] == "4"
        accepted = await door.ask("POST", "/topics/t/partitions/1?acks=0", batch, Content_Type=RAW_BATCH)
        assert (accepted.status, accepted.json["offsets"]) == (202, [])

    with_door(story, gateway())


def test_length_prefixed_records() -> None:
    async def story(door: Door) -> None:
        body = raw_records([(b"k", b"v"), (None, None), (b"", b"x" * 1000)], timestamp=9)
        answer = await door.ask("POST", "/topics/t/partitions/0", body, Content_Type=RAW_RECORDS)
        assert [entry["offset"] for entry in answer.json["offsets"]] == [0, 1, 2]
        assert stored(door.gateway) == [(b"k", b"v"), (None, None), (b"", b"x" * 1000)]
        read = await door.ask("GET", "/topics/t/partitions/0/records?offset=1", Accept=RAW_RECORDS)
        tail = raw_records([(b"", b"x" * 1000)], timestamp=9)
        nulls = raw_records([(None, None)], timestamp=9)
        assert read.body == (1).to_bytes(8, "big") + nulls + (2).to_bytes(8, "big") + tail

    with_door(story, gateway())


def test_length_prefixed_records_that_end_too_early_are_refused_by_number() -> None:
    whole = raw_records([(b"k", b"v")], timestamp=9)

    async def story(door: Door) -> None:
        for cut in range(1, len(whole)):
            body = whole + whole[:cut]
            answer = await door.ask("POST", "/topics/t/partitions/0", body, Content_Type=RAW_RECORDS)
            assert answer.status == 422
            message = answer.json["message"]
            assert message.startswith("record 1, near byte ")
            assert "ends within the record" in message or "bytes left" in message
        assert stored(door.gateway) == []

    with_door(story, gateway())


def test_headers_of_length_prefixed_records_come_back() -> None:
    header = b"\x00\x00\x00\x01n\x00\x00\x00\x02vv" + b"\x00\x00\x00\x01m\xff\xff\xff\xff"
    body = b"\xff\xff\xff\xff" * 2 + (5).to_bytes(8, "big") + b"\x00\x00\x00\x02" + header

    async def story(door: Door) -> None:
        await door.ask("POST", "/topics/t/partitions/0", body, Content_Type=RAW_RECORDS)
        (record,) = read_batches(door.gateway.log("t").data)
        assert list(record.headers) == [("n", b"vv"), ("m", None)]
        read = await door.ask("GET", "/topics/t/partitions/0/records", Accept=RAW_RECORDS)
        assert read.body == bytes(8) + body

    with_door(story, gateway())


def test_a_request_larger_than_a_batch_may_be_is_split() -> None:
    async def story(door: Door) -> None:
        body = {"records": [{"value": b64(bytes([n]) * 300)} for n in range(20)]}
        offsets = (await door.ask("POST", "/topics/t/partitions/0", body, Content_Type=BINARY)).json["offsets"]
        assert [entry["offset"] for entry in offsets] == list(range(20))
        assert [value for _, value in stored(door.gateway)] == [bytes([n]) * 300 for n in range(20)]

    with_door(story, gateway(message_max_bytes=1000))


def test_topics_are_created_when_the_cluster_allows_it() -> None:
    async def story(door: Door) -> None:
        answer = await door.ask("POST", "/topics/fresh", {"records": [{"value": 1}]}, Content_Type=JSON)
        assert (answer.status, answer.json["offsets"][0]["offset"]) == (200, 0)
        assert "fresh" in door.gateway.image.topic_ids

    with_door(story, gateway(auto_create_topics_enable=True))
