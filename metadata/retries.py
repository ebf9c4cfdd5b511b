"""One loop for whatever is asked again until a deadline."""

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
    """What `attempt` returns, made again after each error that is `retriable` until the monotonic time `deadline_ms`.

    `wake` is awaited between two attempts: it returns when the next one may do better, soon in any case. At the
    deadline raises the last error; every other one is raised at once.
    """
    while True:
        try:
            return await attempt()
        except Exception as error:
            if not retriable(error) or clock.monotonic_ms() >= deadline_ms:
                raise
        await wake()
