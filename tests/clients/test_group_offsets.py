"""Offsets of groups, and administration of groups, by clients that nobody here wrote."""

from __future__ import annotations

import asyncio
from typing import Any

import aiokafka
import confluent_kafka
import kafka as kafka_python
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient
from kafka.structs import OffsetAndMetadata

from tests.clients.conftest import Kafka
from tests.clients.members import CLIENTS, DEADLINE_S, wait_divided, wait_seen
from tests.clients.test_groups import a_group, committed, write
from tests.integration.support.waiting import wait_until

METADATA = "where I was: größer als ASCII"


def confluent(kafka: Kafka, group: str) -> confluent_kafka.Consumer:
    return confluent_kafka.Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": group, "enable.auto.commit": False}
    )


def test_confluent_kafka_commits_with_metadata_and_leader_epochs(kafka: Kafka) -> None:
    topic, group = kafka.topic(partitions=2), a_group()
    write(kafka, topic, range(10), partitions=2)
    consumer = confluent(kafka, group)
    offsets = [
        confluent_kafka.TopicPartition(topic, 0, 3, metadata=METADATA, leader_epoch=0),
        confluent_kafka.TopicPartition(topic, 1, 4),
    ]
    consumer.commit(offsets=offsets, asynchronous=False)
    found = consumer.committed(offsets, timeout=DEADLINE_S)
    assert [(each.offset, each.metadata, each.leader_epoch) for each in found] == [(3, METADATA, 0), (4, None, None)]
    consumer.close()


def test_confluent_kafka_commits_without_waiting(kafka: Kafka) -> None:
    topic, group = kafka.topic(), a_group()
    reported: list[Any] = []
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": group,
            "on_commit": lambda error, offsets: reported.append((error, [each.offset for each in offsets])),
        }
    )
    for offset in (1, 2, 3):
        consumer.commit(offsets=[confluent_kafka.TopicPartition(topic, 0, offset)], asynchronous=True)
    wait_until(lambda: consumer.poll(0) is None and len(reported) == 3, deadline_s=DEADLINE_S, what="the commits")
    assert reported == [(None, [1]), (None, [2]), (None, [3])]
    consumer.close()
    assert committed(kafka, group, topic, 1) == [3]


def test_kafka_python_commits_and_waits_or_not(kafka: Kafka) -> None:
    topic, group = kafka.topic(partitions=2), a_group()
    consumer = kafka_python.KafkaConsumer(bootstrap_servers=kafka.servers, group_id=group, enable_auto_commit=False)
    one, two = (kafka_python.TopicPartition(topic, number) for number in range(2))
    consumer.assign([one, two])
    consumer.commit({one: OffsetAndMetadata(5, METADATA, -1)})
    assert consumer.committed(one, metadata=True).metadata == METADATA
    done = consumer.commit_async({one: OffsetAndMetadata(6, "", -1), two: OffsetAndMetadata(7, "", -1)})
    wait_until(lambda: consumer.poll() == {} and done.is_done, deadline_s=DEADLINE_S, what="the commit")
    assert done.succeeded()
    assert (consumer.committed(one), consumer.committed(two)) == (6, 7)
    consumer.close()


def test_aiokafka_commits_with_metadata(kafka: Kafka) -> None:
    topic, group = kafka.topic(partitions=2), a_group()

    async def story() -> None:
        consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=kafka.bootstrap_servers, group_id=group, enable_auto_commit=False
        )
        await consumer.start()
        try:
            one, two = (aiokafka.TopicPartition(topic, number) for number in range(2))
            consumer.assign([one, two])
            await consumer.commit({one: (5, METADATA)})
            assert (await consumer.committed(one), await consumer.committed(two)) == (5, None)
        finally:
            await consumer.stop()

    asyncio.run(asyncio.wait_for(story(), DEADLINE_S))
    admin = KafkaAdminClient(bootstrap_servers=kafka.servers)
    try:
        offsets = admin.list_group_offsets(group)[group]
        assert {each.partition: (at.offset, at.metadata) for each, at in offsets.items()} == {0: (5, METADATA)}
    finally:
        admin.close()


def test_metadata_of_an_offset_may_not_be_longer_than_the_cluster_allows(kafka: Kafka) -> None:
    topic, group = kafka.topic(), a_group()
    consumer = confluent(kafka, group)
    long = confluent_kafka.TopicPartition(topic, 0, 1, metadata="x" * 4097)
    with pytest.raises(confluent_kafka.KafkaException) as failure:
        consumer.commit(offsets=[long], asynchronous=False)
    assert failure.value.args[0].code() == confluent_kafka.KafkaError.OFFSET_METADATA_TOO_LARGE
    with pytest.raises(confluent_kafka.KafkaException) as failure:
        consumer.commit(offsets=[confluent_kafka.TopicPartition("nowhere", 0, 1)], asynchronous=False)
    assert failure.value.args[0].code() == confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART
    consumer.close()


