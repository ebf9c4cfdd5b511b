"""One node's clock over the shared virtual time: it may run fast or slow, and its wall time may jump."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from metadata.environment import TimerHandle
from tests.simulation.loop import VirtualLoop

EPOCH_MS = 1_700_000_000_000
"""Wall time at the start of each simulation."""


class SimulatedClock:
    """`rate` 1.01 is a clock that counts 1 % too much; its timeouts thus end early."""

    def __init__(self, loop: VirtualLoop, *, rate: float = 1.0, offset_ms: int = 0) -> None:
        self._loop = loop
        self._rate = rate
        self._mark_us = loop.now_us
        self._counted_us = loop.now_us
        self._read_at_us, self._read_us = -1, 0
        """The last reading: time stands still while callbacks run, and each of them asks."""
        self._wall_offset_ms = EPOCH_MS + offset_ms

    def set_rate(self, rate: float) -> None:
        """Drift from now on."""
        self._counted_us = self.monotonic_us()
        self._mark_us = self._loop.now_us
        self._rate = rate
        self._read_at_us = -1

    def jump(self, ms: int) -> None:
        """Somebody set the wall clock; the monotonic one does not notice."""
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

    def timeout(self, ms: float) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(self._virtual_seconds(ms))

    def call_later(self, ms: float, callback: Callable[..., object], *args: object) -> TimerHandle:
        return self._loop.call_later(self._virtual_seconds(ms), callback, *args)

    def _virtual_seconds(self, ms: float) -> float:
        """At least a microsecond for a positive time, and rounded up, so that what was waited for has passed."""
        return -(-ms * 1000 // self._rate) / 1_000_000
