"""Observe the cluster: snapshots of its nodes, waits for a condition, samples of leaders over time.

Requests to nodes bypass all proxies, so a broken link never affects the observer; a paused or dead node gets none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from kraft.chaos.evidence import LeaderSample
from kraft.chaos.worlds.processes.nodes import Nodes
from kraft.chaos.worlds.processes.pace import Pace
from kraft.chaos.worlds.processes.timeline import now_us
from kraft.chaos.worlds.samples import LeaderSamples
from kraft.chaos.worlds.snapshot import NodeView, Snapshot, parse_view
from kraft.chaos.worlds.spec import ScenarioError
from kraft.client.response import Answer

Predicate = Callable[[Snapshot], object]


class NotInTime(ScenarioError):
    """A condition did not hold before its deadline; the message has the condition and the last snapshot."""

    def __init__(self, message: str, snapshot: Snapshot) -> None:
        super().__init__(message)
        self.snapshot = snapshot


class Observer:
    def __init__(self, nodes: Nodes, pace: Pace) -> None:
        self._nodes = nodes
        self._pace = pace
        self._samples = LeaderSamples(is_sampled=pace.is_sampled)
        self.latest: Snapshot | None = None
        """The last snapshot of the cluster."""
        self.metadata_seen = -1
        """The highest metadata offset seen at any node."""

    @property
    def samples(self) -> Sequence[LeaderSample]:
        """The samples of leaders, one for each change."""
        return self._samples.samples

    async def status(self) -> Snapshot:
        """The state of every running node at this moment."""
        at_us = now_us()
        asked = self._nodes.running()
        views = await asyncio.gather(*(self._view(node) for node in asked))
        snapshot = Snapshot(
            at_us=at_us,
            states={node: self._nodes.state(node) for node in self._nodes.ids},
            views={view.node: view for view in views if view is not None},
        )
        self.latest = snapshot
        if snapshot.newest is not None:
            self.metadata_seen = max(self.metadata_seen, snapshot.newest.metadata_offset)
        return snapshot

    async def is_outside_isr(self, node: int, topic: str, partition: int) -> bool:
        """True if the replica is certainly not in the ISR. An isolated node may return an old ISR, so a node must have
        the newest metadata that was ever seen."""
        snapshot = await self.status()
        newest = snapshot.newest
        if newest is None or newest.metadata_offset < self.metadata_seen:
            return False
        isr = snapshot.isr(topic, partition)
        return bool(isr) and node not in isr

    async def until(
        self,
        predicate: Predicate,
        *,
        deadline_ms: int | None = None,
        describe: str | Callable[[Snapshot], str] = "the condition",
    ) -> Snapshot:
        """Wait until the predicate holds. Raises NotInTime."""
        loop = asyncio.get_running_loop()
        limit_ms = self._pace.change_limit_ms if deadline_ms is None else deadline_ms
        deadline = loop.time() + limit_ms / 1000
        while True:
            snapshot = await self.status()
            if predicate(snapshot):
                return snapshot
            if loop.time() > deadline:
                missing = describe if isinstance(describe, str) else describe(snapshot)
                raise NotInTime(f"not within {limit_ms} ms: {missing}\n{snapshot.describe()}", snapshot)
            await asyncio.sleep(self._pace.poll_ms / 1000)

    async def _view(self, node: int) -> NodeView | None:
        answer = await self._nodes.ask(node, "GET", "/kraft/partitions")
        if isinstance(answer, Answer) and answer.is_success:
            return parse_view(msgspec.json.decode(answer.body))
        return None

    async def sample_forever(self) -> None:
        """Take samples one after the other: of two concurrent ones the earlier may be answered later."""
        while True:
            self._samples.take(await self.status())
            await asyncio.sleep(self._pace.sample_ms / 1000)
