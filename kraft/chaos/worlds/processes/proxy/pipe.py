"""One direction of one proxied connection: bytes pass at once, late, slowly, or wait.

Invariant: bytes keep their order, and while more than `QUEUED_BYTES_MAX` wait, nothing is read from the source.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Final

from kraft.chaos.worlds.processes.proxy.rules import Flow

QUEUED_BYTES_MAX: Final = 256 * 1024
SLICE_MS: Final = 20
"""A narrow link sends its bytes in pieces of about so much time."""
SLICE_BYTES_MIN: Final = 128


class Pipe:
    def __init__(self, loop: asyncio.AbstractEventLoop, flow: Flow, rng: random.Random) -> None:
        self._loop = loop
        self._flow = flow
        self._rng = rng
        self._source: asyncio.Transport | None = None
        self._sink: asyncio.Transport | None = None
        self._queue: deque[tuple[float, bytes]] = deque()
        self._queued = 0
        self._due = 0.0
        self._sent = 0.0
        """The time at which a narrow link will have sent all bytes so far."""
        self._timer: asyncio.TimerHandle | None = None
        self._is_sink_full = False
        self._is_paused = False
        self._when_empty: Callable[[], None] | None = None

    def connect(self, source: asyncio.Transport, sink: asyncio.Transport) -> None:
        self._source, self._sink = source, sink
        self._steer()
        self._flush()

    def set_flow(self, flow: Flow) -> None:
        """Set new rules: waiting bytes go at once, unless the new rules hold them."""
        self._flow = flow
        self._due = self._sent = 0.0
        self._queue = deque((0.0, data) for _, data in self._queue)
        self._steer()
        self._flush()

    def feed(self, data: bytes, *, late_ms: float = 0) -> None:
        """Send bytes; `late_ms`: an additional delay, also for the bytes after them."""
        if self._sink is not None and self._sink.is_closing():
            return  # the other side has gone; our own end follows
        if self._sink is not None and not self._queue and self._flow.is_plain and not late_ms:
            self._sink.write(data)
            return
        width = self._flow.bytes_per_second
        piece = max(SLICE_BYTES_MIN, width * SLICE_MS // 1000) if width else len(data)
        for start in range(0, len(data), piece):
            self._enqueue(data[start : start + piece], width, late_ms)
        self._steer()
        self._flush()

    def _enqueue(self, data: bytes, width: int, late_ms: float) -> None:
        now = self._loop.time()
        late_ms += self._flow.delay_ms + self._rng.random() * self._flow.jitter_ms
        self._sent = max(now, self._sent) + (len(data) / width if width else 0)
        self._due = max(self._due, self._sent + late_ms / 1000)
        self._queue.append((self._due, data))
        self._queued += len(data)

    def finish(self, then: Callable[[], None]) -> None:
        """The source has ended: `then` is called when all bytes are sent."""
        self._when_empty = then
        self._flush()

    def sink_full(self, is_full: bool) -> None:
        self._is_sink_full = is_full
        self._steer()

    def stop(self) -> None:
        self._queue.clear()
        self._when_empty = None
        if self._timer is not None:
            self._timer.cancel()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sink is None or self._sink.is_closing() or self._flow.is_held:
            return
        now = self._loop.time()
        while self._queue and self._queue[0][0] <= now:
            _, data = self._queue.popleft()
            self._queued -= len(data)
            self._sink.write(data)
        self._steer()
        if self._queue:
            self._timer = self._loop.call_at(self._queue[0][0], self._flush)
        elif self._when_empty is not None:
            then, self._when_empty = self._when_empty, None
            then()

    def _steer(self) -> None:
        """Pause or resume reading from the source."""
        is_paused = self._flow.is_held or self._is_sink_full or self._queued > QUEUED_BYTES_MAX or self._sink is None
        if self._source is None or is_paused == self._is_paused or self._source.is_closing():
            return
        self._is_paused = is_paused
        if is_paused:
            self._source.pause_reading()
        else:
            self._source.resume_reading()
