"""Queues of the client at three real nodes: workers of both clients share a queue while nodes are killed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest

from kraft.client import AsyncClient, AsyncQueueRecord, Client, QueueRecord
from tests.integration.support.cluster import Cluster, kraft

RECORDS = 300
SHORT_LOCK_MS = 15_000
"""The least that the cluster allows."""


@pytest.fixture
def nodes(fragile_cluster: Cluster) -> Cluster:
    fragile_cluster.heal()
    return fragile_cluster


def urls(nodes: Cluster) -> list[str]:
    return [node.rest for node in nodes.nodes]


@pytest.mark.long
def test_both_clients_work_at_one_queue(nodes: Cluster) -> None:
    nodes.create_topic("jobs", partitions=2)
    nodes.write_all("jobs", ["a", "b", "poison", "c"])
    kraft("queues", "create", "workers", "jobs", "--config", "share.delivery.count.limit=2", "--data", nodes.data)
    seen: Counter[str | None] = Counter()

    async def work() -> None:
        async with AsyncClient(*urls(nodes)) as client:
            queue = client.queue("jobs", group="workers", max_poll_records=1, fetch_max_wait_ms=5_000)
            async for record in queue:
                async with record:
                    seen[record.text()] += 1
                return

    asyncio.run(work())
    assert sum(seen.values()) == 1

    def handle(record: QueueRecord) -> None:
        seen[record.text()] += 1
        if record.value == b"poison":
            raise ValueError("no worker can do it")

    with Client(*urls(nodes)) as client:
        queue = client.queue("jobs", group="workers", follows=False, fetch_max_wait_ms=3_000)
        queue.run(handle, concurrency=2)
        assert seen == {"a": 1, "b": 1, "c": 1, "poison": 2}, "released, and archived at the limit"
        assert (queue.counts.accepted + 1, queue.counts.released) == (3, 2)
        nodes.write_all("jobs", ["d", "e"])
        for record in queue:
            with record:
                assert record.delivery_count == 1
                seen[record.text()] += 1
        assert (seen["d"], seen["e"]) == (1, 1)


@pytest.mark.long
def test_a_lock_is_renewed_for_work_that_takes_longer(nodes: Cluster) -> None:
    nodes.create_topic("long-work")
    nodes.write_all("long-work", ["a", "b"])
    seen: list[tuple[str | None, int]] = []

    def handle(record: QueueRecord) -> None:
        seen.append((record.text(), record.delivery_count))
        time.sleep(1.5 * SHORT_LOCK_MS / 1_000)

    with Client(*urls(nodes)) as client:
        queue = client.queue("long-work", group="slow", follows=False, share_record_lock_duration_ms=SHORT_LOCK_MS)
        queue.run(handle, concurrency=2)
        assert sorted(seen) == [("a", 1), ("b", 1)]
        assert (queue.counts.accepted, queue.counts.unsettled) == (2, 0)
        assert queue.counts.renewed >= 4


@pytest.mark.long
def test_nodes_die_under_workers_and_each_record_is_accepted_once(nodes: Cluster) -> None:
    nodes.create_topic("steady", partitions=3)
    values = [f"{number}" for number in range(RECORDS)]
    for partition in range(3):
        nodes.write_all("steady", values[partition::3], partition=partition)
    accepted: Counter[str | None] = Counter()
    before_kills: list[int] = []

    async def handler(record: AsyncQueueRecord) -> None:
        await asyncio.sleep(0.05 if len(before_kills) == 2 else 0.4)
        await record.accept()
        accepted[record.text()] += 1
        if len(accepted) == RECORDS:
            record.queue.stop()

    async def kill() -> None:
        await asyncio.sleep(1)
        for victim in (nodes.leader_of("steady", 0), nodes.leader_of("steady", 1)):
            before_kills.append(len(accepted))
            await asyncio.to_thread(nodes.kill, victim)
            await asyncio.sleep(2)
            await asyncio.to_thread(nodes.restart, victim)
            await asyncio.to_thread(nodes.heal)

    async def whole() -> None:
        async with AsyncClient(*urls(nodes)) as client, asyncio.timeout(150):
            queue = client.queue("steady", group="steadfast", share_record_lock_duration_ms=SHORT_LOCK_MS)
            await asyncio.gather(queue.run(handler, concurrency=8), kill())
            assert queue.counts.accepted == RECORDS

    asyncio.run(whole())
    assert sorted(map(str, accepted)) == sorted(values), "nothing is lost"
    assert set(accepted.values()) == {1}, "and nothing accepted twice"
    assert all(0 < count < RECORDS for count in before_kills), before_kills
    lags = nodes.call("GET", "/share-groups/steadfast/lags").json()["data"]
    assert [row["lag"] for row in lags] == [0, 0, 0]
