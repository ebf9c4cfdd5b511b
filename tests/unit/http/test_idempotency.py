"""Idempotency-Key at the door: what is refused, which ids and partitions it gives, and what a retry is answered."""

from __future__ import annotations

from typing import Any

import pytest

from kraft.http.endpoint import Call
from kraft.http.idempotency import IdempotencyKey
from kraft.protocol.batches.header import computed_crc, whole_batches
from kraft.protocol.batches.records import NewRecord, build_batch
from metadata.producer_ids import RESERVED_PRODUCER_IDS_FROM
from replication.requests import ProduceOutcome
from tests.support.fake_gateway import PRODUCER_LIMITS
from tests.unit.http.door import RAW_BATCH, RAW_RECORDS, TEXT, V3, Answer, Door, raw_records, with_door


async def write(
    door: Door, path: str, *values: str, key: str = "k", content_type: str = TEXT, **headers: str
) -> Answer:
    body = {"records": [{"value": value} for value in values]}
    return await door.ask("POST", path, body, Content_Type=content_type, Idempotency_Key=key, **headers)


def places(answer: Answer) -> list[tuple[int, int]]:
    assert answer.status == 200, answer.json
    return [(entry["partition"], entry["offset"]) for entry in answer.json["offsets"]]


def headers_of(door: Door, topic: str, partition: int = 0) -> list[Any]:
    data = door.gateway.log(topic, partition).data
    assert all(computed_crc(data, at, header.size) == header.crc for at, header in whole_batches(data))
    return [header for _, header in whole_batches(data)]


def test_a_retry_is_answered_with_the_first_result_and_appends_nothing() -> None:
    async def story(door: Door) -> None:
        door.gateway.add_topic("t", 3)
        first = places(await write(door, "/topics/t", "a", "b"))
        await write(door, "/topics/t", "between", key="other")
        assert places(await write(door, "/topics/t", "a", "b")) == first
        assert places(await write(door, "/topics/t", "a", "b", Client_Id="me")) != first
        partition = first[0][0]
        mine = headers_of(door, "t", partition)[0]
        assert mine.producer_id == IdempotencyKey(client="", key="k").producer_id("t", number=0)
        assert mine.producer_id >= RESERVED_PRODUCER_IDS_FROM
        assert (mine.producer_epoch, mine.base_sequence) == (0, 0)
        assert sum(log.end for log in door.gateway.logs.values()) == 5
        without = await door.ask("POST", "/topics/t", {"records": [{"value": "a"}]}, Content_Type=TEXT)
        assert headers_of(door, "t", places(without)[0][0])[-1].producer_id == -1

    with_door(story)


def test_a_key_belongs_to_the_user_who_sent_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Call, "owner", property(lambda call: call.request.headers.get("X-Owner", "")))

    async def story(door: Door) -> None:
        door.gateway.add_topic("t", 1)
        owners = ({}, {"X_Owner": "User:alice"}, {"X_Owner": "User:bob"}, {"X_Owner": "User:bob", "Client_Id": "c"})
        first = [places(await write(door, "/topics/t", "a", **who)) for who in owners]
        assert first == [[(0, 0)], [(0, 1)], [(0, 2)], [(0, 3)]]
        assert [places(await write(door, "/topics/t", "a", **who)) for who in owners] == first

    with_door(story)


def test_partition_of_records_with_and_without_key() -> None:
    async def story(door: Door) -> None:
        door.gateway.add_topic("t", 8)
        chosen = {places(await write(door, "/topics/t", "a", key=f"key-{n}"))[0][0] for n in range(30)}
        assert len(chosen) > 4
        body = {"records": [{"value": "x"}, {"key": "k1", "value": "y"}, {"value": "z", "partition": 5}]}
        ask = [await door.ask("POST", "/topics/t", body, Content_Type=TEXT, Idempotency_Key="mix") for _ in range(3)]
        assert places(ask[0]) == places(ask[1]) == places(ask[2])
        assert places(await write(door, "/topics/t/partitions/2", "a", key="mix")) == [
            (2, door.gateway.log("t", 2).end - 1)
        ]

    with_door(story)


