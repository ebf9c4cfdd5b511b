"""R1 to R11, L3, L9, L10: followers, divergence and changes of leader."""

from __future__ import annotations

import asyncio

import pytest

from kraft.protocol.errors import IneligibleReplica, KafkaStorageError, NotController, OffsetNotAvailable
from metadata.controller.requests import ErrorDetail
from metadata.image import TopicIdPartition
from metadata.records import LeaderRecovery
from replication.requests import LATEST_TIMESTAMP, FetchedPartition, FetchPartition, FetchRequest
from tests.unit.replication.harness.cluster import Cluster
from tests.unit.replication.harness.virtual import run


async def ask(
    cluster: Cluster,
    key: TopicIdPartition,
    *,
    at: int = 1,
    replica: int = -1,
    epoch: int = -1,
    offset: int = 0,
    last_epoch: int = -1,
    broker_epoch: int | None = None,
    wait_ms: int = 0,
) -> FetchedPartition:
    if broker_epoch is None:
        broker_epoch = -1 if replica == -1 else cluster.image.brokers[replica].broker_epoch
    fetch = FetchPartition(
        topic_id=key.topic_id,
        partition=key.partition,
        current_leader_epoch=epoch,
        fetch_offset=offset,
        last_fetched_epoch=last_epoch,
        log_start_offset=0,
        bytes_max=10_000,
    )
    request = FetchRequest(
        replica_id=replica,
        replica_epoch=broker_epoch,
        wait_ms_max=wait_ms,
        bytes_min=1,
        bytes_max=10_000,
        partitions=(fetch,),
    )
    return (await cluster.nodes[at].manager.fetch.response(request)).partitions[0]


def test_r1_epochs_and_assignment_are_checked() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create(replicas=(1, 2))
            cluster.elect(key, 1, (1, 2))
            assert (await ask(cluster, key, epoch=0)).error_code == 74
            assert (await ask(cluster, key, epoch=2)).error_code == 75
            assert (await ask(cluster, key, epoch=1)).error_code == 0
            assert (await ask(cluster, key, replica=3)).error_code == 6
            elsewhere = await ask(cluster, key, at=2)
            assert (elsewhere.error_code, elsewhere.current_leader) == (6, (1, 1))

    run(story())


def test_f2_between_high_watermark_and_end_is_empty_and_beyond_is_an_error() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            cluster.cut |= {(2, 1), (3, 1)}
            await cluster.produce(key, b"a", acks=1)
            for offset in (0, 1):
                empty = await ask(cluster, key, offset=offset)
                assert (empty.error_code, empty.records, empty.high_watermark) == (0, b"", 0)
            assert (await ask(cluster, key, offset=2)).error_code == 1

    run(story())


def test_f3_a_consumer_wakes_when_the_high_watermark_advances() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            reading = asyncio.ensure_future(ask(cluster, key, wait_ms=30_000))
            await asyncio.sleep(0.2)
            assert not reading.done()
            before = asyncio.get_running_loop().time()
            await cluster.produce(key, b"a")
            assert (await reading).records
            assert asyncio.get_running_loop().time() - before < 0.1

    run(story())


def test_r10_a_fetch_under_an_old_broker_epoch_changes_nothing() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            cluster.cut |= {(2, 1), (3, 1)}
            old_epoch = cluster.image.brokers[2].broker_epoch
            await cluster.produce(key, b"a", acks=1)
            cluster.register(2)
            before = cluster.leader(key).followers[2]
            assert (await ask(cluster, key, replica=2, offset=1, broker_epoch=old_epoch)).error_code == 6
            assert cluster.leader(key).followers[2] == before

    run(story())


def test_kip_279_fast_changes_of_leader_leave_no_difference() -> None:
    """1 writes under epoch 0 alone, 2 under epoch 1 alone; then 1 leads again and 2 must cut its own records."""

    async def story() -> None:
        async with Cluster(nodes=2) as cluster:
            key = cluster.create(replicas=(1, 2))
            await cluster.produce(key, b"a")
            cluster.cut |= {(1, 2), (2, 1)}
            await cluster.produce(key, b"b", acks=1)
            cluster.elect(key, 2, (2,))
            await cluster.produce(key, b"c", acks=1)
            await cluster.produce(key, b"d", acks=1)
            cluster.elect(key, 1, (1,), recovery=LeaderRecovery.RECOVERING)
            await cluster.produce(key, b"e", acks=1)
            cluster.cut.clear()
            await cluster.until(lambda: cluster.partition(key).isr == (1, 2))
            assert cluster.payloads(1, key) == cluster.payloads(2, key) == [b"a", b"b", b"e"]

    run(story())


