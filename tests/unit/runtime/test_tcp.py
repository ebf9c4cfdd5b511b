"""One TCP connection over a real socket: what it holds of frames that nobody takes."""

from __future__ import annotations

import asyncio
import socket
import struct
import tracemalloc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import product

import pytest
import uvloop

from kraft.runtime.network import TcpNetwork
from kraft.runtime.tcp import JOINED_BYTES_MAX, READ_BUFFER_BYTES, REST_BYTES_MAX, SPLIT_MAX, TcpConnection
from metadata.environment import ConnectionClosed, FrameConnection

FRAMES = 8_000
"""Of ten bytes: more than two reads."""
FACTOR_MAX = 4
"""What a connection holds, in multiples of what it has read."""


def frame(number: int, size: int = 6) -> bytes:
    payload = struct.pack(">i", number).ljust(size, b"\0")
    return struct.pack(">i", len(payload)) + payload


def numbers(frames: list[memoryview]) -> list[int]:
    return [struct.unpack_from(">i", each)[0] for each in frames]


def connected(scenario: Callable[[TcpConnection, socket.socket], Awaitable[None]]) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        connection = TcpConnection(loop, frame_bytes_max=1024 * 1024)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            await loop.create_connection(lambda: connection, *listening.getsockname())
            theirs, _ = listening.accept()
        theirs.setblocking(False)
        try:
            async with asyncio.timeout(30):
                await scenario(connection, theirs)
        finally:
            theirs.close()
            connection.abort()
            await connection.lost

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def pushed(theirs: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(theirs, data)


def test_short_frames_that_nobody_takes_cost_little_more_than_their_bytes() -> None:
    async def scenario(connection: TcpConnection, theirs: socket.socket) -> None:
        data = b"".join(map(frame, range(FRAMES)))
        sending = asyncio.ensure_future(pushed(theirs, data))
        tracemalloc.start()
        try:
            await asyncio.sleep(0)
            for _ in range(20):
                await asyncio.sleep(0.005)
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < FACTOR_MAX * READ_BUFFER_BYTES
        got = [await connection.receive() for _ in range(FRAMES)]
        await sending
        assert numbers(got) == list(range(FRAMES))

    connected(scenario)


def test_frames_come_in_their_order_whoever_takes_them_and_whenever() -> None:
    """Short ones and such as are longer than what is kept of a read, taken on arrival or one by one."""
    sizes = [6, 7, REST_BYTES_MAX - 5, 6, REST_BYTES_MAX + 1, READ_BUFFER_BYTES, *[6] * (3 * SPLIT_MAX), 200_000]
    data = b"".join(frame(number, size) for number, size in enumerate(sizes * 20))
    expected = [(number, size) for number, size in enumerate(sizes * 20)]

    async def scenario(connection: TcpConnection, theirs: socket.socket) -> None:
        sending = asyncio.ensure_future(pushed(theirs, data))
        got: list[memoryview] = []

        def take(arrived: memoryview) -> bool:
            if len(got) % 50 == 49 or len(got) == len(expected) - 1:
                return False
            got.append(arrived)
            return True

        while len(got) < len(expected):
            got.append(await connection.receive_while(take) if len(got) % 3 else await connection.receive())
            if len(got) % 7 == 0:
                await asyncio.sleep(0)
        await sending
        assert [(struct.unpack_from(">i", each)[0], len(each)) for each in got] == expected

    connected(scenario)


def test_what_came_before_the_end_is_still_handed_out() -> None:
    async def scenario(connection: TcpConnection, theirs: socket.socket) -> None:
        count = 4 * SPLIT_MAX
        await pushed(theirs, b"".join(map(frame, range(count))))
        theirs.shutdown(socket.SHUT_WR)
        got = [await connection.receive() for _ in range(count)]
        assert numbers(got) == list(range(count))
        with pytest.raises(ConnectionClosed, match="closed by the peer"):
            await connection.receive()

    connected(scenario)


def test_a_frame_beyond_the_limit_ends_the_connection_after_those_before_it() -> None:
    async def scenario(connection: TcpConnection, theirs: socket.socket) -> None:
        count = 2 * SPLIT_MAX
        await pushed(theirs, b"".join(map(frame, range(count))) + struct.pack(">i", -1) + frame(0) * 100)
        got = [await connection.receive() for _ in range(count)]
        assert numbers(got) == list(range(count))
        with pytest.raises(ConnectionClosed, match="aborted here"):
            await connection.receive()

    connected(scenario)


def test_a_frame_arrives_as_it_was_whatever_the_sizes_of_its_parts() -> None:
    sizes = (0, 7, JOINED_BYTES_MAX - 1, JOINED_BYTES_MAX, 3 * JOINED_BYTES_MAX)
    frames = [[bytes([65 + at]) * size for at, size in enumerate(each)] for each in product(sizes, repeat=4)]

    async def scenario(connection: TcpConnection, theirs: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for parts in frames:
            connection.send(parts)
            wanted = b"".join(parts)
            wanted = struct.pack(">i", len(wanted)) + wanted
            got = b""
            while len(got) < len(wanted):
                got += await loop.sock_recv(theirs, 1024 * 1024)
            assert got == wanted

    connected(scenario)


def test_of_what_a_slow_reader_is_sent_the_system_holds_as_much_as_it_may() -> None:
    answer, few = bytes(8 * 1024 * 1024), 16 * 1024

    async def held_by_the_system(send_buffer_bytes: int) -> int:
        loop = asyncio.get_running_loop()
        unsent: asyncio.Future[int] = loop.create_future()

        async def serve(connection: FrameConnection) -> None:
            connection.bound_send_buffer(send_buffer_bytes)
            connection.send([answer])
            await asyncio.sleep(0)
            unsent.set_result(connection.unsent_bytes)
            with suppress(ConnectionClosed):
                await connection.receive()

        listener = await TcpNetwork(loop).listen("127.0.0.1", 0, serve, frame_bytes_max=len(answer))
        try:
            with socket.socket() as slow:
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, few)
                slow.setblocking(False)
                await loop.sock_connect(slow, ("127.0.0.1", listener.port))
                return len(answer) - await unsent
        finally:
            await listener.close()

    async def main() -> None:
        async with asyncio.timeout(30):
            held = await held_by_the_system(few)
            assert few <= held < 20 * few
            assert await held_by_the_system(12 * few) > held + 6 * few

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
