"""How long the loop of a node works for one request: what the quota request_percentage counts (KIP-124).

Kafka counts the time of the threads that handle a request; here it is the time between two waits of the request, as one
thread serves all of them. What other tasks do while the request waits is not counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

from metadata.environment import Clock

T = TypeVar("T")

US_PER_PERCENT = 10_000
"""A hundredth of a second of the loop, in microseconds: one percent of a second."""


class ProcessorTime:
    """The time of one request. It runs from the start."""

    __slots__ = ("_clock", "_since_us", "_spent_us")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since_us: int | None = clock.monotonic_us()
        self._spent_us = 0

    def pause(self) -> None:
        """The loop goes on with something else."""
        if self._since_us is not None:
            self._spent_us += self._clock.monotonic_us() - self._since_us
            self._since_us = None

    def resume(self) -> None:
        """The loop works for the request again."""
        if self._since_us is None:
            self._since_us = self._clock.monotonic_us()

    def take_percent(self) -> float:
        """What was spent since this was last asked, in percent of a second."""
        if self._since_us is not None:
            self.pause()
            self.resume()
        spent_us, self._spent_us = self._spent_us, 0
        return spent_us / US_PER_PERCENT


class Timed(Generic[T]):
    """An awaitable whose steps count, and not its waits."""

    __slots__ = ("_time", "_work")

    def __init__(self, work: Awaitable[T], time: ProcessorTime) -> None:
        self._work = work
        self._time = time

    def __await__(self) -> Generator[Any, Any, T]:
        work, time = self._work.__await__(), self._time
        step: Callable[[Any], Any] = work.send
        value: Any = None
        while True:
            time.resume()
            try:
                awaited = step(value)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            finally:
                time.pause()
            try:
                step, value = work.send, (yield awaited)
            except BaseException as error:  # noqa: BLE001 - the work decides what an exception means to it
                value, step = error, work.throw
