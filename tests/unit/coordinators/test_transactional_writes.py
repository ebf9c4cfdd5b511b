"""What is written in transactions, on three simulated nodes: both flows of KIP-890, and whatever does not belong."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster, SimulatedNode
from kraft.coordinators.groups.records import Entry, TransactionalRecord, TransactionEnded
from kraft.coordinators.shards import partition_of
from kraft.protocol.batches.markers import Marker
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.messages.add_offsets_to_txn_request import AddOffsetsToTxnRequestData
from kraft.protocol.messages.describe_producers_request import DescribeProducersRequestData
from kraft.protocol.messages.describe_producers_request import TopicRequest as DescribedTopic
from kraft.protocol.messages.offset_commit_request import (
    OffsetCommitRequestData,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from kraft.protocol.messages.offset_fetch_request import (
    OffsetFetchRequestData,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
)
from kraft.protocol.messages.produce_request import PartitionProduceData, ProduceRequestData, TopicProduceData
from kraft.protocol.messages.txn_offset_commit_request import (
    TxnOffsetCommitRequestData,
    TxnOffsetCommitRequestPartition,
    TxnOffsetCommitRequestTopic,
)
from kraft.protocol.messages.write_txn_markers_request import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequestData,
)
from kraft.protocol.transactions import Producer
from metadata.image import TopicIdPartition
from metadata.internal_topics import OFFSETS_TOPIC, TRANSACTIONS_TOPIC
from tests.support.client_door import ClientDoor
from tests.unit.coordinators.test_pending_offsets import KEYS, modelled, record
from tests.unit.coordinators.test_transaction_cluster import (
    DEADLINE_S,
    NEW,
    OLD,
    Client,
    committed,
    create,
    ends_of,
    eventually,
    play,
    read,
    until,
)

PRODUCE_OLD, PRODUCE_ABORTABLE, PRODUCE_NEW = 10, 11, 12
OFFSETS_OLD, OFFSETS_ABORTABLE, OFFSETS_NEW = 3, 4, 5
AGAIN = (14, 15, 16, 19, 51)


async def leader_of(cluster: SimulatedCluster, key: TopicIdPartition) -> SimulatedNode:
    await eventually(lambda: (found := cluster.leader(key)) is not None and found.node is not None)
    leader = cluster.leader(key)
    assert leader is not None
    return leader


def batch(producer: Producer, sequence: int = 0, *values: bytes, is_transactional: bool = True) -> bytes:
    return build_batch(
        [NewRecord(None, value, [], 1_700_000_000_000) for value in values or (b"v",)],
        producer_id=producer.producer_id,
        producer_epoch=producer.epoch,
        base_sequence=sequence,
        is_transactional=is_transactional,
    )


def request(topics: dict[str, bytes], *, transactional_id: str | None = "id") -> ProduceRequestData:
    return ProduceRequestData.make(
        transactional_id=transactional_id,
        acks=-1,
        timeout_ms=10_000,
        topic_data=[
            TopicProduceData.make(name=name, partition_data=[PartitionProduceData.make(index=0, records=data)])
            for name, data in topics.items()
        ],
    )


async def send(
    cluster: SimulatedCluster, key: TopicIdPartition, message: ProduceRequestData, version: int
) -> list[int]:
    """The error code of each of its topics."""
    answer = await ClientDoor(await leader_of(cluster, key)).ask(message, version)
    return [each.partition_responses[0].error_code for each in answer.responses]


async def produce(
    cluster: SimulatedCluster,
    key: TopicIdPartition,
    producer: Producer,
    sequence: int = 0,
    *,
    version: int,
    topic: str = "a",
    again: tuple[int, ...] = AGAIN,
    **how: Any,
) -> int:
    """As a client does it: what may be cured is asked again."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            (code,) = await send(cluster, key, request({topic: batch(producer, sequence)}, **how), version)
            if code not in again:
                return code
            await asyncio.sleep(0.05)


async def end_of(cluster: SimulatedCluster, key: TopicIdPartition) -> int:
    leader = await leader_of(cluster, key)
    assert leader.node is not None
    assert leader.node.broker is not None
    return leader.node.broker.replicas.describe()[key].log_end_offset


