"""Consumer groups of clients that nobody here wrote: dividing, leaving, coming back, and with REST consumers."""

from __future__ import annotations

import uuid

import confluent_kafka
import pytest
from kafka import KafkaAdminClient

from tests.clients.conftest import Kafka
from tests.clients.members import CLIENTS, DEADLINE_S, Member, RestMember, wait_divided, wait_seen
from tests.integration.support.waiting import wait_until

ALL: dict[str, type[Member]] = {**CLIENTS, "REST": RestMember}


def write(kafka: Kafka, topic: str, values: range, *, partitions: int) -> set[str]:
    """Acknowledged by all."""
    producer = confluent_kafka.Producer({"bootstrap.servers": kafka.bootstrap_servers, "enable.idempotence": True})
    failures: list[object] = []
    for value in values:
        producer.produce(
            topic,
            str(value),
            partition=value % partitions,
            on_delivery=lambda error, _: failures.append(error) if error else None,
        )
    assert producer.flush(DEADLINE_S) == 0
    assert not failures
    return {str(value) for value in values}


def a_group() -> str:
    return f"group-{uuid.uuid4().hex[:12]}"


def committed(kafka: Kafka, group: str, topic: str, partitions: int) -> list[int]:
    consumer = confluent_kafka.Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group})
    try:
        wanted = [confluent_kafka.TopicPartition(topic, number) for number in range(partitions)]
        return [each.offset for each in consumer.committed(wanted, timeout=DEADLINE_S)]
    finally:
        consumer.close()


def wait_committed(kafka: Kafka, group: str, topic: str, offsets: list[int]) -> None:
    """What was seen is committed a moment later; a rebalance in between gives it to another member again."""
    wait_until(
        lambda: committed(kafka, group, topic, len(offsets)) == offsets, deadline_s=DEADLINE_S, what="the last commits"
    )


@pytest.mark.parametrize("client", CLIENTS)
def test_members_come_and_go_and_each_record_is_seen(kafka: Kafka, client: str) -> None:
    topic, group = kafka.topic(partitions=4), a_group()
    wanted = write(kafka, topic, range(100), partitions=4)
    one = CLIENTS[client](kafka, topic, group)
    wait_divided(one, partitions=4)
    two = CLIENTS[client](kafka, topic, group)
    wait_divided(one, two, partitions=4)
    wanted |= write(kafka, topic, range(100, 200), partitions=4)
    wait_seen(wanted, one, two)
    one.leave()
    wait_divided(two, partitions=4)
    wanted |= write(kafka, topic, range(200, 300), partitions=4)
    wait_seen(wanted, one, two)
    wait_committed(kafka, group, topic, [75] * 4)
    two.leave()
    # Whoever comes later begins where they ended.
    late = write(kafka, topic, range(300, 310), partitions=4)
    three = CLIENTS[client](kafka, topic, group)
    wait_seen(late, three)
    three.leave()
    assert set(three.seen) == late


@pytest.mark.parametrize("assignor", ["range", "roundrobin"])
def test_three_kinds_of_clients_and_a_rest_consumer_are_one_group(kafka: Kafka, assignor: str) -> None:
    topic, group = kafka.topic(partitions=8), a_group()
    members = [kind(kafka, topic, group, assignor=assignor) for kind in CLIENTS.values()]
    members.append(RestMember(kafka, topic, group))
    wait_divided(*members, partitions=8)
    wait_seen(write(kafka, topic, range(400), partitions=8), *members)
    for member in members:
        member.leave()
    assert sum(len(member.seen) for member in members) == 400


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("first", ["REST", "Kafka"])
@pytest.mark.parametrize("leaves", ["REST", "Kafka"])
def test_a_rest_consumer_and_a_kafka_client_divide_a_topic(kafka: Kafka, client: str, first: str, leaves: str) -> None:
    topic, group = kafka.topic(partitions=4), a_group()
    wanted = write(kafka, topic, range(40), partitions=4)
    kinds = {"REST": RestMember, "Kafka": CLIENTS[client]}
    second = "Kafka" if first == "REST" else "REST"
    members = {first: kinds[first](kafka, topic, group)}
    wait_divided(members[first], partitions=4)
    wait_seen(wanted, members[first])
    members[second] = kinds[second](kafka, topic, group)
    wait_divided(*members.values(), partitions=4)
    wanted |= write(kafka, topic, range(40, 80), partitions=4)
    wait_seen(wanted, *members.values())
    wait_committed(kafka, group, topic, [20] * 4)
    members[leaves].leave()
    (stays,) = [member for name, member in members.items() if name != leaves]
    wait_divided(stays, partitions=4)
    wanted |= write(kafka, topic, range(80, 120), partitions=4)
    wait_seen(wanted, *members.values())
    stays.leave()
    assert sum(len(member.seen) for member in members.values()) == 120


