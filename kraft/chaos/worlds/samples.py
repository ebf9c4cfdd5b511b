"""Samples of leaders, from successive snapshots of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kraft.chaos.evidence import LeaderSample
from kraft.chaos.worlds.snapshot import ReplicaView, Snapshot

SAMPLES_MAX: Final = 200_000


class LeaderSamples:
    def __init__(self, *, is_sampled: Callable[[str], bool] = lambda _topic: True) -> None:
        self._is_sampled = is_sampled
        self.samples: list[LeaderSample] = []
        """The samples, at most `SAMPLES_MAX`."""
        self._facts: dict[tuple[int, str, int], tuple[object, ...]] = {}

    def take(self, snapshot: Snapshot) -> None:
        """Keep the state of leaders that has changed."""
        for view in snapshot.views.values():
            for (topic, partition), replica in view.replicas.items():
                if replica.role == "leader" and self._is_sampled(topic):
                    self._keep(snapshot.at_us, view.node, topic, partition, replica)

    def _keep(self, at_us: int, node: int, topic: str, partition: int, replica: ReplicaView) -> None:
        key = (node, topic, partition)
        facts = (replica.leader_epoch, replica.high_watermark, replica.log_end_offset, replica.isr, replica.topic_id)
        if self._facts.get(key) == facts:
            return
        self._facts[key] = facts
        if len(self.samples) < SAMPLES_MAX:
            self.samples.append(
                LeaderSample(
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
            )
