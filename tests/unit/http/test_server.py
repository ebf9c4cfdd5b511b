"""The listener: port, ordered stop, limits of connections, and bodies that are not what they claim to be."""

from __future__ import annotations

import asyncio
import gzip
import io
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import uvloop

from kraft.http.app import CONTEXT, create_app
from kraft.http.connection import Connection
from kraft.http.limits import Limits
from kraft.http.server import FIRST_REQUEST_MS, READ_BUFFER_BYTES, HttpServer
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.runtime.environment import close_environment, system_environment
from tests.support.fake_gateway import FakeGateway
from tests.unit.http.door import BINARY, RAW_BATCH, RAW_RECORDS, V3, Door, raw_records, with_door

LONG_POLL = "/topics/t/partitions/0/records?offset=latest&timeout=60000"


@asynccontextmanager
async def listening(fake: FakeGateway, *, port: int = 0, drain_ms: int = 5_000) -> AsyncIterator[HttpServer]:
    environment = system_environment()
    server = HttpServer(create_app(fake, environment=environment), host="127.0.0.1", port=port, drain_ms=drain_ms)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()
        close_environment(environment)


def gateway(**static: Any) -> FakeGateway:
    fake = FakeGateway(static={name.replace("_", "."): value for name, value in static.items()})
    fake.add_topic("t")
    return fake


async def waits(fake: FakeGateway) -> None:
    async with asyncio.timeout(30):
        await fake.log("t").waited_for.wait()


def test_serves_on_a_free_port_and_stops() -> None:
    async def story() -> None:
        async with aiohttp.ClientSession() as session:
            async with listening(gateway()) as server:
                url = f"http://127.0.0.1:{server.port}/healthz"
                async with session.get(url) as response:
                    assert response.status == 200
                    assert server.connections == 1
            with pytest.raises(aiohttp.ClientConnectionError):
                await session.get(url)

    asyncio.run(story())


def test_large_body_without_private_parts_of_aiohttp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(Connection, "resume_reading")
    body = build_batch([NewRecord(None, bytes(3 * READ_BUFFER_BYTES), [], 0)])

    async def story() -> None:
        async with listening(gateway()) as server, aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{server.port}/topics/t/partitions/0"
            for offset in range(3):
                headers = {"Content-Type": RAW_BATCH}
                async with session.post(url, data=io.BytesIO(body), headers=headers) as response:
                    assert (await response.json())["offsets"][0]["offset"] == offset
            assert server.connections == 1

    asyncio.run(story())


def test_a_taken_port_is_an_error_and_leaves_nothing_behind() -> None:
    async def story() -> None:
        async with listening(gateway()) as server:
            with pytest.raises(OSError, match="address already in use"):
                async with listening(gateway(), port=server.port):
                    pass

    asyncio.run(story())


def test_stop_lets_a_request_under_way_finish() -> None:
    async def story() -> None:
        fake = gateway()
        async with aiohttp.ClientSession() as session, listening(fake) as server:
            waiting = asyncio.create_task(session.get(f"http://127.0.0.1:{server.port}{LONG_POLL}"))
            await waits(fake)
            stopping = asyncio.create_task(server.stop())
            await asyncio.sleep(0)
            fake.log("t").append(build_batch([NewRecord(None, b"late", [], 1)]))
            async with asyncio.timeout(30):
                answer = await waiting
                assert len(await answer.json(content_type=None)) == 1
                await stopping

    asyncio.run(story())


@pytest.mark.parametrize("asks_first", [True, False])
def test_stop_hears_who_has_connected_before_it(asks_first: bool) -> None:
    """The kernel has told the client that it is connected; the loop has not seen it, and the request comes late."""

    async def story() -> None:
        async with listening(gateway()) as server:
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
                if asks_first:
                    client.sendall(request)
                stopping = asyncio.create_task(server.stop())
                await asyncio.sleep(0.02)
                if not asks_first:
                    client.sendall(request)
                await stopping
                client.settimeout(60)
                assert client.recv(1_000).startswith(b"HTTP/1.1 200")

    for loop_factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(story())


def test_stop_does_not_wait_for_who_never_asks() -> None:
    async def story() -> None:
        async with listening(gateway()) as server:
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                async with asyncio.timeout(FIRST_REQUEST_MS / 1000 + 30):
                    await server.stop()
                client.settimeout(60)
                assert client.recv(1) == b""

    asyncio.run(story())