@pytest.mark.parametrize("first", ["REST", "Kafka"])
def test_cooperative_members_of_both_kinds_keep_what_they_have(kafka: Kafka, first: str) -> None:
    """KIP-429: who was there keeps half without giving it up in between."""
    topic, group = kafka.topic(partitions=4), a_group()
    kinds = {"REST": RestMember, "Kafka": CLIENTS["confluent-kafka"]}
    second = "Kafka" if first == "REST" else "REST"
    one = kinds[first](kafka, topic, group, assignor="cooperative-sticky")
    wait_divided(one, partitions=4)
    two = kinds[second](kafka, topic, group, assignor="cooperative-sticky")
    wait_divided(one, two, partitions=4)
    wanted = write(kafka, topic, range(80), partitions=4)
    wait_seen(wanted, one, two)
    two.leave()
    wait_divided(one, partitions=4)
    one.leave()
    assert [len(share) for share in one.history if share] == [4, 2, 4]
    assert one.history[1] < one.history[0]


def test_second_cooperative_member_takes_half(kafka: Kafka) -> None:
    topic, group = kafka.topic(partitions=6), a_group()
    one = CLIENTS["confluent-kafka"](kafka, topic, group, assignor="cooperative-sticky")
    wait_divided(one, partitions=6)
    two = CLIENTS["confluent-kafka"](kafka, topic, group, assignor="cooperative-sticky")
    wait_divided(one, two, partitions=6)
    three = CLIENTS["confluent-kafka"](kafka, topic, group, assignor="cooperative-sticky")
    wait_divided(one, two, three, partitions=6)
    shares = [share for share in one.history if share]
    assert [len(share) for share in shares] == [6, 3, 2]
    assert shares[0] > shares[1] > shares[2]
    for member in (one, two, three):
        member.leave()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_static_member_comes_back_to_its_partitions_without_a_rebalance(kafka: Kafka, client: str) -> None:
    topic, group = kafka.topic(partitions=4), a_group()
    one = CLIENTS[client](kafka, topic, group, instance="one")
    two = CLIENTS[client](kafka, topic, group, instance="two")
    wait_divided(one, two, partitions=4)
    shares, histories = (one.assigned, two.assigned), len(one.history)
    ids = member_ids(kafka, group)
    two.leave()  # static members do not leave: they fall silent
    back = CLIENTS[client](kafka, topic, group, instance="two")
    wait_until(lambda: back.check() or back.assigned == shares[1], deadline_s=DEADLINE_S, what="its partitions")
    assert len(one.history) == histories
    assert set(member_ids(kafka, group)) == {"one", "two"}
    if client != "kafka-python":  # which sends LeaveGroup for a static member, too
        assert member_ids(kafka, group)["one"] == ids["one"]
        assert member_ids(kafka, group)["two"] != ids["two"]
    back.leave()
    one.leave()


def member_ids(kafka: Kafka, group: str) -> dict[str, str]:
    admin = KafkaAdminClient(bootstrap_servers=kafka.servers)
    try:
        members = admin.describe_groups([group])[group]["members"]
        return {member["group_instance_id"]: member["member_id"] for member in members}
    finally:
        admin.close()


def test_a_static_member_is_fenced_by_a_newer_one_of_its_name(kafka: Kafka) -> None:
    topic, group = kafka.topic(partitions=2), a_group()
    old = CLIENTS["confluent-kafka"](kafka, topic, group, instance="same")
    wait_divided(old, partitions=2)
    new = CLIENTS["confluent-kafka"](kafka, topic, group, instance="same")
    wait_until(lambda: old.failure is not None, deadline_s=DEADLINE_S, what="the fencing of the older one")
    with pytest.raises(confluent_kafka.KafkaException) as failure:
        old.leave()
    error = failure.value.args[0]
    assert error.code() in (confluent_kafka.KafkaError._FATAL, confluent_kafka.KafkaError.FENCED_INSTANCE_ID)
    assert "fenced" in error.str()
    wait_divided(new, partitions=2)
    new.leave()


@pytest.mark.parametrize("client", CLIENTS)
def test_nothing_is_lost_when_the_coordinator_is_killed(kafka: Kafka, client: str) -> None:
    topic, group = kafka.topic(partitions=4), a_group()
    wanted = write(kafka, topic, range(400), partitions=4)
    one, two = (CLIENTS[client](kafka, topic, group) for _ in range(2))
    wait_divided(one, two, partitions=4)
    wait_seen(wanted, one, two)
    coordinator = kafka.cluster.get(f"{kafka.cluster.v3}/consumer-groups/{group}")["coordinator"]["related"]
    coordinator = int(coordinator.rpartition("/")[2])
    kafka.cluster.kill(coordinator)
    try:
        wanted |= write(kafka, topic, range(400, 800), partitions=4)
        wait_seen(wanted, one, two)
        wait_divided(one, two, partitions=4)
        wait_committed(kafka, group, topic, [200] * 4)
    finally:
        kafka.cluster.restart(coordinator)
    one.leave()
    two.leave()
    late = write(kafka, topic, range(800, 840), partitions=4)
    three = CLIENTS[client](kafka, topic, group)
    wait_seen(late, three)
    three.leave()
    assert set(three.seen) == late
