"""Members of a share group on three simulated nodes, as Kafka's clients ask: nothing is lost, whoever dies."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from typing import Any

import pytest

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster, SimulatedNode
from kraft.coordinators.shares.leaders import Handed, ShareFetch
from kraft.coordinators.shares.state import ShareKey
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches
from kraft.protocol.errors import KafkaError
from kraft.protocol.messages import share_acknowledge_request as acknowledgement
from kraft.protocol.messages import share_fetch_request as fetching
from kraft.protocol.messages.share_acknowledge_request import ShareAcknowledgeRequestData
from kraft.protocol.messages.share_fetch_request import ShareFetchRequestData
from metadata.controller.requests import (
    AlterConfigs,
    AlterReassignments,
    ConfigAlteration,
    ConfigResource,
    ElectLeaders,
    PartitionReassignment,
)
from metadata.image import TopicIdPartition
from replication.requests import CONSUMER, FetchRequest, ProduceOptions
from replication.shares.states import AcknowledgeType
from tests.support.client_door import ClientDoor
from tests.unit.coordinators.test_share_coordinator import at, persister
from tests.unit.coordinators.test_transaction_cluster import Client, create, eventually, play, until

GAP, ACCEPT, RELEASE, REJECT, RENEW = AcknowledgeType
SETTINGS: dict[str, Any] = {"share_coordinator_state_topic_num_partitions": 2}
Batches = Sequence[tuple[int, int, int]]


class Member:
    """A consumer with one partition, which goes to its leader."""

    def __init__(self, cluster: SimulatedCluster, where: TopicIdPartition, name: str = "m") -> None:
        self.cluster, self.where, self.name = cluster, where, name
        self.epoch = 0
        self.door = ClientDoor(self.leader())

    def leader(self) -> SimulatedNode:
        for each in self.cluster.alive:
            if each.node is not None:
                partition = each.node.publisher.image.partition(self.where.topic_id, self.where.partition)
                if partition is not None and partition.leader in self.cluster.nodes:
                    node = self.cluster.nodes[partition.leader]
                    if node.node is not None:
                        return node
        return self.cluster.alive[0]

    def reconnect(self) -> None:
        """Another connection, and a session that begins anew."""
        self.door, self.epoch = ClientDoor(self.leader()), 0

    async def fetch(
        self, acks: Batches = (), *, wait_ms: int = 0, records: int = 500, mode: int = 0, **more: Any
    ) -> Any:
        """The whole answer."""
        partition = fetching.FetchPartition.make(
            partition_index=self.where.partition,
            acknowledgement_batches=[
                fetching.AcknowledgementBatch.make(first_offset=first, last_offset=last, acknowledge_types=[kind])
                for first, last, kind in acks
            ],
        )
        given: dict[str, Any] = {
            "max_wait_ms": wait_ms,
            "max_records": records,
            "max_bytes": 10**6,
            "batch_size": 500,
            "share_acquire_mode": mode,
            **more,
        }
        request = ShareFetchRequestData.make(
            group_id="g",
            member_id=self.name,
            share_session_epoch=self.epoch,
            topics=[fetching.FetchTopic.make(topic_id=self.where.topic_id, partitions=[partition])],
            **given,
        )
        answer = await self.door.ask(request, 2)
        if not answer.error_code:
            self.epoch += 1
        return answer

    async def got(self, acks: Batches = (), **more: Any) -> list[tuple[int, int, int]]:
        """Ranges and delivery counts; the records that come along are there."""
        answer = await self.fetch(acks, **more)
        assert answer.error_code == 0, answer.error_message
        found = []
        for topic in answer.responses:
            for partition in topic.partitions:
                assert (partition.error_code, partition.acknowledge_error_code) == (0, 0), partition.error_message
                offsets = {record.offset for record in read_batches(partition.records)}
                for each in partition.acquired_records:
                    assert offsets >= set(range(each.first_offset, each.last_offset + 1))
                    found.append((each.first_offset, each.last_offset, each.delivery_count))
        return found

    async def acknowledge(self, *acks: tuple[int, int, int], epoch: int | None = None) -> int:
        """The error code of the partition, or of the request."""
        partition = acknowledgement.AcknowledgePartition.make(
            partition_index=self.where.partition,
            acknowledgement_batches=[
                acknowledgement.AcknowledgementBatch.make(
                    first_offset=first, last_offset=last, acknowledge_types=[kind]
                )
                for first, last, kind in acks
            ],
        )
        topic = acknowledgement.AcknowledgeTopic.make(topic_id=self.where.topic_id, partitions=[partition])
        request = ShareAcknowledgeRequestData.make(
            group_id="g",
            member_id=self.name,
            share_session_epoch=self.epoch if epoch is None else epoch,
            topics=[topic],
            is_renew_ack=any(kind == RENEW for *_, kind in acks),
        )
        answer = await self.door.ask(request, 2)
        if answer.error_code:
            return int(answer.error_code)
        self.epoch += 1
        return int(answer.responses[0].partitions[0].error_code)

    def disconnect(self) -> None:
        """The connection breaks."""
        for call in self.door.connection.on_ended.values():
            call()


async def topic_of(cluster: SimulatedCluster, *, records: int = 0, on: tuple[int, ...] = (1, 2, 3)) -> TopicIdPartition:
    where = await create(cluster, "t", on=on)
    node = cluster.alive[0]
    await at(node, persister(node).initialize(ShareKey("g", where.topic_id, 0), state_epoch=1, start_offset=0))
    if records:
        await produce(cluster, where, records)
    return where


async def configure(cluster: SimulatedCluster, group: str, **configs: str) -> None:
    node = cluster.alive[0]
    assert node.node is not None
    alterations = tuple(ConfigAlteration(name=name, operation="set", value=value) for name, value in configs.items())
    request = AlterConfigs(resources={ConfigResource(resource_type="group", name=group): alterations})
    await at(node, node.node.gateway.control(request, timeout_ms=10_000))
    await asyncio.sleep(1)


async def lead(cluster: SimulatedCluster, replicas: tuple[int, ...]) -> None:
    """The first of the replicas becomes the leader, and every node knows it."""
    node = cluster.alive[0]
    assert node.node is not None
    moved = AlterReassignments(
        reassignments=(PartitionReassignment(topic="t", partition=0, replicas=replicas),),
    )
    await at(node, node.node.gateway.control(moved, timeout_ms=10_000))
    await asyncio.sleep(1)
    elected = ElectLeaders(election="preferred", partitions=(("t", 0),))
    await at(node, node.node.gateway.control(elected, timeout_ms=10_000))
    await asyncio.sleep(1)


async def produce(cluster: SimulatedCluster, where: TopicIdPartition, count: int) -> None:
    node = cluster.alive[0]
    assert node.node is not None
    batch = build_batch([NewRecord(b"k", b"v", [], 1_000) for _ in range(count)])
    await at(node, node.node.gateway.produce({where: batch}, ProduceOptions(-1, 10_000)))


def test_members_share_a_partition_and_what_is_accepted_never_comes_again():
    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=10)
        await produce(cluster, where, 10)
        first, second = Member(cluster, where, "a"), Member(cluster, where, "b")
        assert await first.got(records=5) == [(0, 9, 1)]
        assert await second.got(records=5, mode=1) == [(10, 14, 1)]
        assert await first.acknowledge((0, 3, ACCEPT), (4, 4, REJECT), (5, 9, RELEASE)) == 0
        assert await second.got([(10, 14, ACCEPT)]) == [(5, 9, 2), (15, 19, 1)]
        assert await first.acknowledge((5, 5, ACCEPT)) == 121
        assert await second.acknowledge((5, 9, ACCEPT), (15, 19, ACCEPT)) == 0
        assert await first.got() == []
        summary = await at(cluster.alive[0], persister(cluster.alive[0]).summary(ShareKey("g", where.topic_id, 0)))
        assert summary.start_offset == 20

    play(story, **SETTINGS)


def test_a_fetch_waits_for_new_records_and_for_released_ones():
    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster)
        first, second = Member(cluster, where, "a"), Member(cluster, where, "b")
        assert await first.got() == []
        waiting = [asyncio.ensure_future(each.got(wait_ms=20_000)) for each in (first, second)]
        await asyncio.sleep(1)
        await produce(cluster, where, 3)
        done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result() for task in done] == [[(0, 2, 1)]]
        holder = first if waiting[0] in done else second
        assert await holder.acknowledge((1, 1, RELEASE)) == 0
        assert await pending.pop() == [(1, 1, 2)]

    play(story, **SETTINGS)


def test_committed_records_are_handed_out_and_an_open_transaction_waits():
    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=2)
        await configure(cluster, "g", **{"share.isolation.level": "read_committed"})
        client, member = Client(cluster), Member(cluster, where)
        await client.init()
        await client.add("t")
        await client.write(where, b"never", b"never")
        await produce(cluster, where, 1)
        assert await member.got() == [(0, 1, 1)]
        assert await member.acknowledge((0, 1, ACCEPT)) == 0
        waiting = asyncio.ensure_future(member.got(wait_ms=20_000))
        await asyncio.sleep(5)
        assert not waiting.done(), "the transaction is open"
        assert await client.end(commits=False) == 0
        assert await waiting == [(4, 4, 1)]
        await client.add("t")
        await client.write(where, b"at last")
        assert await member.got([(4, 4, ACCEPT)], wait_ms=1_000) == []
        assert await client.end(commits=True) == 0
        assert await member.got(wait_ms=20_000) == [(6, 6, 1)]

    play(story, **SETTINGS)


def test_a_group_that_reads_all_gets_records_of_open_transactions():
    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster)
        client, member = Client(cluster), Member(cluster, where)
        await client.init()
        await client.add("t")
        await client.write(where, b"x", b"y")
        assert await member.got() == [(0, 1, 1)]

    play(story, **SETTINGS)


def test_locks_run_out_and_sessions_that_end_release():
    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=10)
        first, second = Member(cluster, where, "a"), Member(cluster, where, "b")
        assert await first.got() == [(0, 9, 1)]
        await asyncio.sleep(5)
        assert await first.acknowledge((0, 0, RENEW)) == 0
        assert await second.got(wait_ms=20_000) == []
        assert await second.got(wait_ms=6_000) == [(1, 9, 2)]
        assert await first.acknowledge((3, 3, ACCEPT)) == 121
        second.disconnect()
        third = Member(cluster, where, "c")
        assert await third.got() == [(1, 9, 3)]
        assert await third.acknowledge((1, 1, ACCEPT), epoch=-1) == 0
        assert await third.acknowledge((2, 2, ACCEPT)) == 122
        assert await first.got() == [(2, 6, 4)], "in parts from now on"

    play(story, **SETTINGS)


def test_a_group_may_forbid_to_renew_locks():
    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=10)
        await configure(cluster, "g", **{"share.renew.acknowledge.enable": "false"})
        member = Member(cluster, where)
        assert await member.got() == [(0, 9, 1)]
        assert await member.acknowledge((0, 0, RENEW)) == 42
        await configure(cluster, "g", **{"share.renew.acknowledge.enable": "true"})
        assert await member.acknowledge((0, 0, RENEW)) == 0

    play(story, **SETTINGS)


def test_an_old_connection_releases_nothing_of_the_new_session():
    """KAFKA-19950."""

    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=10)
        old, new = Member(cluster, where), Member(cluster, where)
        assert await old.got(records=1, mode=1) == [(0, 0, 1)]
        assert await new.got(records=1, mode=1) == [(1, 1, 1)]
        old.disconnect()
        assert await new.acknowledge((0, 1, ACCEPT)) == 0

    play(story, **SETTINGS)


def test_requests_that_make_no_sense_are_refused():
    """KAFKA-19485: acknowledgements of a request that opens a session are refused, not lost."""

    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=10)
        member = Member(cluster, where)
        assert (await member.fetch([(0, 0, ACCEPT)])).error_code == 42
        assert await member.got() == [(0, 9, 1)]
        assert (await member.fetch(is_renew_ack=True)).error_code == 42
        member.epoch = 7
        assert (await member.fetch()).error_code == 123
        member.epoch = 1
        for acks in (
            [(3, 2, ACCEPT)],
            [(0, 0, 9)],
            [(0, 0, RENEW)],
            [(4, 5, ACCEPT), (1, 2, ACCEPT)],
            [(0, 20, ACCEPT)],
        ):
            answer = await member.fetch(acks)
            assert answer.responses[0].partitions[0].acknowledge_error_code == 42, acks
        member.name = "x" * 37
        assert (await member.fetch()).error_code == 42
        member.name, member.epoch = "other", 0
        member.where = TopicIdPartition(where.topic_id, 3)
        assert (await member.fetch()).responses[0].partitions[0].error_code == 3

    play(story, **SETTINGS)


def test_a_session_more_than_allowed_is_refused():
    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=10)
        assert await Member(cluster, where, "a").got()
        assert (await Member(cluster, where, "b").fetch()).error_code == 133

    play(story, **SETTINGS, group_share_max_share_sessions=1)


def test_the_next_leader_knows_what_was_acknowledged_and_hands_out_the_rest():
    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=10)
        member = Member(cluster, where)
        assert await member.got() == [(0, 9, 1)]
        assert await member.acknowledge((0, 1, ACCEPT), (5, 6, ACCEPT), (7, 7, RELEASE)) == 0
        member.leader().kill()

        async def again() -> list[tuple[int, int, int]] | None:
            member.reconnect()
            answer = await member.fetch(wait_ms=1_000)
            if answer.error_code or answer.responses[0].partitions[0].error_code:
                return None
            found = answer.responses[0].partitions[0].acquired_records
            return [(each.first_offset, each.last_offset, each.delivery_count) for each in found]

        assert await until(again) == [(2, 4, 1), (7, 7, 2), (8, 9, 1)]
        assert await member.acknowledge((2, 4, ACCEPT), (7, 9, ACCEPT)) == 0
        assert await member.got() == []

    play(story, **SETTINGS)


def test_a_record_is_tried_again_after_its_back_off_also_by_the_next_leader():
    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=10)
        await configure(cluster, "g", **{"share.retry.backoff.ms": "4000", "share.retry.backoff.max.ms": "60000"})
        member, other = Member(cluster, where), Member(cluster, where, "n")
        assert await member.got() == [(0, 9, 1)]
        assert await member.acknowledge((0, 0, ACCEPT), (1, 8, RELEASE)) == 0
        assert await other.got(wait_ms=3_900) == []
        assert await other.got(wait_ms=200) == [(1, 8, 2)], "as soon as it is due"
        assert await other.acknowledge((1, 7, ACCEPT), (8, 8, RELEASE)) == 0
        await lead(cluster, (2, 3, 1))
        late = Member(cluster, where, "l")
        assert await late.got() == [(9, 9, 1)], "its lock was soft"
        assert await late.got(wait_ms=5_000) == []
        assert await late.got(wait_ms=2_000) == [(8, 8, 3)], "8 seconds after its second delivery, 2 went by for lead()"

    play(story, **SETTINGS)


def test_nothing_is_lost_when_every_node_restarts_between_any_two_steps():
    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=20)
        accepted: set[int] = set()
        member = Member(cluster, where)

        async def take() -> bool:
            member.reconnect()
            answer = await member.fetch(records=4, mode=1, wait_ms=500)
            if answer.error_code or answer.responses[0].partitions[0].error_code:
                return False
            for each in answer.responses[0].partitions[0].acquired_records:
                offsets = set(range(each.first_offset, each.last_offset + 1))
                assert not offsets & accepted, "handed out after its acceptance was answered"
                if await member.acknowledge((each.first_offset, each.last_offset, ACCEPT)) == 0:
                    accepted.update(offsets)
            return True

        while len(accepted) < 20:
            await until(take, every_s=0.2)
            for each in list(cluster.alive):
                each.kill()
            await cluster.start()

    play(story, **SETTINGS)


def test_a_fetch_that_waits_while_the_leader_changes_hands_out_nothing():
    """KAFKA-19567: what the purgatory completes after that is the next leader's."""

    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster)
        member = Member(cluster, where)
        assert member.leader() is cluster.nodes[1]
        waiting = asyncio.ensure_future(member.fetch(wait_ms=20_000))
        await asyncio.sleep(1)
        await lead(cluster, (2, 3, 1))
        await produce(cluster, where, 3)
        answer = await asyncio.wait_for(waiting, 5)
        (partition,) = answer.responses[0].partitions
        assert (partition.error_code, list(partition.acquired_records)) == (6, [])
        assert (partition.current_leader.leader_id, [each.node_id for each in answer.node_endpoints]) == (2, [2])
        assert await Member(cluster, where, "n").got() == [(0, 2, 1)]

    play(story, **SETTINGS)


