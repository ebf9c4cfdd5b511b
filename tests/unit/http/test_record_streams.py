"""v3 `records`: results while the request is still being written, one for each record, in order, whatever happens."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from kraft.http.app import CONTEXT
from kraft.http.limits import Limits
from kraft.http.streaming.splitter import ObjectSplitter
from kraft.protocol.batches.records import read_batches
from replication.requests import ProduceOutcome
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import PLAIN, V3, Door, with_door

PATH = V3 + "/topics/t/records"
OBJECTS = [
    b"{}",
    b'{"a":"}{\\"][\\\\"}',
    b'{"v":{"x":[1,{"y":"\\u00e9\\\\\\""}]}}',
    '{"k":"ä}"}'.encode(),
    b'{"n":[[[]]]}',
]


def gateway(partitions: int = 1, **static: Any) -> FakeGateway:
    fake = FakeGateway(static=static)
    fake.add_topic("t", partitions)
    return fake


def stored(fake: FakeGateway, partition: int = 0) -> list[tuple[bytes | None, bytes | None]]:
    return [(record.key, record.value) for record in read_batches(fake.log("t", partition).data, from_offset=0)]


def text(value: str) -> bytes:
    return json.dumps({"value": {"type": "STRING", "data": value}}).encode()


def results(body: bytes) -> list[dict[str, Any]]:
    lines = body.split(b"\r\n")
    assert lines.pop() == b""
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("seed", range(20))
def test_objects_are_found_however_the_body_is_cut(seed: int) -> None:
    rng = random.Random(seed)
    sent = [rng.choice(OBJECTS) for _ in range(12)]
    body = b"".join(each + rng.choice([b"", b"\n", b" \r\n\t"]) for each in sent)
    splitter, found = ObjectSplitter(bytes_max=1_000), []
    while body:
        size = rng.choice([1, 1, 2, 3, 7, 50])
        objects, problem = splitter.feed(body[:size])
        assert problem is None
        found += objects
        body = body[size:]
    assert found == sent
    assert len(splitter) == 0


@pytest.mark.parametrize("body", [b"[1]", b"x", b"{},{}", b'"{}"', b"{}}", b"\x00"])
def test_what_begins_no_object_is_reported_after_the_objects_before_it(body: bytes) -> None:
    objects, problem = ObjectSplitter(bytes_max=100).feed(b'{"a":1}' + body)
    assert objects[0] == b'{"a":1}'
    assert problem is not None
    assert "an object begins with {" in problem


def test_an_object_without_end_is_not_kept_for_ever() -> None:
    splitter = ObjectSplitter(bytes_max=100)
    assert splitter.feed(b'{"a":"' + b"x" * 90) == ([], None)
    assert splitter.feed(b"x" * 10) == ([], "an object is longer than 100 bytes")


def test_a_single_record_as_curl_users_know_it() -> None:
    async def story(door: Door) -> None:
        record = {
            "partition_id": 0,
            "headers": [{"name": "h", "value": "aGk="}],
            "key": {"type": "BINARY", "data": "aGVsbG8="},
            "value": {"type": "JSON", "data": {"a": [1.10, None]}},
            "timestamp": "2021-02-05T19:14:42Z",
        }
        answer = await door.ask("POST", PATH, record, Content_Type=PLAIN)
        assert (answer.status, answer.headers["Content-Type"]) == (200, PLAIN)
        assert answer.json == {
            "error_code": 200,
            "cluster_id": "test-cluster",
            "topic_name": "t",
            "partition_id": 0,
            "offset": 0,
            "timestamp": "2021-02-05T19:14:42Z",
            "leader_id": 1,
            "leader_epoch": -1,
            "key": {"type": "BINARY", "size": 5},
            "value": {"type": "JSON", "size": 16},
        }
        assert stored(door.gateway) == [(b"hello", b'{"a":[1.1,null]}')]

    with_door(story, gateway())


def test_results_come_while_the_request_is_still_being_written() -> None:
    async def story(door: Door) -> None:
        sent: asyncio.Queue[bytes] = asyncio.Queue()

        async def body() -> AsyncIterator[bytes]:
            while piece := await sent.get():
                yield piece

        sent.put_nowait(text("a") + text("b")[:10])
        async with (
            asyncio.timeout(30),
            door.client.post(PATH, data=body(), headers={"Content-Type": PLAIN}) as response,
        ):
            first = json.loads(await response.content.readline())
            assert (first["error_code"], first["offset"]) == (200, 0)
            sent.put_nowait(text("b")[10:] + b"\n" + text("c"))
            assert [json.loads(await response.content.readline())["offset"] for _ in range(2)] == [1, 2]
            sent.put_nowait(b"")
            assert await response.content.read() == b""
        assert [value for _, value in stored(door.gateway)] == [b"a", b"b", b"c"]

    with_door(story, gateway())


def test_what_has_arrived_is_one_produce_and_results_are_in_order() -> None:
    async def story(door: Door) -> None:
        records = [{"partition_id": n % 3, "value": {"type": "JSON", "data": n}} for n in range(300)]
        answer = await door.ask(
            "POST", PATH, b"".join(json.dumps(record).encode() for record in records), Content_Type=PLAIN
        )
        written = results(answer.body)
        assert [(each["partition_id"], each["offset"]) for each in written] == [(n % 3, n // 3) for n in range(300)]
        assert len(door.gateway.produced) == 1

    with_door(story, gateway(3))


def test_wrong_record_has_error_and_index() -> None:
    async def story(door: Door) -> None:
        bad = [
            b'{"value":{"type":"AVRO","data":"x"}}',
            b'{"value":{"type":"BINARY","data":"!"}}',
            b'{"value":{"type":"STRING","data":5}}',
            b'{"valu":1}',
            b'{"timestamp":"yesterday"}',
            b'{"partition_id":-1}',
        ]
        answer = await door.ask("POST", PATH, text("a") + b"".join(bad) + text("z"), Content_Type=PLAIN)
        said = results(answer.body)
        assert [each["error_code"] for each in said] == [200, 422, 400, 400, 400, 400, 400, 200]
        assert [each.get("index") for each in said] == [None, 1, 2, 3, 4, 5, 6, None]
        assert all(each["message"].startswith("Error: 42206 : ") for each in said[1:-1])
        unknown = await door.ask("POST", PATH, b'{"partition_id":7}', Content_Type=PLAIN)
        assert (unknown.json["error_code"], unknown.json["kafka_code"], unknown.json["index"]) == (50003, 3, 0)

    with_door(story, gateway())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"value":{"type":"JSON","data":nul}}', "malformed"),
        (b"[]", "begins with"),
        (b'{"value":', "ends within a record"),
        (b'{"value":{"type":"STRING","data":"\xff"}}', "malformed"),
    ],
)
def test_what_is_no_json_is_an_error_400_and_the_end(body: bytes, message: str) -> None:
    async def story(door: Door) -> None:
        answer = await door.ask("POST", PATH, text("a") + body, Content_Type=PLAIN)
        written, error = results(answer.body)
        assert (answer.status, written["offset"], error["error_code"], error["index"]) == (200, 0, 400, 1)
        assert message in error["message"]
        assert door.app[CONTEXT].bodies.used == 0

    with_door(story, gateway())


def test_an_empty_body_is_refused() -> None:
    async def story(door: Door) -> None:
        answer = await door.ask("POST", PATH, b" \n", Content_Type=PLAIN)
        assert (answer.json["error_code"], answer.json["message"]) == (400, "the body holds no record")

    with_door(story, gateway())


def test_what_the_leader_refuses_is_reported_for_each_record() -> None:
    async def story(door: Door) -> None:
        door.gateway.fail_produce = ProduceOutcome(
            error_code=20, message="too few", is_appended=True, isr=(1,), min_isr=2
        )
        answer = await door.ask("POST", PATH + "?acks=all", text("a") + text("b"), Content_Type=PLAIN)
        for index, each in enumerate(results(answer.body)):
            assert (each["error_code"], each["kafka_code"], each["is_appended"]) == (50003, 20, True)
            assert each["index"] == index

    with_door(story, gateway())


def test_what_can_be_refused_before_the_stream_is_an_ordinary_answer() -> None:
    async def story(door: Door) -> None:
        for path, headers, status, code in (
            (V3 + "/topics/none/records", {}, 404, 40403),
            ("/v3/clusters/other/topics/t/records", {}, 404, 404),
            (PATH + "?acks=5", {}, 400, 40002),
            (PATH, {"Content_Type": "text/plain"}, 415, 415),
            (PATH, {"Idempotency_Key": "k"}, 400, 40002),
        ):
            answer = await door.ask("POST", path, text("a"), **({"Content_Type": PLAIN} | headers))
            assert (answer.status, answer.json["error_code"]) == (status, code), path
        assert stored(door.gateway) == []

    with_door(story, gateway())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the door, which tells nobody
            await asyncio.sleep(0.02)


@pytest.mark.slow
def test_a_client_that_sends_and_does_not_read_is_held_back() -> None:
    async def story(door: Door) -> None:
        record = text("x" * 20)
        piece = record * 2_000
        sent = 0

        async def body() -> AsyncIterator[bytes]:
            nonlocal sent
            while True:
                sent += len(piece)
                yield piece

        async with door.client.post(PATH, data=body(), headers={"Content-Type": PLAIN}) as response:
            streams = door.app[CONTEXT].streams
            await until(lambda: streams.unsent_bytes > 0)
            assert response.status == 200
            at = sent
            await asyncio.sleep(0.1)
            assert sent - at < 8_000_000, "what the kernel and two buffers take"
            before = door.gateway.log("t").end
            await asyncio.sleep(0.1)
            assert door.gateway.log("t").end == before
            connection = response.connection
            assert connection is not None
            assert connection.transport is not None
            connection.transport.abort()  # to close it would first wait for what nobody reads
            await until(lambda: streams.unsent_bytes == 0)

    with_door(story, gateway())


def test_streams_beyond_their_number_get_503() -> None:
    async def story(door: Door) -> None:
        answer = await door.ask("POST", PATH, text("a"), Content_Type=PLAIN)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")

    with_door(story, gateway(), limits=Limits(produce_streams_max=0))
