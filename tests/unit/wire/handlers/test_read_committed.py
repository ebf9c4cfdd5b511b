"""Consumers that read committed records only: what Fetch and ListOffsets tell them of transactions."""

from __future__ import annotations

import asyncio

import pytest

from kraft.protocol.batches.markers import Marker, build_marker
from kraft.protocol.messages.fetch_response import FetchResponseData, PartitionData
from metadata.image import TopicIdPartition
from replication.producers.origin import COORDINATOR
from replication.requests import ProduceOptions
from tests.unit.replication.harness.virtual import run
from tests.unit.wire.handlers.brokers import NOW_MS, Brokers, Client, records
from tests.unit.wire.handlers.test_fetch import ALL_VERSIONS, fetch, request, values
from tests.unit.wire.handlers.test_offsets import listed
from tests.unit.wire.handlers.test_produce import produce

COMMITTED = 1
LATEST, LARGEST_TIMESTAMP = -1, -3


async def append(cluster: Brokers, key: TopicIdPartition, data: bytes) -> int:
    manager = cluster.nodes[cluster.partition(key).leader].manager
    outcome = (await manager.produce.outcomes({key: data}, ProduceOptions(-1, 10_000), origin=COORDINATOR))[key]
    assert outcome.error_code == 0, outcome
    return outcome.base_offset


async def write(cluster: Brokers, key: TopicIdPartition, producer_id: int, *of: bytes) -> int:
    return await append(cluster, key, records(*of, producer_id=producer_id, producer_epoch=0, is_transactional=True))


async def end(cluster: Brokers, key: TopicIdPartition, producer_id: int, *, commits: bool) -> int:
    marker = Marker(is_commit=commits, coordinator_epoch=0)
    return await append(
        cluster, key, build_marker(marker, producer_id=producer_id, producer_epoch=0, timestamp_ms=NOW_MS)
    )


async def committed(client: Client, offset: int, *, version: int = 18) -> PartitionData:
    (partition,) = await fetch(client, offset, version=version, isolation_level=COMMITTED)
    assert partition.error_code == 0
    return partition


def aborted(partition: PartitionData) -> list[tuple[int, int]]:
    return [(each.producer_id, each.first_offset) for each in partition.aborted_transactions or ()]


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_nothing_undecided_is_read_and_what_was_aborted_is_named(version: int) -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            client = cluster.clients[1]
            await produce(client, records(b"plain"))
            await write(cluster, key, 7, b"gone")  # 1
            await write(cluster, key, 8, b"kept")  # 2
            await produce(client, records(b"between"))  # 3
            partition = await committed(client, 0, version=version)
            assert values(partition) == [b"plain"]
            assert (partition.high_watermark, partition.last_stable_offset, aborted(partition)) == (4, 1, [])
            (all_of_it,) = await fetch(client, 0, version=version)
            assert values(all_of_it) == [b"plain", b"gone", b"kept", b"between"]
            assert all_of_it.aborted_transactions is None
            assert all_of_it.last_stable_offset == 1

            await end(cluster, key, 8, commits=True)  # 4
            assert values(await committed(client, 1, version=version)) == []
            await end(cluster, key, 7, commits=False)  # 5
            partition = await committed(client, 1, version=version)
            assert values(partition) == [b"gone", b"kept", b"between"]
            assert aborted(partition) == [(7, 1)]
            assert partition.last_stable_offset == 6
            partition = await committed(client, 6, version=version)
            assert (values(partition), aborted(partition)) == ([], [])

    run(story())


def test_fetch_session_returns_partition_with_new_high_watermark() -> None:
    """KIP-227. The last stable offset moves with one of the two."""

    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            await produce(cluster.clients[1], records(b"a", b"b"))
            session = 0

            async def ask(epoch: int, *offsets: int) -> list[tuple[int, int, int, int]]:
                nonlocal session
                asked = request(
                    *offsets, version=18, session_id=session, session_epoch=epoch, isolation_level=COMMITTED
                )
                answer = await cluster.clients[1].ask(asked, FetchResponseData, 18)
                assert answer.error_code == 0
                session = answer.session_id
                return [
                    (each.high_watermark, each.last_stable_offset, each.log_start_offset, len(values(each)))
                    for topic in answer.responses
                    for each in topic.partitions
                ]

            assert await ask(0, 2) == [(2, 2, 0, 0)]
            assert await ask(1) == []
            await write(cluster, key, 7, b"open")
            assert await ask(2) == [(3, 2, 0, 0)], "there is more, and nothing of it is decided"
            assert await ask(3) == []
            await cluster.nodes[1].manager.offsets.delete_records(key, offset=1, timeout_ms=5_000)
            assert await ask(4) == [(3, 2, 1, 0)]
            assert await ask(5) == []
            await end(cluster, key, 7, commits=True)
            assert await ask(6) == [(4, 4, 1, 1)]

    run(story())


