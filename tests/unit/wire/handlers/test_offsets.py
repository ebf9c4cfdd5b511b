"""ListOffsets, OffsetForLeaderEpoch and DeleteRecords for clients."""

from __future__ import annotations

from uuid import UUID

import pytest

from kraft.protocol.messages.delete_records_request import (
    DeleteRecordsPartition,
    DeleteRecordsRequestData,
    DeleteRecordsTopic,
)
from kraft.protocol.messages.delete_records_response import DeleteRecordsResponseData
from kraft.protocol.messages.list_offsets_request import ListOffsetsPartition, ListOffsetsRequestData, ListOffsetsTopic
from kraft.protocol.messages.list_offsets_response import ListOffsetsPartitionResponse, ListOffsetsResponseData
from kraft.protocol.messages.offset_for_leader_epoch_request import (
    OffsetForLeaderEpochRequestData,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from kraft.protocol.messages.offset_for_leader_epoch_response import OffsetForLeaderEpochResponseData
from tests.unit.replication.harness.virtual import run
from tests.unit.wire.handlers.brokers import NOW_MS, Brokers, Client, records
from tests.unit.wire.handlers.test_produce import produce

ALL_VERSIONS = range(1, 12)


async def listed(
    client: Client,
    timestamp: int,
    *,
    version: int = 11,
    topic: str = "t",
    partition: int = 0,
    leader_epoch: int = -1,
    isolation: int = 0,
) -> ListOffsetsPartitionResponse:
    asked = ListOffsetsPartition.make(partition_index=partition, timestamp=timestamp, current_leader_epoch=leader_epoch)
    request = ListOffsetsRequestData.make(
        replica_id=-1,
        isolation_level=isolation,
        topics=[ListOffsetsTopic.make(name=topic, partitions=[asked])],
        timeout_ms=1_000,
    )
    answer = await client.ask(request, ListOffsetsResponseData, version)
    assert [each.name for each in answer.topics] == [topic]
    (found,) = answer.topics[0].partitions
    assert found.partition_index == partition
    return found


async def reported(client: Client, timestamp: int, **how: object) -> tuple[int, int, int]:
    found = await listed(client, timestamp, **how)  # type: ignore[arg-type]
    return found.error_code, found.offset, found.timestamp


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_offsets_by_time_and_the_special_ones_that_a_version_knows(version: int) -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create()
            client = cluster.clients[1]
            await produce(client, records(b"a", b"b", b"c"))
            await produce(client, records(b"late", timestamp_ms=NOW_MS - 50))
            expected = {
                -1: (1, (0, 4, -1)),
                -2: (1, (0, 0, -1)),
                -3: (7, (0, 2, NOW_MS + 2)),
                -4: (8, (0, 0, -1)),
                -5: (9, (0, -1, -1)),
                -6: (11, (0, -1, -1)),
                -7: (99, ()),
                0: (1, (0, 0, NOW_MS)),
                NOW_MS + 1: (1, (0, 1, NOW_MS + 1)),
                NOW_MS + 3: (1, (0, -1, -1)),
            }
            for timestamp, (since, answer) in expected.items():
                for isolation in (0, 1):
                    found = await reported(
                        client, timestamp, version=version, isolation=isolation if version >= 2 else 0
                    )
                    assert found == (answer if version >= since else (35, -1, -1)), timestamp

    run(story())


def test_a_partition_that_is_named_twice_is_refused_and_the_others_are_not() -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create()
            client = cluster.clients[1]
            await produce(client, records(b"a"))
            asked = [ListOffsetsPartition.make(partition_index=at, timestamp=0) for at in (5, 0, 5)]
            asked += [ListOffsetsPartition.make(partition_index=at, timestamp=0) for at in range(100, 300)]
            topics = [ListOffsetsTopic.make(name="t", partitions=asked)]
            answer = await client.ask(ListOffsetsRequestData.make(topics=topics), ListOffsetsResponseData, 11)
            codes = [(each.partition_index, each.error_code) for each in answer.topics[0].partitions]
            assert codes[:3] == [(5, 42), (0, 0), (5, 42)]
            assert codes[3:] == [(at, 3) for at in range(100, 300)]

    run(story())


def test_leader_epochs_come_with_offsets_and_are_compared() -> None:
    """KIP-320: 74 for an older one than the leader's, 75 for a newer one."""

    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            client = cluster.clients[1]
            cluster.elect(key, 1, (1, 2, 3))
            await produce(client, records(b"a"))
            cluster.elect(key, 1, (1, 2, 3))
            await produce(client, records(b"b", timestamp_ms=NOW_MS + 5))
            for version in (3, 4):
                epochs = [
                    (await listed(client, timestamp, version=version)).leader_epoch
                    for timestamp in (-2, -1, NOW_MS, NOW_MS + 5)
                ]
                assert epochs == ([1, 2, 1, 2] if version >= 4 else [-1] * 4)
            assert [(await reported(client, -1, leader_epoch=epoch))[0] for epoch in (-1, 1, 2, 3)] == [0, 74, 0, 75]
            assert (await reported(cluster.clients[2], -1))[0] == 6
            assert (await reported(cluster.clients[2], -5))[0] == 6
            assert (await reported(client, -1, topic="unknown"))[0] == 3
            assert (await reported(client, -1, partition=1))[0] == 3

    run(story())


def test_a_fresh_leader_does_not_know_the_end_yet() -> None:
    """KIP-207: 78 from version 5 on. What lies below its high watermark can be told."""

    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            await produce(cluster.clients[1], records(b"a"))
            await cluster.until(lambda: all(cluster.high_watermark(n, key) == 1 for n in cluster.nodes))
            cluster.cut |= {(1, 2), (3, 2), (2, 1), (3, 1)}
            manager = cluster.nodes[2].manager
            log = manager._registry.replicas[key].log
            log.append_as_follower(log_of(cluster, records(b"b")), now_ms=NOW_MS)
            cluster.elect(key, 2, (1, 2, 3))
            client = cluster.clients[2]
            assert [(await reported(client, -1, version=version))[0] for version in (4, 5)] == [5, 78]
            assert (await reported(client, -2))[:2] == (0, 0)
            assert (await reported(client, NOW_MS))[:2] == (0, 0)
            assert (await reported(client, NOW_MS + 1))[0] == 78, "it may be among what is not known to be committed"

    def log_of(cluster: Brokers, batch: bytes) -> bytes:
        stamped = bytearray(batch)
        stamped[0:8] = (1).to_bytes(8, "big")
        stamped[12:16] = (0).to_bytes(4, "big")
        return bytes(stamped)

    run(story())


@pytest.mark.parametrize("version", [2, 3, 4])
def test_where_an_epoch_ends(version: int) -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            client = cluster.clients[1]
            await produce(client, records(b"a", b"b"))
            cluster.elect(key, 1, (1, 2, 3))
            await produce(client, records(b"c"))

            async def ends(epoch: int, current: int = -1, at: Client = client, **more: int) -> tuple[int, int, int]:
                asked = OffsetForLeaderPartition.make(
                    partition=more.get("partition", 0), leader_epoch=epoch, current_leader_epoch=current
                )
                topic = OffsetForLeaderTopic.make(topic="t", partitions=[asked])
                request = OffsetForLeaderEpochRequestData.make(replica_id=-2, topics=[topic])
                answer = await at.ask(request, OffsetForLeaderEpochResponseData, version)
                (found,) = answer.topics[0].partitions
                return found.error_code, found.leader_epoch, found.end_offset

            assert await ends(0) == (0, 0, 2)
            assert await ends(1, current=1) == (0, 1, 3)
            assert await ends(2) == (0, -1, -1), "an epoch that nobody knows"
            assert await ends(0, current=0) == (74, -1, -1)
            assert await ends(0, current=2) == (75, -1, -1)
            assert await ends(0, at=cluster.clients[2]) == (6, -1, -1)
            assert await ends(0, partition=9) == (3, -1, -1)

    run(story())


@pytest.mark.parametrize("version", [0, 1, 2])
def test_records_are_deleted_on_all_replicas(version: int) -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create(partitions=2)
            cluster.create("compacted", topic_id=UUID(int=9), cleanup_policy="compact")
            client = cluster.clients[1]
            for _ in range(5):
                await produce(client, records(b"a"))

            async def deleted(offset: int, *, topic: str = "t", partition: int = 0, at: Client = client) -> object:
                asked = DeleteRecordsPartition.make(partition_index=partition, offset=offset)
                request = DeleteRecordsRequestData.make(
                    topics=[DeleteRecordsTopic.make(name=topic, partitions=[asked])], timeout_ms=2_000
                )
                answer = await at.ask(request, DeleteRecordsResponseData, version)
                (found,) = answer.topics[0].partitions
                return found.error_code, found.low_watermark

            assert await deleted(2) == (0, 2)
            assert await deleted(1) == (0, 2), "what is gone stays gone"
            assert await reported(client, -2) == (0, 2, -1)
            assert await deleted(6) == (1, -1)
            assert await deleted(-1) == (0, 5), "all that is committed"
            assert await deleted(0, topic="unknown") == (3, -1)
            assert await deleted(0, partition=7) == (3, -1)
            assert client.gateway.changes[-2:] == [
                ("DeleteRecords", ["unknown-0"], ["UNKNOWN_TOPIC_OR_PARTITION"]),
                ("DeleteRecords", ["t-7"], ["UNKNOWN_TOPIC_OR_PARTITION"]),
            ]
            assert client.gateway.changes[0] == ("DeleteRecords", ["t-0"], [])
            assert await deleted(0, at=cluster.clients[2]) == (6, -1)
            assert await deleted(0, topic="compacted") == (44, -1)
            await produce(client, records(b"b"), partition=1)
            cluster.cut |= {(3, 1)}
            assert await deleted(1, partition=1) == (7, -1), "a live replica has not done it yet"

    run(story())


def test_duplicate_partitions_in_delete_records() -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create()
            client = cluster.clients[1]
            for _ in range(5):
                await produce(client, records(b"a"))
            asked = [DeleteRecordsPartition.make(partition_index=0, offset=offset) for offset in (9, 4, 3)]
            asked += [DeleteRecordsPartition.make(partition_index=number, offset=0) for number in range(50, 2_000)]
            topics = [DeleteRecordsTopic.make(name="t", partitions=asked)] * 2
            request = DeleteRecordsRequestData.make(topics=topics, timeout_ms=2_000)
            answer = await client.ask(request, DeleteRecordsResponseData, 2)
            [topic] = answer.topics
            codes = {each.partition_index: (each.error_code, each.low_watermark) for each in topic.partitions}
            assert codes == {0: (0, 3), **dict.fromkeys(range(50, 2000), (3, -1))}
            assert len(topic.partitions) == len(codes)

    run(story())
