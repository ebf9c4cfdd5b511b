"""Seeded histories: links break, leaders change cleanly, brokers restart; no acknowledged record is lost or moved."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from metadata.image import TopicIdPartition
from tests.unit.replication.harness.cluster import Cluster
from tests.unit.replication.harness.virtual import run


class History:
    def __init__(self, cluster: Cluster, key: TopicIdPartition, rng: random.Random) -> None:
        self.cluster, self.key, self.rng = cluster, key, rng
        self.acked: dict[int, bytes] = {}
        self.sent = 0
        self.tasks: list[asyncio.Task[None]] = []

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(coroutine))

    async def produce(self) -> None:
        self.sent += 1
        payload = b"%d" % self.sent
        outcome = await self.cluster.produce(self.key, payload, timeout_ms=3_000)
        if outcome.error_code == 0:
            assert self.acked.setdefault(outcome.base_offset, payload) == payload, "one offset was acknowledged twice"

    def step(self) -> None:
        cluster, rng = self.cluster, self.rng
        a, b = rng.sample([1, 2, 3], 2)
        match rng.randrange(12):
            case 0 | 1:
                cluster.cut.add((a, b))
            case 2:
                cluster.cut |= {(a, 1), (a, 2), (a, 3)}
            case 3:
                cluster.cut.clear()
            case 4 | 5:
                for _ in range(rng.randrange(1, 4)):
                    self.elect()
            case 6:
                cluster.is_controller_up = rng.random() < 0.7
            case 7:
                cluster.nodes[a].hears_metadata = rng.random() < 0.6
            case 8:
                cluster.loses_replies = rng.random() < 0.5
            case 9:
                cluster.publish()
            case _:
                pass
        for _ in range(rng.randrange(4)):
            self.spawn(self.produce())

    def elect(self) -> None:
        state = self.cluster.partition(self.key)
        self.cluster.elect(self.key, self.rng.choice(state.isr), state.isr)

    async def settle(self) -> None:
        cluster = self.cluster
        cluster.cut.clear()
        cluster.is_controller_up = True
        cluster.loses_replies = False
        for node in cluster.nodes.values():
            node.hears_metadata = True
        cluster.publish()
        await asyncio.gather(*self.tasks)
        await cluster.until(lambda: len(cluster.partition(self.key).isr) == 3)
        assert (await cluster.produce(self.key, b"end")).error_code == 0


@pytest.mark.parametrize("seed", range(30))
def test_no_acknowledged_record_is_lost(seed: int) -> None:
    async def story() -> None:
        rng = random.Random(seed)
        async with Cluster(replica_lag_time_max_ms=400, replica_fetch_backoff_ms=50) as cluster:
            cluster.delay_ms = rng.choice([0.0, 1.0, 5.0])
            history = History(cluster, cluster.create(min_insync_replicas=2), rng)
            for _ in range(100):
                history.step()
                await asyncio.sleep(rng.choice([0.001, 0.01, 0.02, 0.1, 0.3]))
            await history.settle()
            assert cluster.copies_agree(history.key)
            log = {b.base_offset: b.payload for b in cluster.log(1, history.key).batches}
            assert history.acked
            assert {offset: log.get(offset) for offset in history.acked} == history.acked
            for node in cluster.nodes.values():
                assert not node.events.named("truncated_below_high_watermark")

    run(story())
