"""The door over an in-memory gateway, reached through a real socket."""

from __future__ import annotations

import asyncio
import base64
import io
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
from aiohttp.test_utils import TestClient, TestServer

from kraft.http.app import create_app
from kraft.runtime.environment import close_environment, system_environment
from tests.support.fake_gateway import FakeGateway

LARGE_BYTES = 1_000_000
V3 = "/v3/clusters/test-cluster"
BINARY = "application/vnd.kafka.binary.v2+json"
JSON = "application/vnd.kafka.json.v2+json"
TEXT = "application/vnd.kafka.text.v2+json"
PLAIN = "application/json"
RAW_BATCH = "application/vnd.kafka.recordbatch.v2"
RAW_RECORDS = "application/vnd.kafka.records.v1"


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Door:
    def __init__(self, client: TestClient[Any, Any], gateway: FakeGateway, app: aiohttp.web.Application) -> None:
        self.client = client
        self.gateway = gateway
        self.app = app

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Headers by name with `_` for `-`. A body that is no bytes is sent as JSON."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data: Any = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        if data is not None and len(data) > LARGE_BYTES:
            data = io.BytesIO(data)  # aiohttp's client warns of large bodies that are bytes
        skip = () if "Content-Type" in named else ("Content-Type",)
        async with self.client.request(method, path, data=data, headers=named, skip_auto_headers=skip) as response:
            return Answer(response.status, response.headers, await response.read())


@asynccontextmanager
async def open_door(gateway: FakeGateway | None = None, **options: Any) -> AsyncIterator[Door]:
    gateway = gateway or FakeGateway()
    environment = system_environment()
    app = create_app(gateway, environment=environment, **options)
    try:
        async with TestClient(TestServer(app)) as client:
            yield Door(client, gateway, app)
    finally:
        close_environment(environment)


def with_door(story: Callable[[Door], Awaitable[None]], gateway: FakeGateway | None = None, **options: Any) -> None:
    async def run() -> None:
        async with open_door(gateway, **options) as door:
            await story(door)

    asyncio.run(run())


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def raw_records(records: Sequence[tuple[bytes | None, bytes | None]], *, timestamp: int = -1) -> bytes:
    """Written from the documentation, not from the implementation."""

    def sized(data: bytes | None) -> bytes:
        return struct.pack(">i", -1) if data is None else struct.pack(">i", len(data)) + data

    return b"".join(sized(key) + sized(value) + struct.pack(">qi", timestamp, 0) for key, value in records)
