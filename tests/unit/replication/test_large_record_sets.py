"""Record sets that a worker looks at: bounded, in order with those that the loop looks at, and nobody else waits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from uuid import UUID

import pytest

from kraft.protocol.batches.budget import INLINE_BYTES_MAX, REQUEST_BYTES_MAX
from kraft.protocol.batches.compression import DECOMPRESSED_BYTES_MAX
from kraft.protocol.errors import ThrottlingQuotaExceeded
from metadata.image import TopicIdPartition
from replication import record_workers
from replication.manager.append_queues import AppendQueues
from replication.record_workers import RecordWorkers
from replication.requests import ProduceOptions
from tests.unit.replication.harness.cluster import TOPIC_ID, Cluster
from tests.unit.replication.harness.memory_log import batch
from tests.unit.replication.harness.virtual import VirtualWorkers, run


def large(name: bytes) -> bytes:
    return name + bytes(INLINE_BYTES_MAX)


def names(payloads: Sequence[bytes]) -> list[bytes]:
    return [payload.rstrip(b"\0") for payload in payloads]


def test_what_comes_later_is_appended_later_and_other_partitions_go_on() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key, other = cluster.create(), cluster.create("other", topic_id=UUID(int=9))
            produces = [
                asyncio.ensure_future(cluster.produce(key, payload))
                for payload in (b"a", large(b"b"), b"c", large(b"d"), b"e")
            ]
            await asyncio.sleep(0)
            assert (await cluster.produce(other, b"at once")).error_code == 0
            assert names(cluster.payloads(1, key)) == [b"a"], "the worker is still looking"
            outcomes = await asyncio.gather(*produces)
            assert [outcome.error_code for outcome in outcomes] == [0] * 5
            assert [outcome.base_offset for outcome in outcomes] == list(range(5))
            assert names(cluster.payloads(1, key)) == [b"a", b"b", b"c", b"d", b"e"]
            await cluster.until(lambda: cluster.copies_agree(key))

    run(story())


def test_a_leader_that_was_relieved_meanwhile_appends_nothing() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            produce = asyncio.ensure_future(cluster.produce(key, large(b"a"), at=1))
            await asyncio.sleep(0.005)
            cluster.elect(key, 2, (1, 2, 3))
            outcome = await produce
            assert (outcome.error_code, outcome.is_appended) == (6, False)
            assert cluster.payloads(2, key) == []

    run(story())


def test_one_that_is_cancelled_lets_the_next_go_on_and_not_pass() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            key = cluster.create()
            first, second, third = (
                asyncio.ensure_future(cluster.produce(key, payload)) for payload in (large(b"a"), large(b"b"), b"c")
            )
            await asyncio.sleep(0.005)
            second.cancel()
            assert [(await first).base_offset, (await third).base_offset] == [0, 1]
            assert names(cluster.payloads(1, key)) == [b"a", b"c"]

    run(story())


def test_a_request_beyond_its_bounds_is_refused_where_it_exceeds_them() -> None:
    async def story() -> None:
        async with Cluster() as cluster:
            cluster.create(partitions=6)
            keys = [TopicIdPartition(TOPIC_ID, number) for number in range(6)]
            part = batch(bytes(REQUEST_BYTES_MAX // 5))
            assert len(part) < DECOMPRESSED_BYTES_MAX
            manager = cluster.nodes[1].manager
            outcomes = await manager.produce.outcomes(dict.fromkeys(keys, part), ProduceOptions(1, 5_000))
            assert [outcomes[key].error_code for key in keys] == [0, 0, 0, 0, 10, 10]
            assert "in several" in outcomes[keys[-1]].message
            too_large = await manager.produce.outcomes(
                {keys[0]: batch(bytes(DECOMPRESSED_BYTES_MAX))}, ProduceOptions(1, 9)
            )
            assert too_large[keys[0]].error_code == 10

    run(story())


@pytest.mark.parametrize("seed", range(10))
def test_requests_of_many_partitions_keep_order(seed: int) -> None:
    async def story() -> None:
        rng, queues = random.Random(seed), AppendQueues()
        keys = [TopicIdPartition(UUID(int=number), number) for number in range(4)]
        done: dict[TopicIdPartition, list[int]] = {key: [] for key in keys}
        gone: set[int] = set()

        async def request(number: int, wanted: Sequence[TopicIdPartition]) -> None:
            mine = queues.join(wanted)
            try:
                for key in rng.sample(list(wanted), len(wanted)):
                    await mine[key].wait()
                    await asyncio.sleep(rng.random() / 100)
                    done[key].append(number)
                    mine[key].end()
            finally:
                for place in mine.values():
                    place.end()

        tasks = [asyncio.ensure_future(request(number, rng.sample(keys, rng.randint(1, 4)))) for number in range(60)]
        await asyncio.sleep(0.02)
        for number in rng.sample(range(60), 10):
            if tasks[number].cancel():
                gone.add(number)
        await asyncio.wait(tasks, timeout=60)
        assert all(task.done() for task in tasks), "a ring of requests that wait for each other"
        assert all(order == sorted(order) for order in done.values())
        assert {task.exception() for number, task in enumerate(tasks) if number not in gone} == {None}
        assert not any(queues.has_waiting(key) for key in keys), "nothing is left behind"

    run(story())


def test_work_that_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_workers, "WAITING_MAX", 3)

    async def story() -> None:
        under_way = 0
        most = 0

        class Counting(VirtualWorkers):
            async def run(self, function, *args, **kwargs):  # type: ignore[no-untyped-def]
                nonlocal under_way, most
                under_way += 1
                most = max(most, under_way)
                try:
                    return await super().run(function, *args, **kwargs)
                finally:
                    under_way -= 1

        work = RecordWorkers(Counting(), at_once=2)
        three = [asyncio.ensure_future(work.run(lambda: 1)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(ThrottlingQuotaExceeded):
            await work.run(lambda: 1)
        assert await asyncio.gather(*three) == [1, 1, 1]
        assert most == 2
        assert await work.run(lambda: 2) == 2

    run(story())
