"""Groups of the consumer protocol (KIP-848) with librdkafka's members: they join, leave, die, and change protocols."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import confluent_kafka
from confluent_kafka import Consumer, ConsumerGroupState, ConsumerGroupType
from confluent_kafka.admin import AdminClient

from kraft.client.response import Answer
from tests.clients.conftest import Kafka
from tests.integration.support.waiting import NotYet, wait_until

DEADLINE_S = 60


class Member:
    """A consumer that polls in a thread of its own, as an application does."""

    def __init__(self, kafka: Kafka, group: str, *topics: str, protocol: str = "consumer", **options: Any) -> None:
        config: dict[str, Any] = {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": group,
            "group.protocol": protocol,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "topic.metadata.refresh.interval.ms": 1_000,
            **options,
        }
        if protocol == "classic":
            config |= {"session.timeout.ms": 10_000, "heartbeat.interval.ms": 300}
        self.consumer = Consumer(config)
        self.owned: frozenset[tuple[str, int]] = frozenset()
        self.seen: list[tuple[str, int, int]] = []
        self.errors: list[Any] = []
        self._ends = threading.Event()
        self.consumer.subscribe(list(topics))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ends.is_set():
            message = self.consumer.poll(0.1)
            if message is not None:
                if message.error():
                    self.errors.append(message.error())
                else:
                    self.seen.append((message.topic(), message.partition(), message.offset()))
                    with suppress(confluent_kafka.KafkaException):
                        self.consumer.commit(message, asynchronous=True)
            self.owned = frozenset((each.topic, each.partition) for each in self.consumer.assignment())

    def close(self) -> None:
        self._ends.set()
        self._thread.join(DEADLINE_S)
        self.consumer.close()
        self.owned = frozenset()


@contextmanager
def members(*made: Member) -> Iterator[list[Member]]:
    alive = list(made)
    try:
        yield alive
    finally:
        for member in alive:
            member.close()


def wait_for_shares(shares: list[int], *alive: Member) -> None:
    """Each has its part, and no partition two owners."""

    def is_so() -> bool:
        owned = [member.owned for member in alive]
        if sorted(map(len, owned)) != sorted(shares) or len(frozenset().union(*owned)) != sum(shares):
            raise NotYet([(sorted(member.owned), member.errors) for member in alive])
        return True

    wait_until(is_so, deadline_s=DEADLINE_S, what=f"shares of {shares}")


def produce(kafka: Kafka, topic: str, partitions: int, count: int) -> None:
    for partition in range(partitions):
        kafka.cluster.write_all(topic, [f"{partition}-{number}" for number in range(count)], partition=partition)


def admin(kafka: Kafka) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka.bootstrap_servers})


def described(kafka: Kafka, group: str) -> Any:
    client = admin(kafka)
    return client.describe_consumer_groups([group])[group].result(timeout=DEADLINE_S)


def new_group() -> str:
    return f"group-{uuid.uuid4().hex[:12]}"


def test_members_join_and_leave_and_every_record_is_read_once_by_somebody(kafka: Kafka) -> None:
    topic, group = kafka.topic(partitions=6), new_group()
    produce(kafka, topic, 6, 20)
    with members(Member(kafka, group, topic)) as alive:
        wait_for_shares([6], *alive)
        alive.append(Member(kafka, group, topic))
        alive.append(Member(kafka, group, topic))
        wait_for_shares([2, 2, 2], *alive)
        left = alive.pop()
        left.close()
        wait_for_shares([3, 3], *alive)
        everything = {(topic, partition, offset) for partition in range(6) for offset in range(20)}
        wait_until(
            lambda: {*left.seen, *alive[0].seen, *alive[1].seen} == everything, deadline_s=DEADLINE_S, what="all"
        )
        assert not [*left.errors, *alive[0].errors, *alive[1].errors]


def test_a_member_goes_on_where_the_group_has_committed(kafka: Kafka) -> None:
    topic, group = kafka.topic(partitions=2), new_group()
    produce(kafka, topic, 2, 10)
    with members(Member(kafka, group, topic)) as [first]:
        wait_until(lambda: len(first.seen) == 20, deadline_s=DEADLINE_S, what="the first ten of each")
    produce(kafka, topic, 2, 5)
    with members(Member(kafka, group, topic)) as [second]:
        wait_until(lambda: len(second.seen) >= 10, deadline_s=DEADLINE_S, what="five more of each")
        assert {offset for _, _, offset in second.seen} == set(range(10, 15))


DYING = """
import json, sys
from confluent_kafka import Consumer
config, topic = json.loads(sys.argv[1]), sys.argv[2]
consumer = Consumer(config)
consumer.subscribe([topic])
while True:
    consumer.poll(0.1)
    print(len(consumer.assignment()), flush=True)
