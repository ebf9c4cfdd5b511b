"""Streams of partitions and topics, through a real socket: resume, merge, heartbeats, errors, slow readers, the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import aiohttp

from kraft.http.app import CONTEXT
from kraft.http.limits import Limits
from kraft.http.revocations import Revocations
from kraft.http.streaming.frames import FRAMES
from kraft.http.streaming.merge import Piece
from kraft.http.streaming.positions import Positions
from kraft.http.streaming.serve import _run
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.errors import LeaderNotAvailable
from kraft.system_clock import SystemClock
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import Door, with_door

EVENTS = "text/event-stream"
LINES = "application/x-ndjson"


class Reader:
    """Parses events as a browser does: by lines, an event per empty line, its id kept."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.last_id = ""
        self.comments = 0

    async def event(self) -> tuple[str, Any]:
        """(type, data) of the next event that has data."""
        kind, data = "message", ""
        async with asyncio.timeout(30):
            while True:
                line = (await self.response.content.readline()).decode()
                if line == "\n":
                    if data:
                        return kind, json.loads(data)
                    kind = "message"
                    continue
                assert line, "the stream has ended"
                field, _, value = line.rstrip("\n").partition(":")
                if field == "":
                    self.comments += 1
                elif field == "id":
                    self.last_id = value.removeprefix(" ")
                elif field == "event":
                    kind = value.removeprefix(" ")
                elif field == "data":
                    data += value.removeprefix(" ")

    async def values(self, count: int) -> list[Any]:
        return [(await self.event())[1]["value"] for _ in range(count)]


