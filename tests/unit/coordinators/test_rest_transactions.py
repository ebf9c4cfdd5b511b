"""What REST asks of nodes for a transaction, on three simulated ones: any of them, and again after a lost answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from kraft.broker.consumer_fetch import readable_batches
from kraft.chaos.worlds.simulated.cluster import SimulatedCluster, SimulatedNode
from kraft.coordinators.groups import answers as a
from kraft.coordinators.groups import requests as r
from kraft.coordinators.transactions.routing import Transactions
from kraft.protocol.batches.markers import Marker
from kraft.protocol.batches.records import read_batches
from kraft.protocol.errors import (
    InvalidProducerEpoch,
    InvalidRequest,
    KafkaError,
    OutOfOrderSequenceNumber,
    for_code,
)
from kraft.protocol.transactions import MarkersToWrite, Producer
from metadata.image import TopicIdPartition
from replication.requests import ActiveProducer, ProduceOptions, ProduceOutcome, ReadOptions
from tests.unit.coordinators.test_coordinator_cluster import ask, instance
from tests.unit.coordinators.test_transaction_cluster import DEADLINE_S, create, eventually, play, until
from tests.unit.coordinators.test_transactional_writes import batch, leader_of


def transactions(node: SimulatedNode) -> Transactions:
    assert node.node is not None
    return node.node.transactions


async def run(node: SimulatedNode, wanted: Any) -> Any:
    return await node.machine.run(wanted)


async def produce(
    node: SimulatedNode, key: TopicIdPartition, data: bytes, *, transactional_id: str = "id"
) -> ProduceOutcome:
    assert node.node is not None
    gateway = node.node.gateway
    outcomes = await run(node, gateway.produce({key: data}, ProduceOptions(-1, 10_000, transactional_id)))
    found: ProduceOutcome = outcomes[key]
    return found


async def committed(node: SimulatedNode, key: TopicIdPartition) -> list[bytes | None]:
    """As REST reads it, up to the end of the log."""
    assert node.node is not None
    found = await run(
        node,
        node.node.gateway.read(key, 0, ReadOptions(bytes_max=1_000_000, is_read_committed=True)),
    )
    values = []
    for position, header, is_readable in readable_batches(found.data, found.aborted):
        if is_readable:
            values += [each.value for each in read_batches(found.data[position : position + header.size])]
    return values if found.end_offset == found.high_watermark else [b"open"]


def test_any_node_takes_any_verb_and_knows_it_again() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        key = await create(cluster, "a")
        nodes = [each for each in cluster.alive if each.node is not None]
        producer = await run(nodes[0], transactions(nodes[0]).init("id", timeout_ms=60_000))
        for commits in (True, False):
            for sequence in (0, 1):
                outcomes = [await produce(each, key, batch(producer, sequence, b"%d" % commits)) for each in nodes]
                assert {each.error_code for each in outcomes} == {0}, outcomes
                assert len({each.base_offset for each in outcomes}) == 1, "written once, wherever it was asked for"
            for each in nodes:
                other = await produce(each, key, batch(producer, 1, b"another"))
                assert other.error_code == OutOfOrderSequenceNumber.code, "nobody may take these for written"
                assert "sequence 1 and other records" in other.message
            following = [await run(node, transactions(node).end("id", producer, is_commit=commits)) for node in nodes]
            assert following == [Producer(producer.producer_id, producer.epoch + 1)] * 3
            for each in nodes:

                async def shows(node: SimulatedNode = each) -> bool:
                    return await committed(node, key) == [b"1", b"1"]

                await until(shows)
            late = await produce(nodes[1], key, batch(producer, 2))
            assert late.error_code == InvalidProducerEpoch.code, "its transaction is over"
            producer = following[0]

    play(story)


async def patiently(ask: Callable[[], Awaitable[Any]]) -> Any:
    """As a client: what it is told to try again it tries again."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await ask()
            except KafkaError as error:
                if not error.retriable:
                    raise
            await asyncio.sleep(0.2)


def is_whole(cluster: SimulatedCluster, key: TopicIdPartition) -> bool:
    """All replicas are in sync, as every node knows it."""
    return all((found := cluster.partition(node, key)) is not None and len(found.isr) == 3 for node in cluster.alive)


