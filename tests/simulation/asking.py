"""A client's request to one node: work in that node's process, given up after the client's own time.

Whoever is given up on knows nothing of the outcome. A node that was alive and awake all the while must have answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from metadata.environment import ConnectionClosed
from tests.simulation.cluster import SimulatedNode
from tests.simulation.oracle import Oracle

T = TypeVar("T")


class Unanswered(Exception):
    """The outcome is not known."""


class Watch:
    """Was a node alive and awake all the time since?"""

    def __init__(self, node: SimulatedNode, now_us: int) -> None:
        self._node = node
        self._process = node.machine.process
        self._pauses = node.machine.pauses
        self.began_us = now_us

    @property
    def is_undisturbed(self) -> bool:
        machine = self._node.machine
        return (
            machine.process is self._process
            and machine.pauses == self._pauses
            and not machine.process.is_paused
            and self._node.node is not None
        )


async def ask(oracle: Oracle, node: SimulatedNode, work: Awaitable[T], *, within_s: float, what: str) -> T:
    """Raises Unanswered, and whatever the work raises."""
    watch = Watch(node, oracle.cluster.world.loop.now_us)
    try:
        async with asyncio.timeout(within_s):
            return await node.machine.run(_as_coroutine(work))
    except ConnectionClosed as error:
        raise Unanswered(str(error)) from error
    except TimeoutError as error:
        oracle.check(
            not watch.is_undisturbed,
            f"{what} to node {node.node_id}, alive and awake, has not ended within {within_s} s",
        )
        oracle.count("request to a node that died or slept")
        raise Unanswered("no answer in time") from error


async def _as_coroutine(work: Awaitable[T]) -> T:
    return await work