def test_a_session_outlives_changes_of_the_leader():
    """KAFKA-20736: its locks do not, and a leader that comes back begins with what the one between wrote."""

    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=10)
        first = Member(cluster, where)
        assert await first.got(records=4, mode=1) == [(0, 3, 1)]
        await lead(cluster, (2, 3, 1))
        assert await first.acknowledge((0, 3, ACCEPT)) == 6
        second = Member(cluster, where)
        assert await second.got(records=6, mode=1) == [(0, 5, 1)]
        assert await second.acknowledge((0, 1, ACCEPT), (2, 2, RELEASE)) == 0
        await lead(cluster, (1, 2, 3))
        assert (await second.fetch()).responses[0].partitions[0].error_code == 6
        assert await first.acknowledge((3, 3, ACCEPT)) == 42, "this leader has handed out nothing"
        assert await first.got() == [(2, 2, 2), (3, 9, 1)]
        assert await first.acknowledge((2, 9, ACCEPT)) == 0

    play(story, **SETTINGS)


@pytest.mark.long
def test_a_load_fails_unnoticed_when_its_requests_are_gone():
    """The world fails for an exception that nobody has seen."""

    async def story(cluster: SimulatedCluster) -> None:
        where = await create(cluster, "t", on=(1, 2, 3))
        node = Member(cluster, where).leader()
        assert node.node is not None
        assert node.node.broker is not None
        leaders = node.node.broker.shares.leaders
        request = asyncio.create_task(at(node, leaders.leader(ShareKey("not initialized", where.topic_id, 0))))
        while not leaders._loads:  # noqa: ASYNC110 - there is no event, and a longer wait would miss it
            await asyncio.sleep(0)
        request.cancel()
        await eventually(lambda: not leaders._loads)
        gc.collect()

    play(story, **SETTINGS)


