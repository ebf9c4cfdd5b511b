"""Looking at the cluster: snapshots of what its nodes believe, waits for a condition, samples of leaders over time.

Nodes are asked past all proxies, so a broken link never blinds the observer; a paused or dead node is not asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec

from kraft.chaos.evidence import LeaderSample
from kraft.chaos.worlds.processes.nodes import Nodes
from kraft.chaos.worlds.processes.pace import Pace
from kraft.chaos.worlds.processes.timeline import now_us
from kraft.chaos.worlds.snapshot import NOBODY, NodeView, PartitionView, ReplicaView, Snapshot
from kraft.chaos.worlds.spec import ScenarioError
from kraft.client.response import Answer

SAMPLES_MAX: Final = 200_000

Predicate = Callable[[Snapshot], object]


class NotInTime(ScenarioError):
    """A condition did not come true before its deadline; the message says what was waited for and what there was."""

    def __init__(self, message: str, snapshot: Snapshot) -> None:
        super().__init__(message)
        self.snapshot = snapshot


class Observer:
    def __init__(self, nodes: Nodes, pace: Pace) -> None:
        self._nodes = nodes
        self._pace = pace
        self.samples: list[LeaderSample] = []
        self.latest: Snapshot | None = None
        """The last look at the cluster."""
        self.metadata_seen = -1
        """Offset of the newest metadata that any node was seen to know."""
        self._last_samples: dict[tuple[int, str, int], LeaderSample] = {}

    async def status(self) -> Snapshot:
        """What every node that runs believes at this moment."""
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
        """Whether it is sure that the cluster does not count on this replica. A node that was cut off may tell of an
        ISR of the past, so somebody has to know all metadata that was ever seen."""
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
        """Look again every few milliseconds until the predicate holds. Raises NotInTime."""
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
        while True:
            self._sample(await self.status())
            await asyncio.sleep(self._pace.sample_ms / 1000)

    def _sample(self, snapshot: Snapshot) -> None:
        """Keep what leaders say of themselves, whenever it has changed.

        Only of looks one after the other: of two at the same time the earlier may be answered later.
        """
        for view in snapshot.views.values():
            for (topic, partition), replica in view.replicas.items():
                if replica.role == "leader" and self._pace.is_sampled(topic):
                    self._keep(leader_sample(snapshot.at_us, view.node, topic, partition, replica))

    def _keep(self, sample: LeaderSample) -> None:
        key = (sample.node, sample.topic, sample.partition)
        before = self._last_samples.get(key)
        if before is None or _facts(before) != _facts(sample):
            self._last_samples[key] = sample
            if len(self.samples) < SAMPLES_MAX:
                self.samples.append(sample)


def leader_sample(at_us: int, node: int, topic: str, partition: int, replica: ReplicaView) -> LeaderSample:
    return LeaderSample(
        at_us=at_us,
        node=node,
        topic=topic,
        partition=partition,
        leader_epoch=replica.leader_epoch,
        high_watermark=replica.high_watermark,
        log_end_offset=replica.log_end_offset,
        isr=replica.isr,
        topic_id=replica.topic_id,
    )


def _facts(sample: LeaderSample) -> tuple[object, ...]:
    return (sample.leader_epoch, sample.high_watermark, sample.log_end_offset, sample.isr, sample.topic_id)


def parse_view(document: dict[str, Any]) -> NodeView:
    """The answer of GET /kraft/partitions."""
    return NodeView(
        node=document["node_id"],
        metadata_offset=document["metadata_offset"],
        controller_id=document["controller_id"],
        controller_epoch=document["controller_epoch"],
        brokers={int(broker): state for broker, state in document["brokers"].items()},
        partitions={
            (found["topic"], found["partition"]): PartitionView(
                topic_id=found["topic_id"],
                leader=found["leader"],
                leader_epoch=found["leader_epoch"],
                partition_epoch=found["partition_epoch"],
                replicas=tuple(found["replicas"]),
                isr=tuple(found["isr"]),
                is_reassigning=found["is_reassigning"],
            )
            for found in document["partitions"]
        },
        replicas={(found["topic"], found["partition"]): _replica(found) for found in document["replicas"]},
    )


def _replica(found: dict[str, Any]) -> ReplicaView:
    return ReplicaView(
        role=found["role"],
        topic_id=found["topic_id"],
        leader_epoch=found["leader_epoch"],
        log_start_offset=found["log_start_offset"],
        log_end_offset=found["log_end_offset"],
        high_watermark=found["high_watermark"],
        isr=tuple(found["isr"]),
        maximal_isr=tuple(found["maximal_isr"]),
    )


def roles_in(snapshot: Snapshot | None, node: int) -> str:
    """` (leader of t-0, active controller)`, as far as the newest metadata of that look knows; empty for neither."""
    newest = None if snapshot is None else snapshot.newest
    if newest is None:
        return ""
    roles = [f"leader of {t}-{n}" for (t, n), found in sorted(newest.partitions.items()) if found.leader == node]
    if len(roles) > 3:
        roles = [f"leader of {len(roles)} partitions"]
    if newest.controller_id == node != NOBODY:
        roles.append("active controller")
    return f" ({', '.join(roles)})" if roles else ""
