"""What no correct client sends to a queue: it gets Kafka's code, nothing is lost, and nobody else is slowed down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster, SimulatedNode
from kraft.coordinators.shares.ack_ids import Lock, Settlement
from kraft.coordinators.shares.leaders import ShareFetch
from kraft.coordinators.shares.queue import Receive, locks_of
from kraft.coordinators.shares.state import ShareKey
from kraft.protocol.errors import InvalidRecordState
from kraft.protocol.messages import share_fetch_request as fetching
from kraft.protocol.messages.share_fetch_request import ShareFetchRequestData
from metadata.image import TopicIdPartition
from replication.requests import CONSUMER, FetchRequest
from tests.unit.coordinators.test_share_coordinator import at, persister
from tests.unit.coordinators.test_share_dead_letters import LETTERS, TOPIC, events, source, start_offset
from tests.unit.coordinators.test_share_dead_letters import configure as set_group
from tests.unit.coordinators.test_share_leaders import (
    ACCEPT,
    REJECT,
    RELEASE,
    RENEW,
    SETTINGS,
    Member,
    produce,
    topic_of,
)
from tests.unit.coordinators.test_transaction_cluster import create, play, until

INT32_MIN, INT32_MAX, INT64_MAX = -(2**31), 2**31 - 1, 2**63 - 1
READS_MAX = 100
"""What a fetch that waits a second may cost, whatever it asks for."""


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[SimulatedNode], list[FetchRequest]]:
    """Counts the reads of consumers at a node. One that reads for ever is ended: no time passes meanwhile."""

    def count(node: SimulatedNode) -> list[FetchRequest]:
        assert node.node is not None
        assert node.node.broker is not None
        reads: list[FetchRequest] = []
        fetch = node.node.broker.replicas.fetch
        begin = fetch.begin

        def counting(request: FetchRequest) -> Any:
            if request.replica_id == CONSUMER:
                reads.append(request)
                assert len(reads) < 10 * READS_MAX, f"it reads for ever: {request}"
            return begin(request)

        monkeypatch.setattr(fetch, "begin", counting)
        return reads

    return count


def acquired(answer: Any) -> list[int]:
    """The offsets in an answer."""
    assert answer.error_code == 0, answer.error_message
    return [
        offset
        for topic in answer.responses
        for partition in topic.partitions
        for each in partition.acquired_records
        for offset in range(each.first_offset, each.last_offset + 1)
    ]


# --- absurd numbers ---------------------------------------------------------------------------------------------------


def test_absurd_numbers_lose_nothing_and_slow_nobody_down(counted: Callable[[SimulatedNode], list[FetchRequest]]):
    absurd: list[dict[str, Any]] = [
        *({"max_records": number} for number in (0, -1, INT32_MIN, INT32_MAX)),
        *({"max_records": number, "mode": 1} for number in (0, -1)),
        *({"max_bytes": number} for number in (0, -1, INT32_MIN, INT32_MAX)),
        *({"min_bytes": number} for number in (-1, INT32_MAX)),
        *({"batch_size": number} for number in (0, -1, INT32_MAX)),
        *({"mode": number} for number in (7, -1)),
        {"wait_ms": INT32_MIN},
    ]

    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster)
        reads = counted(Member(cluster, where).leader())
        accepted: list[int] = []
        for number, asked in enumerate(absurd):
            member = Member(cluster, where, f"m{number}")
            for records in (0, 2):
                if records:
                    await produce(cluster, where, records)
                reads.clear()
                answer = await member.fetch(**{"wait_ms": 1_000} | asked)
                assert len(reads) < READS_MAX, (asked, records)
                got = acquired(answer)
                accepted += got
                if got:
                    assert await member.acknowledge((got[0], got[-1], ACCEPT)) == 0, asked
            member.disconnect()
        other = Member(cluster, where, "other")
        accepted += acquired(await other.fetch(wait_ms=100))
        assert sorted(accepted) == list(range(2 * len(absurd)))

    play(story, **SETTINGS)


@pytest.mark.parametrize(("start", "found"), [(2**62, []), (INT64_MAX, []), (-7, [0, 1, 2, 3, 4])])
def test_a_group_that_was_set_to_where_nothing_is(
    start: int, found: list[int], counted: Callable[[SimulatedNode], list[FetchRequest]]
):
    async def story(cluster: SimulatedCluster) -> None:
        where = await create(cluster, "t", on=(1, 2, 3))
        await produce(cluster, where, 5)
        node = cluster.alive[0]
        key = ShareKey("g", where.topic_id, 0)
        await at(node, persister(node).initialize(key, state_epoch=1, start_offset=start))
        member = Member(cluster, where)
        reads = counted(member.leader())
        assert acquired(await member.fetch(wait_ms=1_000)) == found
        assert len(reads) < READS_MAX

    play(story, **SETTINGS)


def test_a_fetch_for_whose_answer_there_is_no_room_waits_for_it(counted: Callable[[SimulatedNode], list[FetchRequest]]):
    """Other clients have not taken theirs."""

    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=3)
        node = Member(cluster, where).leader()
        assert node.node is not None
        assert node.node.broker is not None
        reads, until_ms = counted(node), node.machine.clock.monotonic_ms() + 1_000
        ask = ShareFetch(
            group="g",
            member="m",
            partitions=[where],
            wait_ms=5_000,
            bytes_max=10**6,
            records_max=10,
            batch_size=10,
            is_strict=False,
            room=lambda: 0 if node.machine.clock.monotonic_ms() < until_ms else 10**6,
        )
        handed = await at(node, node.node.broker.shares.leaders.fetch(ask))
        assert [each[:2] for each in handed[where].acquired] == [(0, 2)]
        assert len(reads) < READS_MAX
        assert node.machine.clock.monotonic_ms() < until_ms + 500

    play(story, **SETTINGS)


def test_partitions_that_do_not_exist_are_answered_alone():
    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=3)
        member = Member(cluster, where)
        assert await member.got() == [(0, 2, 1)]
        for wrong, code in (
            (TopicIdPartition(where.topic_id, -1), 3),
            (TopicIdPartition(where.topic_id, INT32_MAX), 3),
            (TopicIdPartition(UUID(int=0), 0), 100),
            (TopicIdPartition(uuid4(), 0), 100),
        ):
            member.where = wrong
            answered = {
                TopicIdPartition(topic.topic_id, each.partition_index): each.error_code
                for topic in (await member.fetch()).responses
                for each in topic.partitions
            }
            assert answered.pop(wrong) == code
            assert where not in answered, "it has no news"
            assert await member.acknowledge((0, 0, ACCEPT)) == code
        member.where = where
        assert await member.acknowledge((0, 2, ACCEPT)) == 0

    play(story, **SETTINGS)


def test_a_session_of_thousands_of_partitions_that_do_not_exist_is_bounded():
    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=3)
        member, other = Member(cluster, where), Member(cluster, where, "other")
        node, nowhere = member.leader(), uuid4()

        async def named(first: int, count: int) -> Any:
            partitions = [fetching.FetchPartition.make(partition_index=first + number) for number in range(count)]
            request = ShareFetchRequestData.make(
                group_id="g",
                member_id=member.name,
                share_session_epoch=member.epoch,
                topics=[fetching.FetchTopic.make(topic_id=nowhere, partitions=partitions)],
                max_bytes=10**6,
                max_records=10,
            )
            member.epoch += 1
            return await member.door.ask(request, 2)

        assert acquired(await named(0, 2_000)) == []
        assert acquired(await named(2_000, 2_000)) == []
        refused = await named(4_000, 2_000)
        assert (refused.error_code, "at most 4096 partitions" in refused.error_message) == (42, True)
        answer = await named(4_000, 96)
        assert [len(topic.partitions) for topic in answer.responses] == [4_096]
        assert {each.error_code for topic in answer.responses for each in topic.partitions} == {100}
        assert node.node is not None
        assert node.node.broker is not None
        assert node.node.broker.shares.leaders._loads == {}
        assert await other.got() == [(0, 2, 1)]

    play(story, **SETTINGS)


# --- several requests of one connection -------------------------------------------------------------------------------


def test_acknowledgements_keep_the_order_of_their_requests():
    """Also where the first of them waits for records: Kafka handles the second one afterwards."""

    async def story(cluster: SimulatedCluster) -> None:
        member = Member(cluster, await topic_of(cluster, records=1))
        assert acquired(await member.fetch()) == [0]
        rejected = asyncio.create_task(member.fetch([(0, 0, REJECT)], wait_ms=100))
        accepted = asyncio.create_task(member.acknowledge((0, 0, ACCEPT), epoch=member.epoch + 1))
        [topic] = (await rejected).responses
        assert [each.acknowledge_error_code for each in topic.partitions] == [0]
        assert await accepted == InvalidRecordState.code

    play(story, **SETTINGS)


# --- acknowledgements and sessions ------------------------------------------------------------------------------------


def test_ranges_that_make_no_sense_change_nothing():
    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=10)
        member, other = Member(cluster, where), Member(cluster, where, "other")
        assert await member.got() == [(0, 9, 1)]
        assert await other.got() == []
        for acks in (
            [(3, 2, ACCEPT)],
            [(0, 4, ACCEPT), (0, 4, ACCEPT)],
            [(0, 4, ACCEPT), (4, 6, REJECT)],
            [(5, 6, ACCEPT), (0, 1, ACCEPT)],
            [(-5, 3, ACCEPT)],
            [(0, 0, 9)],
            [(0, 0, -1)],
            [(0, INT64_MAX, ACCEPT)],
            [(INT64_MAX, INT64_MAX, RELEASE)],
        ):
            assert await member.acknowledge(*acks) == 42, acks
            answer = await member.fetch(acks)
            assert [each.acknowledge_error_code for each in answer.responses[0].partitions] == [42], acks
        for kind in (ACCEPT, RELEASE, REJECT, RENEW):
            assert await other.acknowledge((0, 9, kind)) == 121, "it has none of them"
        assert await member.acknowledge((0, 9, ACCEPT)) == 0
        assert await other.got() == []

    play(story, **SETTINGS)


def test_a_session_out_of_step_is_refused_and_goes_on():
    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=10)
        member = Member(cluster, where)
        assert await member.got() == [(0, 9, 1)]
        for wrong in (2, 7, INT32_MAX, -2, INT32_MIN):
            member.epoch = wrong
            assert (await member.fetch([(0, 9, ACCEPT)])).error_code == 123, wrong
            assert await member.acknowledge((0, 9, ACCEPT)) == 123, wrong
        assert await member.acknowledge((0, 9, ACCEPT), epoch=0) == 123
        member.epoch = 1
        assert await member.acknowledge((0, 9, ACCEPT)) == 0
        stranger = Member(cluster, where, "stranger")
        for wrong in (1, INT32_MAX, -1, -2):
            stranger.epoch = wrong
            assert (await stranger.fetch()).error_code == 122, wrong
            assert await stranger.acknowledge((0, 9, ACCEPT)) == 122, wrong

    play(story, **SETTINGS)


def test_one_session_more_waits_as_long_as_it_asked_and_the_others_go_on():
    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=10)
        first, late = Member(cluster, where, "first"), Member(cluster, where, "late")
        assert await first.got(records=1, mode=1) == [(0, 0, 1)]
        begun_s = cluster.world.loop.time()
        refused = asyncio.ensure_future(late.fetch(wait_ms=2_000))
        assert await first.got([(0, 0, ACCEPT)], records=1, mode=1) == [(1, 1, 1)]
        assert cluster.world.loop.time() < begun_s + 1
        assert (await refused).error_code == 133
        assert cluster.world.loop.time() >= begun_s + 1.9
        assert await first.acknowledge((1, 1, ACCEPT), epoch=-1) == 0
        assert await late.got() == [(2, 9, 1)]

    play(story, **SETTINGS, group_share_max_share_sessions=1)


# --- acknowledgements over REST ---------------------------------------------------------------------------------------


def test_an_id_twice_in_a_request_and_ids_of_what_is_not_there():
    async def story(cluster: SimulatedCluster) -> None:
        where = await topic_of(cluster, records=3)
        node = cluster.alive[0]
        assert node.node is not None
        queues = node.node.queues
        receipt = queues.new_receipt()
        wanted = Receive(
            group="g", topics=("t",), receipt=receipt, records_max=10, bytes_max=10**6, wait_ms=1_000, lock_ms=5_000
        )
        (lock,) = locks_of(await at(node, queues.receive(wanted)), receipt, now_ms=node.machine.clock.wall_ms())[where]

        def of(offset: int, kind: Any, lock: Lock = lock) -> Settlement:
            return Settlement(lock, offset, offset, kind)

        async def refused(*asked: Settlement) -> dict[int, int]:
            found = await at(node, queues.acknowledge("g", asked))
            return {place: error.code for place, error in found.items()}

        assert await refused(of(0, ACCEPT), of(0, ACCEPT)) == {}
        assert await refused(of(1, ACCEPT), of(1, REJECT)) == {1: 121}
        elsewhere = [
            lock._replace(where=TopicIdPartition(uuid4(), 0)),
            lock._replace(where=TopicIdPartition(where.topic_id, 9)),
        ]
        assert await refused(*(of(2, ACCEPT, each) for each in elsewhere), of(2, ACCEPT)) == {0: 3, 1: 3}
        another = lock._replace(receipt=queues.new_receipt())
        assert await refused(of(2, REJECT, another)) == {0: 121}, "another receiver"
        await asyncio.sleep(6)
        assert await refused(of(2, ACCEPT)) == {0: 121}, "its time is over"
        assert await start_offset(cluster, where) == 3

    play(story, **SETTINGS)


# --- dead letters -----------------------------------------------------------------------------------------------------


def test_a_full_disk_of_the_dead_letters_holds_up_no_other_record():
    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "dlq.t", on=(3,), configs=LETTERS)
        where = await source(cluster, records=4)
        await set_group(cluster, {TOPIC: "dlq.t"})
        member = Member(cluster, where)
        assert member.leader() is cluster.nodes[1]
        assert await member.got() == [(0, 3, 1)]
        cluster.nodes[3].machine.disk.is_full = True
        assert await member.acknowledge((0, 0, REJECT), (1, 2, ACCEPT)) == 0
        await produce(cluster, where, 2)
        begun_s = cluster.world.loop.time()
        assert await member.got([(3, 3, ACCEPT)]) == [(4, 5, 1)]
        assert cluster.world.loop.time() < begun_s + 1, "it does not wait for the dead letter"
        assert await member.acknowledge((4, 5, ACCEPT)) == 0
        await _begins(cluster, where, 6)
        (event,) = events(cluster, "dead_letters_not_written")
        assert (event["group"], event["first_offset"], event["records"]) == ("g", 0, 1)
        assert (event["dead_letter_topic"], bool(event["error"])) == ("dlq.t", True)
        cluster.nodes[3].machine.disk.is_full = False

    play(story, **SETTINGS)


async def _begins(cluster: SimulatedCluster, where: TopicIdPartition, offset: int) -> None:
    """A share coordinator may be on the full disk: it is another one after that."""

    async def look() -> bool:
        return await start_offset(cluster, where) == offset

    await until(look, every_s=0.5)
