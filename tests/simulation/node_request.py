"""A client's request to one node: it runs in that node's process, and ends after the client's timeout.

After the timeout the outcome is unknown. A node that was alive and awake all the time must have answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from kraft.chaos.worlds.simulated.cluster import SimulatedNode
from metadata.environment import ConnectionClosed
from tests.simulation.oracle import Oracle

T = TypeVar("T")

NOTICE_S = 1.0
"""The time after which the connection to a dead node is reset."""


class Unanswered(Exception):
    """The outcome is not known."""


class Watch:
    """Watches whether a node is alive and awake all the time."""

    def __init__(self, node: SimulatedNode, now_us: int) -> None:
        self._node = node
        self._process = node.machine.process
        self._pauses = node.machine.pauses
        self._began_awake = not node.machine.process.is_paused
        self.began_us = now_us

    @property
    def has_died(self) -> bool:
        return self._node.machine.process is not self._process

    @property
    def is_undisturbed(self) -> bool:
        machine = self._node.machine
        return (
            self._began_awake
            and machine.process is self._process
            and machine.pauses == self._pauses
            and not machine.process.is_paused
            and self._node.node is not None
        )


async def ask(
    oracle: Oracle,
    node: SimulatedNode,
    work: Callable[[], Awaitable[T]],
    *,
    within_s: float,
    what: str,
    is_owed: bool = True,
) -> T:
    """Raises Unanswered, and whatever the work raises. `is_owed`: it must end within the time."""
    watch, now_s = Watch(node, oracle.cluster.world.loop.now_us), oracle.cluster.world.loop.time
    deadline_s = now_s() + within_s
    asked = asyncio.get_running_loop().create_task(_carry_out(node, work))
    try:
        while not asked.done() and now_s() < deadline_s and not watch.has_died:
            await asyncio.wait([asked], timeout=min(NOTICE_S, deadline_s - now_s()))
    finally:
        asked.cancel()
    if asked.cancelled():
        raise Unanswered("the node stops")
    if asked.done():
        try:
            return asked.result()
        except ConnectionClosed as error:
            raise Unanswered(str(error)) from error
    oracle.check(
        not is_owed or not watch.is_undisturbed,
        f"{what} to node {node.node_id}, alive and awake, has not ended within {within_s} s",
    )
    oracle.count("request to a node that died or slept")
    raise Unanswered("no answer in time")


async def _carry_out(node: SimulatedNode, work: Callable[[], Awaitable[T]]) -> T:
    """Run the work in the process of the node. The coroutine is made there: a client that gives up before leaves none
    behind that is never awaited."""

    async def carried() -> T:
        return await work()

    return await node.machine.run(carried())
