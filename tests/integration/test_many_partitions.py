"""3,000 partitions on three nodes: made by one request, led again after each kill -9, whole after a stop and a start.

What 20,000 cost is measured by `python -m bench.partitions`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from bench.cluster import BenchError, Cluster
from bench.partitions import Figures, kill, wait_until

pytestmark = pytest.mark.slow

PARTITIONS = 3_000


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    try:
        made.start()
        yield made
    finally:
        made.stop()


async def create(cluster: Cluster, name: str, partitions: int) -> None:
    document = {"topic_name": name, "partitions_count": partitions, "replication_factor": 3}
    await cluster.ask("POST", f"/v3/clusters/{cluster.cluster_id}/topics", document=document)


async def controller_epoch(cluster: Cluster) -> int:
    return int((await cluster.json("GET", "/kraft/status"))["controller_epoch"])


def test_large_topic_creation_survives_failures(cluster: Cluster) -> None:
    async def story() -> None:
        epoch = await controller_epoch(cluster)
        with pytest.raises(BenchError, match="one request may ask for 10000"):
            await create(cluster, "too-many", 10_001)
        await create(cluster, "many", PARTITIONS)
        await wait_until(cluster, PARTITIONS, nodes=[*cluster.nodes], is_whole=True)
        assert await controller_epoch(cluster) == epoch, "the controller has stayed in office"
        controller = await cluster.controller_id()
        leader = next(node_id for node_id in cluster.nodes if node_id != controller)
        await kill(cluster, Figures(), leader, PARTITIONS, who="leader")
        await kill(cluster, Figures(), await cluster.controller_id(), PARTITIONS, who="controller")
        cluster.down()
        cluster.start()
        await wait_until(cluster, PARTITIONS, nodes=[*cluster.nodes], is_whole=True)
        status = await cluster.json("GET", "/kraft/status")
        assert (status["partitions"]["total"], status["topics"]) == (PARTITIONS, 1)
        for client in cluster._clients.values():
            client.close()  # here, while their loop lives

    asyncio.run(story())
