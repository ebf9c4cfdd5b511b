"""Logs that fail: what a replica tells, what it goes on doing, and when it comes back (KIP-858)."""

from __future__ import annotations

import asyncio
import errno

import pytest

from kraft.protocol.errors import InvalidProducerEpoch, KafkaError, KafkaStorageError, OutOfOrderSequenceNumber
from metadata.controller.requests import NO_FAILED_REPLICAS, FailedReplicas
from replication.manager.failures import LOG_RETRY_MS_FIRST
from tests.unit.replication.harness.cluster import Cluster
from tests.unit.replication.harness.virtual import run

FULL = OSError(errno.ENOSPC, "No space left on device")
BROKEN = OSError(errno.EIO, "Input/output error")


def test_leader_with_full_disk_serves_reads() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            await cluster.produce(key, b"a")
            node = cluster.nodes[1]
            reported: list[FailedReplicas] = []
            node.manager.failures.listen(lambda: reported.append(node.manager.failures.report()))
            node.logs.failure = FULL
            node.logs.on_failure(key, "no space", True)
            assert reported == [FailedReplicas(read_only=frozenset({key}))]
            assert cluster.leader(key).leader_epoch == 0
            assert node.manager.status().read_only == 1
            cluster.elect(key, 2, (2, 3))
            assert (await cluster.produce(key, b"b")).error_code == 0
            await asyncio.sleep((5 * LOG_RETRY_MS_FIRST) / 1_000)
            assert cluster.payloads(1, key) == [b"a"], "a full disk was asked for more"
            node.logs.failure = None
            await cluster.until(lambda: cluster.copies_agree(key), ms=20_000)
            assert reported[-1] == NO_FAILED_REPLICAS
            await cluster.until(lambda: cluster.partition(key).isr == (2, 3, 1))
            assert [event["partition"] for event in node.events.named("replica_works_again")] == [0]

    run(story())


@pytest.mark.parametrize("error", [OutOfOrderSequenceNumber("the last one here is 7"), InvalidProducerEpoch("fenced")])
def test_leader_with_full_disk_refuses_no_sequence(monkeypatch: pytest.MonkeyPatch, error: KafkaError) -> None:
    """What was written since its log failed, with another leader, it may know nothing of."""

    def refuse(*_: object, **__: object) -> None:
        raise error

    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            cluster.elect(key, 2, (1, 2, 3))
            cluster.elect(key, 1, (1, 2, 3))
            monkeypatch.setattr(cluster.log(1, key), "append_as_leader", refuse)
            refused = await cluster.produce(key, b"a")
            assert (refused.error_code, refused.leader_id, refused.leader_epoch) == (error.code, 1, 2)
            cluster.nodes[1].logs.failure = FULL
            cluster.nodes[1].logs.on_failure(key, "no space", True)
            refused = await cluster.produce(key, b"a")
            assert (refused.error_code, refused.message) == (KafkaStorageError.code, "cannot append: no space")

    run(story())


def test_a_follower_whose_disk_is_full_stops_fetching_until_there_is_room() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            await cluster.produce(key, b"a")
            node = cluster.nodes[3]
            node.logs.failure = FULL
            node.logs.on_failure(key, "no space", True)
            await asyncio.sleep((10) / 1_000)
            cluster.change_isr(key, (1, 2))
            await cluster.produce(key, b"b")
            await asyncio.sleep((2 * LOG_RETRY_MS_FIRST) / 1_000)
            assert cluster.payloads(3, key) == [b"a"]
            assert node.manager.failures.report().read_only == {key}
            node.logs.failure = None
            await cluster.until(lambda: cluster.copies_agree(key), ms=20_000)

    run(story())


def test_an_offline_log_is_not_opened_again_while_the_isr_counts_on_it() -> None:
    """Opening may cut the log; a member of the ISR has acknowledged what it would cut."""

    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            await cluster.produce(key, b"a")
            node = cluster.nodes[1]
            node.logs.failure = BROKEN
            node.logs.on_failure(key, "it broke", False)
            await asyncio.sleep((10) / 1_000)
            assert node.manager.failures.report() == FailedReplicas(offline=frozenset({key}))
            assert (await cluster.produce(key, b"b", at=1)).error_code == KafkaStorageError.code
            await asyncio.sleep((3 * LOG_RETRY_MS_FIRST) / 1_000)
            assert node.logs.reopened == [], "the controller has not heard yet"
            cluster.elect(key, 2, (2, 3))
            assert (await cluster.produce(key, b"b", at=1)).error_code == 6
            await asyncio.sleep((3 * LOG_RETRY_MS_FIRST) / 1_000)
            assert node.logs.reopened, "it is tried again"
            assert node.manager.failures.report().offline == {key}
            await cluster.produce(key, b"b")
            node.logs.failure = None
            await cluster.until(lambda: cluster.copies_agree(key), ms=40_000)
            await cluster.until(lambda: cluster.partition(key).isr == (2, 3, 1))
            assert node.manager.failures.report() == NO_FAILED_REPLICAS

    run(story())


def test_the_only_replica_is_opened_again_once_it_leads_no_more_and_leads_then() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create(replicas=(1,))
            await cluster.produce(key, b"a")
            cluster.nodes[1].logs.on_failure(key, "it broke", False)
            await asyncio.sleep((3 * LOG_RETRY_MS_FIRST) / 1_000)
            assert cluster.nodes[1].logs.reopened == []
            cluster.elect(key, -1, (1,))
            await cluster.until(lambda: not len(cluster.nodes[1].manager.failures.report()), ms=40_000)
            cluster.elect(key, 1, (1,))
            assert (await cluster.produce(key, b"b")).error_code == 0
            assert cluster.payloads(1, key) == [b"a", b"b"]

    run(story())


def test_each_failed_attempt_doubles_the_wait() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            node = cluster.nodes[3]
            node.logs.failure = BROKEN
            node.logs.on_failure(key, "it broke", False)
            cluster.change_isr(key, (1, 2))
            await asyncio.sleep((LOG_RETRY_MS_FIRST * (1 + 2 + 4) + 100) / 1_000)
            assert len(node.logs.reopened) == 3
            assert [event["reason"] for event in node.events.named("replica_still_failed")] == [str(BROKEN)] * 3

    run(story())


def test_a_deleted_partition_is_reported_no_more() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            for node_id, is_readable in ((1, True), (2, False)):
                cluster.nodes[node_id].logs.on_failure(key, "failed", is_readable)
            await asyncio.sleep((10) / 1_000)
            cluster.remove_topic()
            for node_id in (1, 2):
                assert cluster.nodes[node_id].manager.failures.report() == NO_FAILED_REPLICAS
                assert key not in cluster.nodes[node_id].logs.logs

    run(story())


@pytest.mark.parametrize("is_readable", [True, False])
def test_a_failure_that_is_reported_twice_is_one(is_readable: bool) -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            node = cluster.nodes[1]
            for _ in range(3):
                node.logs.on_failure(key, "failed", is_readable)
                await asyncio.sleep((1) / 1_000)
            name = "replica_read_only" if is_readable else "replica_offline"
            assert len(node.events.named(name)) == 1

    run(story())
