"""The producer under virtual time: batches, order, room, repetitions, and exactly one result for every record."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from kraft.client.connection import Connection
from kraft.client.errors import BufferExhausted, ClientClosed, KraftError, RecordRefused, RecordUnknown, ServerError
from kraft.client.producer import AsyncProducer
from kraft.client.records import Sent
from kraft.client.response import Answer, Refused, Unknown
from kraft.client.settings import parse_producer
from kraft.protocol.batches.header import header_at
from kraft.protocol.partitioner import partition_of_key
from tests.unit.client.fake_cluster import FakeCluster, entry_refusal, refusal, run


def producer(connection: Connection, **options: Any) -> AsyncProducer:
    return AsyncProducer(connection, parse_producer(options))


def batch_counts(cluster: FakeCluster) -> list[int]:
    return [header_at(request.body).record_count for _, request in cluster.produces]


def test_records_that_come_within_linger_go_together_to_the_leader() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        async with producer(connection, linger_ms=20) as it:
            sent = [await it.send("t", str(n), partition=1) for n in range(5)]
            deliveries = [await each for each in sent]
        assert [(d.partition, d.offset) for d in deliveries] == [(1, n) for n in range(5)]
        assert batch_counts(cluster) == [5]
        assert [node for node, _ in cluster.produces] == [2], "the leader of partition 1"

    run(story)


def test_a_record_alone_leaves_when_linger_is_over() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        await connection.topic("t")
        it = producer(connection, linger_ms=20)
        begun = cluster.clock.monotonic_ms()
        await (await it.send("t", "x"))
        assert 20 <= cluster.clock.monotonic_ms() - begun <= 23
        await it.close()

    run(story)


def test_a_full_batch_does_not_linger_and_flush_ends_the_wait() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        await connection.topic("t")
        it = producer(connection, linger_ms=10_000, batch_size=300)
        begun = cluster.clock.monotonic_ms()
        sent = [await it.send("t", b"x" * 100, partition=0) for _ in range(3)]
        await sent[0]
        await it.send("t", "alone", partition=0)
        await it.flush()
        assert cluster.clock.monotonic_ms() - begun < 100
        assert it.buffered_bytes == 0
        await it.close()

    run(story)


def test_while_a_batch_is_on_its_way_the_next_grows_and_the_order_stays() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        cluster.latency_ms = 50
        async with producer(connection, linger_ms=0, batch_size=200) as it:
            for n in range(100):
                await it.send("t", str(n), partition=0)
                await cluster.clock.sleep(1)
        assert cluster.log("t", 0) == [str(n).encode() for n in range(100)]
        assert len(cluster.produces) <= 6
        assert cluster.busiest[1, "/topics/t/partitions/0"] == 1, "one batch of a partition at a time"

    run(story)


def test_batch_size_zero_sends_each_record_alone() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        async with producer(connection, batch_size=0) as it:
            for n in range(4):
                await it.send("t", str(n), partition=0)
        assert batch_counts(cluster) == [1, 1, 1, 1]

    run(story)


def test_a_node_takes_no_more_requests_at_once_than_in_flight_allows() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        cluster.topics["wide"] = [1] * 10
        cluster.latency_ms = 20
        async with producer(connection, linger_ms=0, max_in_flight_requests_per_connection=3) as it:
            for n in range(10):
                await it.send("wide", "x", partition=n)
            await cluster.clock.sleep(60)
            under_way = sum(cluster._under_way.get((1, f"/topics/wide/partitions/{n}"), 0) for n in range(10))
            assert under_way == 3
        assert sum(len(cluster.log("wide", n)) for n in range(10)) == 10

    run(story)


def test_lost_answer_is_repeated_with_same_key() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        cluster.faults.append(lambda *_: None)
        async with producer(connection) as it:
            delivery = await it.send_and_wait("t", "x", partition=0)
        assert (delivery.offset, cluster.log("t", 0)) == (0, [b"x"])
        (_, first), (_, second) = cluster.produces
        assert first.body == second.body
        assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
        assert it.counts.attempts == 2

    run(story)


def test_without_idempotence_a_lost_answer_can_write_twice_as_in_kafka() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        cluster.faults.append(lambda *_: None)
        async with producer(connection, enable_idempotence=False) as it:
            await it.send_and_wait("t", "x", partition=0)
        assert cluster.log("t", 0) == [b"x", b"x"]
        assert "Idempotency-Key" not in cluster.produces[0][1].headers

    run(story)


def test_each_batch_has_a_key_of_its_own() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        async with producer(connection, batch_size=0) as it, producer(connection, batch_size=0) as other:
            for n in range(20):
                await (it if n % 2 else other).send("t", "x", partition=n % 3)
        keys = [request.headers["Idempotency-Key"] for _, request in cluster.produces]
        assert len(set(keys)) == 20

    run(story)


def test_a_dead_leader_is_left_for_the_new_one_without_a_pause() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        it = producer(connection, linger_ms=0)
        await it.send_and_wait("t", "before", partition=0)
        cluster.dead.add(1)
        cluster.topics["t"] = [2, 2, 3]
        begun = cluster.clock.monotonic_ms()
        await it.send_and_wait("t", "after", partition=0)
        assert cluster.clock.monotonic_ms() - begun < 50
        await it.close()
        assert cluster.log("t", 0) == [b"before", b"after"]

    run(story)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (entry_refusal(87), RecordRefused),
        (entry_refusal(17), RecordRefused),
        (refusal(404, 40401, 3), RecordRefused),
        (entry_refusal(20), RecordUnknown),
        (entry_refusal(7), RecordUnknown),
        (entry_refusal(-1), RecordUnknown),
        (Unknown(reason="broke"), RecordUnknown),
        (Refused(reason="refused"), RecordRefused),
        (refusal(503, 50302, 5), RecordRefused),
        (Answer(status=503, headers={"retry-after": "1"}, body=b""), RecordRefused),
        (Answer(status=500, headers={}, body=b"oops"), RecordUnknown),
    ],
)
def test_without_retries_one_attempt_decides(fault: Any, expected: type[KraftError]) -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        cluster.faults.append(lambda *_: fault)
        it = producer(connection, retries=0)
        sent = await it.send("t", "x", partition=0)
        with pytest.raises(expected):
            await sent
        assert len(cluster.produces) == 1
        await it.close()

    run(story)


def test_refusal_after_lost_answer_is_unknown() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        cluster.faults += [lambda *_: None, lambda *_: entry_refusal(87)]
        it = producer(connection)
        with pytest.raises(RecordUnknown):
            await it.send_and_wait("t", "x", partition=0)
        await it.close()

    run(story)


def test_delivery_timeout_ends_the_repetitions_and_also_those_who_wait_behind() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        cluster.faults += [lambda *_: entry_refusal(19)] * 1_000
        it = producer(connection, delivery_timeout_ms=3_000, request_timeout_ms=1_000, linger_ms=0, batch_size=0)
        begun = cluster.clock.monotonic_ms()
        sent = [await it.send("t", str(n), partition=0) for n in range(3)]
        for each in sent:
            with pytest.raises(RecordRefused):
                await each
        assert cluster.clock.monotonic_ms() - begun <= 3_100
        assert it.counts.refused == 3
        assert it.buffered_bytes == 0
        await it.close()

    run(story)


def test_a_batch_too_large_for_its_topic_goes_in_halves_and_keeps_its_order() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        cluster.max_message_bytes = 400
        async with producer(connection) as it:
            sent = [await it.send("t", f"{n:050}", partition=0) for n in range(16)]
            assert [(await each).offset for each in sent] == list(range(16))
        assert cluster.log("t", 0) == [f"{n:050}".encode() for n in range(16)]

    run(story)


def test_one_record_too_large_is_refused_by_the_topic_or_by_max_request_size() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        cluster.max_message_bytes = 400
        it = producer(connection, max_request_size=2_000)
        for size, requests in ((1_000, 1), (3_000, 0)):
            before = len(cluster.produces)
            with pytest.raises(RecordRefused) as caught:
                await it.send_and_wait("t", b"x" * size)
            assert caught.value.code == 10
            assert len(cluster.produces) - before == requests
        await it.close()

    run(story)


def test_full_buffer_blocks_send_until_max_block() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        cluster.latency_ms = 100
        it = producer(connection, buffer_memory=1_000, linger_ms=0, max_block_ms=1_000)
        for _ in range(10):
            await it.send("t", b"x" * 400, partition=0)
            assert it.buffered_bytes <= 1_000
        await it.flush()
        cluster.latency_ms = 5_000
        await it.send("t", b"x" * 400, partition=1)
        await it.send("t", b"x" * 400, partition=1)
        with pytest.raises(BufferExhausted, match=r"max\.block\.ms=1000"):
            await it.send("t", b"x" * 400, partition=1)
        with pytest.raises(BufferExhausted, match="never fits"):
            await it.send("t", b"x" * 1_001, partition=1)
        await it.close()
        assert it.counts.acknowledged == sum(map(len, cluster.logs.values()))
        assert it.buffered_bytes == 0

    run(story)


def test_those_who_wait_for_room_get_it_in_turn() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        cluster.latency_ms = 50
        it = producer(connection, buffer_memory=500, linger_ms=0)
        order: list[int] = []

        async def send(n: int, size: int) -> None:
            await it.send("t", b"x" * size, partition=0)
            order.append(n)

        await asyncio.gather(*(send(n, size) for n, size in enumerate((300, 450, 20, 20, 450))))
        assert order == [0, 1, 2, 3, 4]
        await it.close()

    run(story)


def test_a_close_that_has_no_time_gives_every_record_a_result() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        await connection.topic("t")
        cluster.latency_ms = 10_000
        it = producer(connection, linger_ms=0, batch_size=0)
        sent = [await it.send("t", "x", partition=0) for _ in range(3)]
        await cluster.clock.sleep(10)
        await it.close(timeout_ms=100)
        assert [each.is_done for each in sent] == [True] * 3
        assert (it.counts.unknown, it.counts.refused) == (1, 2)
        with pytest.raises(RecordUnknown):
            await sent[0]
        with pytest.raises(RecordRefused):
            await sent[1]
        with pytest.raises(ClientClosed):
            await it.send("t", "late")

    run(story)


def test_an_error_in_the_block_ends_the_producer_at_once() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        sent: list[Sent] = []

        async def fails() -> None:
            async with producer(connection, linger_ms=60_000) as it:
                sent.append(await it.send("t", "x"))
                raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            await fails()
        with pytest.raises(RecordRefused):
            await sent[0]

    run(story)


def test_acks_zero_is_acknowledged_without_an_offset() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        cluster.faults.append(lambda *_: Answer(status=202, headers={}, body=b'{"offsets": []}'))
        async with producer(connection, acks=0) as it:
            assert (await it.send_and_wait("t", "x")).offset == -1
        assert "acks=0" in cluster.produces[0][1].path

    run(story)


def test_an_unknown_topic_and_an_unknown_partition_are_refused_by_send() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        it = producer(connection)
        with pytest.raises(ServerError) as caught:
            await it.send("none", "x")
        assert caught.value.code == 3
        with pytest.raises(KraftError, match="it has 3, from 0"):
            await it.send("t", "x", partition=3)
        await it.close()

    run(story)


def test_a_topic_that_comes_into_being_meanwhile_is_found() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        it = producer(connection)
        sending = asyncio.get_running_loop().create_task(it.send_and_wait("new", "x"))
        await cluster.clock.sleep(500)
        cluster.topics["new"] = [3]
        assert (await sending).offset == 0
        await it.close()

    run(story)


def test_a_cancelled_waiter_takes_no_result_from_the_others() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        async with producer(connection) as it:
            sent = await it.send("t", "x")

            async def wait() -> int:
                return (await sent).offset

            first, second = (asyncio.get_running_loop().create_task(wait()) for _ in range(2))
            await asyncio.sleep(0)
            first.cancel()
            assert await second == 0
            seen: list[int] = []
            sent.add_done_callback(lambda each: seen.append(each.result().offset))
            assert seen == [0]

    run(story)


def test_partitioner_with_and_without_key() -> None:
    async def story(cluster: FakeCluster, connection: Connection) -> None:
        keys = ("a", "b", "JFK", "LGA")
        async with producer(connection, batch_size=500) as it:
            keyed = [await it.send("t", "x", key=key) for key in keys]
            keyless = [await it.send("t", b"x" * 80) for _ in range(60)]
        assert [each.partition for each in keyed] == [partition_of_key(key.encode(), 3) for key in keys]
        partitions = [each.partition for each in keyless]
        assert set(partitions) == {0, 1, 2}
        changes = sum(a != b for a, b in itertools.pairwise(partitions))
        assert 9 <= changes <= 12, "it stays with one for batch.size bytes"

    run(story)