def logs_of(node: SimulatedNode, key: TopicIdPartition) -> tuple[int, int] | None:
    """Where its replica's log ends, and how many partitions of the node have undecided transactions."""
    parts = node.node
    if parts is None or parts.broker is None or key not in parts.broker.replicas.describe():
        return None
    return parts.broker.replicas.describe()[key].log_end_offset, len(parts.broker.replicas.open_transactions())


# --- produce --------------------------------------------------------------------------------------------------------


def test_the_old_flow_adds_partitions_first_and_the_leader_looks_for_them() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        key = await create(cluster, "a")
        client = Client(cluster)
        await client.init()
        for version, code in ((PRODUCE_OLD, 48), (PRODUCE_ABORTABLE, 120)):
            assert await produce(cluster, key, client.producer, version=version) == code
        assert await end_of(cluster, key) == 0
        sequence = 0
        for commits in (True, False):
            await client.add("a")
            for _ in range(3):
                assert await produce(cluster, key, client.producer, sequence, version=PRODUCE_OLD) == 0
                sequence += 1
            assert await client.end(commits=commits, version=OLD) == 0
            await client.is_over("CompleteCommit" if commits else "CompleteAbort")
            assert await produce(cluster, key, client.producer, sequence, version=PRODUCE_OLD) == 48
        assert await committed(cluster, key, entries=8) == [None] * 3 + [True] + [None] * 3 + [False]
        assert (await read(cluster, key))[1] == [4]

    play(story)


def test_new_flow_adds_partition_and_bumps_epoch() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        keys = {name: await create(cluster, name) for name in ("a", "b")}
        client = Client(cluster)
        await client.init()
        zombie = client.producer
        for commits in (True, False):
            before = client.producer
            for name, key in keys.items():
                for sequence in range(2):
                    assert await produce(cluster, key, before, sequence, topic=name, version=PRODUCE_NEW) == 0
            assert {each.topic for each in (await client.state()).topics} == {"a", "b"}
            assert await client.end(commits=commits, version=NEW) == 0
            assert client.producer == Producer(before.producer_id, before.epoch + 1)
        for key in keys.values():
            assert await committed(cluster, key, entries=6) == [None, None, True, None, None, False]
            assert await produce(cluster, key, zombie, version=PRODUCE_NEW) == 47, "its transaction is over"
            assert await end_of(cluster, key) == 6

    play(story)


def test_batches_keep_order_during_verification() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        key = await create(cluster, "a")
        client = Client(cluster)
        await client.init()
        for _ in range(3):
            messages = [request({"a": batch(client.producer, sequence)}) for sequence in range(5)]
            sent = [asyncio.ensure_future(send(cluster, key, each, PRODUCE_NEW)) for each in messages]
            assert await asyncio.gather(*sent) == [[0]] * 5
            assert await client.end(commits=True, version=NEW) == 0
        assert await committed(cluster, key, entries=18) == ([None] * 5 + [True]) * 3

    play(story)


def test_foreign_transaction_requests_are_refused() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        keys = {name: await create(cluster, name, on=(1, 2, 3)) for name in ("a", "b", "c")}
        a = keys["a"]
        client, other = Client(cluster), Client(cluster, "other")
        await client.init()
        await other.init()
        mine, foreign = client.producer, other.producer

        async def refused(message: ProduceRequestData, version: int = PRODUCE_NEW) -> list[int]:
            before = [await end_of(cluster, key) for key in keys.values()]
            codes = await send(cluster, a, message, version)
            assert [await end_of(cluster, key) for key in keys.values()] == before
            return codes

        assert await refused(request({"a": batch(mine)}, transactional_id=None)) == [53]
        assert await refused(request({"a": batch(mine)}, transactional_id="nobody")) == [49]
        assert await refused(request({"a": batch(foreign)})) == [49]
        assert await refused(request({"a": batch(mine), "b": batch(foreign)})) == [49, 49]
        assert await refused(request({"a": batch(Producer(mine.producer_id, mine.epoch + 1))})) == [47]
        assert await refused(request({"a": batch(mine, 3)})) == [45], "an epoch of a transaction begins at 0"
        # the sequence was looked at last: the partition is in the transaction now, and in no log
        assert await send(cluster, a, request({"a": batch(mine), "b": batch(foreign, is_transactional=False)}), 12) == [
            0,
            0,
        ]
        assert await refused(request({"a": batch(mine, 1, is_transactional=False)})) == [48]
        assert await refused(request({"a": batch(mine, 5)})) == [45]
        assert await client.end(commits=True, version=NEW) == 0
        assert await committed(cluster, a, entries=2) == [None, True]
        assert await refused(request({"a": batch(mine, 1)})) == [47]
        assert await refused(request({"gone": batch(client.producer)})) == [3]

    play(story)


