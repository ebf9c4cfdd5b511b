"""Transactions on three simulated nodes, as clients ask for them: what is decided comes to be, whoever dies."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any

import pytest

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster, SimulatedNode
from kraft.chaos.worlds.simulated.environment import SimulatedWorld
from kraft.coordinators.transactions.list_filters import ListFilters
from kraft.protocol import apis
from kraft.protocol.batches.header import whole_batches
from kraft.protocol.batches.markers import Marker, marker_of
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.errors import KafkaError
from kraft.protocol.messages.add_offsets_to_txn_request import AddOffsetsToTxnRequestData
from kraft.protocol.messages.add_partitions_to_txn_request import (
    AddPartitionsToTxnRequestData,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)
from kraft.protocol.messages.describe_transactions_request import DescribeTransactionsRequestData
from kraft.protocol.messages.end_txn_request import EndTxnRequestData
from kraft.protocol.messages.find_coordinator_request import FindCoordinatorRequestData
from kraft.protocol.messages.init_producer_id_request import InitProducerIdRequestData
from kraft.protocol.messages.list_transactions_request import ListTransactionsRequestData
from kraft.protocol.transactions import Producer
from kraft.wire.handler_table import ApiHandlers
from metadata.controller.requests import (
    AlterConfigs,
    ConfigAlteration,
    ConfigResource,
    CreateTopics,
    DeleteTopics,
    NewTopic,
)
from metadata.image import TopicIdPartition
from metadata.internal_topics import OFFSETS_TOPIC, TRANSACTIONS_TOPIC
from replication.producers.origin import COORDINATOR
from replication.requests import CONSUMER, LATEST_TIMESTAMP, FetchPartition, FetchRequest, ProduceOptions
from tests.support.client_door import ClientDoor, broker_of
from tests.support.node_call import node_call

SETTINGS: dict[str, Any] = {"transaction.state.log.num.partitions": 3, "offsets.topic.num.partitions": 3}
OLD, NEW = 4, 5
"""Versions of EndTxn: whose producer keeps its epoch, and whose gets another one for each transaction."""
DEADLINE_S = 60
UNREADY = (14, 15, 16, 51)

Story = Callable[[SimulatedCluster], Awaitable[None]]


def play(story: Story, *, seed: int = 1, **settings: int) -> None:
    world = SimulatedWorld(seed)
    given = {name.replace("_", "."): value for name, value in settings.items()}
    cluster = SimulatedCluster(world, settings={**SETTINGS, **given})

    async def run() -> None:
        await cluster.start()
        await story(cluster)
        await cluster.stop()
        cluster.raise_fatal()

    world.run(run())


async def create(
    cluster: SimulatedCluster,
    name: str,
    *,
    on: tuple[int, ...] = (1, 2, 3),
    partitions: int = 1,
    configs: Mapping[str, str] = MappingProxyType({"min.insync.replicas": "1"}),
) -> TopicIdPartition:
    node = cluster.alive[0]
    assert node.node is not None
    new = NewTopic(name=name, assignment=dict.fromkeys(range(partitions), on), configs=configs)
    await node.machine.run(node.node.gateway.control(CreateTopics(topics=(new,)), timeout_ms=10_000))
    await eventually(lambda: all(each.node.publisher.image.topic(name) for each in cluster.alive if each.node))
    topic = node.node.publisher.image.topic(name)
    assert topic is not None
    return TopicIdPartition(topic.topic_id, 0)


async def until(is_so: Callable[[], Awaitable[Any]], *, every_s: float = 0.05) -> Any:
    """What it is in the end."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if found := await is_so():
                return found
            await asyncio.sleep(every_s)


async def eventually(is_so: Callable[[], object]) -> None:
    async def look() -> object:
        return is_so()

    await until(look)


async def ends_of(cluster: SimulatedCluster, name: str) -> list[int]:
    """Log end offsets of its partitions."""
    node = cluster.alive[0]
    assert node.node is not None
    topic = node.node.publisher.image.topic(name)
    assert topic is not None
    keys = [TopicIdPartition(topic.topic_id, number) for number in topic.partitions]
    return [(await node.machine.run(node.node.gateway.list_offset(key, LATEST_TIMESTAMP))).offset for key in keys]


