"""Requests of a Kafka client made to fail on its links, one API at a time, in front of real brokers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError

from kraft.chaos.worlds.processes.cluster import Cluster
from kraft.chaos.worlds.processes.requests import RequestFilter
from kraft.chaos.worlds.spec import ClusterSpec, ScenarioError

TOPIC = "orders"
PATIENCE_MS = 30_000
Story = Callable[[Cluster], Awaitable[None]]


def play(story: Story, directory: Path) -> None:
    async def main() -> None:
        spec = ClusterSpec.of(3, settings={"group.initial.rebalance.delay.ms": 0})
        async with Cluster.start(spec, directory=directory, seed=1, is_open_outside=True) as cluster:
            await cluster.admin.create_topic(TOPIC, assignment=[[1, 2, 3]])
            await story(cluster)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def bootstrap(c: Cluster) -> str:
    return ",".join(c.outside.values())


@asynccontextmanager
async def producing(c: Cluster, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap(c), acks="all", request_timeout_ms=PATIENCE_MS, retry_backoff_ms=20, **options
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def consuming(c: Cluster, *topics: str, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        *topics, bootstrap_servers=bootstrap(c), auto_offset_reset="earliest", enable_auto_commit=False, **options
    )
    try:
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


async def values(c: Cluster, count: int) -> list[bytes]:
    """Of the topic, from its beginning to its end."""
    async with consuming(c) as consumer:
        partition = TopicPartition(TOPIC, 0)
        consumer.assign([partition])
        (end,) = (await consumer.end_offsets([partition])).values()
        found: list[bytes] = []
        while await consumer.position(partition) < end:
            batches = await consumer.getmany(partition, timeout_ms=PATIENCE_MS)
            found += [record.value for batch in batches.values() for record in batch]
    assert len(found) == end == count
    return found


@pytest.mark.long
def test_faults_of_requests_of_outside_clients(tmp_path: Path) -> None:
    async def story(c: Cluster) -> None:
        await is_led_to_links(c)
        await retries_what_the_link_refused(c)
        await repeats_what_was_carried_out(c)
        await waits_for_a_delayed_answer(c)
        await hits_only_its_topic_and_client(c)
        await refuses_a_group(c)
        await is_asked_for_what_can_be_done(c)

    play(story, tmp_path)


async def is_led_to_links(c: Cluster) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=c.outside[1])
    await admin.start()
    try:
        found = await admin.describe_cluster()
        assert {each["node_id"]: f"{each['host']}:{each['port']}" for each in found["brokers"]} == dict(c.outside)
        await admin.find_coordinator("g")
    finally:
        await admin.close()


async def retries_what_the_link_refused(c: Cluster) -> None:
    fault = await c.requests.answer("Produce", error="NOT_LEADER_OR_FOLLOWER", times=3)
    async with producing(c) as producer:
        sent = await producer.send_and_wait(TOPIC, b"1")
    await c.requests.heal()
    assert (sent.offset, fault.times, fault.is_over) == (0, 3, True)
    assert await values(c, 1) == [b"1"], "no broker got the three before"


async def repeats_what_was_carried_out(c: Cluster) -> None:
    """What nobody was told of is written twice, unless the producer is idempotent."""
    await c.requests.drop_answer("Produce")
    async with producing(c) as producer:
        await producer.send_and_wait(TOPIC, b"2")
    fault = await c.requests.drop_answer("Produce")
    async with producing(c, enable_idempotence=True) as producer:
        await producer.send_and_wait(TOPIC, b"3")
    await c.requests.heal()
    assert fault.times == 1
    assert await values(c, 4) == [b"1", b"2", b"2", b"3"]


async def waits_for_a_delayed_answer(c: Cluster) -> None:
    loop = asyncio.get_running_loop()
    fault = await c.requests.delay("Metadata", ms=300, times=1)
    begun = loop.time()
    async with producing(c) as producer:
        await producer.partitions_for(TOPIC)
    await c.requests.heal()
    assert fault.times == 1
    assert round(loop.time() - begun, 3) >= 0.3


async def hits_only_its_topic_and_client(c: Cluster) -> None:
    """aiokafka commits by name, and fetches by it."""
    await c.admin.create_topic("flights", assignment=[[1, 2, 3]])
    refused = await c.requests.answer(
        "Produce", error="TOPIC_AUTHORIZATION_FAILED", times=None, which=RequestFilter(topic="flights", client_id="a")
    )
    async with producing(c, client_id="a") as one, producing(c, client_id="b") as other:
        with pytest.raises(TopicAuthorizationFailedError):
            await one.send_and_wait("flights", b"x")
        await other.send_and_wait("flights", b"x")
        await one.send_and_wait(TOPIC, b"4")
    await c.requests.heal()
    assert refused.times == 1


async def refuses_a_group(c: Cluster) -> None:
    fault = await c.requests.answer("JoinGroup", error=30)
    with pytest.raises(GroupAuthorizationFailedError):
        async with consuming(c, TOPIC, group_id="g") as consumer:
            await consumer.getone()
    closed = await c.requests.close_after("OffsetCommit")
    async with consuming(c, TOPIC, group_id="g") as consumer:
        await consumer.getone()
        await consumer.commit()
        await consumer.commit()
        assert await consumer.committed(TopicPartition(TOPIC, 0)) == 1
    await c.requests.heal()
    assert (fault.times, closed.times) == (1, 1)


async def is_asked_for_what_can_be_done(c: Cluster) -> None:
    with pytest.raises(ScenarioError, match="Vote"):
        await c.requests.answer("Vote", error=6)
    with pytest.raises(ScenarioError, match="names no topics"):
        await c.requests.drop_answer("Heartbeat", which=RequestFilter(topic=TOPIC))
    with pytest.raises(ScenarioError, match="1 or more"):
        await c.requests.drop_answer("Heartbeat", times=0)
    with pytest.raises(ScenarioError, match="no broker"):
        await c.requests.drop_answer("Heartbeat", which=RequestFilter(node=9))
    assert not c.requests.open
    assert [fault.times for fault in c.requests.done] == [3, 1, 1, 1, 1, 1, 1]
    c.requests.forget()
    assert not c.requests.done
    reported = [fault for fault in c.timeline.faults if fault.fault != "delete_topic"]
    assert [fault.text for fault in reported][:2] == [
        "answered Produce with NOT_LEADER_OR_FOLLOWER 3 times",
        "dropped answers to Produce once",
    ]
    assert all(fault.until_us for fault in reported)