def test_aborted_transactions_come_in_the_order_in_which_they_began() -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            for producer_id in (5, 6, 7):
                await write(cluster, key, producer_id, b"x")
            for producer_id in (7, 5, 6):
                await end(cluster, key, producer_id, commits=False)
            partition = await committed(cluster.clients[1], 0)
            assert aborted(partition) == [(5, 0), (6, 1), (7, 2)]

    run(story())


def test_a_reader_waits_for_the_marker_and_not_for_more_records() -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            await write(cluster, key, 7, b"a")
            waiting = asyncio.create_task(
                fetch(cluster.clients[1], 0, version=18, isolation_level=COMMITTED, wait_ms=30_000)
            )
            await asyncio.sleep(0.5)
            await produce(cluster.clients[1], records(b"plain"))
            await asyncio.sleep(0.5)
            assert not waiting.done(), "there is more, and nothing of it is decided"
            await end(cluster, key, 7, commits=True)
            async with asyncio.timeout(10):
                (partition,) = await waiting
            assert values(partition) == [b"a", b"plain"]

    run(story())


def test_a_marker_that_is_not_replicated_decides_nothing() -> None:
    async def story() -> None:
        async with Brokers(replica_lag_time_max_ms=600_000) as cluster:
            key = cluster.create(min_insync_replicas=1)
            await write(cluster, key, 7, b"a")
            cluster.cut = {(2, 1), (3, 1)}
            ending = asyncio.create_task(end(cluster, key, 7, commits=True))
            await asyncio.sleep(1)
            assert not ending.done()
            partition = await committed(cluster.clients[1], 0)
            assert (values(partition), partition.last_stable_offset) == ([], 0)
            cluster.cut = set()
            async with asyncio.timeout(10):
                await ending
            assert values(await committed(cluster.clients[1], 0)) == [b"a"]

    run(story())


def test_the_next_leader_knows_what_is_open_and_what_was_aborted() -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            await write(cluster, key, 7, b"gone")
            await end(cluster, key, 7, commits=False)
            await write(cluster, key, 8, b"open")  # 2
            cluster.elect(key, 2, (1, 2, 3))
            await produce(cluster.clients[2], records(b"after"))
            partition = await committed(cluster.clients[2], 0)
            assert (partition.last_stable_offset, aborted(partition)) == (2, [(7, 0)])
            await end(cluster, key, 8, commits=True)
            partition = await committed(cluster.clients[2], 2)
            assert (values(partition), aborted(partition)) == ([b"open", b"after"], [])

    run(story())


def test_a_follower_serves_committed_records_up_to_its_own_stable_offset() -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            await write(cluster, key, 7, b"gone")
            await end(cluster, key, 7, commits=False)
            await write(cluster, key, 8, b"open")
            await cluster.until(lambda: cluster.high_watermark(3, key) == 3)
            partition = await committed(cluster.clients[3], 0)
            assert (partition.high_watermark, partition.last_stable_offset) == (3, 2)
            assert (values(partition), aborted(partition)) == ([b"gone"], [(7, 0)])

    run(story())


def test_the_end_for_who_reads_committed_records_is_the_last_stable_offset() -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            client = cluster.clients[1]
            await produce(client, records(b"plain", timestamp_ms=NOW_MS))
            await write(cluster, key, 7, b"a", b"b")

            async def ask(timestamp: int, isolation: int) -> int:
                found = await listed(client, timestamp, isolation=isolation)
                assert found.error_code == 0
                return found.offset

            assert [await ask(LATEST, 0), await ask(LATEST, COMMITTED)] == [3, 1]
            assert [await ask(LARGEST_TIMESTAMP, 0), await ask(LARGEST_TIMESTAMP, COMMITTED)] == [2, 0]
            assert [await ask(NOW_MS + 1, 0), await ask(NOW_MS + 1, COMMITTED)] == [2, -1]
            await end(cluster, key, 7, commits=False)
            assert [await ask(LATEST, 0), await ask(LATEST, COMMITTED)] == [4, 4]

    run(story())