def test_one_transaction_too_many_receives_what_producers_try_again() -> None:
    """Within, it is 89, which is for administration only: a producer takes it for the end."""

    async def story(cluster: SimulatedCluster) -> None:
        key = await create(cluster, "a")
        clients = [Client(cluster, name) for name in ("one", "two", "three")]
        for client in clients:
            await client.init()
        *first, last = clients
        for client in first:
            assert await produce(cluster, key, client.producer, version=PRODUCE_NEW, transactional_id=client.name) == 0

        async def refused() -> int:
            again = tuple({*AGAIN} - {19})
            how = {"version": PRODUCE_NEW, "transactional_id": last.name, "again": again}
            return await produce(cluster, key, last.producer, **how)

        assert await refused() == 19
        assert await end_of(cluster, key) == 2
        assert await clients[0].end(commits=True) == 0
        assert await produce(cluster, key, last.producer, version=PRODUCE_NEW, transactional_id=last.name) == 0
        for client in clients[1:]:
            assert await client.end(commits=True) == 0
        assert await committed(cluster, key, entries=6) == [None, None, True, None, True, True]

    play(story, producer_id_max_per_partition=2)


def test_a_producer_that_was_fenced_is_informed_wherever_it_writes() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        keys = {name: await create(cluster, name) for name in ("a", "b")}
        zombie, heir = Client(cluster), Client(cluster)
        await zombie.init()
        assert await produce(cluster, keys["a"], zombie.producer, version=PRODUCE_NEW) == 0
        await heir.init()
        assert await committed(cluster, keys["a"], entries=2) == [None, False]
        for version in (PRODUCE_OLD, PRODUCE_ABORTABLE, PRODUCE_NEW):
            assert await produce(cluster, keys["a"], zombie.producer, 1, version=version) == 47
            assert await produce(cluster, keys["b"], zombie.producer, topic="b", version=version) == 47
        assert await end_of(cluster, keys["b"]) == 0
        assert await produce(cluster, keys["a"], heir.producer, version=PRODUCE_NEW) == 0
        assert await heir.end(commits=True) == 0

    play(story)