@pytest.mark.parametrize("victim", ["coordinator", "leader"])
def test_each_verb_is_known_again_after_the_death_of_a_node(victim: str) -> None:
    """The first answer is taken for lost: a node is killed right after it, and another one is asked again."""

    async def story(cluster: SimulatedCluster) -> None:
        key = await create(cluster, "a")
        await ask(cluster.alive[0], r.FetchOffsets(group="g"))  # the topic of the groups is there

        async def twice(verb: Callable[[SimulatedNode], Awaitable[Any]]) -> Any:
            any_node = cluster.alive[0]
            first = await patiently(lambda: verb(any_node))
            found = await run(any_node, transactions(any_node).coordinator_of("id"))
            node = cluster.nodes[found] if victim == "coordinator" else await leader_of(cluster, key)
            node.kill()
            again = await patiently(lambda: verb(cluster.alive[-1]))
            assert again == first
            await node.start()
            await eventually(lambda: len(cluster.alive) == 3)
            await eventually(lambda: is_whole(cluster, key))
            return first

        async def begin(node: SimulatedNode, timeout_ms: int = 600_000) -> Any:
            return await run(node, transactions(node).init("id", timeout_ms=timeout_ms, key=b"first"))

        producer = await twice(begin)
        for node in cluster.alive:
            with pytest.raises(InvalidRequest, match="600000, not 60000"):
                await patiently(lambda node=node: begin(node, 60_000))  # type: ignore[misc]
        for commits in (True, False):
            named = {"transactional_id": "id", "producer_id": producer.producer_id, "producer_epoch": producer.epoch}
            for sequence in (0, 1):
                data = batch(producer, sequence, b"%d" % commits)

                async def write(node: SimulatedNode, data: bytes = data) -> int:
                    outcome = await produce(node, key, data)
                    if outcome.error_code:
                        raise for_code(outcome.error_code, outcome.message)
                    return outcome.base_offset

                await twice(write)
            offsets = (r.OffsetToCommit("a", 0, 7 if commits else 9),)
            asked = r.CommitInTransaction(group="g", adds_partition=True, offsets=offsets, **named)
            await twice(lambda node, asked=asked: ask(node, asked))  # type: ignore[misc]

            async def end(node: SimulatedNode, whose: Producer = producer, commits: bool = commits) -> Any:
                return await run(node, transactions(node).end("id", whose, is_commit=commits))

            producer = await twice(end)
            for each in cluster.alive:

                async def shows(node: SimulatedNode = each) -> bool:
                    return await committed(node, key) == [b"1", b"1"]

                await until(shows)

        async def offset() -> bool:
            (row,) = (await ask(cluster.alive[0], r.FetchOffsets(group="g", requires_stable=True))).offsets
            assert row.is_unstable or row.offset == 7, row
            return not row.is_unstable

        await until(offset)

    play(story)


def test_operators_see_and_end_what_is_open_by_way_of_any_node() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        key = await create(cluster, "a")
        nodes = [each for each in cluster.alive if each.node is not None]
        producer = await run(nodes[0], transactions(nodes[0]).init("id", timeout_ms=600_000))
        assert (await produce(nodes[0], key, batch(producer))).error_code == 0
        leader = await leader_of(cluster, key)

        async def begun(node: SimulatedNode) -> list[tuple[int, int, int]]:
            assert node.node is not None
            found: Sequence[ActiveProducer] = await run(node, node.node.gateway.producers(key))
            return [(each.producer_id, each.producer_epoch, each.transaction_start_offset) for each in found]

        for node in nodes:
            assert await begun(node) == [(producer.producer_id, producer.epoch, 0)]
        gauges = [each.node.broker.transaction_coordinator.gauges() for each in nodes if each.node.broker]
        assert sum(each["transactions_ongoing"] for each in gauges) == 1
        assert sum(each["transactional_ids"] for each in gauges) == 1
        marker = MarkersToWrite(
            producer.producer_id, producer.epoch, Marker(is_commit=False, coordinator_epoch=0), frozenset({("a", 0)})
        )
        far = next(each for each in nodes if each is not leader)
        assert far.node is not None
        assert leader.node is not None
        assert await run(far, far.node.markers.write(leader.node.node.id, [marker])) == [{("a", 0): 0}]
        for node in nodes:
            assert await begun(node) == [(producer.producer_id, producer.epoch, -1)]
            assert await committed(node, key) == []

    play(story)