@asynccontextmanager
async def stream(door: Door, path: str, *, accept: str = EVENTS, last_id: str | None = None) -> AsyncIterator[Reader]:
    headers = {"Accept": accept} | ({} if last_id is None else {"Last-Event-ID": last_id})
    async with door.client.get(path, headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"] == accept
        yield Reader(response)


class TakenAtOnce:
    """A source that always has more and an outlet that takes it all: neither ever suspends."""

    def __init__(self, pieces: int) -> None:
        self.left = pieces
        self.positions = Positions({("t", 0): 0})

    async def next(self, *, wait_ms: int) -> list[Piece]:
        self.left -= 1
        if self.left < 0:
            raise LeaderNotAvailable("that was all")
        return [Piece(("t", 0), [0], [b"{}"], 1)]

    async def write(self, data: bytes) -> None: ...


def test_a_stream_that_never_waits_lets_others_have_their_turns() -> None:
    asyncio.run(_with_others())


async def _with_others() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    endless, other = TakenAtOnce(1_000), asyncio.ensure_future(others())
    clock = SystemClock(asyncio.get_running_loop())
    context = SimpleNamespace(clock=clock, gateway=SimpleNamespace(quotas=None))
    waits = Revocations(clock)
    call = SimpleNamespace(context=context, unknown_topic=40401, while_allowed=lambda: waits.watching(lambda: None))
    ended = await _run(cast(Any, call), endless, cast(Any, endless), FRAMES[EVENTS], wait_ms=60_000)
    other.cancel()
    assert ended.status == 503
    assert turns >= 1_000


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the door, which tells nobody
            await asyncio.sleep(0.01)


async def when_it_rests(value: Callable[[], float]) -> float:
    """What has not changed for a while: the kernel's buffers may grow first."""
    async with asyncio.timeout(20):
        while (before := value()) != await later(value, s=0.2):
            pass
    return before


async def later(value: Callable[[], float], *, s: float) -> float:
    await asyncio.sleep(s)
    return value()


def gateway(partitions: int = 1, **static: object) -> FakeGateway:
    fake = FakeGateway(static=static)
    fake.add_topic("t", partitions)
    return fake


def put(fake: FakeGateway, *values: bytes, partition: int = 0) -> None:
    fake.log("t", partition).append(build_batch([NewRecord(None, value, [], 1) for value in values]))


def test_a_partition_from_its_first_record_on_and_what_comes_then() -> None:
    async def story(door: Door) -> None:
        put(door.gateway, b"a", b"b")
        async with stream(door, "/topics/t/partitions/0/records?format=text") as reader:
            kind, first = await reader.event()
            assert (kind, first["value"], first["offset"], reader.last_id) == ("message", "a", 0, "0:1")
            assert await reader.values(1) == ["b"]
            await door.gateway.log("t").waited_for.wait()
            put(door.gateway, b"c")
            assert await reader.values(1) == ["c"]
            assert reader.last_id == "0:3"

    with_door(story, gateway())


def test_the_last_event_id_resumes_exactly_also_within_a_batch() -> None:
    async def story(door: Door) -> None:
        put(door.gateway, *[b"%d" % n for n in range(10)])
        path, last_id, seen = "/topics/t/partitions/0/records?format=json", None, list[int]()
        while len(seen) < 10:
            async with stream(door, path, last_id=last_id) as reader:
                seen += await reader.values(3 if len(seen) < 9 else 1)
                last_id = reader.last_id
        assert seen == list(range(10))

    with_door(story, gateway())


def test_a_stream_that_has_seen_nothing_resumes_where_it_began() -> None:
    async def story(door: Door) -> None:
        put(door.gateway, b"old")
        async with door.client.get("/topics/t/records?offset=latest", headers={"Accept": EVENTS}) as response:
            assert response.headers["X-Position"] == "0:1,1:0"
            begin = await response.content.readuntil(b"\n\n")
        assert begin == b"retry: 1000\nid: 0:1,1:0\n\n"
        put(door.gateway, b"missed")
        async with stream(door, "/topics/t/records?offset=latest&format=text", last_id="0:1,1:0") as reader:
            assert await reader.values(1) == ["missed"]

    with_door(story, gateway(2))


def test_a_topic_is_merged_and_resumes_in_every_partition() -> None:
    async def story(door: Door) -> None:
        for number in range(3):
            put(door.gateway, *[b"%d%d" % (number, n) for n in range(4)], partition=number)
        seen: list[tuple[int, int]] = []
        last_id = None
        while len(seen) < 12:
            async with stream(door, "/topics/t/records?format=text", last_id=last_id) as reader:
                for _ in range(5 if len(seen) < 10 else 2):
                    record = (await reader.event())[1]
                    seen.append((record["partition"], record["offset"]))
                last_id = reader.last_id
        assert sorted(seen) == [(p, n) for p in range(3) for n in range(4)]
        assert [n for p, n in seen if p == 1] == [0, 1, 2, 3]

    with_door(story, gateway(3))


def test_partitions_that_are_added_are_followed_from_their_first_record() -> None:
    async def story(door: Door) -> None:
        async with stream(door, "/topics/t/records?format=text&offset=latest") as reader:
            door.gateway._add_partition(door.gateway.image.topic_ids["t"], 1)
            put(door.gateway, b"new", partition=1)
            assert await reader.values(1) == ["new"]
            assert reader.last_id == "0:0,1:1"

    with_door(story, gateway())


def test_heartbeats_while_nothing_comes() -> None:
    async def story(door: Door) -> None:
        async with stream(door, "/topics/t/partitions/0/records?heartbeat=100&format=text") as reader:
            waiting = asyncio.create_task(reader.event())
            await until(lambda: reader.comments >= 2)
            put(door.gateway, b"x")
            assert (await waiting)[1]["value"] == "x"

    with_door(story, gateway())


def test_lines() -> None:
    async def story(door: Door) -> None:
        put(door.gateway, b'{"a":1}', b"2")
        async with stream(door, "/topics/t/records?format=json&heartbeat=100", accept=LINES) as reader:
            lines = [await reader.response.content.readline() for _ in range(3)]
        assert [json.loads(line)["value"] for line in lines[:2]] == [{"a": 1}, 2]
        assert lines[2] == b"\n"

    with_door(story, gateway())


def test_unreadable_value_is_an_error_event() -> None:
    async def story(door: Door) -> None:
        put(door.gateway, b"1", b"{", b"3")
        path = "/topics/t/partitions/0/records?format=json"
        async with stream(door, path) as reader:
            assert await reader.values(1) == [1]
            kind, error = await reader.event()
            assert (kind, error["error_code"], error["offset"]) == ("error", 422, 1)
            assert await reader.response.content.read() == b"", "the stream ends"
        async with stream(door, path, last_id=reader.last_id) as again:
            assert await again.values(1) == [3]

    with_door(story, gateway())


def test_errors_before_the_stream_are_answers_and_later_ones_events() -> None:
    async def story(door: Door) -> None:
        for path, status, code in (
            ("/topics/none/records", 404, 40403),
            ("/topics/t/partitions/9/records", 404, 40402),
            ("/topics/t/records?format=avro", 400, 40002),
            ("/topics/t/records?heartbeat=1", 400, 40002),
            ("/topics/t/partitions/0/records?position=nonsense", 400, 40002),
            ("/topics/t/partitions/0/records?position=3:1", 400, 40002),
        ):
            answer = await door.ask("GET", path, Accept=EVENTS)
            assert (answer.status, answer.json["error_code"]) == (status, code), path
        async with stream(door, "/topics/t/partitions/0/records?offset=99") as reader:
            kind, error = await reader.event()
            assert (kind, error["error_code"], error["kafka_code"]) == ("error", 40002, 1)

    with_door(story, gateway())


def test_a_topic_that_is_deleted_ends_its_streams() -> None:
    async def story(door: Door) -> None:
        async with stream(door, "/topics/t/records?heartbeat=100") as reader:
            door.gateway._delete("t")
            kind, error = await reader.event()
            assert (kind, error["error_code"]) == ("error", 40403)

    with_door(story, gateway())


def test_a_leader_that_is_away_for_a_while_does_not_end_a_stream() -> None:
    async def story(door: Door) -> None:
        put(door.gateway, b"a")
        async with stream(door, "/topics/t/partitions/0/records?heartbeat=100&format=text") as reader:
            assert await reader.values(1) == ["a"]
            door.gateway.fail_read = LeaderNotAvailable("no leader")
            waiting = asyncio.create_task(reader.event())
            await asyncio.sleep(0)
            put(door.gateway, b"b")
            await until(lambda: reader.comments >= 2)
            door.gateway.fail_read = None
            assert (await waiting)[1]["value"] == "b"

    with_door(story, gateway())


def test_streams_beyond_limit_get_503() -> None:
    async def story(door: Door) -> None:
        path = "/topics/t/partitions/0/records"
        async with stream(door, path):
            refused = await door.ask("GET", path, Accept=EVENTS)
            assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        slots = door.app[CONTEXT].long_polls
        await until(lambda: not slots.taken)

    with_door(story, gateway(**{"rest.max.waiting.reads": 1}))


def test_a_stopping_node_reports_it_on_its_streams() -> None:
    async def story(door: Door) -> None:
        async with stream(door, "/topics/t/records") as reader:
            waiting = asyncio.create_task(reader.event())
            await until(lambda: door.app[CONTEXT].streams.count > 0)
            await door.app.shutdown()
            kind, error = await waiting
            assert (kind, error["error_code"], error["retriable"]) == ("error", 50302, True)
            assert await reader.response.content.read() == b""

    with_door(story, gateway())


def test_a_reader_that_takes_nothing_is_held_back_and_not_buffered() -> None:
    async def story(door: Door) -> None:
        for _ in range(400):
            put(door.gateway, bytes(100_000))
        async with stream(door, "/topics/t/partitions/0/records"):
            streams = door.app[CONTEXT].streams
            await until(lambda: streams.unsent_bytes > 0)
            fetched = await when_it_rests(lambda: door.app[CONTEXT].metrics.fetched_bytes.value)
            assert 0 < streams.unsent_bytes < 1_000_000
            assert fetched < 30_000_000, "of 40 MB the kernel holds the rest of what was read"

    with_door(story, gateway())


def test_slowest_stream_is_closed_beyond_limit() -> None:
    async def story(door: Door) -> None:
        for _ in range(200):
            put(door.gateway, bytes(100_000))
        path = "/topics/t/partitions/0/records"
        streams = door.app[CONTEXT].streams
        async with stream(door, path), stream(door, path):
            await until(lambda: streams.count == 1 and streams.unsent_bytes > 0)
            assert streams.unsent_bytes < 500_000

    with_door(story, gateway(), limits=Limits(stream_unsent_bytes_max=100_000))