@pytest.mark.parametrize("version", [PRODUCE_OLD, PRODUCE_NEW])
def test_a_leader_that_dies_in_an_open_transaction_takes_nothing_of_it_along(version: int) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        client = Client(cluster)
        await client.init()
        owner = await client.coordinator()
        first = next(node for node in cluster.alive if node is not owner)
        key = await create(cluster, "a", on=(first.node_id, *(each for each in cluster.nodes if each != first.node_id)))
        for commits in (True, False):
            if version < PRODUCE_NEW:
                await client.add("a")
            sequence = 2 * (not commits and version < PRODUCE_NEW)
            assert await produce(cluster, key, client.producer, sequence, version=version) == 0
            await cluster.wait_in_sync(key)
            leader = await leader_of(cluster, key)
            leader.kill()
            await eventually(lambda: cluster.leader(key) not in (None, leader))  # noqa: B023
            assert await produce(cluster, key, client.producer, sequence + 1, version=version) == 0
            assert await client.end(commits=commits, version=NEW if version >= PRODUCE_NEW else OLD) == 0
            await leader.start()
            await cluster.wait_ready()
        assert await committed(cluster, key, entries=6) == [None, None, True, None, None, False]

    play(story)


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("version", [PRODUCE_ABORTABLE, PRODUCE_NEW])
def test_unclean_election_with_open_transaction(version: int, commits: bool) -> None:
    """What the next leader lacks is lost, of a committed transaction, too: the setting allows it. A producer that goes
    on is told of the gap, what is left is decided by the marker, and no log keeps a transaction open."""

    async def story(cluster: SimulatedCluster) -> None:
        client = Client(cluster)
        await client.init()
        first, second = cluster.alive[:2]
        configs = {"min.insync.replicas": "1", "unclean.leader.election.enable": "true"}
        key = await create(cluster, "a", on=(first.node_id, second.node_id), configs=configs)
        if version < PRODUCE_NEW:
            await client.add("a")
        assert await produce(cluster, key, client.producer, 0, version=version) == 0
        second.kill()
        await eventually(lambda: cluster.leader(key) is first)
        assert await produce(cluster, key, client.producer, 1, version=version) == 0
        first.kill()
        await second.start()
        await eventually(lambda: cluster.leader(key) is second)
        assert await produce(cluster, key, client.producer, 2, version=version) == 45, (
            "the leader lacks what came before"
        )
        assert await client.end(commits=commits, version=NEW if version >= PRODUCE_NEW else OLD) == 0
        assert await committed(cluster, key, entries=2) == [None, commits]
        await first.start()
        await eventually(lambda: [logs_of(each, key) for each in (first, second)] == [(2, 0), (2, 0)])
        await client.is_over("CompleteCommit" if commits else "CompleteAbort")
        assert not (await client.init()).error_code
        assert await produce(cluster, key, client.producer, 0, version=PRODUCE_NEW) == 0
        assert await client.end(commits=True, version=NEW) == 0
        assert await committed(cluster, key, entries=4) == [None, commits, None, True]

    play(story)


def test_the_coordinator_dies_while_the_leader_asks_it() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        client = Client(cluster)
        await client.init()
        owner = await client.coordinator()
        first = next(node for node in cluster.alive if node is not owner)
        key = await create(cluster, "a", on=(first.node_id,))
        owner.kill()
        assert await produce(cluster, key, client.producer, version=PRODUCE_NEW) == 0
        assert await client.end(commits=True) == 0
        assert await committed(cluster, key, entries=2) == [None, True]
        await owner.start()

    play(story)


# --- offsets --------------------------------------------------------------------------------------------------------


async def group_coordinator(cluster: SimulatedCluster, group: str) -> SimulatedNode:
    async def found() -> SimulatedNode | None:
        node = cluster.alive[0]
        assert node.node is not None
        owner = cluster.nodes[await node.machine.run(node.node.groups.coordinator_of(group))]
        return owner if owner.node is not None else None

    owner = await until(found)
    assert isinstance(owner, SimulatedNode)
    return owner