def test_a_batch_without_a_transaction_does_not_hide_in_one() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        key = await create(cluster, "a")
        leader = await leader_of(cluster, key)
        producer = Producer(7, 0)
        for node in cluster.alive:
            outcome = await produce(node, key, batch(producer, is_transactional=False))
            assert outcome.error_code == 87, outcome
            outcome = await produce(node, key, batch(producer))
            assert outcome.error_code in (47, 49), outcome
        assert await committed(leader, key) == []

    play(story)


@pytest.mark.parametrize("commits", [True, False])
def test_what_a_rest_consumer_has_read_is_committed_with_the_transaction(commits: bool) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        key = await create(cluster, "a")
        nodes = [each for each in cluster.alive if each.node is not None]
        first, second = nodes[0], nodes[1]
        assert first.node is not None
        assert second.node is not None
        producer = await run(first, first.node.transactions.init("id", timeout_ms=60_000))
        assert isinstance(await ask(first, instance("g", "i", auto_commit=False)), a.Taken)
        await ask(first, r.AssignInstance(group="g", instance="i", partitions=(("a", 0),)))
        await ask(first, r.Seek(group="g", instance="i", positions=(("a", 0, 5),)))
        assert (await produce(first, key, batch(producer))).error_code == 0
        named = {"transactional_id": "id", "producer_id": producer.producer_id, "producer_epoch": producer.epoch}
        for node in nodes:
            answer = await ask(node, r.CommitInstanceInTransaction(group="g", instance="i", **named))
            assert isinstance(answer, a.Taken), answer

        async def offset(*, stable: bool) -> tuple[int, bool]:
            asked = r.FetchOffsets(group="g", partitions=(("a", 0),), requires_stable=stable)
            (row,) = (await ask(second, asked)).offsets
            return row.offset, row.is_unstable

        for name, is_committed in (("careful", True), ("careless", False)):
            await ask(second, instance("g", name, is_read_committed=is_committed))
            await ask(second, r.AssignInstance(group="g", instance=name, partitions=(("a", 0),)))

        async def begins_at(name: str) -> tuple[r.Range, ...]:
            plan = await ask(second, r.BeginPoll(group="g", instance=name, wait_ms=0))
            return tuple(plan.ranges)

        assert await begins_at("careful") == (), "not before it is known where"
        assert await begins_at("careless") == (("a", 0, -1, -1),)
        assert await offset(stable=True) == (-1, True)
        assert await offset(stable=False) == (-1, False)
        await run(second, second.node.transactions.end("id", producer, is_commit=commits))

        async def is_stable() -> bool:
            return not (await offset(stable=True))[1]

        await until(is_stable)
        assert await offset(stable=True) == (5 if commits else -1, False)
        assert await begins_at("careful") == (("a", 0, 5 if commits else -1, -1),)
        gone = await ask(second, r.CommitInstanceInTransaction(group="g", instance="nobody", **named))
        assert isinstance(gone, a.Refused)
        assert gone.code == 40403

    play(story)


def test_a_rest_consumer_adds_offsets_of_its_own_partitions_only() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "a")
        node = cluster.alive[0]
        assert node.node is not None
        producer = await run(node, node.node.transactions.init("id", timeout_ms=60_000))
        await ask(node, instance("g", "i", auto_commit=False))
        await ask(node, r.Subscribe(group="g", instance="i", topics=("a",)))

        async def is_assigned() -> bool:
            return bool((await ask(node, r.DescribeInstance(group="g", instance="i"))).partitions)

        await until(is_assigned)
        named = {"transactional_id": "id", "producer_id": producer.producer_id, "producer_epoch": producer.epoch}

        async def add(partition: int) -> Any:
            offsets = (r.OffsetToCommit("a", partition, 1),)
            return await ask(node, r.CommitInstanceInTransaction(group="g", instance="i", offsets=offsets, **named))

        refused = await add(1)
        assert isinstance(refused, a.Refused)
        assert (refused.code, refused.kafka_code) == (40903, 22)
        assert isinstance(await add(0), a.Taken)

    play(story)
