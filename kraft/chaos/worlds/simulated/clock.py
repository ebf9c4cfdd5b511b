"""One node's clock over the shared virtual time: it may run fast or slow, and its wall time may jump."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import TracebackType

from kraft.chaos.worlds.simulated.loop import VirtualLoop
from metadata.environment import TimerHandle

EPOCH_MS = 1_700_000_000_000
"""Wall time at the start of each simulation."""


class _AtOnce:
    """An awaitable that never waits."""

    def __await__(self) -> Iterator[None]:
        return iter(())


_AT_ONCE = _AtOnce()


class _Timeout:
    """`asyncio.timeout` without coroutines for enter and exit, which never wait: every request has a timeout."""

    __slots__ = ("_cancelling", "_handle", "_has_expired", "_loop", "_task", "_when_s")

    def __init__(self, loop: VirtualLoop, when_s: float) -> None:
        self._loop = loop
        self._when_s = when_s

    def __aenter__(self) -> _AtOnce:
        task = asyncio.current_task(self._loop)
        assert task is not None, "a timeout outside any task"
        self._task, self._cancelling, self._has_expired = task, task.cancelling(), False
        self._handle = self._loop.call_at(self._when_s, self._expire)
        return _AT_ONCE

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> _AtOnce:
        self._handle.cancel()
        is_ours = self._has_expired and self._task.uncancel() <= self._cancelling
        if is_ours and kind is asyncio.CancelledError:
            raise TimeoutError from error
        return _AT_ONCE

    def _expire(self) -> None:
        self._task.cancel()
        self._has_expired = True


class SimulatedClock:
    """`rate` 1.01 is a clock that counts 1 % too much; its timeouts thus end early."""

    def __init__(self, loop: VirtualLoop, *, rate: float = 1.0, offset_ms: int = 0) -> None:
        self._loop = loop
        self._rate = rate
        self._mark_us = loop.now_us
        self._counted_us = loop.now_us
        self._read_at_us, self._read_us = -1, 0
        """The last value: time does not change while callbacks run."""
        self._wall_offset_ms = EPOCH_MS + offset_ms

    def set_rate(self, rate: float) -> None:
        """Set the drift from now on."""
        self._counted_us = self.monotonic_us()
        self._mark_us = self._loop.now_us
        self._rate = rate
        self._read_at_us = -1

    def jump(self, ms: int) -> None:
        """Set the wall clock; the monotonic clock does not change."""
        self._wall_offset_ms += ms

    def monotonic_us(self) -> int:
        now_us = self._loop.now_us
        if now_us != self._read_at_us:
            self._read_at_us = now_us
            self._read_us = self._counted_us + round((now_us - self._mark_us) * self._rate)
        return self._read_us

    def monotonic_ms(self) -> int:
        return self.monotonic_us() // 1000

    def wall_ms(self) -> int:
        return self._wall_offset_ms + self.monotonic_ms()

    async def sleep(self, ms: float) -> None:
        await asyncio.sleep(self._virtual_seconds(ms))

    def timeout(self, ms: float) -> _Timeout:
        return _Timeout(self._loop, self._loop.time() + self._virtual_seconds(ms))

    def call_later(self, ms: float, callback: Callable[..., object], *args: object) -> TimerHandle:
        handle: TimerHandle = self._loop.call_at(self._loop.time() + self._virtual_seconds(ms), callback, *args)
        return handle

    def _virtual_seconds(self, ms: float) -> float:
        """The time in virtual seconds, rounded up to at least a microsecond, so that it has certainly passed."""
        return -(-ms * 1000 // self._rate) / 1_000_000
