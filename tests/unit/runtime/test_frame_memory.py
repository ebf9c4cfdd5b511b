"""Memory for frames on their way: bounded over all connections, taken as bytes arrive, and nobody can sit on it."""

from __future__ import annotations

import asyncio
import resource
import struct
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop

from kraft.runtime import frame_memory
from kraft.runtime.frame_memory import SLOWEST_BYTES, STEP_BYTES, ArrivingFrames
from kraft.runtime.network import TcpListener, TcpNetwork
from metadata.environment import ConnectionClosed, FrameConnection, OnConnection

MIB = 1024 * 1024


class Peer:
    """One connection as the pool sees it."""

    def __init__(self, pool: ArrivingFrames, name: str = "peer") -> None:
        self.pool, self.peer = pool, name
        self.arrived: int | None = 0
        self.got = 0
        self.is_aborted = False

    def ask(self, size: int) -> bool:
        is_given = self.pool.ask(self, size)
        self.got += size if is_given else 0
        return is_given

    def granted(self, size: int) -> None:
        self.got += size

    def abort(self) -> None:
        self.is_aborted = True
        self.pool.leave(self)


class Timers:
    """The loop, as far as it is asked for a timer."""

    def __init__(self) -> None:
        self.due: Callable[[], None] | None = None

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Any:
        assert self.due is None, "one timer at a time"
        self.due = callback
        return object()

    def tick(self) -> None:
        due, self.due = self.due, None
        assert due is not None, "nobody waits"
        due()


def pool_of(bytes_max: int) -> tuple[ArrivingFrames, Timers]:
    timers = Timers()
    return ArrivingFrames(timers, bytes_max=bytes_max), timers  # type: ignore[arg-type]


def test_who_finds_no_memory_waits_in_line_and_gets_it_in_turn():
    pool, timers = pool_of(100)
    first, second, third = Peer(pool), Peer(pool), Peer(pool)
    assert first.ask(80)
    assert not second.ask(60)
    assert not third.ask(10), "it would fit, but others wait"
    assert pool.taken == 80
    pool.give_back(first)
    assert (second.got, third.got, pool.taken) == (60, 10, 70)
    timers.tick()
    assert timers.due is None, "nobody waits any more"


def test_one_alone_gets_more_than_there_is():
    pool, _ = pool_of(100)
    alone = Peer(pool)
    assert alone.ask(500)
    assert alone.ask(500)
    other = Peer(pool)
    assert not other.ask(1)
    pool.leave(alone)
    assert (other.got, pool.taken) == (1, 1)


def test_what_is_kept_stays_taken_and_a_place_in_line_is_not_lost():
    pool, _ = pool_of(100)
    first, second = Peer(pool), Peer(pool)
    first.ask(60)
    assert not second.ask(60)
    pool.give_back(second)
    pool.give_back(first, keep=50)
    assert (pool.taken, second.got) == (50, 0)
    pool.give_back(first, keep=30)
    assert (pool.taken, second.got) == (90, 60)


def test_slow_frame_is_given_up_when_others_wait():
    pool, timers = pool_of(100)
    silent, quick, done = Peer(pool), Peer(pool), Peer(pool)
    for each in (silent, quick, done):
        each.ask(33)
    done.arrived = None  # whole: it waits for who takes it
    newcomer = Peer(pool)
    assert not newcomer.ask(30)
    timers.tick()
    assert not any(each.is_aborted for each in (silent, quick, done)), "one look is no rate"
    quick.arrived = SLOWEST_BYTES
    timers.tick()
    assert [each.is_aborted for each in (silent, quick, done, newcomer)] == [True, False, False, False]
    assert newcomer.got == 30


def test_frames_that_have_begun_come_first_and_the_oldest_of_them_always():
    pool, _ = pool_of(100)
    whole, first, second, newcomer = Peer(pool), Peer(pool), Peer(pool), Peer(pool)
    whole.arrived = None
    for each in (whole, first, second):
        each.ask(33)
    assert not newcomer.ask(10)
    assert not second.ask(50)
    assert first.ask(50), "or all of it could be taken by halves of frames"
    assert pool.taken == 149
    third = Peer(pool)
    assert not third.ask(1)
    pool.leave(first)
    assert (second.got, newcomer.got, pool.taken) == (83, 0, 116), "now that one is the oldest"
    pool.leave(second)
    assert (newcomer.got, third.got, pool.taken) == (10, 1, 44)


# --- real sockets --------------------------------------------------------------------------------------------------


LISTENERS: list[TcpListener] = []


async def listening(serve: OnConnection, **limits: int) -> TcpListener:
    """Until the end of `run`."""
    network = TcpNetwork(asyncio.get_running_loop())
    LISTENERS.append(await network.listen("127.0.0.1", 0, serve, **limits))
    return LISTENERS[-1]


