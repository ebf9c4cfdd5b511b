"""The load generator against a small stub: what it counts, and that its checks find what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from bench.bodies import binary_body, json_body, raw_body
from bench.client import Client, ClosedLoop, Load, request
from bench.cluster import BenchError, Usage
from bench.report import Row, line, percentile
from bench.rows import _check_contiguous, _row

Handler = Callable[[web.Request], Awaitable[web.Response]]


def against(handler: Handler, scenario: Callable[[str], Awaitable[None]]) -> None:
    async def run() -> None:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            port = runner.addresses[0][1]
            await scenario(f"http://127.0.0.1:{port}")
        finally:
            await runner.cleanup()

    asyncio.run(run())


def test_a_closed_loop_counts_every_answer_and_stops_at_its_number() -> None:
    seen: list[bytes] = []

    async def handler(incoming: web.Request) -> web.Response:
        seen.append(await incoming.read())
        return web.Response(body=b'{"offsets":[{"offset":%d}]}' % len(seen))

    async def scenario(base: str) -> None:
        data = request("POST", "/t", body=b"x" * 1000)
        load = await ClosedLoop(base, data, connections=4, seconds=30, requests_max=100).run()
        assert (load.answers, len(load.latencies_s), load.errors) == (100, 100, [])
        assert len(load.bodies) == 100

    against(handler, scenario)
    assert seen == [b"x" * 1000] * 100


def test_a_large_answer_is_read_whole_and_headers_by_any_case() -> None:
    async def handler(incoming: web.Request) -> web.Response:
        return web.Response(body=b"y" * 3_000_000, headers={"X-Next-Offset": "7"})

    async def scenario(base: str) -> None:
        client = Client(base)
        for _ in range(2):
            answer = await client.ask(request("GET", "/t"))
            assert (answer.status, len(answer.body), answer.header("x-next-offset")) == (200, 3_000_000, "7")
        client.close()

    against(handler, scenario)


def test_refusals_and_broken_connections_are_errors_of_the_load() -> None:
    async def refuse(incoming: web.Request) -> web.Response:
        return web.Response(status=503, body=b"no")

    async def hang_up(incoming: web.Request) -> web.Response:
        assert incoming.transport is not None
        incoming.transport.close()
        return web.Response()

    async def refused(base: str) -> None:
        load = await ClosedLoop(base, request("GET", "/"), connections=1, seconds=30, requests_max=3).run()
        assert len(load.errors) == 3
        assert "503" in load.errors[0]

    async def broken(base: str) -> None:
        load = await ClosedLoop(base, request("GET", "/"), connections=2, seconds=30, requests_max=10).run()
        assert len(load.errors) == 2
        assert "connection lost" in load.errors[0]
        with pytest.raises(ConnectionError):
            await Client(base).ask(request("GET", "/"))

    against(refuse, refused)
    against(hang_up, broken)


def test_offsets_that_are_missing_or_twice_are_found() -> None:
    good = [b'{"offsets":[{"partition":0,"offset":%d' % offset for offset in (200, 0, 100)]
    _check_contiguous(good, records=100)
    with pytest.raises(BenchError, match="offset 200"):
        _check_contiguous([good[0], good[1]], records=100)
    with pytest.raises(BenchError, match="offset 0"):
        _check_contiguous([good[1], good[1]], records=100)
    with pytest.raises(BenchError, match="without an offset"):
        _check_contiguous([b"{}"], records=100)


def test_bodies_say_what_they_hold() -> None:
    assert json_body(10, 100).value_bytes == 1000
    assert len(json_body(10, 100).first) == len(binary_body(1, 100).first) == 100
    raw = raw_body(64 * 1024, 1000)
    assert len(raw.data) <= 64 * 1024 < len(raw.data) + 1020
    assert int.from_bytes(raw.data[57:61], "big") == raw.records


def test_a_row_is_what_was_measured() -> None:
    load = Load(answers=4, seconds=2.0, latencies_s=[0.001, 0.002, 0.003, 0.1])
    row = _row("r", load, Usage(1.0, 0), Usage(2.0, 3_000_000), 0.5, records=100, value_bytes=1e6)
    assert (row.records_per_s, row.requests_per_s, row.mb_per_s, row.p99_ms) == (200, 2, 2, 100)
    assert (row.nodes_cpu_percent, row.client_cpu_percent, row.memory_mb) == (50, 25, 3)
    assert line(Row(name="n", mb_per_s=1234.5), 5).split() == ["n", "1,234"]
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 3.0