def test_a_request_of_several_batches_appends_only_what_is_missing() -> None:
    async def story(door: Door) -> None:
        door.gateway.add_topic("t", configs={"max.message.bytes": "300"})
        values = [str(n) * 60 for n in range(8)]
        log = door.gateway.log("t")
        whole = places(await write(door, "/topics/t", *values))
        assert whole == [(0, n) for n in range(8)]
        batches = headers_of(door, "t")
        assert len({header.producer_id for header in batches}) == len(batches) > 1
        log.end = batches[1].base_offset  # as if a leader with only the first batch had been elected
        log.data, log.producers = log.data[: batches[0].size], type(log.producers)()
        log.producers.update(batches[0], PRODUCER_LIMITS)
        await write(door, "/topics/t", "between", key="other")
        retry = places(await write(door, "/topics/t", *values))
        kept = batches[0].record_count
        assert retry == [(0, n) for n in range(kept)] + [(0, n + 1) for n in range(kept, 8)]
        assert log.end == 9

    with_door(story)


def test_what_comes_after_a_failed_batch_is_not_sent() -> None:
    async def story(door: Door) -> None:
        door.gateway.add_topic("t", configs={"max.message.bytes": "300"})
        door.gateway.fail_produce = ProduceOutcome(error_code=19, message="ISR of t-0 is [1]", isr=(1,), min_isr=2)
        answer = await write(door, "/topics/t", *("x" * 60 for _ in range(8)))
        entries = answer.json["offsets"]
        assert len(door.gateway.produced) == 1
        assert [entry["kafka_code"] for entry in entries] == [19] * 8
        assert "not sent, for the batch before it failed: ISR of t-0" in entries[-1]["error"]
        assert all(entry["retriable"] and not entry["is_appended"] for entry in entries)

    with_door(story)


def test_a_key_used_for_something_else_is_422() -> None:
    async def story(door: Door) -> None:
        door.gateway.add_topic("t", 2)
        await write(door, "/topics/t", "a", "b")
        reused = await write(door, "/topics/t", "a", "b", "c")
        assert (reused.status, reused.json["error_code"], reused.json["kafka_code"]) == (422, 422, 45)
        assert "used with other records" in reused.json["message"]
        assert not reused.json["retriable"]
        entries = [{"id": "1", "value": {"type": "STRING", "data": "a"}}]
        path = f"{V3}/topics/t/records:batch"
        assert (await door.ask("POST", path, {"entries": entries}, Idempotency_Key="k")).status == 422

    with_door(story)


def test_part_of_a_request_refused_is_an_error_of_its_records() -> None:
    async def story(door: Door) -> None:
        door.gateway.add_topic("t", 2)
        body = {"records": [{"value": "a", "partition": 0}]}
        await door.ask("POST", "/topics/t", body, Content_Type=TEXT, Idempotency_Key="k")
        body["records"] += [{"value": "b", "partition": 0}, {"value": "c", "partition": 1}]
        entries = (await door.ask("POST", "/topics/t", body, Content_Type=TEXT, Idempotency_Key="k")).json["offsets"]
        assert [(entry.get("kafka_code"), entry["error_code"]) for entry in entries] == [(45, 50002)] * 2 + [
            (None, None)
        ]

    with_door(story)


def test_v3_batch_reports_the_first_timestamps_again() -> None:
    async def story(door: Door) -> None:
        door.gateway.add_topic("t", 3)
        entries = [
            {"id": "1", "value": {"type": "STRING", "data": "a"}},
            {
                "id": "2",
                "partition_id": 1,
                "value": {"type": "STRING", "data": "b"},
                "timestamp": "2026-01-01T00:00:00Z",
            },
        ]
        path = f"{V3}/topics/t/records:batch"
        answers = [await door.ask("POST", path, {"entries": entries}, Idempotency_Key="k") for _ in range(2)]
        assert answers[0].status == 207
        assert answers[0].json == answers[1].json
        assert len(answers[0].json["successes"]) == 2

    with_door(story)