def test_a_share_partition_that_was_not_initialized_is_no_fault_of_the_member():
    """UNKNOWN_SERVER_ERROR -1 and not INVALID_REQUEST 42, which ends a Java consumer. Kafka 4.4.0."""

    async def story(cluster: SimulatedCluster) -> None:
        where = await create(cluster, "t", on=(1, 2, 3))
        node = Member(cluster, where).leader()
        assert node.node is not None
        assert node.node.broker is not None
        with pytest.raises(KafkaError, match="was not initialized") as refused:
            await at(node, node.node.broker.shares.leaders.leader(ShareKey("not initialized", where.topic_id, 0)))
        assert refused.value.code == -1

    play(story, **SETTINGS)


def test_a_partition_that_is_named_twice_is_answered_once():
    """KAFKA-19789."""

    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=6)
        member = Member(cluster, where)
        assert await member.got() == [(0, 5, 1)]
        assert await member.acknowledge((0, 0, ACCEPT), (1, 2, RELEASE), (3, 3, ACCEPT), (4, 4, RELEASE)) == 0
        await produce(cluster, where, 3)
        partition = fetching.FetchPartition.make(partition_index=0, acknowledgement_batches=[])
        topic = fetching.FetchTopic.make(topic_id=where.topic_id, partitions=[partition, partition])
        request = ShareFetchRequestData.make(
            group_id="g",
            member_id="m",
            share_session_epoch=member.epoch,
            max_bytes=10**6,
            max_records=500,
            batch_size=500,
            topics=[topic, topic],
        )
        answer = await member.door.ask(request, 2)
        (found,) = answer.responses[0].partitions
        acquired = [(each.first_offset, each.last_offset, each.delivery_count) for each in found.acquired_records]
        assert acquired == [(1, 2, 2), (4, 4, 2), (6, 8, 1)]
        offsets = [record.offset for record in read_batches(found.records)]
        assert offsets == sorted(set(offsets))

    play(story, **SETTINGS)


