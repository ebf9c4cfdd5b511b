"""A loop whose clock jumps to the next timer, and an environment on it."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from metadata.environment import Clock, Environment

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "nothing will ever happen: everybody waits"
        if timeout > 0:
            self.now_s += timeout
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


class VirtualClock:
    def monotonic_us(self) -> int:
        return round(asyncio.get_running_loop().time() * 1_000_000)

    def monotonic_ms(self) -> int:
        return self.monotonic_us() // 1_000

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + self.monotonic_ms()

    async def sleep(self, ms: float) -> None:
        await asyncio.sleep(ms / 1_000)

    def timeout(self, ms: float) -> asyncio.Timeout:
        return asyncio.timeout(ms / 1_000)

    def call_later(self, ms: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(ms / 1_000, callback, *args)


WORK_MS = 20


class VirtualWorkers:
    """Work takes its time, while others go on."""

    async def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        await asyncio.sleep(WORK_MS / 1_000)
        return function(*args, **kwargs)


def environment(seed: int) -> Environment:
    absent = cast(Any, None)
    clock = cast(Clock, VirtualClock())
    return Environment(clock=clock, files=absent, network=absent, workers=VirtualWorkers(), rng=random.Random(seed))


def run(main: Awaitable[T]) -> T:
    async def wrapped() -> T:
        return await main

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(wrapped())
