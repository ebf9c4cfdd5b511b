"""Records that are too old for their queue: which they are, and that nobody gets them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster
from kraft.coordinators.shares.expiry import Expiry, expired, without
from kraft.protocol.batches.header import whole_batches
from kraft.protocol.batches.records import NewRecord, build_batch
from metadata.image import TopicIdPartition
from replication.record_times import EXPIRES_HEADER
from replication.requests import ProduceOptions
from replication.shares.partition import Acquired
from tests.unit.coordinators.test_share_coordinator import at
from tests.unit.coordinators.test_share_dead_letters import LETTERS, TOPIC, configure, letters, source
from tests.unit.coordinators.test_share_leaders import ACCEPT, SETTINGS, Member
from tests.unit.coordinators.test_transaction_cluster import create, play, until

NOW_MS = 1_000_000


def record(*, age_ms: int = 0, expires: bytes | None = None) -> NewRecord:
    headers = [] if expires is None else [(EXPIRES_HEADER, expires)]
    return NewRecord(b"k", b"v", list(headers), NOW_MS - age_ms)


def found(
    records: Sequence[NewRecord], expiry: Expiry, *acquired: Acquired, codec: str = "none"
) -> list[tuple[int, int]]:
    data = build_batch(records, compression=codec)
    return expired(data, list(whole_batches(data)), acquired or [Acquired(0, len(records) - 1, 1)], expiry, NOW_MS)


@pytest.mark.parametrize("codec", ["none", "gzip"])
def test_records_expire_by_their_timestamps(codec: str):
    records = [record(age_ms=age) for age in (60, 100, 99, 200, 0)]
    assert found(records, Expiry(after_ms=100), codec=codec) == [(1, 1), (3, 3)]
    assert found(records, Expiry(after_ms=100), Acquired(2, 4, 1), codec=codec) == [(3, 3)]
    assert found([record(age_ms=200)] * 3, Expiry(after_ms=100), Acquired(1, 2, 1), codec=codec) == [(1, 2)]
    assert found([NewRecord(None, b"v", [], -1)], Expiry(after_ms=100), codec=codec) == [], "it has no timestamp"


def test_records_expire_by_their_headers_only_where_these_are_looked_for():
    texts = [b"%d" % NOW_MS, b"%d" % (NOW_MS + 1), b"0", b"", b"-5", b"1e3", b"9" * 400, None]
    records = [record(expires=text) for text in texts]
    assert found(records, Expiry(reads_headers=True)) == [(0, 0), (2, 2)]
    assert found(records, Expiry()) == []


def test_what_is_left_is_what_a_set_would_leave():
    for seed in range(200):
        rng = random.Random(seed)
        ends = sorted(rng.sample(range(60), 6))
        acquired = [Acquired(ends[n], ends[n + 1] - 1, n) for n in (0, 2, 4)]
        inside = [offset for first, last, _ in acquired for offset in range(first, last + 1)]
        gone = sorted(rng.sample(inside, rng.randrange(len(inside) + 1)))
        left = without(acquired, [(offset, offset) for offset in gone])
        assert [offset for first, last, _ in left for offset in range(first, last + 1)] == sorted(
            set(inside) - set(gone)
        )


# --- in a cluster -----------------------------------------------------------------------------------------------------


async def written(cluster: SimulatedCluster, where: TopicIdPartition, ages_ms: Sequence[int], **headers: int) -> None:
    node = cluster.alive[0]
    assert node.node is not None
    now_ms = node.machine.environment.clock.wall_ms()
    more = [(EXPIRES_HEADER, b"%d" % (now_ms + after)) for after in headers.values()]
    batch = build_batch([NewRecord(b"k", b"v", list(more), now_ms - age) for age in ages_ms])
    await at(node, node.node.gateway.produce({where: batch}, ProduceOptions(-1, 10_000)))


def test_a_queue_with_an_age_hands_out_nothing_older():
    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "dlq.t", configs=LETTERS)
        where = await source(cluster, records=1)
        await written(cluster, where, [60_000, 0, 60_000, 0])
        await written(cluster, where, [70_000] * 5)
        await written(cluster, where, [0])
        await configure(cluster, {TOPIC: "dlq.t", "share.record.expiry.ms": "50000"})
        member = Member(cluster, where)
        assert await member.got(records=2, mode=1) == [(2, 2, 1)], "0 is of 1970"
        assert await member.got(records=2, mode=1) == [(4, 4, 1)]
        assert await member.got(records=2, mode=1) == [(10, 10, 1)], "all of the batch before were too old"
        assert await member.acknowledge((2, 2, ACCEPT), (4, 4, ACCEPT), (10, 10, ACCEPT)) == 0

        async def all_there() -> bool:
            return len(await letters(cluster)) == 8

        await until(all_there)
        assert {dict(each.headers)["__dlq.errors.message"] for each in await letters(cluster)} == {
            b"Record expired before it was handed out."
        }

    play(story, **SETTINGS)


def test_a_record_with_a_time_expires_while_it_waits():
    async def story(cluster: SimulatedCluster) -> None:
        where = await source(cluster, records=0, configs={"min.insync.replicas": "1", "record.expiry.enable": "true"})
        await written(cluster, where, [0, 0], expires=5_000)
        member = Member(cluster, where)
        assert await member.got(records=1, mode=1) == [(0, 0, 1)]
        await cluster.alive[0].machine.environment.clock.sleep(6_000)
        assert await member.got() == []
        assert await member.acknowledge((0, 0, ACCEPT)) == 0, "it was handed out in time"

    play(story, **SETTINGS)
