"""One loop for every request that is repeated until a deadline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from metadata.environment import Clock

Answer = TypeVar("Answer")


async def retry_until(
    deadline_ms: int,
    attempt: Callable[[], Awaitable[Answer]],
    *,
    clock: Clock,
    retriable: Callable[[Exception], bool],
    wake: Callable[[], Awaitable[object]],
) -> Answer:
    """Return the result of `attempt`, repeated after each `retriable` error until the monotonic time `deadline_ms`.

    `wake` is awaited between two attempts: it returns when the next one may succeed, soon in any case. At the
    deadline the last error is raised; every other error is raised at once.
    """
    while True:
        try:
            return await attempt()
        except Exception as error:
            if not retriable(error) or clock.monotonic_ms() >= deadline_ms:
                raise
        await wake()