async def ask_group(cluster: SimulatedCluster, message: Any, version: int, group: str = "g") -> Any:
    """As a client: until its coordinator takes it."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            answer = await ClientDoor(await group_coordinator(cluster, group)).ask(message, version)
            if not set(_codes(answer)) & {14, 15, 16}:
                return answer
            await asyncio.sleep(0.05)


def _codes(answer: Any) -> list[int]:
    groups = getattr(answer, "groups", ())
    codes = [each.error_code for each in groups]
    for topic in [*getattr(answer, "topics", ()), *(topic for each in groups for topic in each.topics)]:
        codes += [each.error_code for each in topic.partitions]
    return codes


async def commit_in(
    cluster: SimulatedCluster,
    client: Client,
    offset: int,
    *,
    version: int,
    topic: str = "a",
    partition: int = 0,
    **how: Any,
) -> int:
    message = TxnOffsetCommitRequestData.make(
        transactional_id=how.pop("transactional_id", client.name),
        group_id="g",
        producer_id=client.producer.producer_id,
        producer_epoch=client.producer.epoch,
        topics=[
            TxnOffsetCommitRequestTopic.make(
                name=topic,
                partitions=[
                    TxnOffsetCommitRequestPartition.make(
                        partition_index=partition, committed_offset=offset, committed_metadata=how.pop("metadata", "m")
                    )
                ],
            )
        ],
        **how,
    )
    (code,) = _codes(await ask_group(cluster, message, version))
    return code


async def commit_plainly(cluster: SimulatedCluster, offset: int) -> int:
    message = OffsetCommitRequestData.make(
        group_id="g",
        generation_id_or_member_epoch=-1,
        topics=[
            OffsetCommitRequestTopic.make(
                name="a", partitions=[OffsetCommitRequestPartition.make(partition_index=0, committed_offset=offset)]
            )
        ],
    )
    (code,) = _codes(await ask_group(cluster, message, 8))
    return code


async def fetch(
    cluster: SimulatedCluster, *, stable: bool = True, version: int = 8, asks: bool = True
) -> tuple[int, int]:
    """Error code and offset."""
    if version < 8:
        topics = [OffsetFetchRequestTopic.make(name="a", partition_indexes=[0])]
        message = OffsetFetchRequestData.make(group_id="g", topics=topics, require_stable=stable)
    else:
        named = [OffsetFetchRequestTopics.make(name="a", partition_indexes=[0])] if asks else None
        groups = [OffsetFetchRequestGroup.make(group_id="g", topics=named)]
        message = OffsetFetchRequestData.make(groups=groups, require_stable=stable)
    answer = await ask_group(cluster, message, version)
    found = answer.topics if version < 8 else answer.groups[0].topics
    (row,) = found[0].partitions
    return row.error_code, row.committed_offset


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("version", [0, 2, OFFSETS_OLD, OFFSETS_ABORTABLE, OFFSETS_NEW])
def test_offsets_count_when_their_transaction_does(version: int, commits: bool) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "a")
        client = Client(cluster)
        await client.init()
        assert await commit_plainly(cluster, 3) == 0
        if version < OFFSETS_NEW:
            assert await commit_in(cluster, client, 9, version=version) == (120 if version == OFFSETS_ABORTABLE else 48)
            assert await fetch(cluster) == (0, 3)
            await add_offsets(client)
        assert await commit_in(cluster, client, 7, version=version) == 0
        assert await commit_in(cluster, client, 8, version=version) == 0
        for fetching in (7, 8, 9):
            assert await fetch(cluster, version=fetching) == (88, -1)
            assert await fetch(cluster, version=fetching, stable=False) == (0, 3)
        assert await fetch(cluster, asks=False) == (88, -1)
        assert await client.end(commits=commits, version=NEW if version == OFFSETS_NEW else OLD) == 0
        await client.is_over("CompleteCommit" if commits else "CompleteAbort")
        assert await fetch(cluster) == (0, 8 if commits else 3)

    play(story)


@pytest.mark.parametrize(("version", "decisions"), [(OLD, 4), (NEW, 6)])
def test_a_transaction_costs_as_many_appends_as_in_kafka(version: int, decisions: int) -> None:
    """Of three partitions and a group. Its coordinator writes that partitions are added (all at once in the old flow,
    for each leader in the new one) and the group's, the decision and its completion; each partition gets a marker."""

    async def story(cluster: SimulatedCluster) -> None:
        keys = {name: await create(cluster, name) for name in ("a", "b", "c")}
        client = Client(cluster)
        await client.init()
        is_new = version == NEW

        async def transaction(number: int) -> None:
            if not is_new:
                assert set((await client.add(*keys)).values()) == {0}
            for name, key in keys.items():
                sequence = 0 if is_new else number
                wanted = PRODUCE_NEW if is_new else PRODUCE_OLD
                assert await produce(cluster, key, client.producer, sequence, topic=name, version=wanted) == 0
            if not is_new:
                await add_offsets(client)
            assert await commit_in(cluster, client, number, version=OFFSETS_NEW if is_new else OFFSETS_OLD) == 0
            assert await client.end(commits=True, version=version) == 0
            await client.is_over("CompleteCommit")

        async def records() -> list[int]:
            topics = (TRANSACTIONS_TOPIC, OFFSETS_TOPIC, *keys)
            return [sum(await ends_of(cluster, name)) for name in topics]

        await transaction(0)
        before = await records()
        await transaction(1)
        assert [now - then for now, then in zip(await records(), before, strict=True)] == [decisions, 2, 2, 2, 2]

    play(story)


async def add_offsets(client: Client) -> None:
    message = AddOffsetsToTxnRequestData.make(
        transactional_id=client.name,
        producer_id=client.producer.producer_id,
        producer_epoch=client.producer.epoch,
        group_id="g",
    )
    assert (await client.ask(message, 3)).error_code == 0


