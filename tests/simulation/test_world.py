"""The simulated world itself: virtual time, death and pause of processes, the disk's promises, the network's faults."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator

import pytest

from kraft.chaos.worlds.simulated.clock import EPOCH_MS
from kraft.chaos.worlds.simulated.environment import Machine, SimulatedWorld
from kraft.chaos.worlds.simulated.loop import PROCESS, Deadlock, Livelock
from metadata.environment import ConnectionClosed, FrameConnection
from tests.simulation.story import run_story


async def echo(connection: FrameConnection) -> None:
    while True:
        connection.send([await connection.receive()])


async def dial(machine: Machine, host: str, port: int = 9000, *, timeout_ms: int = 1000) -> FrameConnection:
    return await machine.environment.network.connect(host, port, frame_bytes_max=1000, timeout_ms=timeout_ms)


async def serve(machine: Machine, port: int = 9000) -> None:
    await machine.run(machine.environment.network.listen(machine.name, port, echo, frame_bytes_max=1000))


def test_time_jumps_to_next_timer_in_order() -> None:
    world, order = SimulatedWorld(1), []

    async def scenario() -> None:
        for number in (1, 2, 3):
            world.loop.call_later(3600, order.append, number)
        await asyncio.sleep(3600)
        order.append(4)

    world.run(scenario())
    assert (order, world.loop.now_us) == ([1, 2, 3, 4], 3_600_000_000)


def test_endless_wait_is_a_deadlock() -> None:
    async def scenario() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="nothing is scheduled"):
        SimulatedWorld(1).run(scenario())


def test_spinning_is_a_livelock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kraft.chaos.worlds.simulated.loop.STEPS_PER_INSTANT_MAX", 1000)

    async def scenario() -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    with pytest.raises(Livelock):
        SimulatedWorld(1).run(scenario())


def test_endless_step_is_a_livelock_with_stack() -> None:
    world = SimulatedWorld(1)
    world.loop.step_s_max = 0.4

    async def awaits_what_is_over(over: asyncio.Future[None]) -> None:
        while True:
            try:
                await asyncio.shield(over)
            except Exception:  # noqa: BLE001 - a loop that swallows what it can
                continue

    async def scenario() -> None:
        await asyncio.sleep(1)
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        over.set_result(None)
        await awaits_what_is_over(over)

    with pytest.raises(Livelock, match=r"at 1000000 us a step that does not end:(?s:.*)in awaits_what_is_over"):
        world.run(scenario())


def test_many_steps_are_no_livelock() -> None:
    world = SimulatedWorld(1)
    world.loop.step_s_max = 0.2

    async def scenario() -> None:
        for _ in range(20):
            until = time.process_time() + 0.03
            while time.process_time() < until:
                pass
            await asyncio.sleep(0)

    world.run(scenario())


def test_uncaught_exception_fails_the_world() -> None:
    async def scenario() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await asyncio.sleep(1)

    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        SimulatedWorld(1).run(scenario())


def test_a_world_ends_at_its_limit_of_virtual_time() -> None:
    """A client that retries for ever would hang a run, although time moves on; what it does at its end has time."""
    world, ended = SimulatedWorld(1), []

    async def retrying() -> None:
        try:
            for _ in range(10**9):
                await asyncio.sleep(0.1)
        finally:
            await asyncio.sleep(1)
            ended.append(world.loop.now_us)

    async def scenario() -> None:
        asyncio.get_running_loop().create_task(retrying())
        await asyncio.get_running_loop().create_task(retrying())

    world.loop.s_max = 10
    with pytest.raises(
        Livelock, match=r"no end within 10 s of virtual time; there run 2 x .*\.retrying, 1 x .*scenario"
    ):
        world.run(scenario())
    assert [1e6 * 11 - 1e5 <= each <= 1e6 * 11 for each in ended] == [True, True]


def test_clock_drift_and_jump() -> None:
    world = SimulatedWorld(1)
    fast = world.machine("fast", rate=2.0).clock

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            async with fast.timeout(1000):
                await asyncio.sleep(60)
        assert world.loop.now_us == 500_000
        assert fast.monotonic_ms() == 1000
        fast.jump(-5000)
        assert (fast.wall_ms(), fast.monotonic_ms()) == (EPOCH_MS - 4000, 1000)

    world.run(scenario())


def test_killed_process_runs_no_code_and_resets_peers() -> None:
    world, ran = SimulatedWorld(1), []
    one, two = world.machine("one"), world.machine("two")

    async def working() -> None:
        try:
            await asyncio.sleep(10)
            ran.append("worked")
        finally:
            ran.append("finally")

    async def scenario() -> None:
        await serve(two)
        world.loop.spawn(two.process, working())
        connection = await dial(one, "two")
        two.kill()
        with pytest.raises(ConnectionClosed):
            await connection.receive()
        with pytest.raises(ConnectionRefusedError):
            await dial(one, "two")
        await asyncio.sleep(20)
        assert ran == []

    world.run(scenario())


def test_killed_process_cannot_begin_tasks_as_its_world_ends() -> None:
    """What a `finally` hands to the loop there is closed too: else the collector warns of it in some later test."""
    world, made = SimulatedWorld(1), []

    async def cleaning(depth: int) -> None:
        try:
            await asyncio.sleep(10)
        finally:
            made.append(cleaning(depth + 1))
            asyncio.get_running_loop().create_task(made[-1])

    async def scenario() -> None:
        machine = world.machine("one")
        world.loop.spawn(machine.process, cleaning(0))
        await asyncio.sleep(1)
        machine.kill()

    world.run(scenario())
    assert [inspect.getcoroutinestate(each) for each in made] == [inspect.CORO_CLOSED]


def test_abandoned_generator_is_closed() -> None:
    world, closed = SimulatedWorld(1), []

    async def numbers(name: str) -> AsyncGenerator[int, None]:
        try:
            yield 1
            await asyncio.sleep(3600)
            yield 2
        finally:
            await asyncio.sleep(0.1)
            closed.append(name)

    async def read(name: str, *, until: int) -> None:
        async for number in numbers(name):
            if number == until:
                return

    async def scenario() -> None:
        machine = world.machine("one")
        world.loop.spawn(machine.process, read("killed", until=2))
        await read("left", until=1)
        await asyncio.sleep(0.2)
        assert closed == ["left"]
        machine.kill()
        await asyncio.sleep(3600)

    world.run(scenario())
    assert closed == ["left"]


def test_paused_process_continues() -> None:
    world, ran = SimulatedWorld(1), []
    machine = world.machine("one")

    async def working() -> None:
        for number in range(3):
            await asyncio.sleep(1)
            ran.append((number, world.loop.now_us // 1_000_000))

    async def scenario() -> None:
        world.loop.spawn(machine.process, working())
        await asyncio.sleep(1.5)
        machine.pause()
        await asyncio.sleep(10)
        machine.resume()
        await asyncio.sleep(5)

    world.run(scenario())
    assert ran == [(0, 1), (1, 11), (2, 12)]


@pytest.mark.parametrize("is_killed", [False, True])
def test_paused_process_gets_frames_after_resume(is_killed: bool) -> None:
    world, taken = SimulatedWorld(1), list[tuple[bytes, int, str]]()
    one, two = world.machine("one"), world.machine("two")

    def take(frame: memoryview) -> bool:
        process = PROCESS.get()
        assert process is not None
        taken.append((bytes(frame), world.loop.now_us // 1_000_000, process.name))
        return True

    async def taking(connection: FrameConnection) -> None:
        await connection.receive_while(take)

    async def scenario() -> None:
        await two.run(two.environment.network.listen("two", 9000, taking, frame_bytes_max=1000))
        connection = await dial(one, "two")
        connection.send([b"awake"])
        await asyncio.sleep(1)
        two.pause()
        connection.send([b"asleep"])
        connection.send([b"still"])
        await asyncio.sleep(5)
        if is_killed:
            two.kill()
        else:
            two.resume()
            connection.send([b"again"])
        await asyncio.sleep(1)

    world.run(scenario())
    late = [] if is_killed else [(b"asleep", 6, "two"), (b"still", 6, "two"), (b"again", 6, "two")]
    assert taken == [(b"awake", 0, "two"), *late]


def test_task_cancelled_in_paused_process() -> None:
    world = SimulatedWorld(1)
    machine = world.machine("one")

    async def scenario() -> None:
        task = world.loop.spawn(machine.process, asyncio.sleep(3600))
        await asyncio.sleep(1)
        machine.pause()
        task.cancel()
        del task  # only what the process holds back knows of it now
        await asyncio.sleep(1)
        machine.kill()

    world.run(scenario())  # which fails for a task that was destroyed while it was pending


def test_power_loss_keeps_synced_data() -> None:
    outcomes = set()
    for seed in range(40):
        machine = SimulatedWorld(seed).machine("one")
        files = machine.environment.files
        files.make_directories("/d")
        file = files.open("/d/log", create=True)
        file.append([b"synced"])
        file.sync()
        files.sync_directory("/d")
        files.sync_directory("/")
        file.append([b"x" * 2000])
        file.append([b"y" * 2000])
        machine.lose_power()
        data = machine.environment.files.open("/d/log").pread(0, 10_000)
        assert data.startswith(b"synced")
        outcomes.add(bytes(data))
    assert b"synced" in outcomes
    assert b"synced" + b"x" * 2000 + b"y" * 2000 in outcomes
    assert any((len(data) - 6) % 2000 > 0 for data in outcomes), "no write was ever torn"
    assert b"synced" + b"\0" * 2000 + b"y" * 2000 in outcomes, "writes never reached the disk out of order"


def test_name_is_durable_after_directory_sync() -> None:
    survived = set()
    for seed in range(20):
        machine = SimulatedWorld(seed).machine("one")
        files = machine.environment.files
        files.make_directories("/d")
        files.sync_directory("/")
        files.open("/d/new", create=True).append([b"1"])
        files.open("/d/new").sync()
        files.rename("/d/new", "/d/final")
        machine.lose_power()
        survived.add(tuple(machine.environment.files.list_directory("/d")))
    assert survived == {(), ("new",), ("final",)}


def test_full_or_failing_disk_leaves_file_unchanged() -> None:
    machine = SimulatedWorld(1).machine("one")
    file = machine.environment.files.open("/log", create=True)
    file.append([b"abc"])
    machine.disk.is_full = True
    with pytest.raises(OSError, match="No space left"):
        file.append([b"def"])
    machine.disk.is_full = False
    machine.disk.fails = lambda path: path == "/log"
    with pytest.raises(OSError, match="Input/output error"):
        file.append([b"def"])
    machine.disk.fails = lambda path: False
    machine.disk.flip_bit("/log", offset=0, bit=0)
    assert file.pread(0, 10) == b"`bc"


def test_cut_link_holds_frames_in_order() -> None:
    world = SimulatedWorld(1)
    one, two = world.machine("one"), world.machine("two")

    async def scenario() -> None:
        await serve(two)
        connection = await dial(one, "two")
        world.network.cut("one", "two", direction="from")
        for number in range(5):
            connection.send([b"%d" % number])
        with pytest.raises(TimeoutError):
            async with one.clock.timeout(5000):
                await connection.receive()
        with pytest.raises(TimeoutError):
            await dial(one, "two")
        world.network.heal("one", "two")
        assert [bytes(await connection.receive()) for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]

    world.run(scenario())


def test_message_cut_in_the_middle_resets_both_ends() -> None:
    world = SimulatedWorld(1)
    one, two = world.machine("one"), world.machine("two")

    async def scenario() -> None:
        await serve(two)
        connection = await dial(one, "two")
        world.network.link("one", "two").frames_until_reset = 1
        connection.send([b"whole"])
        assert bytes(await connection.receive()) == b"whole"
        connection.send([b"cut"])
        with pytest.raises(ConnectionClosed, match="middle of a message"):
            await connection.receive()

    world.run(scenario())


def test_bandwidth_and_backpressure() -> None:
    world = SimulatedWorld(1)
    one, two = world.machine("one"), world.machine("two")

    async def silent(connection: FrameConnection) -> None:
        await asyncio.sleep(100)

    async def scenario() -> None:
        network = two.environment.network
        await two.run(network.listen("two", 1, silent, frame_bytes_max=10_000_000))
        connection = await dial(one, "two", 1)
        world.network.link("one", "two").bytes_per_s = 1_000_000
        connection.send([bytes(2_000_000)])
        assert connection.unsent_bytes == 2_000_000
        before = world.loop.time()
        await connection.drain()
        assert 2 <= world.loop.time() - before < 2.1
        for _ in range(2):
            connection.send([bytes(1_000_000)])
        with pytest.raises(TimeoutError):
            async with one.clock.timeout(60_000):
                await connection.drain()

    world.run(scenario())


def test_machine_without_power_is_silent() -> None:
    world = SimulatedWorld(1)
    one, two = world.machine("one"), world.machine("two")

    async def scenario() -> None:
        await serve(two)
        connection = await dial(one, "two")
        two.lose_power()
        with pytest.raises(TimeoutError):
            async with one.clock.timeout(1000):
                await connection.receive()
        with pytest.raises(TimeoutError):
            await dial(one, "two")
        two.power_on()
        with pytest.raises(ConnectionClosed, match="reset"):
            await connection.receive()
        await serve(two)
        (await dial(one, "two")).send([b"again"])

    world.run(scenario())


def test_data_folder_lock_ends_with_its_owner() -> None:
    world = SimulatedWorld(1)
    machine = world.machine("one")

    async def lock() -> None:
        machine.environment.files.lock_directory("/")

    async def scenario() -> None:
        await machine.run(lock())
        with pytest.raises(BlockingIOError):
            machine.environment.files.lock_directory("/")
        machine.kill()
        machine.environment.files.lock_directory("/").release()

    world.run(scenario())


def test_seeds_give_different_traces() -> None:
    assert run_story(7) == run_story(7)
    assert run_story(7) != run_story(8)


def test_trace_does_not_depend_on_hash_seed() -> None:
    def fingerprint(hash_seed: str) -> str:
        command = [sys.executable, "-m", "tests.simulation.story", "7"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout

    assert fingerprint("1") == fingerprint("2") == run_story(7) + "\n"
