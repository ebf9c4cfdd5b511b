"""One loop for every request that is repeated until a deadline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from metadata.environment import Clock

Answer = TypeVar("Answer")

ELECTION_RETRY_MS = 20
"""Wait before a small request is sent again to a leader, a coordinator or a controller that is not there yet or has not
heard of its role: an election takes some tens of milliseconds."""
RETRY_BACKOFF_MS = 100
"""Wait before an attempt that failed for a reason which may last, as Kafka's retry.backoff.ms."""
RECONNECT_BACKOFF_MS = 50
"""Wait before a node that could not be connected to is tried again, as Kafka's reconnect.backoff.ms: a restarted one is
found within 100 ms."""


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
