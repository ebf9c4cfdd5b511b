"""A partition of transactional ids on three real brokers: written, replicated, loaded by the next leader."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

import pytest

from kraft.broker.txn_markers import WriteMarkers
from kraft.coordinators.shard import CoordinatorContext
from kraft.coordinators.transactions.coordinator import TransactionCoordinator
from kraft.coordinators.transactions.decide import AddPartitions, EndTransaction, InitProducer
from kraft.coordinators.transactions.shard import TransactionShard
from kraft.coordinators.transactions.state import EPOCH_MAX, LAST_CLIENT_EPOCH, Phase, Transaction
from kraft.protocol.errors import (
    ConcurrentTransactions,
    CoordinatorLoadInProgress,
    CoordinatorNotAvailable,
    KafkaError,
    NotCoordinator,
)
from kraft.protocol.transactions import MarkersToWrite, Producer
from metadata.image import TopicIdPartition
from metadata.settings import TopicSettings
from tests.unit.replication.harness.virtual import environment, run
from tests.unit.wire.handlers.brokers import Brokers, ProducerIds

TOPIC = "__transaction_state"
T0 = frozenset({("t", 0)})


class GatedIds(ProducerIds):
    """Blocks of ids that come when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.gives_none = False

    async def next_id(self) -> int:
        await self.may_go.wait()
        if self.gives_none:
            raise CoordinatorLoadInProgress("the controller gave no producer ids")
        return await super().next_id()


class World:
    def __init__(self, cluster: Brokers, key: TopicIdPartition) -> None:
        self._cluster = cluster
        self._key = key
        self.ids = GatedIds()
        self.prepared: list[Transaction] = []
        self.failed: list[TransactionShard] = []
        self.ids_elsewhere = 0
        """Of other partitions that the same broker leads."""

    def context(self, node_id: int) -> CoordinatorContext:
        return CoordinatorContext(
            node_id=node_id,
            environment=environment(node_id),
            replicas=self._cluster.nodes[node_id].manager,
            settings=lambda: self._cluster.settings,
            topic_settings=lambda _: TopicSettings(),
            image=lambda: self._cluster.image,
            has_session=lambda: True,
        )

    def shard(self, node_id: int) -> TransactionShard:
        shard = TransactionShard(
            self._key,
            self._cluster.partition(self._key).leader_epoch,
            self.context(node_id),
            ids_of_node=lambda: self.ids_elsewhere + len(shard.transactions),
            new_producer_id=self.ids.next_id,
            on_prepared=lambda shard, transaction: self.prepared.append(transaction),
            on_failed=self.failed.append,
        )
        return shard

    async def loaded(self, node_id: int) -> TransactionShard:
        shard = self.shard(node_id)
        unreadable: list[int] = []
        await shard.load(lambda offset, reason: unreadable.append(offset))
        assert not unreadable
        return shard


def play(story: Callable[[Brokers, World], Awaitable[None]], **settings: Any) -> None:
    async def whole() -> None:
        async with Brokers(**settings) as cluster:
            key = cluster.create(TOPIC, cleanup_policy="compact")
            await story(cluster, World(cluster, key))

    run(whole())


async def init(shard: TransactionShard, name: str = "a", **how: Any) -> Producer:
    reply = await shard.ask(name, InitProducer(timeout_ms=how.pop("timeout_ms", 60_000), timeout_ms_max=900_000, **how))
    assert isinstance(reply, Producer)
    return reply


async def begin(shard: TransactionShard, producer: Producer, name: str = "a") -> None:
    await shard.ask(name, AddPartitions(producer=producer, partitions=T0, client_version=2))


async def end(shard: TransactionShard, producer: Producer, *, commits: bool = True, name: str = "a") -> Producer:
    reply = await shard.ask(name, EndTransaction(producer=producer, is_commit=commits, client_version=2))
    assert isinstance(reply, Producer)
    return reply


def test_a_transaction_goes_from_its_producer_to_its_markers() -> None:
    async def story(cluster: Brokers, world: World) -> None:
        shard = world.shard(1)
        with pytest.raises(CoordinatorLoadInProgress):
            shard.check()
        assert await shard.load(cast(Any, None)) == 0
        producer = await init(shard)
        assert producer == Producer(1_001, 0)
        await begin(shard, producer)
        assert not world.prepared
        assert await end(shard, producer) == Producer(1_001, 1)
        (prepared,) = world.prepared
        assert (prepared.phase, prepared.partitions) == (Phase.PREPARE_COMMIT, T0)
        with pytest.raises(ConcurrentTransactions):
            await init(shard)
        await shard.markers_written(prepared)
        assert shard.transactions["a"].phase is Phase.COMPLETE_COMMIT
        assert await end(shard, producer) == Producer(1_001, 1), "asked again"
        assert await init(shard) == Producer(1_001, 2)
        await shard.markers_written(prepared)
        assert shard.transactions["a"].phase is Phase.EMPTY, "that one was over"

    play(story)


