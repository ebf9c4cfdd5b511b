"""What `FrameConnection.receive_while` promises, of real connections and of simulated ones alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from metadata.environment import ConnectionClosed, Environment, FrameConnection
from tests.contract.test_both_environments import HOST, LIMIT, RunScenario, dial, real, simulated


@pytest.fixture(params=["simulated", "asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> RunScenario:
    factories = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return simulated if request.param == "simulated" else real(tmp_path, factories[request.param])


@asynccontextmanager
async def both_ends(
    environment: Environment, *, limit: int = LIMIT
) -> AsyncIterator[tuple[FrameConnection, FrameConnection]]:
    """Of one connection: who dialed, and who accepted."""
    accepted: asyncio.Queue[FrameConnection] = asyncio.Queue()
    end = asyncio.Event()

    async def serve(connection: FrameConnection) -> None:
        accepted.put_nowait(connection)
        await end.wait()

    listener = await environment.network.listen(HOST, 0, serve, frame_bytes_max=limit)
    try:
        yield await dial(environment, listener.port), await accepted.get()
    finally:
        end.set()
        await listener.close()


def taking_all() -> tuple[list[bytes], Callable[[memoryview], bool]]:
    """What was taken, and who takes everything."""
    taken: list[bytes] = []

    def take(frame: memoryview) -> bool:
        taken.append(bytes(frame))
        return True

    return taken, take


async def until(environment: Environment, taken: list[bytes], count: int) -> None:
    async with environment.clock.timeout(20_000):
        while len(taken) < count:
            await environment.clock.sleep(1)


def test_each_frame_is_taken_in_order_and_the_refused_one_is_received(run: RunScenario) -> None:
    async def scenario(environment: Environment, _: str) -> None:
        async with both_ends(environment) as (one, other):
            taken: list[bytes] = []

            def take(frame: memoryview) -> bool:
                if frame == b"stop":
                    return False
                taken.append(bytes(frame))
                return True

            frames = [b"%d" % n for n in range(300)] + [b"large" * 50_000, b""]
            for frame in [b"early", *frames, b"stop", b"after", b"last"]:
                one.send([frame])
            assert bytes(await other.receive()) == b"early"
            refused = await other.receive_while(take)
            assert bytes(refused) == b"stop"
            assert taken == frames
            assert bytes(await other.receive()) == b"after"
            assert bytes(await other.receive()) == b"last"

    run(scenario)


def test_who_takes_may_answer_and_needs_no_task(run: RunScenario) -> None:
    async def scenario(environment: Environment, _: str) -> None:
        async with both_ends(environment) as (one, other):

            def answer(frame: memoryview) -> bool:
                other.send([frame, b"!"])
                return True

            answering = asyncio.create_task(other.receive_while(answer))
            for n in range(20):
                one.send([b"%d" % n])
                assert bytes(await one.receive()) == b"%d!" % n
            one.close()
            with pytest.raises(ConnectionClosed):
                await answering

    run(scenario)


@pytest.mark.parametrize("has_begun", [False, True])
def test_the_end_comes_after_the_frames(run: RunScenario, has_begun: bool) -> None:
    async def scenario(environment: Environment, _: str) -> None:
        async with both_ends(environment) as (one, other):
            taken, take = taking_all()
            taking = asyncio.create_task(other.receive_while(take)) if has_begun else None
            await environment.clock.sleep(5)
            for n in range(10):
                one.send([b"%d" % n])
            one.close()
            await environment.clock.sleep(5)
            with pytest.raises(ConnectionClosed):
                await (other.receive_while(take) if taking is None else taking)
            assert taken == [b"%d" % n for n in range(10)]

    run(scenario)


@pytest.mark.parametrize("comes_alone", [False, True])
@pytest.mark.parametrize("has_begun", [False, True])
def test_what_the_taker_raises_reaches_who_waits_and_costs_nothing_else(
    run: RunScenario, has_begun: bool, comes_alone: bool
) -> None:
    async def scenario(environment: Environment, _: str) -> None:
        async with both_ends(environment) as (one, other):

            def fail(frame: memoryview) -> bool:
                raise ValueError(bytes(frame))

            taking = asyncio.create_task(other.receive_while(fail)) if has_begun else None
            await environment.clock.sleep(5)
            one.send([b"bad"])
            if comes_alone:
                await environment.clock.sleep(5)
            one.send([b"good"])
            await environment.clock.sleep(5)
            with pytest.raises(ValueError, match="bad"):
                await (other.receive_while(fail) if taking is None else taking)
            assert not other.is_closed
            assert [bytes(await other.receive()) for _ in range(2)] == [b"bad", b"good"]

    run(scenario)


def test_who_is_cancelled_takes_no_more_and_the_next_one_finds_all(run: RunScenario) -> None:
    async def scenario(environment: Environment, _: str) -> None:
        async with both_ends(environment) as (one, other):
            taken, take = taking_all()
            taking = asyncio.create_task(other.receive_while(take))
            one.send([b"taken"])
            await until(environment, taken, 1)
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
            one.send([b"later"])
            await environment.clock.sleep(5)
            assert taken == [b"taken"]
            assert bytes(await other.receive()) == b"later"

    run(scenario)


def test_what_came_before_a_frame_over_the_limit_is_taken(run: RunScenario) -> None:
    async def scenario(environment: Environment, _: str) -> None:
        async with both_ends(environment, limit=100) as (one, other):
            taken, take = taking_all()
            taking = asyncio.create_task(other.receive_while(take))
            await environment.clock.sleep(5)
            one.send([b"good"])
            one.send([bytes(101)])
            with pytest.raises(ConnectionClosed):
                await taking
            assert taken == [b"good"]

    run(scenario)


def test_a_taker_that_ends_the_connection_is_informed(run: RunScenario) -> None:
    async def scenario(environment: Environment, _: str) -> None:
        async with both_ends(environment) as (one, other):

            def end(_: memoryview) -> bool:
                other.abort()
                return True

            taking = asyncio.create_task(other.receive_while(end))
            await environment.clock.sleep(5)
            one.send([b"x"])
            with pytest.raises(ConnectionClosed):
                await taking
            with pytest.raises(ConnectionClosed):
                await one.receive()

    run(scenario)


def test_connection_is_writable_again_after_backpressure(run: RunScenario) -> None:
    async def scenario(environment: Environment, _: str) -> None:
        async with both_ends(environment) as (one, other):
            assert one.is_writable
            sent = 0
            while one.is_writable:
                one.send([bytes(LIMIT)])
                await environment.clock.sleep(1)
                sent += 1
                assert sent < 100, "100 frames were accepted although nobody receives"
            taken: list[int] = []

            def take(frame: memoryview) -> bool:
                taken.append(len(frame))
                return len(taken) <= sent

            taking = asyncio.create_task(other.receive_while(take))
            await one.drain()
            assert one.is_writable
            one.send([b"last"])
            assert bytes(await taking) == b"last"
            one.close()
            assert not one.is_writable

    run(scenario)