class Client:
    """A producer with a transactional id, that looks for its coordinator each time."""

    def __init__(self, cluster: SimulatedCluster, name: str = "id") -> None:
        self.cluster = cluster
        self.name = name
        self.producer = Producer(-1, -1)
        self._sequences: dict[TopicIdPartition, int] = {}

    async def coordinator(self) -> SimulatedNode:
        """Found by any node, as its clients find it."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                for node in self.cluster.alive:
                    request = FindCoordinatorRequestData.make(key_type=1, coordinator_keys=[self.name])
                    (found,) = (await ClientDoor(node).ask(request, 6)).coordinators
                    if not found.error_code and self.cluster.nodes[found.node_id].node is not None:
                        return self.cluster.nodes[found.node_id]
                await asyncio.sleep(0.1)

    async def ask(self, message: Any, version: int, *, again: tuple[int, ...] = UNREADY) -> Any:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                answer = await ClientDoor(await self.coordinator()).ask(message, version)
                if _code_of(answer) not in again:
                    return answer
                await asyncio.sleep(0.05)

    async def init(
        self, *, version: int = 5, timeout_ms: int = 60_000, again: tuple[int, ...] = UNREADY, **how: Any
    ) -> Any:
        request = InitProducerIdRequestData.make(
            transactional_id=self.name,
            transaction_timeout_ms=timeout_ms,
            **{"producer_id": -1, "producer_epoch": -1, **how},
        )
        answer = await self.ask(request, version, again=again)
        if not answer.error_code:
            self.producer = Producer(answer.producer_id, answer.producer_epoch)
            self._sequences.clear()
        return answer

    async def add(self, *topics: str, version: int = 3, number: int = 0) -> dict[str, int]:
        request = AddPartitionsToTxnRequestData.make(
            v3_and_below_transactional_id=self.name,
            v3_and_below_producer_id=self.producer.producer_id,
            v3_and_below_producer_epoch=self.producer.epoch,
            v3_and_below_topics=[AddPartitionsToTxnTopic.make(name=each, partitions=[number]) for each in topics],
        )
        answer = await self.ask(request, version)
        return {
            each.name: each.results_by_partition[0].partition_error_code
            for each in answer.results_by_topic_v3_and_below
        }

    async def end(self, *, commits: bool, version: int = NEW, again: tuple[int, ...] = UNREADY) -> int:
        request = EndTxnRequestData.make(
            transactional_id=self.name,
            producer_id=self.producer.producer_id,
            producer_epoch=self.producer.epoch,
            committed=commits,
        )
        answer = await self.ask(request, version, again=again)
        if version >= NEW and not answer.error_code:
            self.producer = Producer(answer.producer_id, answer.producer_epoch)
            self._sequences.clear()
        code: int = answer.error_code
        return code

    async def write(self, key: TopicIdPartition, *values: bytes) -> None:
        """To the partition's leader, as it takes it once the coordinator has the partition."""
        batch = build_batch(
            [NewRecord(None, value, [], 1_700_000_000_000) for value in values],
            producer_id=self.producer.producer_id,
            producer_epoch=self.producer.epoch,
            base_sequence=self._sequences.get(key, 0),
            is_transactional=True,
        )
        self._sequences[key] = self._sequences.get(key, 0) + len(values)
        async with asyncio.timeout(DEADLINE_S):
            while True:
                leader = self.cluster.leader(key)
                if leader is not None and leader.node is not None and leader.node.broker is not None:
                    replicas = leader.node.broker.replicas
                    done = replicas.produce.outcomes({key: batch}, ProduceOptions(-1, 10_000), origin=COORDINATOR)
                    outcome = (await leader.machine.run(done))[key]
                    if not outcome.error_code:
                        return
                await asyncio.sleep(0.05)

    async def state(self) -> Any:
        request = DescribeTransactionsRequestData.make(transactional_ids=[self.name])
        (state,) = (await ClientDoor(await self.coordinator()).ask(request, 0)).transaction_states
        return state

    async def is_over(self, state: str) -> Any:
        async def found() -> Any:
            now = await self.state()
            return None if now.error_code or now.transaction_state != state else now

        return await until(found)


