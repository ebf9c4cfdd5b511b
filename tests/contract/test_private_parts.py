"""What we use of libraries beyond what they promise: each part is there, and without it a public part takes its place.

A failure here says which part of which library is another than we take it for, and which module of ours has to change
with it. So a dependency's range ends only where a major version may change what is public. PySyncObj is pinned to one
version and has its own such test: tests/unit/quorum/test_library.py.
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
from kraft.http.connection import PAUSES

ROOT = Path(__file__).parents[2]
BELOW = {"aiohttp": "<4", "aiokafka": "<1"}
"""The first version that may break what is public."""
USED_BY = {
    "aiohttp": "kraft/http/connection.py and kraft/client/transport.py",
    "aiokafka": "kraft/protocol/batches/records.py and kraft/protocol/batches/record_filter.py",
}
DEADLINE_S = 30


def changed(library: str, what: str) -> str:
    return f"{library} {version(library)}: {what}. {USED_BY[library]} rely on it: change them"


# --- versions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", sorted(BELOW))
def test_a_range_ends_where_public_parts_may_break(library: str) -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    declared = next(each for each in dependencies if re.match(rf"{library}[<>=]", each))
    assert declared.endswith(f",{BELOW[library]}"), f"pyproject.toml has {declared!r}; the bound is {BELOW[library]}"


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
def test_public_codec_without_private_one() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_PRIVATE_CODEC], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


# --- aiohttp: its server's connection -------------------------------------------------------------------------------


def test_aiohttp_has_the_attributes_that_save_a_look_at_its_parser() -> None:
    missing = [name for name in PAUSES if not hasattr(web.RequestHandler, name)]
    assert not missing, changed("aiohttp", f"its connection has no {missing}, and each read of a body costs more")


# --- aiohttp: its client's repeats ----------------------------------------------------------------------------------


async def attempts(session: aiohttp.ClientSession) -> int:
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
    async with session.get(f"{base}/first") as answer:
        await answer.read()
    with pytest.raises(aiohttp.ClientConnectionError):
        await session.get(f"{base}/second")
    server.close()
    return asked["/second"]


def test_the_client_asks_once_and_lets_us_decide_about_the_next_time() -> None:
    async def ours() -> int:
        async with asyncio.timeout(DEADLINE_S), Transport() as transport:
            return await attempts(transport._session)

    async def plain() -> int:
        async with asyncio.timeout(DEADLINE_S), aiohttp.ClientSession() as session:
            return await attempts(session)

    assert asyncio.run(ours()) == 1, changed("aiohttp", "a middleware does not keep a session from repeating a request")
    assert asyncio.run(plain()) == 2, changed("aiohttp", "a session does not repeat by itself: no middleware is needed")
