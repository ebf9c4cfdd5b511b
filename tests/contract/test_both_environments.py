"""What `metadata.environment` promises, asked of the real environment and of the simulated one alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from kraft.chaos.worlds.simulated.environment import SimulatedWorld
from kraft.runtime.environment import close_environment, system_environment
from metadata.environment import ConnectionClosed, Environment, FrameConnection

HOST = "127.0.0.1"
LIMIT = 2_000_000

Scenario = Callable[[Environment, str], Awaitable[None]]
RunScenario = Callable[[Scenario], None]


def real(folder: Path, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> RunScenario:
    def run(scenario: Scenario) -> None:
        async def main() -> None:
            environment = system_environment()
            try:
                await scenario(environment, str(folder))
            finally:
                close_environment(environment)

        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(asyncio.wait_for(main(), 30))

    return run


def simulated(scenario: Scenario) -> None:
    world = SimulatedWorld(1)
    machine = world.machine("one")

    async def main() -> None:
        machine.environment.files.make_directories("/data")
        await scenario(machine.environment, "/data")

    world.run(machine.run(main()))


@pytest.fixture(params=["simulated", "asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunScenario:
    factories = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return simulated if request.param == "simulated" else real(tmp_path, factories[request.param])


async def echo(connection: FrameConnection) -> None:
    while True:
        connection.send([await connection.receive()])
        await connection.drain()


async def dial(environment: Environment, port: int, *, limit: int = LIMIT) -> FrameConnection:
    return await environment.network.connect(HOST, port, frame_bytes_max=limit, timeout_ms=20_000)


# Clock


def test_a_timeout_raises_the_builtin_error_and_a_sleep_lasts(run: RunScenario) -> None:
    async def scenario(environment: Environment, _: str) -> None:
        clock = environment.clock
        before = clock.monotonic_us()
        await clock.sleep(20)
        assert clock.monotonic_us() - before >= 19_000
        with pytest.raises(TimeoutError):
            async with clock.timeout(20):
                await asyncio.Event().wait()
        async with clock.timeout(10_000):
            await clock.sleep(0)

    run(scenario)


def test_timers_fire_in_order_and_a_cancelled_one_never(run: RunScenario) -> None:
    async def scenario(environment: Environment, _: str) -> None:
        clock, fired = environment.clock, []
        clock.call_later(40, fired.append, 2)
        clock.call_later(10, fired.append, 1)
        clock.call_later(20, fired.append, "never").cancel()
        await clock.sleep(80)
        assert fired == [1, 2]
        assert 1_600_000_000_000 < clock.wall_ms() < 4_000_000_000_000

    run(scenario)


# Files


def test_a_file_holds_what_was_written(run: RunScenario) -> None:
    async def scenario(environment: Environment, folder: str) -> None:
        files, path = environment.files, f"{folder}/a.log"
        with pytest.raises(FileNotFoundError):
            files.open(path)
        file = files.open(path, create=True)
        assert (file.path, file.size) == (path, 0)
        assert file.append([b"abc", bytearray(b"de"), memoryview(b"f"), b""]) == 6
        file.pwrite(1, b"X")
        file.pwrite(8, b"end")
        assert file.pread(0, 100) == b"aXcdef\0\0end"
        assert (file.pread(2, 2), file.pread(11, 5), file.pread(99, 5)) == (b"cd", b"", b"")
        file.truncate(3)
        assert (file.size, file.pread(0, 9)) == (3, b"aXc")
        await environment.workers.run(file.sync)
        file.close()
        file.close()
        with pytest.raises(OSError, match="Bad file"):
            file.pread(0, 1)
        again = files.open(path, read_only=True)
        assert (again.size, files.size(path)) == (3, 3)
        with pytest.raises(OSError, match=r"Bad file|Invalid argument"):
            again.append([b"x"])
        assert again.pread(0, 9) == b"aXc"
        again.close()

    run(scenario)


def test_an_open_file_survives_its_rename_and_removal(run: RunScenario) -> None:
    async def scenario(environment: Environment, folder: str) -> None:
        files = environment.files
        one, two = files.open(f"{folder}/one", create=True), files.open(f"{folder}/two", create=True)
        one.append([b"1"])
        two.append([b"2"])
        files.rename(f"{folder}/one", f"{folder}/two")
        assert files.list_directory(folder) == ["two"]
        assert files.size(f"{folder}/two") == 1
        assert (one.pread(0, 1), two.pread(0, 1)) == (b"1", b"2")
        files.remove(f"{folder}/two")
        assert one.append([b"more"]) == 5
        assert not files.exists(f"{folder}/two")
        one.close()
        two.close()

    run(scenario)


def test_directories_are_made_listed_synced_and_removed(run: RunScenario) -> None:
    async def scenario(environment: Environment, folder: str) -> None:
        files = environment.files
        files.make_directories(f"{folder}/b/c")
        files.make_directories(f"{folder}/b/c")
        files.open(f"{folder}/b/file", create=True).close()
        assert files.list_directory(f"{folder}/b") == ["c", "file"]
        assert files.is_directory(f"{folder}/b/c")
        assert not files.is_directory(f"{folder}/b/file")
        assert not files.is_directory(f"{folder}/none")
        files.rename(f"{folder}/b", f"{folder}/moved")
        await environment.workers.run(files.sync_directory, folder)
        assert files.exists(f"{folder}/moved/file")
        await environment.workers.run(files.remove_tree, f"{folder}/moved")
        assert files.list_directory(folder) == []

    run(scenario)


@pytest.mark.parametrize(
    "call", ["list_directory", "size", "remove", "remove_tree", "sync_directory", "lock_directory"]
)
def test_what_is_not_there_is_not_found(run: RunScenario, call: str) -> None:
    async def scenario(environment: Environment, folder: str) -> None:
        with pytest.raises(FileNotFoundError):
            getattr(environment.files, call)(f"{folder}/none")
        with pytest.raises(FileNotFoundError):
            environment.files.rename(f"{folder}/none", f"{folder}/other")
        with pytest.raises(FileNotFoundError):
            environment.files.open(f"{folder}/none/file", create=True)

    run(scenario)


def test_a_locked_directory_is_refused_until_released(run: RunScenario) -> None:
    async def scenario(environment: Environment, folder: str) -> None:
        lock = environment.files.lock_directory(folder)
        with pytest.raises(BlockingIOError):
            environment.files.lock_directory(folder)
        assert environment.files.list_directory(folder) == [".lock"]
        lock.release()
        environment.files.lock_directory(folder).release()

    run(scenario)


# Workers


def test_work_answers_and_its_errors_pass_through(run: RunScenario) -> None:
    async def scenario(environment: Environment, _: str) -> None:
        assert await environment.workers.run(divmod, 7, 2) == (3, 1)
        assert await environment.workers.run(int, "ff", base=16) == 255
        with pytest.raises(ZeroDivisionError):
            await environment.workers.run(divmod, 1, 0)

    run(scenario)


# Network


def test_frames_come_back_whole_and_in_order(run: RunScenario) -> None:
    async def scenario(environment: Environment, _: str) -> None:
        listener = await environment.network.listen(HOST, 0, echo, frame_bytes_max=LIMIT)
        connection = await dial(environment, listener.port)
        frames = [b"", b"x", b"y" * 70_000, bytes(range(256)) * 4000, b"z"]
        for frame in frames:
            connection.send([frame[:10], bytearray(frame[10:20]), memoryview(frame)[20:]])
        assert [bytes(await connection.receive()) for _ in frames] == frames
        assert connection.peer.endswith(f":{listener.port}")
        assert not connection.is_closed
        connection.close()
        assert connection.is_closed
        connection.send([b"into the void"])
        await listener.close()

    run(scenario)


def test_a_port_where_nobody_listens_refuses(run: RunScenario) -> None:
    async def scenario(environment: Environment, _: str) -> None:
        listener = await environment.network.listen(HOST, 0, echo, frame_bytes_max=LIMIT)
        port = listener.port
        with pytest.raises(OSError, match="in use"):
            await environment.network.listen(HOST, port, echo, frame_bytes_max=LIMIT)
        await listener.close()
        with pytest.raises(ConnectionRefusedError):
            await dial(environment, port)

    run(scenario)


def test_a_closed_connection_delivers_what_was_sent_and_then_reports_it(run: RunScenario) -> None:
    async def farewell(connection: FrameConnection) -> None:
        connection.send([b"one"])
        connection.send([b"two" * 50_000])

    async def scenario(environment: Environment, _: str) -> None:
        listener = await environment.network.listen(HOST, 0, farewell, frame_bytes_max=LIMIT)
        connection = await dial(environment, listener.port)
        assert bytes(await connection.receive()) == b"one"
        assert bytes(await connection.receive()) == b"two" * 50_000
        with pytest.raises(ConnectionClosed):
            await connection.receive()
        with pytest.raises(ConnectionClosed):
            await connection.drain()
        assert connection.is_closed
        await listener.close()

    run(scenario)


def test_an_abort_is_seen_by_a_waiting_receiver_on_both_sides(run: RunScenario) -> None:
    async def scenario(environment: Environment, _: str) -> None:
        seen = asyncio.Event()

        async def serve(connection: FrameConnection) -> None:
            with pytest.raises(ConnectionClosed):
                await connection.receive()
            seen.set()

        listener = await environment.network.listen(HOST, 0, serve, frame_bytes_max=LIMIT)
        connection = await dial(environment, listener.port)
        waiting = asyncio.create_task(connection.receive())
        await environment.clock.sleep(20)
        connection.abort()
        with pytest.raises(ConnectionClosed):
            await waiting
        async with environment.clock.timeout(20_000):
            await seen.wait()
        await listener.close()

    run(scenario)


@pytest.mark.parametrize("is_server_strict", [True, False])
def test_a_frame_over_the_limit_closes_the_connection(run: RunScenario, is_server_strict: bool) -> None:
    async def scenario(environment: Environment, _: str) -> None:
        server, client = (100, LIMIT) if is_server_strict else (LIMIT, 100)
        listener = await environment.network.listen(HOST, 0, echo, frame_bytes_max=server)
        connection = await dial(environment, listener.port, limit=client)
        connection.send([b"x" * 100])
        assert len(await connection.receive()) == 100
        connection.send([b"x" * 101])
        with pytest.raises(ConnectionClosed):
            await connection.receive()
        await listener.close()

    run(scenario)


def test_a_peer_that_does_not_read_holds_the_sender_back(run: RunScenario) -> None:
    async def scenario(environment: Environment, _: str) -> None:
        go = asyncio.Event()

        async def slow(connection: FrameConnection) -> None:
            await go.wait()
            for _ in range(30):
                await connection.receive()
            connection.send([b"done"])

        listener = await environment.network.listen(HOST, 0, slow, frame_bytes_max=LIMIT)
        connection = await dial(environment, listener.port)
        for _ in range(30):
            connection.send([bytes(LIMIT)])
        with pytest.raises(TimeoutError):
            async with environment.clock.timeout(200):
                await connection.drain()
        assert connection.unsent_bytes > LIMIT
        go.set()
        await connection.drain()
        assert bytes(await connection.receive()) == b"done"
        await listener.close()

    run(scenario)


def test_closing_a_listener_ends_its_connections_and_their_tasks(run: RunScenario) -> None:
    async def scenario(environment: Environment, _: str) -> None:
        ended, begun = [], asyncio.Semaphore(0)

        async def serve(connection: FrameConnection) -> None:
            begun.release()
            try:
                await connection.receive()
            finally:
                ended.append(connection.is_closed)

        listener = await environment.network.listen(HOST, 0, serve, frame_bytes_max=LIMIT)
        connections = [await dial(environment, listener.port) for _ in range(3)]
        for _ in connections:
            await begun.acquire()
        await listener.close()
        assert ended == [True, True, True]
        for connection in connections:
            with pytest.raises(ConnectionClosed):
                await connection.receive()

    run(scenario)