@pytest.mark.parametrize("commits", [True, False])
def test_the_group_coordinator_dies_between_the_commit_and_the_marker(commits: bool) -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "a")
        client = Client(cluster)
        await client.init()
        assert await commit_plainly(cluster, 3) == 0
        for round_ in range(2):
            assert await commit_in(cluster, client, 10 + round_, version=OFFSETS_NEW) == 0
            owner = await group_coordinator(cluster, "g")
            await cluster.wait_ready()
            owner.kill()
            assert await fetch(cluster) == (88, -1), "the next coordinator knows what is pending"
            assert await client.end(commits=commits) == 0
            await client.is_over("CompleteCommit" if commits else "CompleteAbort")
            assert await fetch(cluster) == (0, 10 + round_ if commits else 3)
            await owner.start()
            await cluster.wait_ready()

    play(story)


def test_bad_commits_in_a_transaction_have_kafkas_errors_and_change_nothing() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "a")
        client = Client(cluster)
        await client.init()
        assert await commit_in(cluster, client, 5, version=OFFSETS_NEW, topic="gone") == 3
        assert await commit_in(cluster, client, 5, version=OFFSETS_NEW, partition=7) == 3
        assert await commit_in(cluster, client, 5, version=OFFSETS_NEW, metadata="x" * 5_000) == 12
        assert await commit_in(cluster, client, 5, version=OFFSETS_NEW, transactional_id="nobody") == 49
        unknown = await commit_in(
            cluster, client, 5, version=OFFSETS_NEW, generation_id_or_member_epoch=4, member_id="m"
        )
        assert unknown == 22
        assert await commit_in(cluster, client, 5, version=OFFSETS_NEW, member_id="m") == 0, "no generation, and empty"
        await client.end(commits=False)
        await client.is_over("CompleteAbort")
        zombie = Client(cluster)
        zombie.producer = Producer(client.producer.producer_id, client.producer.epoch - 1)
        assert await commit_in(cluster, zombie, 5, version=OFFSETS_NEW) == 47
        assert await fetch(cluster) == (0, -1)

    play(story)


def test_a_zombies_commits_and_markers_do_not_make_the_group_load_again() -> None:
    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "a")
        client = Client(cluster)
        await client.init()
        assert await commit_in(cluster, client, 5, version=OFFSETS_NEW) == 0
        assert await client.end(commits=True) == 0
        await client.is_over("CompleteCommit")
        owner = await group_coordinator(cluster, "g")
        assert owner.node is not None
        coordinator = owner.node.broker.group_coordinator
        assert coordinator is not None
        number = partition_of("g", OFFSETS_TOPIC, owner.node.publisher.image)
        shard = coordinator.shards.by_partition[number]
        epoch = client.producer.epoch
        old = WritableTxnMarker.make(
            producer_id=client.producer.producer_id,
            producer_epoch=epoch - 1,
            transaction_result=False,
            topics=[WritableTxnMarkerTopic.make(name=OFFSETS_TOPIC, partition_indexes=[number])],
            coordinator_epoch=0,
        )
        fenced = WritableTxnMarker.make(
            producer_id=client.producer.producer_id, producer_epoch=epoch, topics=old.topics, coordinator_epoch=-1
        )
        answer = await ClientDoor(owner).ask(WriteTxnMarkersRequestData.make(markers=[old, fenced]), 2)
        codes = [each.topics[0].partitions[0].error_code for each in answer.markers]
        assert codes == [47, 52]
        zombie = Client(cluster)
        zombie.producer = Producer(client.producer.producer_id, epoch - 1)
        assert await commit_in(cluster, zombie, 9, version=OFFSETS_OLD) == 47
        assert coordinator.shards.by_partition[number] is shard
        assert not shard.has_ended
        assert await fetch(cluster) == (0, 5)

    play(story)


# --- markers by hand, and who may be hanging ------------------------------------------------------------------------