def test_stop_cancels_what_does_not_finish_in_time() -> None:
    async def story() -> None:
        fake = gateway()
        async with aiohttp.ClientSession() as session, listening(fake, drain_ms=50) as server:
            waiting = asyncio.create_task(session.get(f"http://127.0.0.1:{server.port}{LONG_POLL}"))
            await waits(fake)
            async with asyncio.timeout(30):
                await server.stop()
                with pytest.raises(aiohttp.ClientConnectionError):
                    await waiting

    asyncio.run(story())


def test_a_client_that_goes_away_frees_its_place() -> None:
    async def story(door: Door) -> None:
        log, slots = door.gateway.log("t"), door.app[CONTEXT].long_polls
        waiting = asyncio.create_task(door.ask("GET", LONG_POLL))
        await waits(door.gateway)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        log.grown.set()
        async with asyncio.timeout(30):
            await door.ask("GET", "/healthz")
        assert slots.taken == 0

    with_door(story, gateway())


def test_connections_beyond_the_limit_are_refused_and_closed() -> None:
    async def story() -> None:
        fake = gateway(max_connections=1)
        async with listening(fake) as server, aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{server.port}"
            first = asyncio.create_task(session.get(url + LONG_POLL))
            await waits(fake)
            async with session.get(url + "/healthz") as second:
                assert second.status == 503
                assert second.headers["Connection"] == "close"
            fake.log("t").append(build_batch([NewRecord(None, b"x", [], 1)]))
            async with await first as answer:
                assert answer.status == 200
                await answer.read()
            async with session.get(url + "/healthz") as again:
                assert again.status == 200, "the connection let in stays in"

    asyncio.run(story())


def test_a_compressed_body_counts_by_what_it_becomes() -> None:
    async def story(door: Door) -> None:
        bomb = gzip.compress(raw_records([(None, bytes(200_000))]))
        assert len(bomb) < 1_000
        answer = await door.ask("POST", "/topics/t", bomb, Content_Type=RAW_RECORDS, Content_Encoding="gzip")
        assert answer.status == 413
        fine = gzip.compress(raw_records([(None, b"x" * 5_000)]))
        answer = await door.ask("POST", "/topics/t", fine, Content_Type=RAW_RECORDS, Content_Encoding="gzip")
        assert answer.json["offsets"][0]["offset"] == 0
        garbage = await door.ask("POST", "/topics/t", b"no gzip", Content_Type=BINARY, Content_Encoding="gzip")
        assert garbage.status == 400
        assert door.app[CONTEXT].bodies.used == 0

    with_door(story, gateway(), limits=Limits(body_bytes_max=100_000))


def test_v3_entries_keep_their_digits_and_bad_times_fail_alone() -> None:
    async def story(door: Door) -> None:
        entries = (
            b'{"entries":[{"id":"a","value":{"type":"JSON","data":{"n":123456789012345678901234567890}}},'
            b'{"id":"b","timestamp":"99999999999999999"},{"id":"c","value":{"type":"BINARY","data":"!"}},'
            b'{"id":"d","timestamp":"1969-12-31T00:00:00Z"},{"id":"e","value":{"type":"STRING","data":5}}]}'
        )
        answer = await door.ask("POST", f"{V3}/topics/t/records:batch", entries)
        assert [entry["id"] for entry in answer.json["successes"]] == ["a"]
        assert [(entry["id"], entry["error_code"]) for entry in answer.json["failures"]] == [
            ("b", 400), ("c", 400), ("d", 400), ("e", 400),
        ]  # fmt: skip
        read = await door.ask("GET", "/topics/t/partitions/0/records", Accept="application/vnd.kafka.json.v2+json")
        assert b'"value":{"n":123456789012345678901234567890}' in read.body

    with_door(story, gateway())


def test_a_fault_of_ours_is_an_event_and_500() -> None:
    emitted: list[tuple[str, dict[str, object]]] = []

    class Collected:
        def emit(self, event: str, /, **fields: object) -> None:
            emitted.append((event, fields))

    async def story(door: Door) -> None:
        door.gateway.logs.clear()
        assert (await door.ask("GET", "/topics/t/partitions/0/records")).status == 500
        ((event, fields),) = emitted
        assert event == "http_request_failed"
        assert fields["route"] == "/topics/{topic}/partitions/{partition}/records"

    with_door(story, gateway(), events=Collected())
