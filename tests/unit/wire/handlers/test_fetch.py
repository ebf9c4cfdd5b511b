"""Fetch for clients: what each version is answered."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from kraft.protocol.batches.records import read_batches
from kraft.protocol.encoding import ZERO_UUID
from kraft.protocol.errors import FetchSessionIdNotFound, UnknownTopicId, UnknownTopicOrPartition
from kraft.protocol.messages.fetch_request import (
    FetchPartition,
    FetchRequestData,
    FetchTopic,
    ForgottenTopic,
    ReplicaState,
)
from kraft.protocol.messages.fetch_response import FetchResponseData, PartitionData
from kraft.wire.handlers.absent_partitions import MANY, AbsentPartitions
from metadata.image import MetadataImage
from metadata.records import PartitionRecord, TopicRecord
from replication.requests import FetchedPartition, FetchRequest, FetchResponse
from replication.sessions import cache
from replication.sessions.cache import EVICTION_MS
from tests.unit.replication.harness.cluster import TOPIC_ID
from tests.unit.replication.harness.virtual import run
from tests.unit.wire.handlers.brokers import Brokers, Client, records
from tests.unit.wire.handlers.test_produce import produce

ALL_VERSIONS = range(4, 19)


def request(
    *offsets: int,
    version: int,
    topic: str = "t",
    topic_id: UUID = TOPIC_ID,
    wait_ms: int = 0,
    min_bytes: int = 1,
    max_bytes: int = 1 << 20,
    partition_max_bytes: int = 1 << 20,
    leader_epoch: int = -1,
    last_epoch: int = -1,
    **more: Any,
) -> FetchRequestData:
    """Of partition 0, 1 and so on from these offsets."""
    partitions = [
        FetchPartition.make(
            partition=number,
            fetch_offset=offset,
            partition_max_bytes=partition_max_bytes,
            current_leader_epoch=leader_epoch,
            last_fetched_epoch=last_epoch,
        )
        for number, offset in enumerate(offsets)
    ]
    asked = FetchTopic.make(topic=topic, topic_id=topic_id if version >= 13 else ZERO_UUID, partitions=partitions)
    return FetchRequestData.make(
        max_wait_ms=wait_ms,
        min_bytes=min_bytes,
        max_bytes=max_bytes,
        topics=[asked] if partitions else [],
        **more,
    )


async def fetch(client: Client, *offsets: int, version: int = 18, **how: Any) -> list[PartitionData]:
    answer = await client.ask(request(*offsets, version=version, **how), FetchResponseData, version)
    assert answer.error_code == 0
    return [partition for topic in answer.responses for partition in topic.partitions]


def values(partition: PartitionData) -> list[bytes | None]:
    return [record.value for record in read_batches(partition.records or b"", from_offset=0)]


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_every_version_reads_by_name_or_by_id(version: int) -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create()
            await produce(cluster.clients[1], records(b"a", b"b"))
            (partition,) = await fetch(cluster.clients[1], 0, version=version)
            assert (partition.error_code, partition.high_watermark, values(partition)) == (0, 2, [b"a", b"b"])

    run(story())


def fetching(client: Client, *offsets: int, **how: Any) -> asyncio.Task[list[PartitionData]]:
    return asyncio.get_running_loop().create_task(fetch(client, *offsets, **how))


def test_a_fetch_waits_for_as_many_bytes_as_it_asks_for_and_is_woken_by_them() -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create(partitions=2)
            client, loop = cluster.clients[1], asyncio.get_running_loop()
            waiting = fetching(client, 0, 0, wait_ms=60_000)
            await asyncio.sleep(1)
            assert not waiting.done()
            began = loop.time()
            await produce(client, records(b"a"), partition=1)
            assert [values(each) for each in await waiting] == [[], [b"a"]]
            assert loop.time() - began < 0.1
            more = fetching(client, 0, 0, wait_ms=60_000, min_bytes=150)
            await asyncio.sleep(1)
            assert not more.done(), "70 bytes are too few"
            await produce(client, records(b"b"))
            await asyncio.sleep(1)
            assert not more.done(), "140, too"
            await produce(client, records(b"c"))
            assert [values(each) for each in await more] == [[b"b", b"c"], [b"a"]]
            began = loop.time()
            late = await fetch(client, 2, 1, wait_ms=500)
            assert [values(each) for each in late] == [[], []]
            assert 0.5 <= loop.time() - began < 0.6
            began = loop.time()
            assert [values(each) for each in await fetch(client, 0, 0, wait_ms=500, min_bytes=300, max_bytes=200)]
            assert loop.time() == began, "more than it takes is not waited for"

    run(story())


def test_first_batch_is_whole() -> None:
    """KIP-74."""

    async def story() -> None:
        async with Brokers(fetch_max_bytes=2_500) as cluster:
            cluster.create(partitions=3)
            client = cluster.clients[1]
            for partition in (1, 2):
                for _ in range(4):
                    await produce(client, records(b"x" * 1_000), partition=partition)

            async def counts(**how: Any) -> list[int]:
                return [len(values(each)) for each in await fetch(client, 0, 0, 0, **how)]

            assert await counts() == [0, 2, 0], "fetch.max.bytes of the broker"
            assert await counts(max_bytes=1) == [0, 1, 0]
            assert await counts(partition_max_bytes=1) == [0, 1, 0]
            assert await counts(partition_max_bytes=0) == [0, 1, 0]
            assert await counts(max_bytes=0) == [0, 1, 0]
            assert await counts(partition_max_bytes=1_100) == [0, 1, 1]

    run(story())


def test_a_session_reports_what_is_new() -> None:
    """KIP-227: partitions without news are left out; one with records goes to the end."""

    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create(partitions=3)
            client = cluster.clients[1]

            async def ask(*offsets: int, version: int = 12, **how: Any) -> tuple[int, int, dict[int, list[Any]]]:
                answer = await client.ask(request(*offsets, version=version, **how), FetchResponseData, version)
                partitions = [each for topic in answer.responses for each in topic.partitions]
                return answer.error_code, answer.session_id, {each.partition_index: values(each) for each in partitions}

            code, session, reported = await ask(0, 0, 0, session_epoch=0)
            assert (code, reported) == (0, {0: [], 1: [], 2: []})
            assert session > 0
            assert await ask(session_id=session, session_epoch=1) == (0, session, {})
            await produce(client, records(b"a"), partition=1)
            assert await ask(session_id=session, session_epoch=2) == (0, session, {1: [b"a"]})
            assert await ask(0, 1, session_id=session, session_epoch=3) == (0, session, {}), "it was told the end"
            assert await ask(session_id=session, session_epoch=3) == (71, 0, {}), "an epoch that was used"
            assert await ask(session_id=session + 1, session_epoch=1) == (70, 0, {})
            assert await ask(session_id=session, session_epoch=4, version=13) == (106, 0, {})
            forget = [ForgottenTopic.make(topic="t", partitions=[0, 1])]
            assert (await ask(session_id=session, session_epoch=4, forgotten_topics_data=forget))[0] == 0
            await produce(client, records(b"b"), partition=0)
            await produce(client, records(b"c"), partition=2)
            assert await ask(session_id=session, session_epoch=5) == (0, session, {2: [b"c"]})
            forget = [ForgottenTopic.make(topic="t", partitions=[2])]
            assert await ask(session_id=session, session_epoch=6, forgotten_topics_data=forget) == (0, 0, {})
            assert await ask(session_id=session, session_epoch=7) == (70, 0, {}), "an empty session is none"

            code, session, _ = await ask(0, 0, 0, session_epoch=0)
            assert await ask(1, session_id=session, session_epoch=-1) == (0, 0, {0: []}), "closed"
            assert await ask(session_id=session, session_epoch=1) == (70, 0, {})
            assert cluster.nodes[1].manager.status().fetch_sessions == 2, "those of the followers"

    run(story())


def test_a_session_names_a_partition_again_when_its_error_comes_and_goes() -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            client = cluster.clients[1]

            async def ask(epoch: int, session: int, *offsets: int, **how: Any) -> tuple[int, list[int]]:
                how = {"version": 18, "session_id": session, "session_epoch": epoch, **how}
                answer = await client.ask(request(*offsets, **how), FetchResponseData, 18)
                return answer.session_id, [each.error_code for topic in answer.responses for each in topic.partitions]

            session, reported = await ask(0, 0, 0, leader_epoch=0)
            assert reported == [0]
            assert await ask(1, session) == (session, [])
            cluster.elect(key, 1, (1, 2, 3))
            assert await ask(2, session) == (session, [74]), "KAFKA-9338: epochs in a session are compared each time"
            assert await ask(3, session) == (session, [74])
            assert await ask(4, session, 0, leader_epoch=1) == (session, [0])
            assert await ask(5, session) == (session, [])
            assert await ask(6, session, 0, leader_epoch=2) == (session, [75])

    run(story())


@pytest.mark.parametrize("version", [11, 13])
def test_a_topic_that_is_deleted_and_created_again(version: int) -> None:
    """By name it is the new one; by id it stays unknown."""

    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create()
            client = cluster.clients[1]
            await produce(client, records(b"old"))

            async def ask(epoch: int, session: int, *offsets: int) -> tuple[int, list[tuple[int, list[Any]]]]:
                asked = request(*offsets, version=version, session_id=session, session_epoch=epoch)
                answer = await client.ask(asked, FetchResponseData, version)
                found = [(each.error_code, values(each)) for topic in answer.responses for each in topic.partitions]
                return answer.session_id, found

            session, reported = await ask(0, 0, 0)
            assert reported == [(0, [b"old"])]
            cluster.remove_topic()
            unknown = 100 if version >= 13 else 3
            assert await ask(1, session) == (session, [(unknown, [])])
            assert (await ask(0, 0, 0))[1] == [(unknown, [])]
            cluster.create(topic_id=UUID(int=9))
            await produce(client, records(b"new"), version=9)
            expected = [(100, [])] if version >= 13 else [(0, [b"new"])]
            assert await ask(2, session) == (session, expected)

    run(story())


def test_an_unknown_topic_does_not_end_the_wait_for_others() -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create()
            client, loop = cluster.clients[1], asyncio.get_running_loop()
            began = loop.time()
            (alone,) = await fetch(client, 0, topic="unknown", version=12, wait_ms=500)
            assert (alone.error_code, loop.time()) == (3, began), "nothing to wait for"
            both = request(0, version=12, wait_ms=500)
            both.topics = [*both.topics, *request(0, version=12, topic="unknown").topics]
            answer = await client.ask(both, FetchResponseData, 12)
            assert [(t.topic, p.error_code) for t in answer.responses for p in t.partitions] == [
                ("t", 0),
                ("unknown", 3),
            ]
            assert round(loop.time() - began, 3) >= 0.5

    run(story())


def test_who_does_not_lead_reports_who_does() -> None:
    """KIP-951: the leader from version 12 on, its address from 16 on. Before 11 nobody reads from a follower."""

    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            for version in (4, 10):
                (reported,) = await fetch(cluster.clients[2], 0, version=version)
                assert reported.error_code == 6
            cluster.elect(key, 3, (1, 2, 3))
            for version in range(11, 19):
                asked = request(0, version=version, leader_epoch=0)
                answer = await cluster.clients[2].ask(asked, FetchResponseData, version)
                (reported,) = answer.responses[0].partitions
                leader = (reported.current_leader.leader_id, reported.current_leader.leader_epoch)
                endpoints = [(each.node_id, each.host, each.port) for each in answer.node_endpoints]
                assert reported.error_code == 74
                assert leader == ((3, 1) if version >= 12 else (-1, -1))
                assert endpoints == ([(3, "k", 3)] if version >= 16 else [])
            cluster.elect(key, 2, (1, 2, 3))
            (reported,) = await fetch(cluster.clients[2], 0, leader_epoch=1)
            assert (reported.error_code, reported.current_leader.leader_id) == (74, -1), "nobody names itself"

    run(story())


def test_a_consumer_that_read_what_was_cut_off_receives_where_its_log_diverges() -> None:
    """KIP-595, from version 12 on."""

    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            client = cluster.clients[1]
            await produce(client, records(b"a"))
            cluster.elect(key, 1, (1, 2, 3))
            await produce(client, records(b"b", b"c"))
            (reported,) = await fetch(client, 2, leader_epoch=1, last_epoch=0, wait_ms=60_000)
            assert (reported.error_code, reported.diverging_epoch.epoch, reported.diverging_epoch.end_offset) == (
                0,
                0,
                1,
            )
            assert not reported.records
            (agrees,) = await fetch(client, 1, leader_epoch=1, last_epoch=0)
            assert values(agrees) == [b"b", b"c"]

    run(story())


@pytest.mark.parametrize(("isolation", "aborted"), [(0, None), (1, ())])
def test_aborted_transactions_in_fetch_answers(isolation: int, aborted: tuple[()] | None) -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create()
            await produce(cluster.clients[1], records(b"a"))
            for version in ALL_VERSIONS:
                for offset in (0, 1):
                    (reported,) = await fetch(cluster.clients[1], offset, version=version, isolation_level=isolation)
                    assert reported.aborted_transactions == aborted
                    assert reported.last_stable_offset == reported.high_watermark == 1
                (failed,) = await fetch(cluster.clients[1], 5, version=version, isolation_level=isolation)
                assert (failed.error_code, failed.aborted_transactions) == (1, None)

    run(story())


SELECTOR = "org.apache.kafka.common.replica.RackAwareReplicaSelector"


def test_a_consumer_is_sent_to_the_replica_in_its_rack_and_reads_there() -> None:
    """KIP-392."""

    async def story() -> None:
        async with Brokers(replica_selector_class=SELECTOR) as cluster:
            cluster.racks = {1: "a", 2: "b", 3: "b"}
            for node_id in cluster.nodes:
                cluster.register(node_id)
            key = cluster.create()
            await produce(cluster.clients[1], records(b"a"))
            await cluster.until(lambda: all(cluster.high_watermark(n, key) == 1 for n in cluster.nodes))

            async def preferred(rack: str, version: int = 11, offset: int = 0) -> tuple[int, list[Any]]:
                (reported,) = await fetch(
                    cluster.clients[1], offset, version=version, rack_id=rack, wait_ms=60_000 if rack == "b" else 0
                )
                assert (reported.error_code, reported.high_watermark) == (0, 1)
                return reported.preferred_read_replica, values(reported)

            assert await preferred("b") == (3, []), "at once, and without records"
            assert await preferred("a") == (-1, [b"a"]), "the leader's own"
            assert await preferred("c") == (-1, [b"a"])
            assert await preferred("") == (-1, [b"a"])
            (reported,) = await fetch(cluster.clients[1], 0, version=10)
            assert values(reported) == [b"a"], "before version 11 nobody says where it is"
            cluster.change_isr(key, (1, 2))
            assert await preferred("b") == (2, []), "one that lags would hold its consumers back"
            cluster.change_isr(key, (1,))
            assert await preferred("b") == (-1, [b"a"])
            cluster.change_isr(key, (1, 2, 3))

            follower = cluster.clients[2]
            (reported,) = await fetch(follower, 0, version=11, rack_id="b")
            assert (reported.error_code, values(reported), reported.preferred_read_replica) == (0, [b"a"], -1)
            waiting = fetching(follower, 1, version=11, rack_id="b", wait_ms=60_000)
            await asyncio.sleep(0.01)
            began = asyncio.get_running_loop().time()
            await produce(cluster.clients[1], records(b"b"))
            assert [values(each) for each in await waiting] == [[b"b"]]
            assert asyncio.get_running_loop().time() - began < 1, "woken by the high watermark of the follower"
            (beyond,) = await fetch(follower, 3, version=11, rack_id="b")
            assert beyond.error_code == 1
            cluster.elect(key, 3, (1, 2, 3))
            (moved,) = await fetch(follower, 2, version=11, leader_epoch=0)
            assert moved.error_code == 74

    run(story())


def test_only_with_the_setting_does_a_rack_say_where_to_read() -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            cluster.racks = {1: "a", 2: "b"}
            for node_id in cluster.nodes:
                cluster.register(node_id)
            cluster.create()
            await produce(cluster.clients[1], records(b"a"))
            (reported,) = await fetch(cluster.clients[1], 0, rack_id="b")
            assert (reported.preferred_read_replica, values(reported)) == (-1, [b"a"])

    run(story())


def test_nobody_fetches_as_a_replica() -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            cluster.cut |= {(2, 1), (3, 1)}
            await produce(cluster.clients[1], records(b"a"), acks=1)
            for version, asked in (
                (14, {"replica_id": 2}),
                (15, {"replica_state": ReplicaState.make(replica_id=2, replica_epoch=1)}),
            ):
                for offset in (0, 1):
                    answer = await cluster.clients[1].ask(
                        request(offset, version=version, **asked), FetchResponseData, version
                    )
                    assert (answer.error_code, len(answer.responses)) == (31, 0)
            assert cluster.high_watermark(1, key) == 0

    run(story())


def test_no_error_of_a_partition_ends_the_poll_of_a_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    """FetchCollector of Java's client throws out of poll() for any other code than these."""
    survived = {0, 1, 2, 3, 6, 9, 29, 56, 74, 75, 78, 100, 103}

    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create()
            answers = iter(range(-1, 134))

            def begin_fetch(asked: FetchRequest) -> FetchResponse:
                failed = FetchedPartition(topic_id=TOPIC_ID, partition=0, error_code=next(answers))
                return FetchResponse(partitions=(failed,))

            monkeypatch.setattr(cluster.nodes[1].manager.fetch, "begin", begin_fetch)
            reported = {code: (await fetch(cluster.clients[1], 0))[0].error_code for code in range(-1, 134)}
            assert reported == {code: code if code in survived else 56 for code in reported}

    run(story())


