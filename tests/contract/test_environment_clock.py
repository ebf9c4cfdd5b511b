"""Contract of Clock and Workers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from metadata.environment import Environment
from tests.contract.environments import FACTORIES, World


@pytest.fixture(params=list(FACTORIES))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return FACTORIES[request.param](str(tmp_path))


def test_sleep_takes_at_least_its_time(world: World) -> None:
    async def main(environment: Environment) -> None:
        before = environment.clock.monotonic_us()
        await environment.clock.sleep(20)
        assert environment.clock.monotonic_us() - before >= 19_000

    world.run(main)


def test_milliseconds_and_microseconds_are_one_clock(world: World) -> None:
    async def main(environment: Environment) -> None:
        first, ms, last = (
            environment.clock.monotonic_us(),
            environment.clock.monotonic_ms(),
            environment.clock.monotonic_us(),
        )
        assert first // 1_000 <= ms <= last // 1_000

    world.run(main)


def test_wall_clock_is_in_milliseconds_since_the_epoch(world: World) -> None:
    async def main(environment: Environment) -> None:
        assert 10**12 < environment.clock.wall_ms() < 10**13

    world.run(main)


def test_timeout_raises_timeout_error_and_frees_the_task(world: World) -> None:
    async def main(environment: Environment) -> None:
        with pytest.raises(TimeoutError):
            async with environment.clock.timeout(10):
                await asyncio.Event().wait()
        await environment.clock.sleep(1)

    world.run(main)


def test_timeout_that_does_not_pass_changes_nothing(world: World) -> None:
    async def main(environment: Environment) -> None:
        async with environment.clock.timeout(5_000):
            await environment.clock.sleep(1)

    world.run(main)


def test_call_later_calls_once_with_its_arguments_in_order_of_time(world: World) -> None:
    async def main(environment: Environment) -> None:
        called: list[str] = []
        done = asyncio.Event()
        environment.clock.call_later(30, lambda: done.set())
        environment.clock.call_later(20, called.append, "second")
        environment.clock.call_later(5, called.append, "first")
        await done.wait()
        assert called == ["first", "second"]

    world.run(main)


def test_a_cancelled_timer_never_calls(world: World) -> None:
    async def main(environment: Environment) -> None:
        called: list[int] = []
        environment.clock.call_later(5, called.append, 1).cancel()
        await environment.clock.sleep(20)
        assert called == []

    world.run(main)


def test_workers_return_what_the_function_returns(world: World) -> None:
    async def main(environment: Environment) -> None:
        assert await environment.workers.run(int, "ff", base=16) == 255

    world.run(main)


def test_workers_pass_exceptions_through(world: World) -> None:
    def fail() -> None:
        raise LookupError("from the worker")

    async def main(environment: Environment) -> None:
        with pytest.raises(LookupError, match="from the worker"):
            await environment.workers.run(fail)

    world.run(main)


def test_workers_take_many_calls_at_once(world: World) -> None:
    async def main(environment: Environment) -> None:
        results = await asyncio.gather(*(environment.workers.run(lambda n: n * n, n) for n in range(200)))
        assert results == [n * n for n in range(200)]

    world.run(main)


def test_randomness_gives_bytes_and_differs(world: World) -> None:
    async def main(environment: Environment) -> None:
        first, second = environment.rng.randbytes(16), environment.rng.randbytes(16)
        assert len(first) == len(second) == 16
        assert first != second

    world.run(main)