def test_l3_unclean_leader_reports_recovery_and_loss() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            cluster.cut.add((3, 1))
            await cluster.produce(key, b"a", timeout_ms=100)
            cluster.change_isr(key, (1, 2))
            cluster.fence(3)
            assert (await cluster.produce(key, b"b")).error_code == 0
            await cluster.until(lambda: cluster.high_watermark(2, key) == 2)
            cluster.fence(3, fenced=False)
            cluster.nodes[1].hears_metadata = cluster.nodes[2].hears_metadata = False
            cluster.elect(key, 3, (3,), recovery=LeaderRecovery.RECOVERING)
            await cluster.until(lambda: cluster.partition(key).leader_recovery is LeaderRecovery.RECOVERED)
            assert cluster.alterations[-1].alterations[0].recovered
            cluster.nodes[1].hears_metadata = cluster.nodes[2].hears_metadata = True
            cluster.publish()
            await cluster.until(lambda: set(cluster.partition(key).isr) == {1, 2, 3})
            assert cluster.copies_agree(key)
            (lost,) = cluster.nodes[2].events.named("truncated_below_high_watermark")
            assert (lost["from_offset"], lost["to_offset"], lost["epoch"]) == (0, 2, 0)

    run(story())


def test_l9_new_leader_records_its_epoch() -> None:
    async def story() -> None:
        async with Cluster(nodes=2) as cluster:
            key = cluster.create(replicas=(1, 2))
            await cluster.produce(key, b"a")
            cluster.cut.add((1, 2))
            cluster.elect(key, 2, (2,))
            assert cluster.log(2, key).epochs == [(0, 0), (1, 1)]
            cluster.elect(key, 1, (1,))
            await cluster.produce(key, b"b", acks=1)
            await cluster.until(lambda: cluster.partition(key).isr == (1, 2))
            assert cluster.log(2, key).epochs == cluster.log(1, key).epochs == [(0, 0), (2, 1)]

    run(story())


def test_l10_latest_offset_waits_for_epoch_start() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            cluster.cut |= {(3, 2), (1, 2)}
            await cluster.produce(key, b"a")
            cluster.elect(key, 2, (1, 2, 3))
            manager = cluster.nodes[2].manager
            if cluster.high_watermark(2, key) == 0:
                with pytest.raises(OffsetNotAvailable):
                    await manager.offsets.list_offset(key, LATEST_TIMESTAMP)
            cluster.cut.clear()
            await cluster.until(lambda: cluster.high_watermark(2, key) == 1)
            assert (await manager.offsets.list_offset(key, LATEST_TIMESTAMP)).offset == 1

    run(story())


def test_r5_r9_the_high_watermark_reaches_followers_one_fetch_later() -> None:
    async def story() -> None:
        async with Cluster(replica_fetch_wait_max_ms=500) as cluster:
            key = cluster.create()
            await cluster.produce(key, b"a")
            assert cluster.high_watermark(1, key) == 1
            await asyncio.sleep(0.6)
            assert cluster.high_watermark(2, key) == 1

    run(story())


def test_r6_a_follower_behind_the_leaders_start_begins_again_there() -> None:
    async def story() -> None:
        async with Cluster(nodes=2) as cluster:
            key = cluster.create(replicas=(1, 2), isr=(1,))
            cluster.cut.add((2, 1))
            cluster.fence(2)
            for _ in range(4):
                await cluster.produce(key, b"x")
            assert await cluster.nodes[1].manager.offsets.delete_records(key, offset=3, timeout_ms=100) == 3
            cluster.fence(2, fenced=False)
            cluster.cut.clear()
            await cluster.until(lambda: cluster.log(2, key).log_end_offset == 4)
            assert cluster.log(2, key).log_start_offset == 3

    run(story())


def test_r6_a_follower_without_epochs_beyond_the_leaders_end_is_cut_to_it() -> None:
    async def story() -> None:
        async with Cluster(nodes=2, replica_fetch_backoff_ms=10) as cluster:
            key = cluster.create(replicas=(1, 2))
            await cluster.produce(key, b"a")
            cluster.cut.add((2, 1))
            await asyncio.sleep(1)
            log = cluster.log(2, key)
            log.append_as_leader(log.batches[0].encode(), leader_epoch=0, now_ms=0)
            log.epochs.clear()
            cluster.cut.clear()
            await cluster.until(lambda: cluster.log(2, key).log_end_offset == 1)

    run(story())


def test_r8_the_log_start_follows_the_leader_and_s4_waits_for_it() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            for _ in range(3):
                await cluster.produce(key, b"x")
            await asyncio.sleep(1)
            low = await cluster.nodes[1].manager.offsets.delete_records(key, offset=-1, timeout_ms=5_000)
            assert low == 3
            assert all(cluster.log(n, key).log_start_offset == 3 for n in (1, 2, 3))

    run(story())


def test_r11_a_corrupt_batch_is_fetched_again_after_the_backoff() -> None:
    async def story() -> None:
        async with Cluster(replica_fetch_backoff_ms=300) as cluster:
            key = cluster.create()
            cluster.log(2, key).corrupt_appends = 1
            before = asyncio.get_running_loop().time()
            assert (await cluster.produce(key, b"a")).error_code == 0
            assert asyncio.get_running_loop().time() - before >= 0.3
            assert len(cluster.nodes[2].events.named("replica_fetch_corrupt")) == 1

    run(story())