def test_newcomers_push_out_no_session_that_is_in_use() -> None:
    """KIP-227: only one that nobody used for two minutes, or an old one that is worth less."""

    async def story() -> None:
        async with Brokers(1, max_incremental_fetch_session_cache_slots=2) as cluster:
            cluster.create(partitions=3, replicas=(1,))
            client = cluster.clients[1]

            async def opened(*offsets: int) -> int:
                asked = request(*offsets, version=18, session_epoch=0)
                return (await client.ask(asked, FetchResponseData, 18)).session_id

            async def used(session: int, epoch: int) -> int:
                asked = request(version=18, session_id=session, session_epoch=epoch)
                return (await client.ask(asked, FetchResponseData, 18)).error_code

            small, large = await opened(0), await opened(0, 0)
            assert [await opened(0, 0, 0) for _ in range(5)] == [0] * 5, "full, and both are in use"
            assert (await used(small, 1), await used(large, 1)) == (0, 0)
            await asyncio.sleep((EVICTION_MS + 1) / 1_000 - 10)
            assert (await used(small, 2), await used(large, 2)) == (0, 0)
            await asyncio.sleep(20)
            assert await opened(0) == 0, "it is worth no more than the smaller of the two"
            largest = await opened(0, 0, 0)
            assert largest > 0, "it has more partitions than one that has lived for two minutes"
            assert (await used(small, 3), await used(large, 3), await used(largest, 1)) == (70, 0, 0)
            await asyncio.sleep((EVICTION_MS + 1) / 1_000)
            assert (await used(large, 4)) == 0
            assert await opened(0) > 0, "the other was not used for two minutes"
            assert (await used(largest, 2), await used(large, 5)) == (70, 0)

    run(story())


