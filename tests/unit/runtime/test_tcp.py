"""One TCP connection over a real socket: what it holds of frames that nobody takes."""

from __future__ import annotations

import asyncio
import gc
import mmap
import resource
import socket
import struct
import tracemalloc
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import cast

import pytest
import uvloop

from kraft.protocol.primitives import Buffer
from kraft.runtime.frame_memory import STEP_BYTES
from kraft.runtime.network import TcpNetwork
from kraft.runtime.tcp import (
    JOINED_BYTES_MAX,
    READ_BUFFER_BYTES,
    REST_BYTES_MAX,
    SPLIT_MAX,
    TRUSTED_BYTES_MAX,
    TcpConnection,
)
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


def connected(
    scenario: Callable[[TcpConnection, socket.socket], Awaitable[None]], *, frame_bytes_max: int = 1024 * 1024
) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        connection = TcpConnection(loop, frame_bytes_max=frame_bytes_max)
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


def test_frames_come_in_their_order_whatever_takes_them_and_whenever() -> None:
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


@pytest.mark.parametrize("how", ["by the peer", "closed here", "aborted here"])
def test_the_memory_of_a_frame_that_breaks_off_is_free_at_once(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cyclic collection: a connection, its transport and its session hold each other."""
    mapped: list[weakref.ref[mmap.mmap]] = []

    class Watched(mmap.mmap):
        def __init__(self, *_: object) -> None:
            mapped.append(weakref.ref(self))

    monkeypatch.setattr("kraft.runtime.tcp.mmap.mmap", Watched)
    announced = 100 * 1024 * 1024

    async def scenario(connection: TcpConnection, theirs: socket.socket) -> None:
        receiving = asyncio.ensure_future(connection.receive())
        await pushed(theirs, struct.pack(">i", announced) + bytes(announced // 10))
        while connection.arrived != announced // 10:  # noqa: ASYNC110 - the loop itself counts
            await asyncio.sleep(0.001)
        assert [each() is not None for each in mapped] == [True]
        if how == "by the peer":
            theirs.close()
        else:
            connection.close() if how == "closed here" else connection.abort()
        with pytest.raises(ConnectionClosed):
            await receiving
        assert mapped[0]() is None

    gc.disable()
    try:
        connected(scenario, frame_bytes_max=announced)
    finally:
        gc.enable()


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
            wanted = b"".join(parts)
            connection.send(parts)
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


ANNOUNCED, ARRIVED = 100 * 1024 * 1024, 90 * 1024 * 1024
BROKEN_OFF = 6


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  (the state of a connection has no event)
            await asyncio.sleep(0.001)


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


class Session:
    """Refers to its connection, which refers to whoever takes its frames, as those of the Kafka port do."""

    def __init__(self, connection: FrameConnection) -> None:
        self.connection = connection

    async def serve(self) -> None:
        await self.connection.receive_while(self.take)

    def take(self, frame: memoryview) -> bool:
        return False


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the resident set is read from /proc")
@pytest.mark.parametrize(("comes", "ends"), [("a part", "by the peer"), ("a part", "here"), ("all", "here")])
def test_a_large_frame_leaves_no_memory_when_its_connection_ends(comes: str, ends: str) -> None:
    """No collection runs in between: what is freed is freed by the end of the connection. What has come whole is held
    for a receiver that never asks."""
    size = ANNOUNCED if comes == "a part" else ARRIVED
    mib = bytes(1024 * 1024)

    async def main() -> None:
        network = TcpNetwork(asyncio.get_running_loop())
        served = asyncio.Event()

        async def serve(connection: FrameConnection) -> None:
            it = cast(TcpConnection, connection)
            session = Session(connection)
            if comes == "all":
                it._take = session.take
            receiving = asyncio.create_task(session.serve()) if comes == "a part" else None
            await until(lambda: bool(it._frames) if comes == "all" else it._large_filled >= ARRIVED)
            served.set()
            await until(lambda: ends == "here" or it.is_closed)
            if receiving is not None:
                receiving.cancel()
                await asyncio.gather(receiving, return_exceptions=True)

        listener = await network.listen(
            "127.0.0.1", 0, serve, frame_bytes_max=ANNOUNCED, arriving_bytes_max=ANNOUNCED * 2
        )
        before = resident()
        for _ in range(BROKEN_OFF):
            served.clear()
            _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(struct.pack(">i", size))
            for _ in range(ARRIVED // len(mib)):
                writer.write(mib)
                await writer.drain()
            await served.wait()
            writer.transport.abort()
            await until(lambda: not listener._serving)
        await asyncio.sleep(0.01)
        assert listener._arriving is not None
        assert listener._arriving.taken == 0
        kept = resident() - before
        await listener.close()
        await network.close()
        assert kept < ARRIVED // 2, f"{kept >> 20} MiB are left"

    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    finally:
        gc.enable()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the resident set is read from /proc")
@pytest.mark.parametrize("announced", [STEP_BYTES, TRUSTED_BYTES_MAX, ANNOUNCED])
@pytest.mark.parametrize("is_trusted", [False, True])
def test_a_frame_costs_what_has_arrived_of_it_and_not_what_it_announces(announced: int, is_trusted: bool) -> None:
    connections = 20

    async def main() -> None:
        loop = asyncio.get_running_loop()
        network = TcpNetwork(loop)
        large: list[TcpConnection] = []

        async def serve(connection: FrameConnection) -> None:
            large.append(cast(TcpConnection, connection))
            await connection.receive()

        listener = await network.listen(
            "127.0.0.1", 0, serve, frame_bytes_max=ANNOUNCED, arriving_bytes_max=None if is_trusted else ANNOUNCED
        )
        before = resident()
        writers = []
        for _ in range(connections):
            _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(struct.pack(">i", announced) + bytes(1024))
            writers.append(writer)
        await until(lambda: len(large) == connections and all(each._large_filled for each in large))
        cost = resident() - before
        for writer in writers:
            writer.transport.abort()
        await listener.close()
        await network.close()
        assert cost < connections * 128 * 1024, f"{cost >> 10} KiB for {connections} frames"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_a_long_frame_is_sent_whole_and_its_parts_are_let_go() -> None:
    async def scenario(connection: TcpConnection, theirs: socket.socket) -> None:
        parts: list[Buffer] = [bytes([n % 256]) * (20_000 * (1 + n % 3)) for n in range(60)]
        parts.insert(7, memoryview(bytearray(b"m" * 300_000)))
        sent = b"".join(parts)
        connection.send(parts)
        assert parts == []
        received = bytearray()
        while len(received) < len(sent) + 4:
            received += await asyncio.get_running_loop().sock_recv(theirs, 1_000_000)
        assert received == struct.pack(">i", len(sent)) + sent

    connected(scenario)
