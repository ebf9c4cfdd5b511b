"""The real clock: monotonic time for durations, wall time for record timestamps, timers of one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager


class SystemClock:
    """Bound to the event loop on which its owner runs; every call comes from that loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def monotonic_us(self) -> int:
        return time.monotonic_ns() // 1_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def sleep(self, ms: float) -> None:
        await asyncio.sleep(ms / 1_000)

    def timeout(self, ms: float) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(ms / 1_000)

    def call_later(self, ms: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        return self._loop.call_later(ms / 1_000, callback, *args)