def run(main: Awaitable[None]) -> None:
    async def bounded() -> None:
        try:
            async with asyncio.timeout(60):
                await main
        finally:
            while LISTENERS:
                await LISTENERS.pop().close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


async def dial(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_frames_of_many_connections_come_whole_through_little_memory():
    frames = 12
    content = [bytes([number]) * (3 * MIB + number) for number in range(frames)]

    async def main() -> None:
        came: dict[int, bytes] = {}
        most = 0

        async def serve(connection: FrameConnection) -> None:
            nonlocal most
            frame = await connection.receive()
            most = max(most, listener._arriving.taken)
            came[frame[0]] = bytes(frame)
            connection.send([b"ok"])
            await connection.drain()

        listener = await listening(serve, frame_bytes_max=8 * MIB, arriving_bytes_max=8 * MIB)

        async def send(frame: bytes) -> None:
            reader, writer = await dial(listener.port)
            writer.write(struct.pack(">i", len(frame)) + frame)
            await writer.drain()
            assert await reader.readexactly(6) == b"\0\0\0\x02ok"
            writer.close()

        await asyncio.gather(*map(send, content))
        assert [came[number] for number in range(frames)] == content
        assert most <= (8 + 4) * MIB, "the oldest frame gets what it needs"
        assert listener._arriving.taken == 0

    run(main())


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the resident set is read from /proc")
def test_announcements_alone_take_no_memory():
    async def main() -> None:

        async def serve(connection: FrameConnection) -> None:
            await connection.receive()

        listener = await listening(serve, frame_bytes_max=1 << 30, arriving_bytes_max=64 * MIB)
        before = resident()
        with ExitStack() as open_now:
            for _ in range(200):
                _, writer = await dial(listener.port)
                open_now.callback(writer.close)
                writer.write(struct.pack(">i", 100 * MIB))
                await writer.drain()
            while listener._arriving.taken < 64 * MIB:  # noqa: ASYNC110 - counted elsewhere
                await asyncio.sleep(0.002)
            assert resident() - before < 16 * MIB

    run(main())


def test_silent_frames_do_not_keep_a_client_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(frame_memory, "LOOK_MS", 20)

    async def main() -> None:

        async def serve(connection: FrameConnection) -> None:
            connection.send([bytes(await connection.receive())[:4]])
            await connection.drain()

        listener = await listening(serve, frame_bytes_max=100 * MIB, arriving_bytes_max=3 * STEP_BYTES)
        silent = [await dial(listener.port) for _ in range(20)]
        for _, writer in silent:
            writer.write(struct.pack(">i", 100 * MIB) + b"x")
        reader, writer = await dial(listener.port)
        frame = b"good" + bytes(STEP_BYTES)
        writer.write(struct.pack(">i", len(frame)) + frame)
        await writer.drain()
        assert await reader.readexactly(8) == b"\0\0\0\x04good"
        for _, each in (*silent, (reader, writer)):
            each.close()

    run(main())


@pytest.mark.parametrize("pieces", [1, 3, 7, 1_000])
def test_frames_of_connections_that_share_a_buffer_do_not_mix(pieces: int):
    """Each read ends somewhere in a frame, and the next read is another connection's."""

    async def main() -> None:
        came: dict[int, list[bytes]] = {}

        async def serve(connection: FrameConnection) -> None:
            try:
                while True:
                    frame = bytes(await connection.receive())
                    came.setdefault(frame[0], []).append(frame)
            except ConnectionClosed:
                pass

        listener = await listening(serve, frame_bytes_max=MIB, arriving_bytes_max=4 * MIB)
        sizes = [1, 100, 5_000, 16_383, 16_384, 16_385, 65_531, 65_536, 200_000, 2, 40_000]
        sent: dict[int, list[bytes]] = {
            number: [bytes([number]) + bytes(size - 1) for size in sizes] for number in range(5)
        }
        streams = {
            number: b"".join(struct.pack(">i", len(frame)) + frame for frame in frames)
            for number, frames in sent.items()
        }
        writers = {number: (await dial(listener.port))[1] for number in sent}
        step = len(streams[0]) // pieces + 1
        for begin in range(0, len(streams[0]), step):
            for number, writer in writers.items():
                writer.write(streams[number][begin : begin + step])
                await writer.drain()
            await asyncio.sleep(0)
        while sum(map(len, came.values())) < 5 * len(sizes):  # noqa: ASYNC110 - counted elsewhere
            await asyncio.sleep(0.002)
        assert came == sent
        for writer in writers.values():
            writer.close()

    run(main())