def test_kafka_python_administers_groups(kafka: Kafka) -> None:
    topic, group = kafka.topic(partitions=4), a_group()
    wanted = write(kafka, topic, range(100), partitions=4)
    member = CLIENTS["kafka-python"](kafka, topic, group, client_id="reader")
    admin = KafkaAdminClient(bootstrap_servers=kafka.servers)
    partitions = [kafka_python.TopicPartition(topic, number) for number in range(4)]
    try:
        wait_seen(wanted, member)
        described = admin.describe_groups([group])[group]
        assert (described["group_state"], described["protocol_type"]) == ("Stable", "consumer")
        assert [each["client_id"] for each in described["members"]] == ["reader"]
        assert group in {each["group_id"] for each in admin.list_groups(states_filter=["Stable"])}
        assert group not in {each["group_id"] for each in admin.list_groups(states_filter=["Empty"])}
        ((_, refused),) = admin.delete_groups([group]).items()
        assert "NonEmptyGroup" in str(refused)
        member.leave()
        write(kafka, topic, range(100, 120), partitions=4)
        offsets = admin.list_group_offsets(group)[group]
        ends = admin.list_partition_offsets(dict.fromkeys(partitions, kafka_python.admin.OffsetSpec.LATEST))
        assert {each: ends[each].offset - offsets[each].offset for each in partitions} == dict.fromkeys(partitions, 5)
        admin.alter_group_offsets(group, {partitions[0]: OffsetAndMetadata(0, "again", -1)})
        admin.reset_group_offsets(group, {partitions[1]: kafka_python.admin.OffsetSpec.LATEST})
        admin.delete_group_offsets(group, [partitions[3]])
        left = {each.partition: at.offset for each, at in admin.list_group_offsets(group)[group].items()}
        assert left == {0: 0, 1: 30, 2: 25}
        ((_, deleted),) = admin.delete_groups([group]).items()
        assert "error" not in str(deleted).lower() or "NoError" in str(deleted)
        assert group not in {each["group_id"] for each in admin.list_groups()}
    finally:
        admin.close()


def test_confluent_kafka_administers_groups(kafka: Kafka) -> None:
    topic, group = kafka.topic(partitions=2), a_group()
    member = CLIENTS["confluent-kafka"](kafka, topic, group)
    wait_divided(member, partitions=2)
    wait_seen(write(kafka, topic, range(10), partitions=2), member)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    stable = {confluent_kafka.ConsumerGroupState.STABLE}
    listed = {each.group_id: each for each in admin.list_consumer_groups(states=stable).result(DEADLINE_S).valid}
    assert listed[group].state == confluent_kafka.ConsumerGroupState.STABLE
    assert listed[group].type == confluent_kafka.ConsumerGroupType.CLASSIC
    described = admin.describe_consumer_groups([group])[group].result(DEADLINE_S)
    assert described.state == confluent_kafka.ConsumerGroupState.STABLE
    assert (described.partition_assignor, described.is_simple_consumer_group) == ("range", False)
    (assigned,) = [each.assignment.topic_partitions for each in described.members]
    assert sorted((each.topic, each.partition) for each in assigned) == [(topic, 0), (topic, 1)]
    with pytest.raises(confluent_kafka.KafkaException) as failure:
        admin.delete_consumer_groups([group])[group].result(DEADLINE_S)
    assert failure.value.args[0].code() == confluent_kafka.KafkaError.NON_EMPTY_GROUP
    member.leave()
    partitions = [confluent_kafka.TopicPartition(topic, number) for number in range(2)]
    asked = confluent_kafka.ConsumerGroupTopicPartitions(group, partitions)
    found = admin.list_consumer_group_offsets([asked])[group].result(DEADLINE_S)
    assert [each.offset for each in found.topic_partitions] == [5, 5]
    changed = [confluent_kafka.TopicPartition(topic, 0, 1)]
    altered = confluent_kafka.ConsumerGroupTopicPartitions(group, changed)
    admin.alter_consumer_group_offsets([altered])[group].result(DEADLINE_S)
    assert committed(kafka, group, topic, 2) == [1, 5]
    admin.delete_consumer_groups([group])[group].result(DEADLINE_S)
    with pytest.raises(confluent_kafka.KafkaException) as failure:
        admin.delete_consumer_groups([group])[group].result(DEADLINE_S)
    assert failure.value.args[0].code() == confluent_kafka.KafkaError.GROUP_ID_NOT_FOUND


def test_aiokafka_administers_groups(kafka: Kafka) -> None:
    topic, group = kafka.topic(partitions=2), a_group()
    member = CLIENTS["aiokafka"](kafka, topic, group)
    wait_divided(member, partitions=2)
    wait_seen(write(kafka, topic, range(10), partitions=2), member)

    async def story() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        await admin.start()
        try:
            assert (group, "consumer") in {tuple(each)[:2] for each in await admin.list_consumer_groups()}
            (described,) = await admin.describe_consumer_groups([group])
            ((_, found, state, kind, *_),) = described.groups
            assert (found, state, kind) == (group, "Stable", "consumer")
            offsets = await admin.list_consumer_group_offsets(group)
            assert {each.partition: at.offset for each, at in offsets.items()} == {0: 5, 1: 5}
        finally:
            await admin.close()

    asyncio.run(asyncio.wait_for(story(), DEADLINE_S))
    member.leave()
