"""The clock as a client needs it; `kraft.system_clock` is the real one. Durations are milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    def monotonic_ms(self) -> int: ...

    def wall_ms(self) -> int:
        """Milliseconds since the epoch; for timestamps of records only."""
        ...

    async def sleep(self, ms: float) -> None: ...

    def timeout(self, ms: float) -> AbstractAsyncContextManager[object]:
        """Raises TimeoutError inside the block after `ms`, as `asyncio.timeout` does."""
        ...

    def call_later(self, ms: float, callback: Callable[..., object], *args: object) -> Timer: ...