def _code_of(answer: Any) -> int:
    """Of the answer as a whole: with AddPartitionsToTxn that of its first partition."""
    if getattr(answer, "results_by_topic_v3_and_below", ()):
        code: int = answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
    else:
        code = answer.error_code
    return code


async def read(cluster: SimulatedCluster, key: TopicIdPartition) -> tuple[list[bytes | Marker], list[int], bool]:
    """What the leader serves to who reads committed records: values and markers, the aborted producers' first offsets,
    and whether nothing is left that is undecided."""
    await eventually(lambda: (found := cluster.leader(key)) is not None and found.node is not None)
    leader = cluster.leader(key)
    assert leader is not None
    assert leader.node is not None
    assert leader.node.broker is not None
    wanted = FetchPartition(
        topic_id=key.topic_id,
        partition=0,
        current_leader_epoch=-1,
        fetch_offset=0,
        last_fetched_epoch=-1,
        log_start_offset=-1,
        bytes_max=1_000_000,
    )
    request = FetchRequest(
        replica_id=CONSUMER,
        replica_epoch=-1,
        wait_ms_max=0,
        bytes_min=0,
        bytes_max=1_000_000,
        partitions=(wanted,),
        is_read_committed=True,
    )
    (found,) = (await leader.machine.run(leader.node.broker.replicas.fetch.response(request))).partitions
    assert not found.error_code, found
    data = bytes(found.records)
    entries: list[bytes | Marker] = []
    for position, header in whole_batches(data):
        batch = data[position : position + header.size]
        marker = marker_of(batch, header) if header.is_control else None
        entries += [batch] if marker is None else [marker]
    aborted = [each.first_offset for each in found.aborted or ()]
    return entries, aborted, found.last_stable_offset == found.high_watermark