def test_broken_link_delays_one_leader() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            one = cluster.create(replicas=(1, 3))
            await cluster.kill(2)
            two = TopicIdPartition(one.topic_id, 0)
            before = asyncio.get_running_loop().time()
            assert (await cluster.produce(two, b"a")).error_code == 0
            cluster.cut.add((3, 1))
            await asyncio.sleep(2)
            cluster.cut.clear()
            assert (await cluster.produce(one, b"b")).error_code == 0
            assert asyncio.get_running_loop().time() - before < 2.1

    run(story())


def test_an_added_partition_does_not_wait_for_the_long_poll_in_flight() -> None:
    async def story() -> None:
        async with Cluster(replica_fetch_wait_max_ms=20_000) as cluster:
            first = cluster.create("a")
            await cluster.produce(first, b"x")
            await asyncio.sleep(1)
            second = cluster.create("b", topic_id=type(first.topic_id)(int=8))
            before = asyncio.get_running_loop().time()
            assert (await cluster.produce(second, b"y")).error_code == 0
            assert asyncio.get_running_loop().time() - before < 0.05

    run(story())


def test_i8_unknown_failures_are_retried_for_ever_and_107_reverts() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            cluster.refusals = [NotController("elsewhere"), OSError("gone"), ErrorDetail(IneligibleReplica, "not yet")]
            key = cluster.create(isr=(1,))
            await cluster.until(lambda: set(cluster.partition(key).isr) == {1, 2, 3})
            events = cluster.nodes[1].events
            assert len(events.named("alter_partition_failed")) == 2
            assert len(events.named("isr_change_refused")) == 1
            assert len(events.named("isr_expanded")) == 2

    run(story())


def test_i1_a_cut_off_follower_leaves_and_comes_back() -> None:
    async def story() -> None:
        async with Cluster(replica_lag_time_max_ms=1_000) as cluster:
            key = cluster.create(min_insync_replicas=2)
            cluster.cut.add((3, 1))
            before = asyncio.get_running_loop().time()
            assert (await cluster.produce(key, b"a")).error_code == 0
            assert cluster.partition(key).isr == (1, 2)
            assert asyncio.get_running_loop().time() - before < 1.6
            cluster.cut.clear()
            await cluster.until(lambda: set(cluster.partition(key).isr) == {1, 2, 3})

    run(story())


def test_kip_516_a_topic_made_again_is_another_topic() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            old = cluster.create()
            await cluster.produce(old, b"a")
            cluster.remove_topic()
            new = cluster.create(topic_id=type(old.topic_id)(int=9))
            assert (await cluster.produce(new, b"b")).base_offset == 0
            assert old not in cluster.nodes[2].logs.logs
            assert (await ask(cluster, old)).error_code == 100

    run(story())


def test_r7_a_restart_begins_at_the_saved_high_watermark() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            await cluster.produce(key, b"a")
            await asyncio.sleep(1)
            await cluster.kill(2)
            await cluster.restart(2)
            assert cluster.high_watermark(2, key) == 1
            assert (await cluster.produce(key, b"b")).error_code == 0

    run(story())


def test_min_isr_changed_while_running_takes_effect_at_once() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create(isr=(1,))
            cluster.cut |= {(2, 1), (3, 1)}
            assert (await cluster.produce(key, b"a")).error_code == 0
            cluster.configure("t", "min.insync.replicas", "2")
            assert (await cluster.produce(key, b"b")).error_code == 19
            assert cluster.nodes[1].manager.status().under_min_isr == 1

    run(story())


def test_i7_joining_member_counts_before_commit() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            cluster.nodes[1].hears_metadata = True
            key = cluster.create(isr=(1, 2))
            cluster.nodes[1].hears_metadata = False
            cluster.loses_replies = True
            await cluster.until(lambda: cluster.partition(key).isr == (1, 2, 3))
            cluster.cut.add((3, 1))
            await asyncio.sleep(1)
            assert (await cluster.produce(key, b"a", timeout_ms=500)).error_code == 7
            cluster.cut.clear()
            cluster.loses_replies = False
            cluster.nodes[1].hears_metadata = True
            cluster.publish()
            assert (await cluster.produce(key, b"b")).error_code == 0

    run(story())


def test_a_log_that_fails_in_a_change_of_roles_costs_only_its_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create(partitions=2)

            def refuse(epoch: int, start_offset: int) -> None:
                raise KafkaStorageError("the disk is gone")

            monkeypatch.setattr(cluster.log(2, key), "assign_epoch_start", refuse)
            cluster.elect(key, 2, (2, 3))
            manager = cluster.nodes[2].manager
            assert (await cluster.produce(key, b"a", at=2)).error_code == 56
            assert manager.status().offline == 1
            other = TopicIdPartition(key.topic_id, 1)
            assert (await cluster.produce(other, b"b")).error_code == 0
            assert manager.describe()[other].log_end_offset == 1

    run(story())