def test_receives_over_rest_read_the_log_once_and_get_their_records_alone(monkeypatch: pytest.MonkeyPatch):
    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=10)
        node = Member(cluster, where).leader()
        assert node.node is not None
        assert node.node.broker is not None
        leaders, reads = node.node.broker.shares.leaders, []
        begin = node.node.broker.replicas.fetch.begin

        def counted(request: FetchRequest) -> Any:
            if request.replica_id == CONSUMER:
                reads.append(request)
            return begin(request)

        monkeypatch.setattr(node.node.broker.replicas.fetch, "begin", counted)

        async def received(member: str) -> list[int]:
            ask = ShareFetch(
                group="g",
                member=member,
                partitions=[where],
                wait_ms=0,
                bytes_max=1 << 20,
                records_max=4,
                batch_size=4,
                is_strict=True,
                room=lambda: 1 << 20,
                lock_ms=10_000,
            )
            handed = (await at(node, leaders.fetch(ask))).get(where, Handed())
            return [each.offset for each in read_batches(handed.records, checks_crc=True)]

        assert [await received(name) for name in "abc"] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        assert len(reads) == 1
        await asyncio.sleep(11)
        assert await received("d") == [0, 1, 2, 3], "their locks have run out"
        assert len(reads) == 2
        await at(node, node.node.broker.replicas.offsets.delete_records(where, offset=6, timeout_ms=10_000))
        assert await received("e") == [], "what the log has lost is not handed out"
        assert await received("f") == [6, 7, 8, 9]

    play(story, **SETTINGS)
