"""P1 to P10: what a produce is answered."""

from __future__ import annotations

import asyncio

import pytest

from kraft.protocol.errors import InvalidRequiredAcks
from metadata.image import TopicIdPartition
from replication.partition.replica import Replica
from replication.partition.states import CommittedIsr, LeaderState, PendingIsr
from replication.requests import ProduceOptions
from tests.unit.replication.harness.cluster import TOPIC_ID, Cluster
from tests.unit.replication.harness.memory_log import batch
from tests.unit.replication.harness.virtual import run


def replica_at(cluster: Cluster, node_id: int, key: TopicIdPartition) -> Replica:
    return cluster.nodes[node_id].manager._registry.replicas[key]


def test_p1_a_small_isr_refuses_acks_all_and_appends_nothing_but_takes_acks_1() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create(min_insync_replicas=2, isr=(1,))
            cluster.cut |= {(2, 1), (3, 1)}
            refused = await cluster.produce(key, b"a")
            assert (refused.error_code, refused.is_appended, refused.isr, refused.min_isr) == (19, False, (1,), 2)
            assert cluster.payloads(1, key) == []
            for acks in (0, 1):
                assert (await cluster.produce(key, b"b", acks=acks)).error_code == 0
            assert cluster.high_watermark(1, key) == 0, "P3: accepted and invisible"

    run(story())


def test_p6_the_wait_expires_and_the_record_stays_and_is_replicated_later() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create(min_insync_replicas=2)
            cluster.cut |= {(2, 1), (3, 1)}
            late = await cluster.produce(key, b"a", timeout_ms=300)
            assert (late.error_code, late.is_appended, late.base_offset) == (7, True, 0)
            cluster.cut.clear()
            await cluster.until(lambda: cluster.high_watermark(1, key) == 1)
            assert cluster.copies_agree(key)

    run(story())


def test_p6_timeout_keeps_record_when_isr_shrinks() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create(min_insync_replicas=2)
            cluster.cut |= {(2, 1), (3, 1)}
            waiting = asyncio.ensure_future(cluster.produce(key, b"a", timeout_ms=1_000))
            await asyncio.sleep(0.1)
            cluster.change_isr(key, (1,))
            outcome = await waiting
            assert (outcome.error_code, outcome.is_appended) == (7, True)
            assert cluster.high_watermark(1, key) == 0
            cluster.cut.clear()
            await cluster.until(lambda: set(cluster.partition(key).isr) == {1, 2, 3})
            await cluster.until(lambda: cluster.high_watermark(1, key) == 1)

    run(story())


def test_p5_reached_while_the_maximal_isr_is_too_small_is_20() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create(min_insync_replicas=2)
            cluster.cut |= {(2, 1), (3, 1)}
            waiting = asyncio.ensure_future(cluster.produce(key, b"a", timeout_ms=1_000))
            await asyncio.sleep(0.1)
            replica = replica_at(cluster, 1, key)
            state = replica.state
            assert isinstance(state, LeaderState)
            shrunk = CommittedIsr(members=(1,))
            replica.enter(
                LeaderState(
                    image=state.image,
                    isr=shrunk,
                    partition_epoch=state.partition_epoch,
                    is_recovering=False,
                    epoch_start_offset=0,
                    end_offset=1,
                    high_watermark=1,
                    followers=state.followers,
                    min_isr=2,
                )
            )
            cluster.nodes[1].manager._registry.produces.check(replica)
            outcome = await waiting
            assert (outcome.error_code, outcome.is_appended, outcome.isr) == (20, True, (1,))

    run(story())


def test_p7_leadership_lost_while_waiting_is_6_and_indeterminate() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            cluster.cut |= {(2, 1), (3, 1)}
            waiting = asyncio.ensure_future(cluster.produce(key, b"a"))
            await asyncio.sleep(0.1)
            cluster.elect(key, 2, (2, 3))
            outcome = await waiting
            assert (outcome.error_code, outcome.is_appended) == (6, True)

    run(story())


def test_p9_other_acks_are_refused() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            with pytest.raises(InvalidRequiredAcks):
                await cluster.produce(key, b"a", acks=2)

    run(story())


def test_p10_every_partition_has_its_own_outcome() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create(partitions=2)
            absent = TopicIdPartition(TOPIC_ID, 9)
            outcomes = await cluster.nodes[1].manager.produce.outcomes(
                {key: batch(b"a"), absent: batch(b"b")}, ProduceOptions(-1, 1_000)
            )
            assert outcomes[key].error_code == 0
            assert (outcomes[absent].error_code, outcomes[absent].is_appended) == (3, False)
            elsewhere = await cluster.nodes[2].manager.produce.outcomes({key: batch(b"a")}, ProduceOptions(1, 1_000))
            assert elsewhere[key].error_code == 6

    run(story())