"""


def test_what_a_killed_member_had_goes_to_the_others_after_its_session(kafka: Kafka) -> None:
    topic, group = kafka.topic(partitions=4), new_group()
    config = {"bootstrap.servers": kafka.bootstrap_servers, "group.id": group, "group.protocol": "consumer"}
    command = [sys.executable, "-c", DYING, json.dumps(config), topic]
    with members(Member(kafka, group, topic)) as alive:
        wait_for_shares([4], *alive)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as dying:
            try:
                wait_for_shares([2], *alive)
                assert dying.stdout is not None
                for line in dying.stdout:
                    if line.strip() == "2":
                        break
            finally:
                dying.kill()
        wait_for_shares([4], *alive)


def test_a_pattern_follows_topics_that_come(kafka: Kafka) -> None:
    prefix, group = f"p{uuid.uuid4().hex[:8]}", new_group()
    kafka.topic(partitions=2, name=f"{prefix}-one")
    with members(Member(kafka, group, f"^{prefix}-.*")) as alive:
        wait_for_shares([2], *alive)
        kafka.topic(partitions=3, name=f"{prefix}-two")
        kafka.topic(partitions=1, name=f"other-{prefix}-three")
        wait_for_shares([5], *alive)
        assert {topic for topic, _ in alive[0].owned} == {f"{prefix}-one", f"{prefix}-two"}
        assert not alive[0].errors


def test_pattern_that_re2_refuses(kafka: Kafka) -> None:
    with members(Member(kafka, new_group(), "^a{1001}")) as [member]:
        wait_until(lambda: bool(member.errors), deadline_s=DEADLINE_S, what="an error")
        assert "The regular expression is not valid" in member.errors[0].str(), member.errors


def test_a_static_member_comes_back_to_what_it_had(kafka: Kafka) -> None:
    topic, group = kafka.topic(partitions=6), new_group()

    def static(name: str) -> Member:
        return Member(kafka, group, topic, **{"group.instance.id": name})

    with members(static("a"), static("b"), static("c")) as alive:
        wait_for_shares([2, 2, 2], *alive)
        had = [member.owned for member in alive]
        alive.pop().close()
        back = static("c")
        alive.append(back)
        wait_until(lambda: back.owned == had[2], deadline_s=DEADLINE_S, what=f"{had[2]} again, not {back.owned}")
        assert [member.owned for member in alive] == had


def test_the_group_is_listed_and_described_with_its_type(kafka: Kafka) -> None:
    topic, group = kafka.topic(partitions=2), new_group()
    with members(Member(kafka, group, topic)) as alive:
        wait_for_shares([2], *alive)
        client = admin(kafka)
        listed = client.list_consumer_groups(types={ConsumerGroupType.CONSUMER}).result(timeout=DEADLINE_S)
        assert group in {each.group_id for each in listed.valid}
        assert not listed.errors
        classic = client.list_consumer_groups(types={ConsumerGroupType.CLASSIC}).result(timeout=DEADLINE_S)
        assert group not in {each.group_id for each in classic.valid}
        found = described(kafka, group)
        assert (found.state, found.type) == (ConsumerGroupState.STABLE, ConsumerGroupType.CONSUMER)
        assert found.partition_assignor == "uniform"
        assert {(each.topic, each.partition) for each in found.members[0].assignment.topic_partitions} == alive[0].owned
    client.delete_consumer_groups([group])[group].result(timeout=DEADLINE_S)
    listed = client.list_consumer_groups().result(timeout=DEADLINE_S)
    assert group not in {each.group_id for each in listed.valid}


def test_a_group_goes_over_to_the_consumer_protocol_and_back_while_it_reads(kafka: Kafka) -> None:
    topic, group = kafka.topic(partitions=4), new_group()
    produce(kafka, topic, 4, 10)

    def classic() -> Member:
        return Member(kafka, group, topic, protocol="classic", **{"partition.assignment.strategy": "range"})

    with members(classic(), classic()) as alive:
        wait_for_shares([2, 2], *alive)
        assert described(kafka, group).type == ConsumerGroupType.CLASSIC
        newer = [Member(kafka, group, topic), Member(kafka, group, topic)]
        alive += newer
        wait_for_shares([1, 1, 1, 1], *alive)
        assert described(kafka, group).type == ConsumerGroupType.CONSUMER
        for member in newer:
            alive.remove(member)
            member.close()
        wait_for_shares([2, 2], *alive)
        assert described(kafka, group).type == ConsumerGroupType.CLASSIC
        produce(kafka, topic, 4, 5)
        everything = {(topic, partition, offset) for partition in range(4) for offset in range(15)}
        wait_until(
            lambda: {each for member in (*alive, *newer) for each in member.seen} == everything,
            deadline_s=DEADLINE_S,
            what="every record",
        )


def test_group_with_user_data_in_assignments_is_not_upgraded(kafka: Kafka) -> None:
    """As librdkafka's cooperative-sticky does, and Kafka's own does not: nobody but that assignor can go on with it.

    It keeps what a member had when it joined. So somebody has to have had something before the assignment of now; the
    first assignment of a group has nothing of the kind, and such a group goes over."""
    topic, group = kafka.topic(partitions=4), new_group()

    def classic() -> Member:
        options = {"partition.assignment.strategy": "cooperative-sticky"}
        return Member(kafka, group, topic, protocol="classic", **options)

    with members(classic()) as alive:
        wait_for_shares([4], *alive)
        alive.append(classic())
        wait_for_shares([2, 2], *alive)
        newer = Member(kafka, group, topic)
        alive.append(newer)
        wait_until(lambda: bool(newer.errors), deadline_s=DEADLINE_S, what="an error")
        assert "The group id does not exist" in newer.errors[0].str(), newer.errors
        wait_for_shares([2, 2], *alive[:2])


def test_a_group_survives_its_coordinator(kafka: Kafka) -> None:
    topic, group = kafka.topic(partitions=6), new_group()
    with members(Member(kafka, group, topic), Member(kafka, group, topic)) as alive:
        wait_for_shares([3, 3], *alive)
        found = described(kafka, group)
        coordinator = found.coordinator.id
        had = [member.owned for member in alive]
        kafka.cluster.kill(coordinator)
        try:
            produce(kafka, topic, 6, 3)
            everything = {(topic, partition, offset) for partition in range(6) for offset in range(3)}
            wait_until(
                lambda: {each for member in alive for each in member.seen} == everything,
                deadline_s=DEADLINE_S,
                what="what was written after the coordinator died",
            )
            wait_for_shares([3, 3], *alive)
            assert [member.owned for member in alive] == had, "nobody had to move"
            alive.append(Member(kafka, group, topic))
            wait_for_shares([2, 2, 2], *alive)
        finally:
            kafka.cluster.restart(coordinator)


def test_a_rest_consumer_shares_a_group_with_members_of_the_consumer_protocol(kafka: Kafka) -> None:
    topic, group = kafka.topic(partitions=4), new_group()
    produce(kafka, topic, 4, 10)
    path = f"/consumers/{group}/instances/r"
    read: list[tuple[str, int, int]] = []

    def ask(method: str, where: str, document: Any = None) -> Any:
        answer = kafka.cluster.send(1, method, where, document)
        assert isinstance(answer, Answer), answer
        assert answer.is_success, (method, where, answer.status, answer.body)
        return answer.json() if answer.body else None

    def poll() -> None:
        read.extend((each["topic"], each["partition"], each["offset"]) for each in ask("GET", f"{path}/records"))

    with members(Member(kafka, group, topic)) as alive:
        wait_for_shares([4], *alive)
        ask("POST", f"/consumers/{group}", {"name": "r", "format": "binary", "auto.offset.reset": "earliest"})
        ask("POST", f"{path}/subscription", {"topics": [topic]})

        def is_shared() -> bool:
            poll()
            return len(alive[0].owned) == 2

        wait_until(is_shared, deadline_s=DEADLINE_S, what="two partitions each")
        assert described(kafka, group).type == ConsumerGroupType.CONSUMER
        produce(kafka, topic, 4, 5)
        everything = {(topic, partition, offset) for partition in range(4) for offset in range(15)}

        def is_complete() -> bool:
            poll()
            return {*read, *alive[0].seen} == everything

        wait_until(is_complete, deadline_s=DEADLINE_S, what="every record")
        alive.pop().close()

        def has_all() -> bool:
            poll()
            return len(ask("GET", f"{path}/assignments")["partitions"]) == 4

        wait_until(has_all, deadline_s=DEADLINE_S, what="all four for the REST consumer")
        assert described(kafka, group).type == ConsumerGroupType.CLASSIC
