"""Stopping in order, whatever fails on the way: each step is tried, and the first failure is told at the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from kraft.broker.lifecycle import BrokerLifecycle
from metadata.events import Events
from replication.manager.manager import ReplicaManager

Step: TypeAlias = tuple[str, Callable[[], Awaitable[None]] | None]
"""Its name, and what it does; None for a part that this node does not have."""


async def stop_in_order(steps: Sequence[Step], *, events: Events) -> None:
    """A step that fails (a disk that is gone) must not keep those after it, and so the process, alive."""
    first: Exception | None = None
    for name, step in steps:
        if step is None:
            continue
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - raised at the end; the steps after it have to be taken
            events.emit("stop_step_failed", step=name, error=f"{type(error).__name__}: {error}")
            first = first or error
    if first is not None:
        raise first


async def hand_over(lifecycle: BrokerLifecycle | None, replicas: ReplicaManager | None, *, events: Events) -> None:
    """B6. Nothing to do for a node that is no broker."""
    if lifecycle is None:
        return
    if replicas is not None and lifecycle.can_hand_over:
        await replicas.hand_over()
    handed_over = await lifecycle.controlled_shutdown()
    events.emit("controlled_shutdown", handed_over=handed_over)
    await lifecycle.stop()
