"""What we use of libraries beyond what they promise: bounded to versions that were tested, and each part is there.

A failure here says which part of which library is another than we take it for, and which module of ours has to change
with it. PySyncObj, which is pinned to one version, has its own such test: tests/unit/quorum/test_library.py.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from kraft.client.transport import Transport

ROOT = Path(__file__).parents[2]
TESTED = {"aiohttp": "<3.15", "aiokafka": "<1"}
"""The first minor version that has not been tested. Who raises one runs the tests of this file, of tests/unit/http,
tests/unit/client and tests/unit/batches with it, and tests/conformance. Of aiokafka a public codec takes the place of
the private one, so its bound is the first version that may break what is public."""
USED_BY = {
    "aiohttp": "kraft/http/connection.py, kraft/http/server.py and kraft/client/transport.py",
    "aiokafka": "kraft/protocol/batches/records.py and kraft/protocol/batches/record_filter.py",
}
DEADLINE_S = 30


def changed(library: str, what: str) -> str:
    return f"{library} {version(library)}: {what}. {USED_BY[library]} rely on it: change them, or lower the bound"


# --- versions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", sorted(TESTED))
def test_a_library_whose_inside_is_used_is_bounded_below_its_first_untested_version(library: str) -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    declared = next(each for each in dependencies if re.match(rf"{library}[<>=]", each))
    assert declared.endswith(f",{TESTED[library]}"), f"pyproject.toml says {declared!r}; tested is {TESTED[library]}"
    bound = tuple(int(part) for part in TESTED[library].lstrip("<").split("."))
    installed = tuple(int(part) for part in version(library).split(".")[:2])
    assert installed < bound, f"{library} {version(library)} is installed, and was not tested: see TESTED"


def test_no_other_private_module_of_a_library_is_imported() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for folder in ("kraft", "metadata", "replication")
        for path in (ROOT / folder).rglob("*.py")
        if IMPORTS_PRIVATE.search(text := path.read_text(encoding="utf-8"))
        for name in private_imports(text)
    }
    assert found == {
        "kraft/protocol/batches/records.py: aiokafka.record._crecords",
    }


IMPORTS_PRIVATE = re.compile(
    r"^[ \t]*(?:from[ \t]+\S*\b_[a-zA-Z]|(?:from.*)?import\b(?:[^(\n]|\([^)]*)*?\b_[a-zA-Z])", re.MULTILINE
)
"""Only such text is parsed: to parse all of it takes seconds."""


def private_imports(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
            names += [f"{node.module}.{each.name}" for each in node.names if each.name.startswith("_")]
        elif isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        else:
            continue
        for name in names:
            top, *parts = name.split(".")
            is_ours = top in ("kraft", "metadata", "replication", "__future__")
            if not is_ours and any(part.startswith("_") and not part.startswith("__") for part in parts):
                yield name


# --- aiokafka: the codec of record batches --------------------------------------------------------------------------


def test_the_codec_builds_and_reads_batches_as_we_take_it_to() -> None:
    codec = importlib.import_module("aiokafka.record._crecords")
    try:
        builder = codec.DefaultRecordBatchBuilder(
            magic=2,
            compression_type=0,
            is_transactional=False,
            producer_id=-1,
            producer_epoch=-1,
            base_sequence=-1,
            batch_size=2**31 - 1,
        )
        builder.append(0, 1_000, None, None, [])
        anchor = len(builder.build()) - 61
        builder.append(3, 1_005, b"k", b"v", [("h", b"1"), ("n", None)])
        built = builder.build()
        records = [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in codec.DefaultRecordBatch(built)]
        kinds = {r.timestamp_type for r in codec.DefaultRecordBatch(memoryview(bytes(built)))}
    except (AttributeError, TypeError) as error:
        pytest.fail(changed("aiokafka", f"the codec has another interface ({error})"))
    assert isinstance(built, bytearray), changed("aiokafka", "a batch is built as something that cannot be stamped")
    assert anchor == 7, changed("aiokafka", f"an empty record has {anchor} bytes behind the header of 61, not 7")
    expected = [(0, 1_000, None, None, []), (3, 1_005, b"k", b"v", [("h", b"1"), ("n", None)])]
    assert records == expected, changed("aiokafka", "records are read as something else than was written")
    assert kinds == {0}, changed("aiokafka", f"the timestamp type is {kinds}, not 0 for CreateTime")


def test_the_codec_refuses_a_batch_whose_records_end_early() -> None:
    codec = importlib.import_module("aiokafka.record._crecords")
    errors = importlib.import_module("aiokafka.errors")
    builder = codec.DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1_000,
    )
    builder.append(0, 1, b"k", b"value", [])
    torn = bytes(builder.build()[:-3])
    with pytest.raises((errors.CorruptRecordException, ValueError)):
        list(codec.DefaultRecordBatch(torn))


WITHOUT_PRIVATE_CODEC = """
import sys
sys.modules["aiokafka.record._crecords"] = None
OPTIONS = ["-q", "-p", "no:cacheprovider", "-n", "0", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
from kraft.protocol.batches import record_filter, records
assert records.DefaultRecordBatch is record_filter.DefaultRecordBatch
assert records.DefaultRecordBatch.__module__ == "aiokafka.record.default_records", records.DefaultRecordBatch
sys.exit(__import__("pytest").main([*OPTIONS, "tests/unit/batches"]))
"""


@pytest.mark.long
def test_without_the_private_codec_batches_are_read_and_written_by_the_public_one() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_PRIVATE_CODEC], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


# --- aiohttp: its server's connection -------------------------------------------------------------------------------


def test_a_connection_of_the_server_holds_its_requests_and_its_wait_where_we_look() -> None:
    """`_messages` has what was parsed and not handled yet, `_waiter` is there while the next request is awaited."""

    seen: asyncio.Queue[tuple[list[object], bool]] = asyncio.Queue()

    class Looked(web.RequestHandler):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            seen.put_nowait(([payload for _message, payload in self._messages], self._waiter is not None))

    class Server(web.Server):
        def __call__(self) -> web.RequestHandler:
            return Looked(self, loop=asyncio.get_running_loop(), **self._kwargs)

    async def handle(request: web.BaseRequest) -> web.Response:
        return web.Response(text="done")

    async def exchange() -> tuple[list[object], bool, list[object]]:
        handler = Server(handle)
        server = await asyncio.get_running_loop().create_server(handler, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"POST / HTTP/1.1\r\n")
        in_header, is_waiting = await seen.get()
        writer.write(b"Host: x\r\nContent-Length: 2\r\n\r\n")
        parsed, _ = await seen.get()
        writer.write(b"ab")
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        writer.close()
        server.close()
        await handler.shutdown(1)
        return in_header, is_waiting, parsed

    try:
        in_header, is_waiting, parsed = asyncio.run(asyncio.wait_for(exchange(), DEADLINE_S))
    except AttributeError as error:
        pytest.fail(changed("aiohttp", f"web.RequestHandler or web.Server has another inside ({error})"))
    assert in_header == [], changed("aiohttp", "_messages has something before a header is whole")
    assert is_waiting, changed("aiohttp", "_waiter is None while a header is awaited")
    assert [isinstance(payload, aiohttp.StreamReader) for payload in parsed] == [True], changed(
        "aiohttp", f"_messages has {parsed} after one header, not one message with its StreamReader"
    )


def test_the_listening_sockets_of_a_site_are_found() -> None:
    async def listening() -> list[int]:
        runner = web.AppRunner(web.Application())
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            sockets = [each for site in runner.sites for each in getattr(site._server, "sockets", ())]
            return [each.getsockname()[1] for each in sockets]
        finally:
            await runner.cleanup()

    try:
        ports = asyncio.run(asyncio.wait_for(listening(), DEADLINE_S))
    except AttributeError as error:
        pytest.fail(changed("aiohttp", f"a site has another inside ({error})"))
    assert len(ports) == 1, changed("aiohttp", "site._server is no server with sockets")


# --- aiohttp: its client's repeats ----------------------------------------------------------------------------------


async def attempts(*, repeats: bool) -> int:
    """How often the second GET of a kept connection reaches a server that then breaks it without an answer."""
    asked: Counter[str] = Counter()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split()[1].decode()
                asked[path] += 1
                if path == "/second":
                    break
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with Transport() as transport:
        if repeats:
            transport._session._retry_connection = True
        async with transport._session.get(f"{base}/first") as answer:
            await answer.read()
        with pytest.raises(aiohttp.ClientConnectionError):
            await transport._session.get(f"{base}/second")
    server.close()
    return asked["/second"]


def test_the_client_asks_once_and_lets_us_decide_about_the_next_time() -> None:
    once = asyncio.run(asyncio.wait_for(attempts(repeats=False), DEADLINE_S))
    assert once == 1, changed("aiohttp", "_retry_connection does not keep a session from repeating a request")
    twice = asyncio.run(asyncio.wait_for(attempts(repeats=True), DEADLINE_S))
    assert twice == 2, changed("aiohttp", "a session does not repeat by itself: _retry_connection is needed no more")