def test_the_next_leader_knows_all_and_goes_on_with_the_markers() -> None:
    async def story(cluster: Brokers, world: World) -> None:
        shard = await world.loaded(1)
        for name in ("a", "b", "c"):
            await begin(shard, await init(shard, name), name)
        await end(shard, Producer(1_001, 0), name="a")
        before = dict(shard.transactions)
        cluster.elect(world._key, 2, (1, 2, 3))
        again = await world.loaded(2)
        assert {name: (each.phase, each.epoch, each.partitions) for name, each in again.transactions.items()} == {
            name: (each.phase, each.epoch, each.partitions) for name, each in before.items()
        }
        assert [each.transactional_id for each in world.prepared] == ["a", "a"]
        with pytest.raises(NotCoordinator):
            await init(shard, "d")
        assert world.failed == [shard]
        await again.markers_written(world.prepared[-1])
        assert again.transactions["a"].phase is Phase.COMPLETE_COMMIT

    play(story)


def test_nothing_is_prepared_that_is_not_replicated() -> None:
    async def story(cluster: Brokers, world: World) -> None:
        shard = await world.loaded(1)
        producer = await init(shard)
        await begin(shard, producer)
        cluster.cut = {(2, 1), (3, 1)}
        ending = asyncio.ensure_future(end(shard, producer))
        await asyncio.sleep(1)
        assert not world.prepared
        assert not ending.done()
        with pytest.raises(KafkaError):
            await ending
        assert not world.prepared, "it was not replicated in time"
        assert world.failed == [shard]
        assert shard.has_ended

    play(story, replica_lag_time_max_ms=600_000)


def test_too_few_replicas_refuse_what_is_new_and_end_no_shard() -> None:
    async def story(cluster: Brokers, world: World) -> None:
        shard = await world.loaded(1)
        producer = await init(shard, timeout_ms=10_000)
        await begin(shard, producer)
        before = dict(shard.transactions)
        cluster.cut = {(2, 1), (3, 1)}
        cluster.change_isr(world._key, (1,))
        for asked in (init(shard, "b"), end(shard, producer)):
            with pytest.raises(CoordinatorNotAvailable, match=r"cannot be replicated: .* asks for 2"):
                await asked
        await asyncio.sleep(11)
        await shard.abort_timed_out()
        assert (shard.transactions, world.failed) == (before, [])
        cluster.cut = set()
        await cluster.until(lambda: len(cluster.partition(world._key).isr) == 3)
        await shard.abort_timed_out()
        await shard.settle()
        assert [each.phase for each in world.prepared] == [Phase.PREPARE_ABORT]

    play(story, min_insync_replicas=2)


def coordinator(cluster: Brokers, world: World, write: WriteMarkers) -> TransactionCoordinator:
    return TransactionCoordinator(
        world.context(1), cluster.nodes[1].events, new_producer_id=world.ids.next_id, write=write
    )


@pytest.mark.parametrize("is_shrunk_before", [True, False])
def test_a_completion_with_too_few_replicas_is_tried_again_without_its_markers(is_shrunk_before: bool) -> None:
    """Before: the shard ended, and the next one wrote the markers again."""
    written: list[MarkersToWrite] = []

    async def story(cluster: Brokers, world: World) -> None:
        async def write(_node_id: int, markers: Sequence[MarkersToWrite]) -> list[dict[tuple[str, int], int]]:
            written.extend(markers)
            cluster.cut = {(2, 1), (3, 1)}
            if is_shrunk_before:
                cluster.change_isr(world._key, (1,))
            return [dict.fromkeys(each.partitions, 0) for each in markers]

        cluster.create("t", topic_id=UUID(int=8))
        known = coordinator(cluster, world, write)
        known.on_metadata(cluster.image)
        await cluster.until(lambda: any(known.shards.loaded()))
        (shard,) = known.shards.loaded()
        producer = await known.init("a", timeout_ms=60_000)
        await known.add_partitions("a", producer, T0, client_version=2)
        await known.end("a", producer, is_commit=True, client_version=2)
        await cluster.until(lambda: bool(written))
        await asyncio.sleep(3)
        cluster.cut = set()
        await cluster.until(lambda: len(cluster.partition(world._key).isr) == 3)
        await cluster.until(lambda: shard.transactions["a"].phase is Phase.COMPLETE_COMMIT)
        assert [*known.shards.loaded()] == [shard]
        assert len(written) == 1
        assert cluster.nodes[1].events.named("transaction_not_completed") == []
        await shard.prove_leadership()
        cluster.elect(world._key, 2, (1, 2, 3))
        again = await world.loaded(2)
        assert again.transactions["a"].phase is Phase.COMPLETE_COMMIT
        known.stop()

    play(story, min_insync_replicas=2, request_timeout_ms=1_000, replica_lag_time_max_ms=60_000)


