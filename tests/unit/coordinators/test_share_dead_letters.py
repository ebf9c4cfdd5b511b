"""Dead letters of a share group, and an unclean election under one, on three simulated nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from kraft.chaos.worlds.simulated.cluster import EVENTS, EVENTS_BYTES, SimulatedCluster
from kraft.coordinators.shares.dead_letters import REJECTED_TEXT, TOO_OFTEN_TEXT
from kraft.coordinators.shares.state import ShareKey
from kraft.protocol.batches.records import NewRecord, ReadRecord, build_batch, read_batches
from kraft.protocol.errors import InvalidConfig, KafkaError
from metadata.controller.requests import AlterConfigs, ConfigAlteration, ConfigResource
from metadata.image import TopicIdPartition
from metadata.settings import BrokerSettings, check_group_settings
from replication.requests import ProduceOptions, ReadOptions
from tests.unit.coordinators.test_share_coordinator import at, persister
from tests.unit.coordinators.test_share_leaders import ACCEPT, REJECT, RELEASE, SETTINGS, Member, produce
from tests.unit.coordinators.test_transaction_cluster import create, eventually, play, until

MIN_ISR = {"min.insync.replicas": "1"}
LETTERS = {"errors.deadletterqueue.group.enable": "true"}
TOPIC, COPY = "errors.deadletterqueue.topic.name", "errors.deadletterqueue.copy.record.enable"


async def configure(cluster: SimulatedCluster, named: Mapping[str, str]) -> None:
    """Settings of the group g."""
    alterations = tuple(ConfigAlteration(name=name, operation="set", value=value) for name, value in named.items())
    request = AlterConfigs(resources={ConfigResource(resource_type="group", name="g"): alterations})
    node = cluster.alive[0].node
    assert node is not None
    reply = await at(cluster.alive[0], node.gateway.control(request, timeout_ms=10_000))
    assert set(reply.values()) == {None}, reply
    await eventually(
        lambda: all(
            named.items() <= each.node.publisher.image.config("group", "g").items()
            for each in cluster.alive
            if each.node
        )
    )


async def source(
    cluster: SimulatedCluster, *, records: int, configs: Mapping[str, str] | None = None
) -> TopicIdPartition:
    where = await create(cluster, "t", on=(1, 2, 3), configs=configs or {"min.insync.replicas": "1"})
    node = cluster.alive[0]
    await at(node, persister(node).initialize(ShareKey("g", where.topic_id, 0), state_epoch=1, start_offset=0))
    if records:
        await produce(cluster, where, records)
    return where


async def letters(cluster: SimulatedCluster, topic: str = "dlq.t", *, partition: int = 0) -> list[ReadRecord]:
    node = cluster.alive[0]
    assert node.node is not None
    image = node.node.publisher.image.topic(topic)
    if image is None:
        return []
    reading = node.node.gateway.read(TopicIdPartition(image.topic_id, partition), 0, ReadOptions(bytes_max=10**6))
    try:
        return list(read_batches((await at(node, reading)).data))
    except KafkaError:
        return []


def offsets(records: Sequence[ReadRecord]) -> list[int]:
    return [int(dict(record.headers)["__dlq.errors.offset"] or b"") for record in records]


def events(cluster: SimulatedCluster, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for node in cluster.nodes.values():
        files = node.machine.environment.files
        if files.exists(EVENTS):
            lines = files.open(EVENTS).pread(0, EVENTS_BYTES).decode().splitlines()
            found += [line for line in map(msgspec.json.decode, lines) if line["event"] == name]
    return found


async def start_offset(cluster: SimulatedCluster, where: TopicIdPartition) -> int:
    node = cluster.alive[0]
    return (await at(node, persister(node).summary(ShareKey("g", where.topic_id, 0)))).start_offset


def test_rejected_records_are_described_in_the_dead_letter_topic():
    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "dlq.t", configs=LETTERS)
        where = await source(cluster, records=5)
        await configure(cluster, {TOPIC: "dlq.t"})
        member = Member(cluster, where)
        assert await member.got() == [(0, 4, 1)]
        assert await member.acknowledge((0, 0, ACCEPT), (1, 2, REJECT), (3, 4, ACCEPT)) == 0
        await until(lambda: _count(cluster, 2))
        found = await letters(cluster)
        assert [(record.key, record.value) for record in found] == [(None, None)] * 2
        assert dict(found[0].headers) == {
            "__dlq.errors.topic": b"t",
            "__dlq.errors.partition": b"0",
            "__dlq.errors.offset": b"1",
            "__dlq.errors.group": b"g",
            "__dlq.errors.delivery.count": b"1",
            "__dlq.errors.message": REJECTED_TEXT.encode(),
        }
        assert offsets(found) == [1, 2]
        await until(lambda: _starts_at(cluster, where, 5))

    play(story, **SETTINGS)


async def _count(cluster: SimulatedCluster, count: int) -> bool:
    return len(await letters(cluster)) >= count


async def _starts_at(cluster: SimulatedCluster, where: TopicIdPartition, offset: int) -> bool:
    return await start_offset(cluster, where) == offset


def test_a_record_delivered_too_often_is_copied_to_a_new_topic():
    async def story(cluster: SimulatedCluster) -> None:
        where = await source(cluster, records=1)
        await configure(cluster, {TOPIC: "dlq.t", COPY: "true", "share.delivery.count.limit": "2"})
        member = Member(cluster, where)
        for count in (1, 2):
            assert await member.got() == [(0, 0, count)]
            assert await member.acknowledge((0, 0, RELEASE)) == 0
        await until(lambda: _count(cluster, 1))
        (found,) = await letters(cluster)
        assert (found.key, found.value) == (b"k", b"v")
        assert dict(found.headers)["__dlq.errors.message"] == TOO_OFTEN_TEXT.encode()
        assert dict(found.headers)["__dlq.errors.delivery.count"] == b"2"

    play(story, **SETTINGS, errors_deadletterqueue_auto_create_topics_enable=True)


def test_the_next_leader_writes_what_the_one_before_could_not():
    """KAFKA-20672."""

    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "dlq.t", configs=LETTERS | {"min.insync.replicas": "3"})
        where = await source(cluster, records=3)
        await configure(cluster, {TOPIC: "dlq.t"})
        member = Member(cluster, where)
        leader = member.leader()
        assert await member.got() == [(0, 2, 1)]
        next(each for each in cluster.alive if each is not leader).kill()
        await asyncio.sleep(15)
        member.reconnect()
        found = await until(lambda: _offered(member))
        assert found == [(0, 2)]
        assert await member.acknowledge((0, 1, REJECT), (2, 2, ACCEPT)) == 0
        leader = member.leader()
        leader.kill()
        for each in cluster.nodes.values():
            if each.node is None:
                await each.start()
        member.reconnect()
        await until(lambda: _is_answered(member))
        await until(lambda: _count(cluster, 2))
        assert offsets(await letters(cluster)) == [0, 1]
        await until(lambda: _starts_at(cluster, where, 3))

    play(story, **SETTINGS)


async def _offered(member: Member) -> list[tuple[int, int]]:
    member.reconnect()
    answer = await member.fetch(wait_ms=500)
    found = answer.responses[0].partitions[0].acquired_records if answer.responses else ()
    return [(each.first_offset, each.last_offset) for each in found]


async def _is_answered(member: Member) -> bool:
    member.reconnect()
    answer = await member.fetch()
    return not answer.error_code and not any(p.error_code for topic in answer.responses for p in topic.partitions)


def test_dead_letters_that_cannot_be_written_are_given_up_and_never_silently():
    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "dlq.wrong")
        where = await source(cluster, records=4)
        member = Member(cluster, where)
        leader = member.leader()
        assert await member.got() == [(0, 3, 1)]
        wanted = {"dlq.none": "does not exist", "dlq.wrong": "errors.deadletterqueue.group.enable=true"}
        for offset, (topic, text) in enumerate(wanted.items()):
            await configure(cluster, {TOPIC: topic})
            assert await member.acknowledge((offset, offset, REJECT)) == 0
            await until(lambda end=offset + 1: _starts_at(cluster, where, end))
            event = events(cluster, "dead_letters_not_written")[-1]
            assert (event["group"], event["topic"], event["first_offset"]) == ("g", "t", offset)
            assert (event["records"], event["dead_letter_topic"]) == (1, topic)
            assert text in event["error"]
        assert leader.node is not None
        assert leader.node.broker is not None
        lost = leader.node.broker.shares.leaders.dead_letters.measures()[1]
        assert (lost.name, lost.samples) == ("share_dead_letters_lost", [(("g", "t"), 2.0)])
        for node in cluster.alive:
            assert node.node is not None
            known = (await at(node, node.node.queues.glance("g", [where])))[where]
            assert (known.dead_letters_lost, wanted["dlq.wrong"] in known.last_dead_letter_error) == (2, True)

    play(story, **SETTINGS)


def test_a_topic_does_not_get_dead_letters_of_its_own_records():
    async def story(cluster: SimulatedCluster) -> None:
        where = await source(cluster, records=1, configs=LETTERS)
        await configure(cluster, {TOPIC: "t"})
        member = Member(cluster, where)
        assert await member.got() == [(0, 0, 1)]
        assert await member.acknowledge((0, 0, REJECT)) == 0
        await until(lambda: _starts_at(cluster, where, 1))
        assert "its own records" in events(cluster, "dead_letters_not_written")[0]["error"]

    play(story, **SETTINGS, errors_deadletterqueue_topic_name_prefix="")


def test_records_after_an_unclean_election_are_handed_out():
    async def story(cluster: SimulatedCluster) -> None:
        where = await create(
            cluster, "t", on=(1, 2), configs={"min.insync.replicas": "1", "unclean.leader.election.enable": "true"}
        )
        node = cluster.nodes[3]
        await at(node, persister(node).initialize(ShareKey("g", where.topic_id, 0), state_epoch=1, start_offset=0))
        await produce(cluster, where, 10)
        member = Member(cluster, where)
        assert await member.got() == [(0, 9, 1)]
        assert await member.acknowledge((2, 9, ACCEPT)) == 0
        cluster.nodes[2].kill()
        await eventually(lambda: (found := cluster.partition(node, where)) and set(found.isr) == {1})
        await produce(cluster, where, 10)
        member.reconnect()
        assert (10, 19) in await until(lambda: _offered(member))
        assert await member.acknowledge((10, 19, ACCEPT)) == 0
        cluster.nodes[1].kill()
        await cluster.nodes[2].start()
        await eventually(lambda: (found := cluster.partition(node, where)) and found.leader == 2)
        await eventually(lambda: cluster.leader(where) is not None)
        await produce(cluster, where, 15)
        member.reconnect()
        taken: list[tuple[int, int]] = []

        async def take() -> bool:
            taken.extend(await _offered(member))
            return bool(taken) and taken[-1][1] == 24

        await until(take)
        assert (10, 24) in taken
        assert not any(first <= 9 and last >= 2 for first, last in taken), "accepted, and still there"
        (event,) = events(cluster, "share_state_beyond_log")
        assert (event["log_end_offset"], event["forgotten_to"], event["start_offset"]) == (10, 19, 0)

    play(story, **SETTINGS)


def test_a_record_too_large_for_the_topic_costs_no_other_its_dead_letter():
    async def story(cluster: SimulatedCluster) -> None:
        await create(cluster, "dlq.t", configs=LETTERS | {"max.message.bytes": "1000"})
        where = await source(cluster, records=1)
        node = cluster.alive[0].node
        assert node is not None
        large = build_batch([NewRecord(b"k", b"v" * 2_000, [], 1_000), NewRecord(b"k", b"v", [], 1_000)])
        await at(cluster.alive[0], node.gateway.produce({where: large}, ProduceOptions(-1, 10_000)))
        await configure(cluster, {TOPIC: "dlq.t", COPY: "true"})
        member = Member(cluster, where)
        assert await member.got() == [(0, 2, 1)]
        assert await member.acknowledge((0, 2, REJECT)) == 0
        await until(lambda: _starts_at(cluster, where, 3))
        assert offsets(await letters(cluster)) == [0, 2]
        (event,) = events(cluster, "dead_letters_not_written")
        assert (event["first_offset"], event["last_offset"], event["records"]) == (1, 1, 1)

    play(story, **SETTINGS)


@pytest.mark.parametrize("name", ["__share_group_state", "letters", "dlq.a topic", "dlq." + "x" * 250])
def test_names_that_no_dead_letter_topic_may_have_are_refused(name: str):
    with pytest.raises((InvalidConfig, ValidationError)):
        check_group_settings(BrokerSettings(), {TOPIC: name})
    check_group_settings(BrokerSettings(), {TOPIC: "dlq.a"})
