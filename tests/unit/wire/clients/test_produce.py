"""Produce for clients: what each version is answered."""

from __future__ import annotations

import pytest

from kraft.wire.generated.produce_request import PartitionProduceData, ProduceRequestData, TopicProduceData
from kraft.wire.generated.produce_response import PartitionProduceResponse, ProduceResponseData
from kraft.wire.primitives import ZERO_UUID
from tests.unit.replication.harness.cluster import TOPIC_ID
from tests.unit.replication.harness.virtual import run
from tests.unit.wire.clients.brokers import Brokers, Client, records

ALL_VERSIONS = range(3, 14)


def request(
    data: bytes | None, *, version: int, topic: str = "t", partition: int = 0, acks: int = -1, timeout_ms: int = 5_000
) -> ProduceRequestData:
    return ProduceRequestData.make(
        acks=acks,
        timeout_ms=timeout_ms,
        topic_data=[
            TopicProduceData.make(
                name=topic,
                topic_id=TOPIC_ID if version >= 13 else ZERO_UUID,
                partition_data=[PartitionProduceData.make(index=partition, records=data)],
            )
        ],
    )


async def produce(client: Client, data: bytes | None, *, version: int = 13, **how: object) -> PartitionProduceResponse:
    answer = await client.ask(request(data, version=version, **how), ProduceResponseData, version)  # type: ignore[arg-type]
    ((partition,),) = [topic.partition_responses for topic in answer.responses]
    return partition


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_every_version_appends_by_name_or_by_id_and_says_where(version: int) -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create()
            first = await produce(cluster.clients[1], records(b"a", b"b"), version=version)
            second = await produce(cluster.clients[1], records(b"c"), version=version, acks=1)
            assert (first.error_code, first.base_offset, second.error_code, second.base_offset) == (0, 0, 0, 2)
            assert first.log_start_offset == (0 if version >= 5 else -1)

    run(story())
