"""Fetch for clients: what each version is answered."""

from __future__ import annotations

from typing import Any

import pytest

from kraft.protocol.batches.records import read_batches
from kraft.wire.generated.fetch_request import FetchPartition, FetchRequestData, FetchTopic
from kraft.wire.generated.fetch_response import FetchResponseData, PartitionData
from kraft.wire.primitives import ZERO_UUID
from tests.unit.replication.harness.cluster import TOPIC_ID
from tests.unit.replication.harness.virtual import run
from tests.unit.wire.clients.brokers import Brokers, Client, records
from tests.unit.wire.clients.test_produce import produce

ALL_VERSIONS = range(4, 19)


def request(*offsets: int, version: int, topic: str = "t", wait_ms: int = 0, **more: Any) -> FetchRequestData:
    """Of partition 0, 1 and so on from these offsets."""
    partitions = [
        FetchPartition.make(partition=number, fetch_offset=offset, partition_max_bytes=1 << 20)
        for number, offset in enumerate(offsets)
    ]
    topic_id = TOPIC_ID if version >= 13 else ZERO_UUID
    return FetchRequestData.make(
        max_wait_ms=wait_ms,
        min_bytes=1,
        max_bytes=1 << 20,
        topics=[FetchTopic.make(topic=topic, topic_id=topic_id, partitions=partitions)],
        **more,
    )


async def fetch(client: Client, *offsets: int, version: int = 18, **how: Any) -> list[PartitionData]:
    answer = await client.ask(request(*offsets, version=version, **how), FetchResponseData, version)
    assert answer.error_code == 0
    return [partition for topic in answer.responses for partition in topic.partitions]


def values(partition: PartitionData) -> list[bytes | None]:
    return [record.value for record in read_batches(partition.records or b"", from_offset=0)]


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_every_version_reads_by_name_or_by_id(version: int) -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create()
            await produce(cluster.clients[1], records(b"a", b"b"))
            (partition,) = await fetch(cluster.clients[1], 0, version=version)
            assert (partition.error_code, partition.high_watermark, values(partition)) == (0, 2, [b"a", b"b"])

    run(story())