def test_what_is_open_for_too_long_is_aborted_and_what_is_unused_is_forgotten() -> None:
    async def story(cluster: Brokers, world: World) -> None:
        shard = await world.loaded(1)
        producer = await init(shard, timeout_ms=10_000)
        await begin(shard, producer)
        await init(shard, "unused")
        await shard.abort_timed_out()
        assert shard.transactions["a"].phase is Phase.ONGOING
        await asyncio.sleep(11)
        await shard.abort_timed_out()
        await shard.settle()
        (prepared,) = world.prepared
        assert (prepared.phase, prepared.epoch) == (Phase.PREPARE_ABORT, 1)
        assert shard.forget_unused() == 1
        assert list(shard.transactions) == ["a"], "one that is being ended is kept"
        await shard.markers_written(prepared)
        await asyncio.sleep(11)
        assert shard.forget_unused() == 1
        await shard.settle()
        cluster.elect(world._key, 3, (1, 2, 3))
        assert (await world.loaded(3)).transactions == {}

    play(story, transactional_id_expiration_ms=10_000)


def test_timeout_at_last_epoch_waits_for_producer_id() -> None:
    async def story(cluster: Brokers, world: World) -> None:
        shard = await world.loaded(1)
        last = Producer((await init(shard, timeout_ms=10_000)).producer_id, LAST_CLIENT_EPOCH)
        another = await init(shard, "another", timeout_ms=10_000)
        shard.transactions["a"] = replace(shard.transactions["a"], epoch=last.epoch)
        await begin(shard, last)
        await begin(shard, another, "another")
        await asyncio.sleep(11)
        world.ids.gives_none = True
        await shard.abort_timed_out()
        await shard.settle()
        assert [each.transactional_id for each in world.prepared] == ["another"], "nobody waits for that producer id"
        world.ids.gives_none = False
        await shard.abort_timed_out()
        await shard.settle()
        prepared = world.prepared[-1]
        assert (prepared.phase, prepared.producer_id, prepared.epoch) == (Phase.PREPARE_ABORT, 1_001, EPOCH_MAX)
        await shard.markers_written(prepared)
        complete = shard.transactions["a"]
        assert (complete.phase, complete.producer_id, complete.epoch) == (Phase.COMPLETE_ABORT, 1_003, 0)

    play(story)


def test_limit_of_transactional_ids_waiting_for_producer_ids() -> None:
    async def story(cluster: Brokers, world: World) -> None:
        shard = await world.loaded(1)
        world.ids.may_go.clear()
        waiting = [asyncio.ensure_future(init(shard, name)) for name in ("a", "b", "c")]
        await asyncio.sleep(1)
        world.ids.may_go.set()
        reported = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in reported] == [Producer, Producer, CoordinatorLoadInProgress]
        assert shard.transactions.keys() == {"a", "b"}

    play(story, transactional_id_max_per_node=2)


def test_limit_of_transactional_ids_of_a_node() -> None:
    async def story(cluster: Brokers, world: World) -> None:
        shard = await world.loaded(1)
        known = {name: await init(shard, name) for name in ("a", "b")}
        world.ids_elsewhere = 3
        with pytest.raises(CoordinatorLoadInProgress, match=r"5 transactional ids; .* allows 5"):
            await init(shard, "c")
        assert shard.transactions.keys() == known.keys()
        assert await init(shard, "a") == Producer(known["a"].producer_id, 1), "those that are there go on"
        await asyncio.sleep(11)
        await begin(shard, known["b"], "b")
        assert shard.forget_unused() == 1
        await shard.settle()
        assert (await init(shard, "c")).epoch == 0
        assert shard.transactions.keys() == {"b", "c"}

    play(story, transactional_id_max_per_node=5, transactional_id_expiration_ms=10_000)
