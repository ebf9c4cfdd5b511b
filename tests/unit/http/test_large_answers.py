"""Answers of small batches that hold much: bounded by what comes out, and made on a worker."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest
from aiohttp import web
from aiohttp.http_writer import StreamWriter
from aiohttp.test_utils import TestClient, TestServer

from kraft.http.limits import Limits
from kraft.http.records import INLINE_HEADERS_MAX, Taken, take_records
from kraft.http.responses import JOINED_BYTES_MAX, with_body
from kraft.protocol.batches.budget import OverBudget
from kraft.protocol.batches.records import NewRecord, build_batch
from replication.record_workers import RecordWorkers
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import BINARY, JSON, RAW_RECORDS, Door, with_door

READ = "/topics/t/partitions/0/records"
MIB = 1024 * 1024


def gateway(*batches: bytes) -> FakeGateway:
    fake = FakeGateway()
    fake.add_topic("t")
    for batch in batches:
        fake.log("t").append(batch)
    return fake


def bomb(count: int, size: int, codec: str = "zstd", *, value: bytes | None = None) -> bytes:
    return build_batch([NewRecord(None, value or bytes(size), [], 1) for _ in range(count)], compression=codec)


def take(data: bytes, offset: int = 0, **options: int) -> Taken:
    return take_records(data, offset, **{"bytes_max": MIB, "records_max": 1_000, **options})


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_max_bytes_counts_what_comes_out_and_every_record_comes_once(codec: str) -> None:
    data = bomb(100, 1_000, codec) + build_batch(
        [NewRecord(b"k", b"x" * 500, [("h", b"y" * 400)], 1) for _ in range(50)], base_offset=100, compression=codec
    )
    offset, seen = 0, []
    while offset < 150:
        taken = take(data, offset, bytes_max=10_000)
        assert taken.records
        sizes = [len(r.value or b"") + sum(len(n) + len(v or b"") for n, v in r.headers) for r in taken.records]
        assert sum(sizes) <= 10_000
        seen += [record.offset for record in taken.records]
        assert taken.next_offset == seen[-1] + 1
        offset = taken.next_offset
    assert seen == list(range(150))


def test_at_least_one_record_is_taken() -> None:
    data = bomb(3, 2 * MIB)
    assert [record.offset for record in take(data, bytes_max=1).records] == [0]
    assert [record.offset for record in take(data, 2, bytes_max=0).records] == [2]
    tiny = bomb(5_000, 0, value=b"1")
    assert len(take(tiny).records) == 1_000
    assert take(tiny, 4_900).next_offset == 5_000


def test_what_is_too_large_for_the_loop_is_noticed_before_it_is_decompressed() -> None:
    data = bomb(10, 4 * MIB)
    assert len(data) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(OverBudget):
            take(data, inflated_max=MIB)
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


def test_batches_for_the_loop_are_bounded_together() -> None:
    data = b"".join(bomb(1, 400_000) for _ in range(3))
    assert len(take(data, bytes_max=100 * MIB).records) == 3
    with pytest.raises(OverBudget):
        take(data, bytes_max=100 * MIB, inflated_max=MIB)
    plain = b"".join(bomb(1, 400_000, "none") for _ in range(3))
    assert len(take(plain, bytes_max=100 * MIB, inflated_max=MIB).records) == 3, "these came as they are"


def test_headers_count_as_records_do() -> None:
    def with_headers(count: int) -> bytes:
        return build_batch([NewRecord(None, b"", [("", None)] * count, 1) for _ in range(10)])

    assert len(take(with_headers(INLINE_HEADERS_MAX // 10), inflated_max=MIB).records) == 10
    too_many = with_headers(INLINE_HEADERS_MAX // 10 + 1)
    assert len(take(too_many).records) == 10
    for bytes_max in (0, MIB):
        with pytest.raises(OverBudget):
            take(too_many, inflated_max=MIB, bytes_max=bytes_max, records_max=100 if bytes_max else 10)


@pytest.mark.parametrize(("count", "size", "hops"), [(1_000, 1_000, 0), (1_200, 1_000, 1), (2_600, 1, 1)])
@pytest.mark.parametrize("accept", [BINARY, JSON, RAW_RECORDS])
def test_the_loop_makes_an_answer_of_a_mebibyte_itself(
    accept: str, count: int, size: int, hops: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0
    run = RecordWorkers.run

    async def counted(self: RecordWorkers, *args: Any, **kwargs: Any) -> Any:
        nonlocal made
        made += 1
        return await run(self, *args, **kwargs)

    monkeypatch.setattr(RecordWorkers, "run", counted)

    async def story(door: Door) -> None:
        answer = await door.ask("GET", f"{READ}?offset=0&max_bytes={4 * MIB}", Accept=accept)
        assert int(answer.headers["X-Next-Offset"]) == count
        if accept != RAW_RECORDS:
            assert [each["offset"] for each in answer.json] == list(range(count))
        assert made == hops

    with_door(story, gateway(bomb(count, 0, "none", value=b'"%b"' % (b"a" * (size - 2)) if size > 2 else b"1")))


@pytest.mark.parametrize("accept", [BINARY, JSON, RAW_RECORDS])
def test_a_default_read_of_a_bomb_is_a_page_like_any_other(accept: str) -> None:
    """And the loop goes on meanwhile: how often it turned is counted, not how long it took."""
    log = gateway(bomb(64, 0, value=b'"' + b"a" * (MIB - 22) + b'"'))

    async def story(door: Door) -> None:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.001)

        turning = asyncio.ensure_future(turn())
        for offset in (0, 1, 63):
            before = turns
            answer = await door.ask("GET", f"{READ}?offset={offset}", Accept=accept)
            assert answer.status == 200
            assert len(answer.body) < 2 * MIB
            assert turns > before + 2
            assert int(answer.headers["X-Next-Offset"]) == offset + 1
        turning.cancel()

    with_door(story, log)


def test_many_tiny_records_come_in_several_answers() -> None:
    async def story(door: Door) -> None:
        offset, seen = 0, 0
        while offset < 5_000:
            answer = await door.ask("GET", f"{READ}?offset={offset}&max_bytes=1000000000", Accept=JSON)
            records: list[Any] = answer.json
            assert [record["offset"] for record in records] == list(range(offset, offset + len(records)))
            assert 0 < len(records) <= 1_500
            seen += len(records)
            offset = int(answer.headers["X-Next-Offset"])
        assert seen == 5_000

    with_door(story, gateway(bomb(5_000, 0, value=b"1")), limits=Limits(read_records_max=1_500))


def test_a_stream_takes_a_bomb_in_pieces() -> None:
    async def story(door: Door) -> None:
        path = f"{READ}?format=json&offset=0"
        async with door.client.get(path, headers={"Accept": "application/x-ndjson"}) as response:
            for offset in range(40):
                line = await response.content.readuntil(b"\n")
                assert b'"offset":%d,' % offset in line

    with_door(story, gateway(bomb(40, 0, value=b'"' + b"b" * 100_000 + b'"')))


def test_a_large_body_is_sent_as_it_is_and_a_small_one_with_its_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp's own way copies the body behind its headers."""
    written: list[Any] = []
    write = StreamWriter._write

    def noted(self: StreamWriter, chunk: Any) -> None:
        written.append(chunk)
        write(self, chunk)

    monkeypatch.setattr(StreamWriter, "_write", noted)
    monkeypatch.setattr(StreamWriter, "_writelines", lambda self, chunks: noted(self, b"".join(chunks)))
    bodies: dict[int, bytes | bytearray] = {0: b"a" * 1_000, 1: bytearray(b"b" * (JOINED_BYTES_MAX + 1))}

    async def answer(request: web.Request) -> web.Response:
        return with_body(bodies[int(request.query["number"])], {"Content-Type": "text/plain"})

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/", answer)
        async with TestClient(TestServer(app)) as client:
            for number, body in bodies.items():
                written.clear()
                async with client.get(f"/?number={number}") as response:
                    assert await response.read() == body
                    assert response.headers["Content-Length"] == str(len(body))
                sent = [chunk for chunk in written if bytes(chunk[:3]) != b"GET"]
                assert len(sent) == number + 1
                assert (sent[-1] is body) == bool(number)

    asyncio.run(run())
