"""Contract of Network, FrameListener and FrameConnection."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from metadata.environment import ConnectionClosed, Environment, FrameConnection, FrameListener, OnConnection
from tests.contract.environments import FACTORIES, World, uvloop_world

LIMIT = 4 * 1024 * 1024


@pytest.fixture(params=list(FACTORIES))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return FACTORIES[request.param](str(tmp_path))


async def echo(connection: FrameConnection) -> None:
    while True:
        connection.send([await connection.receive()])
        await connection.drain()


@asynccontextmanager
async def listening(
    environment: Environment, handler: OnConnection = echo, *, limit: int = LIMIT
) -> AsyncIterator[FrameListener]:
    listener = await environment.network.listen("127.0.0.1", 0, handler, frame_bytes_max=limit)
    try:
        yield listener
    finally:
        await listener.close()


async def connect(environment: Environment, listener: FrameListener, *, limit: int = LIMIT) -> FrameConnection:
    return await environment.network.connect("127.0.0.1", listener.port, frame_bytes_max=limit, timeout_ms=20_000)


def test_frames_of_all_sizes_come_back_in_order(world: World) -> None:
    sizes = [0, 1, 3, 4, 5, 1000, 65_531, 65_532, 65_533, 65_536, 70_000, 0, 1_048_576, 2, LIMIT, 7]
    rng = random.Random(4)
    frames = [rng.randbytes(size) for size in sizes]

    async def main(environment: Environment) -> None:
        async with listening(environment) as listener:
            connection = await connect(environment, listener)
            for frame in frames:
                connection.send([frame[: len(frame) // 2], memoryview(frame)[len(frame) // 2 :]])
            views = [await connection.receive() for _ in frames]
            received = [bytes(view) for view in views]
            assert [len(frame) for frame in received] == sizes
            assert received == frames
            connection.close()

    world.run(main)


def test_a_frame_stays_valid_while_it_is_referenced(world: World) -> None:
    async def main(environment: Environment) -> None:
        async with listening(environment) as listener:
            connection = await connect(environment, listener)
            kept = []
            for n in range(300):
                connection.send([n.to_bytes(4, "big") * 100])
                kept.append(await connection.receive())
            assert [bytes(frame) for frame in kept] == [n.to_bytes(4, "big") * 100 for n in range(300)]
            connection.close()

    world.run(main)


def test_many_frames_at_once_lose_nothing(world: World) -> None:
    async def main(environment: Environment) -> None:
        async with listening(environment) as listener:
            connection = await connect(environment, listener)
            for n in range(3_000):
                connection.send([n.to_bytes(4, "big")])
            for n in range(3_000):
                assert await connection.receive() == n.to_bytes(4, "big")
            connection.close()

    world.run(main)


def test_connecting_where_nobody_listens_is_refused(world: World) -> None:
    async def main(environment: Environment) -> None:
        async with listening(environment) as listener:
            port = listener.port
        with pytest.raises(ConnectionRefusedError):
            await environment.network.connect("127.0.0.1", port, frame_bytes_max=LIMIT, timeout_ms=60_000)

    world.run(main)


def test_two_listeners_cannot_share_a_port(world: World) -> None:
    async def main(environment: Environment) -> None:
        async with listening(environment) as listener:
            with pytest.raises(OSError):  # noqa: PT011 - EADDRINUSE under several numbers
                await environment.network.listen("127.0.0.1", listener.port, echo, frame_bytes_max=LIMIT)

    world.run(main)


def test_the_peer_sees_a_close_after_what_was_sent(world: World) -> None:
    async def farewell(connection: FrameConnection) -> None:
        connection.send([b"last words"])

    async def main(environment: Environment) -> None:
        async with listening(environment, farewell) as listener:
            connection = await connect(environment, listener)
            assert await connection.receive() == b"last words"
            with pytest.raises(ConnectionClosed):
                await connection.receive()
            assert connection.is_closed
            connection.send([b"dropped in silence"])
            with pytest.raises(ConnectionClosed):
                await connection.drain()

    world.run(main)


@pytest.mark.parametrize("ending", ["close", "abort"])
def test_ending_a_connection_wakes_its_own_receiver(world: World, ending: str) -> None:
    async def main(environment: Environment) -> None:
        async with listening(environment) as listener:
            connection = await connect(environment, listener)
            receiver = asyncio.get_running_loop().create_task(connection.receive())
            await environment.clock.sleep(5)
            getattr(connection, ending)()
            with pytest.raises(ConnectionClosed):
                await receiver

    world.run(main)


def test_abort_is_seen_by_the_peer(world: World) -> None:
    seen: list[str] = []
    done = asyncio.Event()

    async def watch(connection: FrameConnection) -> None:
        try:
            await connection.receive()
        except ConnectionClosed:
            seen.append(connection.peer)
            done.set()

    async def main(environment: Environment) -> None:
        async with listening(environment, watch) as listener:
            connection = await connect(environment, listener)
            connection.abort()
            await done.wait()
            assert len(seen) == 1

    world.run(main)


def test_a_frame_above_the_limit_closes_only_its_connection(world: World) -> None:
    async def main(environment: Environment) -> None:
        async with listening(environment, limit=1_000) as listener:
            good, bad = await connect(environment, listener), await connect(environment, listener)
            bad.send([bytes(1_001)])
            with pytest.raises(ConnectionClosed):
                await bad.receive()
            good.send([bytes(1_000)])
            assert len(await good.receive()) == 1_000
            good.close()

    world.run(main)


def test_a_failing_handler_closes_only_its_connection(world: World) -> None:
    async def fragile(connection: FrameConnection) -> None:
        while True:
            frame = await connection.receive()
            if frame == b"bad":
                raise ValueError("a bug in the handler")
            connection.send([frame])

    async def main(environment: Environment) -> None:
        async with listening(environment, fragile) as listener:
            good, bad = await connect(environment, listener), await connect(environment, listener)
            bad.send([b"bad"])
            with pytest.raises(ConnectionClosed):
                await bad.receive()
            good.send([b"still here"])
            assert await good.receive() == b"still here"
            good.close()

    world.run(main)


def test_a_slow_receiver_holds_its_sender_back(world: World) -> None:
    async def main(environment: Environment) -> None:
        wake = asyncio.Event()
        total: list[int] = []

        async def sleepy(connection: FrameConnection) -> None:
            await wake.wait()
            while True:
                total.append(len(await connection.receive()))

        async with listening(environment, sleepy) as listener:
            connection = await connect(environment, listener)
            blocked = asyncio.get_running_loop().create_task(_send_until_blocked(environment, connection))
            sent = await blocked
            assert connection.unsent_bytes > 0
            wake.set()
            await connection.drain()
            async with environment.clock.timeout(10_000):
                while len(total) < sent:
                    await environment.clock.sleep(2)
            assert sum(total) == sent * 1_048_576
            connection.close()

    world.run(main)


async def _send_until_blocked(environment: Environment, connection: FrameConnection) -> int:
    for count in range(1, 200):
        connection.send([bytes(1_048_576)])
        try:
            async with environment.clock.timeout(200):
                await connection.drain()
        except TimeoutError:
            return count
    raise AssertionError("200 MiB were accepted although nobody receives")


def test_closing_a_listener_closes_what_it_accepted(world: World) -> None:
    async def main(environment: Environment) -> None:
        listener = await environment.network.listen("127.0.0.1", 0, echo, frame_bytes_max=LIMIT)
        connection = await connect(environment, listener)
        connection.send([b"x"])
        assert await connection.receive() == b"x"
        await listener.close()
        with pytest.raises(ConnectionClosed):
            await connection.receive()

    world.run(main)


@pytest.mark.parametrize("turns", range(6))
def test_closing_a_listener_forgets_nobody_who_has_just_come(tmp_path: Path, turns: int) -> None:
    """The kernel has let it in, and the loop is about to tell: as nodes have it, since asyncio's own loop (3.11) drops
    the socket of such a one by an assertion that fails."""

    async def main(environment: Environment) -> None:
        inside: list[FrameConnection] = []

        async def stay(connection: FrameConnection) -> None:
            inside.append(connection)
            try:
                await connection.receive()
            finally:
                inside.remove(connection)

        listener = await environment.network.listen("127.0.0.1", 0, stay, frame_bytes_max=LIMIT)
        with socket.create_connection(("127.0.0.1", listener.port)):
            for _ in range(turns):
                await asyncio.sleep(0)
            await listener.close()
            for _ in range(6):
                await asyncio.sleep(0)
            assert inside == []

    uvloop_world(str(tmp_path)).run(main)