def test_p11_flush_messages_1_waits_for_fsync() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create(flush_messages=1)
            cluster.log(1, key).flush_ms = 200
            waiting = asyncio.ensure_future(cluster.produce(key, b"a"))
            await asyncio.sleep(0.1)
            assert cluster.payloads(2, key) == [b"a"], "followers carry it away meanwhile"
            assert cluster.log(2, key).flushed_offset == 1, "and fsync before they report it"
            assert cluster.high_watermark(1, key) == 0
            assert (await waiting).error_code == 0
            assert cluster.log(1, key).flushed_offset == 1

    run(story())


def test_p11_a_leader_flushes_what_it_fetched_before_it_led() -> None:
    """Found by simulated clusters (reconfigure 21024): the high watermark waited for the next produce."""

    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create(flush_messages=1)
            await cluster.produce(key, b"a")
            for node_id in (2, 3):
                cluster.log(node_id, key).flushed_offset = 0
            cluster.elect(key, 2, (2, 3))
            await asyncio.sleep(1)
            assert cluster.log(2, key).flushed_offset == 1
            assert cluster.high_watermark(2, key) == 1

    run(story())


def test_p11_a_cancelled_produce_leaves_no_record_uncounted() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create(flush_messages=1)
            cluster.log(1, key).flush_ms = 200
            waiting = asyncio.ensure_future(cluster.produce(key, b"a"))
            await asyncio.sleep(0.1)
            waiting.cancel()
            await asyncio.sleep(2)
            assert cluster.high_watermark(1, key) == 1

    run(story())


def test_i7_a_leaving_member_is_waited_for_until_the_shrink_is_committed() -> None:
    async def story() -> None:
        async with Cluster(replica_lag_time_max_ms=200) as cluster:
            key = cluster.create()
            cluster.is_controller_up = False
            cluster.cut.add((3, 1))
            waiting = asyncio.ensure_future(cluster.produce(key, b"a", timeout_ms=9_000))
            await asyncio.sleep(1)
            assert isinstance(cluster.leader(key).isr, PendingIsr)
            assert not waiting.done()
            cluster.is_controller_up = True
            assert (await waiting).error_code == 0
            assert cluster.partition(key).isr == (1, 2)

    run(story())


def test_handover_waits_for_appended_records() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create(min_insync_replicas=2)
            cluster.cut |= {(2, 1), (3, 1)}
            waiting = asyncio.ensure_future(cluster.produce(key, b"a"))
            await asyncio.sleep(0.1)
            handed_over = asyncio.ensure_future(cluster.nodes[1].manager.produce.hand_over())
            await asyncio.sleep(0.1)
            refused = await cluster.produce(key, b"b")
            assert (refused.error_code, refused.is_appended) == (6, False)
            assert not handed_over.done()
            cluster.cut.clear()
            await handed_over
            assert (await waiting).error_code == 0
            assert cluster.payloads(1, key) == [b"a"]

    run(story())


def test_handing_over_does_not_wait_for_ever_nor_for_nothing() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create(min_insync_replicas=2)
            await cluster.nodes[2].manager.produce.hand_over()
            cluster.cut |= {(2, 1), (3, 1)}
            waiting = asyncio.ensure_future(cluster.produce(key, b"a", timeout_ms=60_000))
            await asyncio.sleep(0.1)
            await asyncio.wait_for(cluster.nodes[1].manager.produce.hand_over(), 1)
            assert not waiting.done()
            waiting.cancel()

    run(story())


def test_d2_duplicate_waits_for_replication_of_original() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create(min_insync_replicas=2)
            cluster.cut |= {(2, 1), (3, 1)}
            assert (await cluster.produce(key, b"once:a", timeout_ms=300)).error_code == 7
            early = await cluster.produce(key, b"once:a", timeout_ms=300)
            assert (early.error_code, early.is_appended, early.base_offset) == (7, True, 0)
            assert (await cluster.produce(key, b"once:a", acks=1)).base_offset == 0
            waiting = asyncio.ensure_future(cluster.produce(key, b"once:a"))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            cluster.cut.clear()
            answered = await waiting
            assert (answered.error_code, answered.base_offset, answered.last_offset) == (0, 0, 0)
            assert (await cluster.produce(key, b"once:a")).base_offset == 0
            assert (await cluster.produce(key, b"once:b")).base_offset == 1
            assert cluster.payloads(1, key) == [b"once:a", b"once:b"]

    run(story())