def test_acks_0_appends_once_too() -> None:
    async def story(door: Door) -> None:
        door.gateway.add_topic("t")
        for _ in range(2):
            answer = await write(door, "/topics/t?acks=0", "a")
            assert (answer.status, answer.json["offsets"]) == (202, [])
        assert door.gateway.log("t").end == 1

    with_door(story)


def test_raw_batches_are_given_the_keys_producer_and_keep_their_records() -> None:
    async def story(door: Door) -> None:
        door.gateway.add_topic("t")
        parts = [
            build_batch([NewRecord(b"k", b"%d" % n, [], 1)], compression=c) for n, c in enumerate(("none", "gzip"))
        ]
        body, path = b"".join(parts), "/topics/t/partitions/0"
        for _ in range(2):
            answer = await door.ask("POST", path, body, Content_Type=RAW_BATCH, Idempotency_Key="k")
            assert [(e["offset"], e["last_offset"]) for e in answer.json["offsets"]] == [(0, 0), (1, 1)]
        assert [header.codec_name for header in headers_of(door, "t")] == ["none", "gzip"]
        records = raw_records([(None, b"v")])
        for _ in range(2):
            answer = await door.ask("POST", "/topics/t", records, Content_Type=RAW_RECORDS, Idempotency_Key="raw")
            assert places(answer) == [(0, 2)]

    with_door(story)


@pytest.mark.parametrize("what", ["own id", "crc", "cut", "reserved"])
def test_raw_batches_that_cannot_be_keyed_are_refused(what: str) -> None:
    async def story(door: Door) -> None:
        door.gateway.add_topic("t")
        records = [NewRecord(None, b"v", [], 1)]
        producer = {"own id": 5, "reserved": RESERVED_PRODUCER_IDS_FROM + 1}.get(what, -1)
        own: dict[str, Any] = {} if producer < 0 else {"producer_id": producer, "producer_epoch": 0, "base_sequence": 0}
        body = bytearray(build_batch(records, **own))
        if what == "crc":
            body[-1] ^= 1
        headers = {} if what == "reserved" else {"Idempotency_Key": "k"}
        data = bytes(body[:-1]) if what == "cut" else bytes(body)
        answer = await door.ask("POST", "/topics/t/partitions/0", data, Content_Type=RAW_BATCH, **headers)
        said = {"own id": "carries producer id 5", "crc": "CRC", "cut": "no whole RecordBatch", "reserved": "reserved"}
        assert answer.status == 422
        assert said[what] in answer.json["message"]
        assert door.gateway.log("t").end == 0

    with_door(story)


@pytest.mark.parametrize(
    ("key", "said"),
    [("", "is empty"), ("x" * 256, "256 characters"), ("ké", "no printable ASCII"), ("a b", "no printable ASCII")],
)
def test_bad_keys_and_clients_are_400_before_the_body_is_read(key: str, said: str) -> None:
    async def story(door: Door) -> None:
        door.gateway.add_topic("t")
        for name in ("Idempotency_Key", "Client_Id"):
            for path in ("/topics/t", "/topics/t/partitions/0", f"{V3}/topics/t/records:batch"):
                content_type = "application/json" if path.startswith("/v3") else TEXT
                answer = await door.ask("POST", path, b"{", Content_Type=content_type, **{name: key})
                assert (answer.status, answer.json["error_code"]) == (400, 400)
                assert said in answer.json["message"]

    with_door(story)


def test_the_longest_key_is_taken() -> None:
    async def story(door: Door) -> None:
        door.gateway.add_topic("t")
        assert places(await write(door, "/topics/t", "a", key="~" * 255)) == [(0, 0)]

    with_door(story)


def test_ids_differ_by_client_topic_key_and_number() -> None:
    keys = [IdempotencyKey(client=c, key=k) for c in ("", "a", "ab") for k in ("k", "bk", "b")]
    ids = {key.producer_id(topic, number=n) for key in keys for topic in ("t", "tk") for n in range(3)}
    assert len(ids) == 9 * 2 * 3
    assert all(RESERVED_PRODUCER_IDS_FROM <= each < 2**63 for each in ids)
    assert IdempotencyKey(client="c", key="k").producer_id("t", number=0) == 8_258_484_940_469_879_222, (
        "stored in logs: it may never change"
    )