async def committed(cluster: SimulatedCluster, key: TopicIdPartition, *, entries: int) -> list[bool | None]:
    """Waits until so many batches and markers are decided: for each what the marker says, None for records."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found, _, is_decided = await read(cluster, key)
            if is_decided and len(found) >= entries:
                break
            await asyncio.sleep(0.05)
    assert len(found) == entries, found
    return [each.is_commit if isinstance(each, Marker) else None for each in found]


def test_ids_of_all_partitions_that_a_node_leads_count_together() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        held: dict[int, set[int]] = {}
        for number in range(24):
            client = Client(cluster, f"id-{number}")
            owner = (await client.coordinator()).node_id
            ids = held.setdefault(owner, set())
            is_full = len(ids) == 2
            answer = await client.init(again=(15, 16, 51) if is_full else UNREADY)
            assert answer.error_code == (14 if is_full else 0), (owner, ids)
            if not answer.error_code:
                ids.add(number)
        assert {len(ids) for ids in held.values()} == {2}
        number = min(held.popitem()[1])
        assert not (await Client(cluster, f"id-{number}").init()).error_code, "who has one goes on"

    play(story, transactional_id_max_per_node=2, transaction_state_log_num_partitions=12)


@pytest.mark.parametrize("version", [OLD, NEW])
def test_a_transaction_comes_to_be_in_all_its_partitions(version: int) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        keys = [await create(cluster, name, on=on) for name, on in (("a", (1, 2, 3)), ("b", (2, 3, 1)), ("c", (3,)))]
        client = Client(cluster)
        assert not (await client.init()).error_code
        for commits in (True, False):
            before = client.producer
            assert await client.add("a", "b", "c") == {"a": 0, "b": 0, "c": 0}
            for key in keys:
                await client.write(key, b"x")
                assert not (await read(cluster, key))[2]
            assert await client.end(commits=commits, version=version) == 0
            assert client.producer == Producer(before.producer_id, before.epoch + (version == NEW))
        for key in keys:
            assert await committed(cluster, key, entries=4) == [None, True, None, False]
            assert (await read(cluster, key))[1] == [2]
        assert (await client.is_over("CompleteAbort")).topics == ()

    play(story)


def test_the_topic_is_made_as_kafkas_and_only_its_leader_coordinates() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        client = Client(cluster)
        await client.init()
        image = cluster.alive[0].node.publisher.image  # type: ignore[union-attr]
        assert image.config("topic", TRANSACTIONS_TOPIC) == {
            "cleanup.policy": "compact",
            "compression.type": "uncompressed",
            "min.insync.replicas": "2",
            "segment.bytes": "104857600",
            "unclean.leader.election.enable": "false",
        }
        owner = (await client.coordinator()).node_id
        for node in cluster.alive:
            request = InitProducerIdRequestData.make(
                transactional_id="id", transaction_timeout_ms=1_000, producer_id=-1, producer_epoch=-1
            )
            expected = 0 if node.node_id == owner else 16
            assert (await ClientDoor(node).ask(request, 5)).error_code == expected

    play(story)


def test_who_begins_again_fences_the_one_before_and_aborts_what_it_left_open() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        key = await create(cluster, "a")
        zombie, heir = Client(cluster), Client(cluster)
        await zombie.init()
        await zombie.add("a")
        await zombie.write(key, b"x")
        await heir.init()
        assert heir.producer == Producer(zombie.producer.producer_id, zombie.producer.epoch + 2), "one to fence it"
        assert await committed(cluster, key, entries=2) == [None, False]
        for version, code in ((0, 47), (1, 47), (2, 90), (3, 90)):
            assert await zombie.add("a", version=version) == {"a": code}
        for version, code in ((1, 47), (2, 90), (NEW, 90)):
            assert await zombie.end(commits=True, version=version) == code
        for version, code in ((3, 47), (4, 90), (5, 90)):
            old = {"producer_id": zombie.producer.producer_id, "producer_epoch": zombie.producer.epoch}
            assert (await zombie.init(version=version, **old)).error_code == code
        await heir.add("a")
        await heir.write(key, b"y")
        assert await heir.end(commits=True) == 0
        assert await committed(cluster, key, entries=4) == [None, False, None, True]

    play(story)


def test_what_is_open_for_too_long_is_aborted_and_its_epoch_is_over() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        key = await create(cluster, "a")
        client = Client(cluster)
        await client.init(timeout_ms=3_000)
        await client.add("a")
        await client.write(key, b"x")
        assert await committed(cluster, key, entries=2) == [None, False]
        state = await client.is_over("CompleteAbort")
        assert (state.producer_id, state.producer_epoch) == (client.producer.producer_id, client.producer.epoch + 1)
        assert await client.end(commits=True, version=OLD) == 90
        request = {"producer_id": client.producer.producer_id, "producer_epoch": client.producer.epoch}
        assert not (await client.init(**request)).error_code, "its own producer may go on (KIP-588)"

    play(story, transaction_abort_timed_out_transaction_cleanup_interval_ms=1_000)


def test_an_id_that_nobody_uses_is_forgotten() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        client = Client(cluster)
        await client.init()

        async def is_forgotten() -> bool:
            return bool((await client.state()).error_code == 105)

        await until(is_forgotten, every_s=1)
        await create(cluster, "a")
        assert await client.add("a") == {"a": 49}
        assert await client.end(commits=True) == 49

    play(
        story,
        transactional_id_expiration_ms=5_000,
        transaction_remove_expired_transaction_cleanup_interval_ms=2_000,
    )


@pytest.mark.parametrize("commits", [True, False])
def test_the_coordinator_dies_between_the_decision_and_its_markers(commits: bool) -> None:
    """One replica of the log of transactions is enough: with two, a completion that waits for the other replica has its
    markers written again, as a coordinator that is loaded again does."""

    async def story(cluster: SimulatedCluster) -> None:
        client = Client(cluster)
        await client.init()
        owner = await client.coordinator()
        lone = next(node for node in cluster.alive if node is not owner)
        key = await create(cluster, "lone", on=(lone.node_id,))
        await client.add("lone")
        await client.write(key, b"x")
        lone.kill()
        assert await client.end(commits=commits) == 0, "decided by the others"
        assert (await client.state()).transaction_state == ("PrepareCommit" if commits else "PrepareAbort")
        owner.kill()
        await lone.start()
        assert await committed(cluster, key, entries=2) == [None, commits]
        assert (await client.coordinator()) is not owner
        await client.is_over("CompleteCommit" if commits else "CompleteAbort")
        await client.add("lone")
        await client.write(key, b"y")
        assert await client.end(commits=True) == 0
        assert await committed(cluster, key, entries=4) == [None, commits, None, True]
        await owner.start()

    play(story, transaction_state_log_min_isr=1)


def test_the_leader_of_a_partition_dies_before_its_marker() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        client = Client(cluster)
        await client.init()
        owner = await client.coordinator()
        first = next(node for node in cluster.alive if node is not owner)
        key = await create(cluster, "a", on=(first.node_id, *(each for each in cluster.nodes if each != first.node_id)))
        await client.add("a")
        await client.write(key, b"x")
        await cluster.wait_in_sync(key)
        first.kill()
        assert await client.end(commits=True) == 0
        assert await committed(cluster, key, entries=2) == [None, True]
        await first.start()
        await cluster.wait_ready()

    play(story)


def test_a_topic_that_is_deleted_holds_up_no_transaction() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        client = Client(cluster)
        await client.init()
        owner = await client.coordinator()
        lone = next(node for node in cluster.alive if node is not owner)
        key = await create(cluster, "lone", on=(lone.node_id,))
        kept = await create(cluster, "kept", on=(owner.node_id,))
        await client.add("lone", "kept")
        await client.write(key, b"x")
        await client.write(kept, b"x")
        lone.kill()
        assert await client.end(commits=True) == 0
        await asyncio.sleep(2)
        state = await client.state()
        assert state.transaction_state == "PrepareCommit"
        assert [topic.topic for topic in state.topics] == ["lone"], "the other one has its marker"
        assert await client.end(commits=True, version=NEW, again=(14, 15, 16)) in (51, 90), "it is not over"
        assert owner.node is not None
        gone = owner.node.gateway.control(DeleteTopics(topics=("lone",)), timeout_ms=10_000)
        await owner.machine.run(gone)
        await client.is_over("CompleteCommit")
        assert await committed(cluster, kept, entries=2) == [None, True]
        await lone.start()
        await cluster.wait_ready()

    play(story)


def test_bad_requests_get_kafkas_codes_and_change_nothing() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "a")
        client, stranger, nameless = Client(cluster), Client(cluster, "never seen"), Client(cluster, "")
        assert (await client.init(timeout_ms=0)).error_code == 50
        assert (await client.init(timeout_ms=900_001)).error_code == 50
        assert (await client.init(producer_id=5)).error_code == 42
        assert (await nameless.init()).error_code == 42
        await client.init()
        before, ends = await client.state(), await ends_of(cluster, TRANSACTIONS_TOPIC)
        assert (before.transaction_state, before.topics) == ("Empty", ())
        assert await client.add("a", "no such topic") == {"a": 55, "no such topic": 3}
        assert await client.add("a", number=7) == {"a": 3}
        assert await stranger.add("a") == {"a": 49}
        assert await stranger.end(commits=True) == 49
        assert (await stranger.state()).error_code == 105
        assert await client.end(commits=True, version=OLD) == 48
        assert await client.end(commits=True) == 48
        assert await client.state() == before
        ahead = Client(cluster)
        ahead.producer = Producer(client.producer.producer_id, 5)
        assert await ahead.add("a") == {"a": 90}
        ahead.producer = Producer(client.producer.producer_id + 77, 0)
        assert await ahead.add("a") == {"a": 49}
        assert await client.state() == before
        assert await ends_of(cluster, TRANSACTIONS_TOPIC) == ends, "nothing was appended"

    play(story)


def test_the_key_of_a_beginning_means_nothing_from_a_client() -> None:
    """Nodes carry it for programs over REST. Who sends our tagged field by himself fences like anybody else."""

    async def story(cluster: SimulatedCluster) -> None:
        client = Client(cluster)
        for epoch in range(3):
            await client.init(begin_key=b"k")
            assert client.producer.epoch == epoch

    play(story)


def test_more_partitions_than_one_record_takes_are_refused_alone() -> None:
    """The log would refuse it each time: it must not be that the whole partition of ids is loaded again for ever."""

    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "a")
        await create(cluster, "many", partitions=400)
        client, neighbour = Client(cluster), Client(cluster, "another")
        await client.init()
        await neighbour.init()
        await client.add("a")
        node = cluster.alive[0]
        assert node.node is not None
        topic = ConfigResource(resource_type="topic", name=TRANSACTIONS_TOPIC)
        limit = ConfigAlteration(name="max.message.bytes", operation="set", value="600")
        altering = node.node.gateway.control(AlterConfigs(resources={topic: (limit,)}), timeout_ms=10_000)
        await node.machine.run(altering)
        await asyncio.sleep(1)
        request = AddPartitionsToTxnRequestData.make(
            v3_and_below_transactional_id="id",
            v3_and_below_producer_id=client.producer.producer_id,
            v3_and_below_producer_epoch=client.producer.epoch,
            v3_and_below_topics=[AddPartitionsToTxnTopic.make(name="many", partitions=list(range(400)))],
        )
        assert _code_of(await client.ask(request, 3)) == -1
        (left,) = (await client.state()).topics
        assert left.topic == "a"
        assert await client.add("many") == {"many": 0}, "a few more do"
        assert await neighbour.add("a") == {"a": 0}
        for each in (client, neighbour):
            assert await each.end(commits=True) == 0
            await each.is_over("CompleteCommit")

    play(story, transaction_state_log_num_partitions=1)


async def asked_by_a_broker(node: SimulatedNode, request: AddPartitionsToTxnRequestData) -> Any:
    served = ApiHandlers(broker_of(node)).get(apis.ADD_PARTITIONS_TO_TXN.key)
    assert served is not None
    answer = served.handle(node_call(request, version=apis.ADD_PARTITIONS_TO_TXN.version))
    assert isinstance(answer, Coroutine)
    return await node.machine.run(answer)


def test_brokers_add_and_verify_partitions_of_several_transactions_at_once() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "a")
        await create(cluster, "b")
        clients = [Client(cluster, name) for name in ("one", "two")]
        for client in clients:
            await client.init()

        def asked(client: Client, *topics: str, verify: bool) -> AddPartitionsToTxnTransaction:
            return AddPartitionsToTxnTransaction.make(
                transactional_id=client.name,
                producer_id=client.producer.producer_id,
                producer_epoch=client.producer.epoch,
                verify_only=verify,
                topics=[AddPartitionsToTxnTopic.make(name=each, partitions=[0]) for each in topics],
            )

        async def codes(*transactions: AddPartitionsToTxnTransaction) -> dict[str, dict[str, int]]:
            found = {}
            for client in clients:
                request = AddPartitionsToTxnRequestData.make(transactions=list(transactions))
                answer = await asked_by_a_broker(await client.coordinator(), request)
                assert not answer.error_code
                of_all = {
                    each.transactional_id: {
                        topic.name: topic.results_by_partition[0].partition_error_code for topic in each.topic_results
                    }
                    for each in answer.results_by_transaction
                }
                found[client.name] = of_all[client.name]
            return found

        one, two = clients
        assert await codes(asked(one, "a", verify=True), asked(two, "a", verify=False)) == {
            "one": {"a": 120},
            "two": {"a": 0},
        }
        assert await codes(asked(one, "b", verify=False), asked(two, "a", "b", verify=True)) == {
            "one": {"b": 0},
            "two": {"a": 0, "b": 120},
        }
        assert (await two.state()).transaction_state == "Ongoing"

    play(story)


@pytest.mark.parametrize("verifies", [False, True])
def test_no_client_asks_as_a_broker_does(verifies: bool) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "a")
        client = Client(cluster)
        await client.init()
        before, ends = await client.state(), await ends_of(cluster, TRANSACTIONS_TOPIC)
        for version in (4, 5):
            transaction = AddPartitionsToTxnTransaction.make(
                transactional_id=client.name,
                producer_id=client.producer.producer_id,
                producer_epoch=client.producer.epoch,
                verify_only=verifies,
                topics=[AddPartitionsToTxnTopic.make(name="a", partitions=[0])],
            )
            request = AddPartitionsToTxnRequestData.make(transactions=[transaction])
            answer = await ClientDoor(await client.coordinator()).ask(request, version)
            assert (answer.error_code, answer.results_by_transaction) == (31, ())
        assert await client.state() == before
        assert await ends_of(cluster, TRANSACTIONS_TOPIC) == ends, "nothing was appended"

    play(story)


def test_offsets_of_a_group_are_a_partition_of_the_transaction() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        client = Client(cluster)
        await client.init()
        request = AddOffsetsToTxnRequestData.make(
            transactional_id="id",
            producer_id=client.producer.producer_id,
            producer_epoch=client.producer.epoch,
            group_id="g",
        )
        assert (await client.ask(request, 4)).error_code == 0
        (topic,) = (await client.state()).topics
        assert topic.topic == OFFSETS_TOPIC
        assert await client.end(commits=False) == 0
        await client.is_over("CompleteAbort")

    play(story)


def test_any_node_takes_a_request_and_carries_it_to_the_coordinator() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        key = await create(cluster, "a")
        client = Client(cluster)
        for number, node in enumerate(cluster.alive):
            assert node.node is not None
            any_node = node.node.transactions
            client.producer = await node.machine.run(any_node.init("id", timeout_ms=60_000))
            partitions = frozenset({("a", 0)})
            verified = await node.machine.run(
                any_node.add_partitions("id", client.producer, partitions, is_verify_only=True)
            )
            assert [None if each is None else each.code for each in verified.values()] == [120]
            await node.machine.run(any_node.add_partitions("id", client.producer, partitions))
            await node.machine.run(any_node.add_offsets("id", client.producer, "g"))
            client._sequences.clear()
            await client.write(key, b"x")
            producer = client.producer
            following = await node.machine.run(any_node.end("id", producer, is_commit=True))
            assert following == Producer(producer.producer_id, producer.epoch + 1)
            again = await node.machine.run(any_node.end("id", producer, is_commit=True))
            assert again == following, "asked again after a lost answer"
            assert await committed(cluster, key, entries=2 * (number + 1)) == [None, True] * (number + 1)
            for unknown, code in (("unknown", 105), ("", 42)):
                with pytest.raises(KafkaError) as refused:
                    await node.machine.run(any_node.describe(unknown))
                assert refused.value.code == code
            await client.is_over("CompleteCommit")
            assert (await node.machine.run(any_node.describe("id"))).producer_id == producer.producer_id

    play(story)


def test_transactions_are_listed_by_what_is_asked() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "a")
        clients = [Client(cluster, name) for name in ("red-1", "red-2", "blue-1")]
        for client in clients:
            await client.init()
        await clients[0].add("a")
        await asyncio.sleep(3)
        await clients[2].add("a")

        async def names(version: int = 2, **filters: Any) -> list[str]:
            request = ListTransactionsRequestData.make(**filters)
            answers = [await ClientDoor(node).ask(request, version) for node in cluster.alive]
            assert {each.error_code for each in answers} == {0}
            return sorted(state.transactional_id for each in answers for state in each.transaction_states)

        assert await names() == ["blue-1", "red-1", "red-2"]
        assert await names(0, state_filters=["Ongoing"]) == ["blue-1", "red-1"]
        assert await names(0, producer_id_filters=[clients[1].producer.producer_id]) == ["red-2"]
        assert await names(1, state_filters=["Ongoing"], duration_filter=2_000) == ["red-1"]
        assert await names(2, transactional_id_pattern="red-.*") == ["red-1", "red-2"]
        for node in cluster.alive:
            assert node.node is not None
            listed = await node.machine.run(node.node.transactions.list_all(ListFilters(states=("Ongoing",))))
            found = [each.transactional_id for of_node in listed.values() for each in of_node]
            assert sorted(found) == ["blue-1", "red-1"]
        request = ListTransactionsRequestData.make(state_filters=["Ongoing", "Odd"])
        assert (await ClientDoor(cluster.alive[0]).ask(request, 2)).unknown_state_filters == ("Odd",)
        request = ListTransactionsRequestData.make(transactional_id_pattern="(")
        assert (await ClientDoor(cluster.alive[0]).ask(request, 2)).error_code == 128

    play(story)
