"""A client's connection to the Kafka port of a simulated node: real frames over the simulated network.

Requests leave at once, however many are not answered yet; answers come in their order. The answer is None when the
connection ends before it.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from importlib import import_module
from typing import Any

from kraft.chaos.worlds.simulated.cluster import KAFKA_PORT
from kraft.chaos.worlds.simulated.environment import SimulatedWorld
from kraft.chaos.worlds.simulated.network import SimulatedConnection
from kraft.protocol import codec
from kraft.protocol.encoding import TopLevel
from metadata.environment import ConnectionClosed

FRAME_BYTES_MAX = 1 << 24
HEADER = struct.Struct(">hhih")


class WireClient:
    def __init__(self, connection: SimulatedConnection) -> None:
        self._connection = connection
        self._asked: deque[tuple[type[TopLevel], int, asyncio.Future[Any]]] = deque()
        self._count = 0
        self._reading = asyncio.get_running_loop().create_task(self._read())

    @classmethod
    async def connect(cls, world: SimulatedWorld, host: str, target: str, *, within_s: float) -> WireClient | None:
        """None: nobody listens there, or nothing comes back."""
        try:
            async with asyncio.timeout(within_s):
                return cls(await world.network.connect(host, target, KAFKA_PORT, FRAME_BYTES_MAX))
        except (OSError, ConnectionClosed, TimeoutError):
            return None

    @property
    def is_open(self) -> bool:
        return not self._reading.done()

    def ask(self, message: TopLevel, version: int) -> asyncio.Future[Any]:
        """The response; None when the connection ends before."""
        answer = asyncio.get_running_loop().create_future()
        if not self.is_open:
            answer.set_result(None)
            return answer
        self._count += 1
        head = HEADER.pack(message.API_KEY, version, self._count, 1) + b"c"
        head += b"\0" if version >= message.FLEXIBLE_FROM else b""
        self._asked.append((_response_of(message), version, answer))
        self._connection.send([head, *codec.encode_body(message, version)])
        return answer

    def close(self) -> None:
        """At once, whatever is on its way."""
        self._connection.abort()
        self._reading.cancel()
        self._end()

    async def _read(self) -> None:
        try:
            while True:
                frame = await self._connection.receive()
                kind, version, answer = self._asked.popleft()
                found = codec.decode_body(kind, version, frame, 5 if version >= kind.FLEXIBLE_FROM else 4)
                if not answer.done():
                    answer.set_result(found)
        except ConnectionClosed:
            self._end()

    def _end(self) -> None:
        while self._asked:
            _, _, answer = self._asked.popleft()
            if not answer.done():
                answer.set_result(None)


def _response_of(message: TopLevel) -> type[TopLevel]:
    kind = type(message)
    module = import_module(kind.__module__.removesuffix("_request") + "_response")
    found: type[TopLevel] = getattr(module, kind.__name__.replace("RequestData", "ResponseData"))
    return found
