"""Three replica managers: replication, changes of leader, ISR, acks."""

from __future__ import annotations

import asyncio

from tests.unit.replication.harness.cluster import Cluster
from tests.unit.replication.harness.virtual import run


def test_p5_acks_all_is_answered_when_all_of_the_isr_has_the_record() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create(min_insync_replicas=2)
            outcome = await cluster.produce(key, b"a")
            assert (outcome.error_code, outcome.base_offset, outcome.leader_id) == (0, 0, 1)
            assert all(cluster.payloads(n, key) == [b"a"] for n in (1, 2, 3))
            assert cluster.high_watermark(1, key) == 1

    run(story())


def test_kip_101_a_new_leader_truncates_the_old_one_by_epoch() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            await cluster.produce(key, b"a")
            cluster.nodes[1].hears_metadata = False
            cluster.cut |= {(2, 1), (3, 1)}
            await cluster.produce(key, b"lost", acks=1)
            cluster.elect(key, 2, (2, 3))
            assert (await cluster.produce(key, b"b")).error_code == 0
            cluster.nodes[1].hears_metadata = True
            cluster.cut.clear()
            cluster.publish()
            await cluster.until(lambda: cluster.partition(key).isr == (2, 3, 1))
            assert all(cluster.payloads(n, key) == [b"a", b"b"] for n in (1, 2, 3))
            assert cluster.nodes[1].events.named("truncated")[0]["from_offset"] == 1
            assert not cluster.nodes[1].events.named("truncated_below_high_watermark")

    run(story())


def test_a_leader_that_missed_an_epoch_trusts_no_offset_from_before_it() -> None:
    """Node 1 leads epochs 0 and 2, and never learns of epoch 1, in which node 3 truncates what it had fetched."""

    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create(min_insync_replicas=2)
            await cluster.produce(key, b"a")
            cluster.cut.add((2, 1))
            produce = asyncio.ensure_future(cluster.produce(key, b"b"))
            await cluster.until(lambda: cluster.leader(key).followers[3].end_offset == 2)
            cluster.nodes[1].hears_metadata = False
            cluster.elect(key, 2, (1, 2, 3))
            await cluster.until(lambda: cluster.payloads(3, key) == [b"a"])
            cluster.cut.add((3, 1))
            cluster.fence(2)
            cluster.nodes[1].hears_metadata = True
            cluster.elect(key, 1, (1, 3))
            await asyncio.sleep(0.1)
            assert cluster.high_watermark(1, key) == 1
            assert not produce.done()
            cluster.cut.clear()
            assert (await produce).error_code == 0
            assert cluster.payloads(3, key) == [b"a", b"b"]

    run(story())


def test_many_records_in_flight() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            outcomes = await asyncio.gather(*(cluster.produce(key, b"%d" % i) for i in range(200)))
            assert [o.base_offset for o in outcomes] == list(range(200))
            assert cluster.copies_agree(key)

    run(story())
