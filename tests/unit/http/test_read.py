"""The stateless read: from where, how much, in which format, and how long it waits."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from typing import Any

import pytest

from kraft.http.app import CONTEXT
from kraft.http.embedded_records import encode_each
from kraft.http.media import Format
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import BINARY, JSON, TEXT, Door, b64, with_door

READ = "/topics/t/partitions/0/records"


def gateway(*batches: list[tuple[bytes | None, bytes | None]]) -> FakeGateway:
    fake = FakeGateway()
    fake.add_topic("t")
    timestamp = 0
    for batch in batches:
        records = []
        for key, value in batch:
            timestamp += 1000
            records.append(NewRecord(key, value, [], timestamp))
        fake.log("t").append(build_batch(records))
    return fake


TOO_DEEP = 50_000
"""Levels that no Python's parser goes down: it is a thousand in 3.11, ten thousand in 3.13."""
ABC = [(None, b'"a"'), (b"k", b'"b"'), (b"\xff", b'"c"')]


def offsets(answer: Any) -> list[int]:
    return [record["offset"] for record in answer.json]


def test_formats() -> None:
    async def story(door: Door) -> None:
        common = {"topic": "t", "partition": 0, "offset": 1, "timestamp": 2000, "headers": []}
        for accept, key, value in ((BINARY, b64(b"k"), b64(b'"b"')), (JSON, "aw==", "b"), (TEXT, "k", '"b"')):
            answer = await door.ask("GET", f"{READ}?offset=1", Accept=accept)
            assert answer.headers["Content-Type"] == accept
            assert answer.json[0] == {**common, "key": key, "value": value}
            assert answer.json[1]["key"] == b64(b"\xff"), "a key that is not in the format is base64"

    with_door(story, gateway(ABC))


def test_a_key_that_is_nested_too_deep_is_base64() -> None:
    async def story(door: Door) -> None:
        (record,) = (await door.ask("GET", READ, Accept=JSON)).json
        assert record["key"] == b64(b"[" * 5_000)

    with_door(story, gateway([(b"[" * 5_000, b"1")]))


def test_what_is_nested_nearly_too_deep_is_answered_or_refused_on_a_stream_too() -> None:
    """A line of a stream is written once more without its line breaks, one level deeper than the value alone."""

    def is_refused(depth: int) -> bool:
        log = build_batch([NewRecord(None, b"[" * depth + b"\n" + b"]" * depth, [], 1)])
        lines, error = encode_each(list(read_batches(log)), Format.JSON, topic="t", partition=0)
        assert (error is None) == bool(lines)
        assert error is None or error.status == 422
        return error is not None

    too_deep = bisect_left(range(TOO_DEEP), True, key=is_refused)  # of this Python, from here
    assert {is_refused(depth) for depth in range(too_deep - 80, too_deep + 80)} == {True, False}


def test_a_value_that_is_not_in_the_format_is_422_and_reports_where() -> None:
    async def story(door: Door) -> None:
        for accept, offset in ((JSON, 1), (TEXT, 2)):
            answer = await door.ask("GET", READ, Accept=accept)
            assert answer.status == 422
            assert answer.json["offset"] == offset
        arrays, objects = b"[" * TOO_DEEP + b"]" * TOO_DEEP, b'{"a":' * TOO_DEEP + b"1" + b"}" * TOO_DEEP
        for value in (b"\xff", b"{", b"", b"1 2", b'"\xff"', b"NaN", arrays, objects):
            door.gateway.log("t").append(build_batch([NewRecord(None, value, [], 1)]))
            end = door.gateway.log("t").end
            answer = await door.ask("GET", f"{READ}?offset={end - 1}", Accept=JSON)
            assert (answer.status, answer.json["offset"]) == (422, end - 1), value

    with_door(story, gateway([(None, b"1"), (None, b"no json"), (None, b"\xff")]))


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        ("0", [0, 1, 2, 3]),
        ("2", [2, 3]),
        ("4", []),
        ("earliest", [0, 1, 2, 3]),
        ("latest", []),
        ("ts:2000", [1, 2, 3]),
        ("ts:2001", [2, 3]),
        ("ts:99999", []),
        ("ts:1970-01-01T00:00:03Z", [2, 3]),
        ("ts:1970-01-01T00:00:03", [2, 3]),
        ("ts:1970-01-01T01:00:04%2B01:00", [3]),
        ("ts:1970-01-01T01:00:04+01:00", [3]),
    ],
)
def test_from_where(offset: str, expected: list[int]) -> None:
    async def story(door: Door) -> None:
        answer = await door.ask("GET", f"{READ}?offset={offset}&timeout=0")
        assert offsets(answer) == expected
        assert answer.headers["X-Next-Offset"] == "4"
        assert answer.headers["X-High-Watermark"] == "4"
        assert answer.headers["X-Log-Start-Offset"] == "0"

    with_door(story, gateway(ABC, [(None, b"d")]))


def test_max_bytes_cuts_between_records_and_never_answers_nothing() -> None:
    async def story(door: Door) -> None:
        seen: list[int] = []
        url = f"{READ}?offset=0&max_bytes=150&timeout=0"
        while True:
            answer = await door.ask("GET", url)
            if not answer.json:
                break
            assert len(answer.json) == 1
            seen += offsets(answer)
            link = answer.headers["Link"]
            assert link.endswith('>; rel="next"')
            assert "max_bytes=150" in link, "the next request asks the same way"
            url = link[1 : link.index(">")]
        assert seen == [0, 1, 2, 3]

    with_door(story, gateway([(None, b"x" * 100)] * 3, [(None, b"y" * 1000)]))


def test_a_long_poll_wakes_on_append() -> None:
    async def story(door: Door) -> None:
        log = door.gateway.log("t")
        slots = door.app[CONTEXT].long_polls
        async with asyncio.timeout(30):
            waiting = asyncio.create_task(door.ask("GET", f"{READ}?offset=latest&timeout=60000"))
            await log.waited_for.wait()
        assert slots.taken == 1
        log.append(build_batch([NewRecord(None, b"new", [], 1)]))
        async with asyncio.timeout(30):
            assert offsets(await waiting) == [0]
        assert slots.taken == 0

    with_door(story, gateway())


def test_a_poll_that_finds_nothing_answers_an_empty_list_with_where_to_go_on() -> None:
    async def story(door: Door) -> None:
        answer = await door.ask("GET", f"{READ}?offset=latest&timeout=1")
        assert (answer.status, answer.json, answer.headers["X-Next-Offset"]) == (200, [], "3")

    with_door(story, gateway(ABC))