def test_an_operator_finds_a_hanging_transaction_and_ends_it() -> None:
    """KIP-664, as kafka-transactions does it: DescribeProducers, then a marker with the epochs that were told."""

    async def story(cluster: SimulatedCluster) -> None:
        key = await create(cluster, "a")
        client = Client(cluster)
        await client.init()
        await client.write(key, b"hangs")  # past the coordinator, as before KIP-890
        leader = await leader_of(cluster, key)
        assert leader.node is not None
        assert leader.node.broker is not None
        (hanging,) = leader.node.broker.replicas.open_transactions()
        assert (hanging.topic, hanging.count, hanging.last_stable_offset_lag) == ("a", 1, 1)
        asked = DescribeProducersRequestData.make(
            topics=[
                DescribedTopic.make(name="a", partition_indexes=[0, 9]),
                DescribedTopic.make(name="gone", partition_indexes=[0]),
            ]
        )
        known, unknown = (await ClientDoor(leader).ask(asked, 0)).topics
        assert [each.error_code for each in known.partitions] == [0, 3]
        assert unknown.partitions[0].error_code == 3
        (state,) = known.partitions[0].active_producers
        assert Producer(state.producer_id, state.producer_epoch) == client.producer
        assert (state.last_sequence, state.current_txn_start_offset, state.coordinator_epoch) == (0, 0, -1)
        marker = WritableTxnMarker.make(
            producer_id=state.producer_id,
            producer_epoch=state.producer_epoch,
            topics=[
                WritableTxnMarkerTopic.make(name="a", partition_indexes=[0, 9]),
                WritableTxnMarkerTopic.make(name="gone", partition_indexes=[0]),
            ],
            coordinator_epoch=max(state.coordinator_epoch, 0),
        )
        for version in (1, 2):
            answer = await ClientDoor(leader).ask(WriteTxnMarkersRequestData.make(markers=[marker]), version)
            ((first, second),) = [
                [[each.error_code for each in topic.partitions] for topic in one.topics] for one in answer.markers
            ]
            assert (first, second) == ([0, 3], [3])
        elsewhere = next(node for node in cluster.alive if node is not leader)
        answer = await ClientDoor(elsewhere).ask(WriteTxnMarkersRequestData.make(markers=[marker]), 1)
        assert [each.error_code for each in answer.markers[0].topics[0].partitions] == [6, 3]
        found, _, is_decided = await read(cluster, key)
        assert is_decided
        assert found[1:] == [Marker(is_commit=False, coordinator_epoch=0)] * 2
        (state,) = (await ClientDoor(leader).ask(asked, 0)).topics[0].partitions[0].active_producers
        assert (state.current_txn_start_offset, state.coordinator_epoch) == (-1, 0)
        assert leader.node.broker.replicas.open_transactions() == []

    play(story)


# --- random histories -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_random_pending_offsets_match_model(seed: int) -> None:
    """The model is that of `test_pending_offsets`; here the log is real, and read again by each next coordinator."""
    rng = random.Random(seed)
    key = KEYS[0]  # as the model calls the partition

    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "a")
        clients = [Client(cluster, f"id-{number}") for number in range(3)]
        for client in clients:
            await client.init()
        log: list[Entry] = []
        open_: dict[Client, int] = {}
        for number in range(30):
            client, choice = rng.choice(clients), rng.random()
            if choice < 0.4:
                assert await commit_in(cluster, client, number, version=OFFSETS_NEW) == 0
                open_[client] = client.producer.producer_id
                log.append(TransactionalRecord(open_[client], record(key, number)))
            elif choice < 0.6:
                assert await commit_plainly(cluster, number) == 0
                log.append(record(key, number))
            elif choice < 0.9 and open_:
                client, commits = rng.choice(list(open_)), rng.random() < 0.6
                assert await client.end(commits=commits) == 0
                await client.is_over("CompleteCommit" if commits else "CompleteAbort")
                log.append(TransactionEnded(open_.pop(client), commits))
            elif choice >= 0.9:
                owner = await group_coordinator(cluster, "g")
                owner.kill()
                await owner.start()
                await cluster.wait_ready()
            known = modelled(log)
            expected = known.committed.get(key, -1)
            assert await fetch(cluster, stable=False) == (0, expected), (seed, number)
            assert await fetch(cluster) == ((88, -1) if key in known.unstable else (0, expected)), (seed, number)

    play(story, seed=seed)