def test_who_goes_waits_no_longer() -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create()
            fetch = cluster.nodes[1].manager.fetch
            waiting = fetching(cluster.clients[1], 0, wait_ms=600_000)
            await asyncio.sleep(0.001)
            assert len(fetch._waiting[-1]) == 1
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await asyncio.sleep(0)
            assert not fetch._waiting[-1]
            assert (await produce(cluster.clients[1], records(b"a"))).error_code == 0

    run(story())


def test_a_deposed_leader_wakes_who_waits() -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            key = cluster.create()
            old = fetching(cluster.clients[1], 0, version=9, wait_ms=600_000)
            new = fetching(cluster.clients[1], 0, version=18, leader_epoch=0, wait_ms=600_000)
            await asyncio.sleep(0.01)
            cluster.elect(key, 2, (1, 2, 3))
            assert [each.error_code for each in await old + await new] == [6, 74]

    run(story())


def test_sessions_of_consumers_hold_a_bounded_number_of_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger may name millions that do not exist."""
    monkeypatch.setattr(cache, "CONSUMED_PARTITIONS_MAX", 10)

    async def story() -> None:
        async with Brokers(1) as cluster:
            cluster.create(replicas=(1,))
            client = cluster.clients[1]

            async def ask(count: int, *, session: int = 0, epoch: int = 0) -> tuple[int, int]:
                asked = request(*[0] * count, version=12, topic="unknown", session_id=session, session_epoch=epoch)
                answer = await client.ask(asked, FetchResponseData, 12)
                assert answer.error_code or len(answer.responses[0].partitions) == count
                return answer.error_code, answer.session_id

            sessions = [(await ask(5))[1] for _ in range(3)]
            assert [bool(each) for each in sessions] == [True, True, False]
            assert await ask(6, session=sessions[0], epoch=1) == (70, 0), "it has grown too large"
            assert (await ask(5))[1] > 0, "what it held is free again"
            assert await ask(11) == (0, 0), "served without a session"

    run(story())


def test_of_many_partitions_forbidden_topics_look_like_absent_ones() -> None:
    ids = {"mine": UUID(int=1), "secret": UUID(int=2)}
    image = MetadataImage().apply(
        [
            *(TopicRecord(name=name, topic_id=topic_id) for name, topic_id in ids.items()),
            *(PartitionRecord(topic_id=each, partition=0, replicas=(1,), isr=(1,), leader=1) for each in ids.values()),
        ]
    )
    numbers = [FetchPartition.make(partition=number) for number in (1, 2)]

    def codes(asked: list[FetchTopic], *, names_topics: bool) -> list[set[int]]:
        message = FetchRequestData.make(topics=asked)
        absent = AbsentPartitions(message, image, names_topics=names_topics, denied={"secret", "absent"})
        responses = absent.answered_with(FetchResponseData.make()).responses
        return [{each.error_code for each in topic.partitions} for topic in responses]

    named = [FetchTopic.make(topic=name, partitions=numbers) for name in ("mine", "secret", "absent")]
    assert codes(named, names_topics=True) == [{UnknownTopicOrPartition.code}, {29}, {29}]
    by_id = [FetchTopic.make(topic_id=each, partitions=numbers) for each in (*ids.values(), UUID(int=9))]
    assert codes(by_id, names_topics=False) == [{UnknownTopicOrPartition.code}, {29}, {UnknownTopicId.code}]


@pytest.mark.parametrize("version", [7, 12, 13, 18])
def test_many_absent_partitions_get_no_session(version: int) -> None:
    async def story() -> None:
        async with Brokers() as cluster:
            cluster.create(partitions=2)
            client = cluster.clients[1]
            await produce(client, records(b"a"), partition=1)
            count = MANY + 10
            many = request(*[0] * count, version=version)
            nobodys = FetchTopic.make(
                topic="other",
                topic_id=UUID(int=99) if version >= 13 else ZERO_UUID,
                partitions=many.topics[0].partitions,
            )
            asked = FetchRequestData.make(
                max_wait_ms=0, max_bytes=1 << 20, topics=[*many.topics, nobodys], session_epoch=0
            )
            answer = await client.ask(asked, FetchResponseData, version)
            assert (answer.error_code, answer.session_id) == (0, 0)
            found, absent, others = answer.responses
            assert [values(each) for each in found.partitions] == [[], [b"a"]]
            assert [each.partition_index for each in absent.partitions] == list(range(2, count))
            assert {each.error_code for each in absent.partitions} == {UnknownTopicOrPartition.code}
            unknown = UnknownTopicId.code if version >= 13 else UnknownTopicOrPartition.code
            assert [each.error_code for each in others.partitions] == [unknown] * count
            session = await client.ask(request(0, 0, version=version, session_epoch=0), FetchResponseData, version)
            assert session.session_id
            grown = request(*[0] * count, version=version, session_id=session.session_id, session_epoch=1)
            refused = await client.ask(grown, FetchResponseData, version)
            assert refused.error_code == FetchSessionIdNotFound.code

    run(story())
