"""Members of consumer groups, each in a thread of its own: one class for each client, and one for REST consumers.

A member polls until it is told to leave. It commits what it has seen after each poll, so that whatever a group has
committed was seen by somebody.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import aiokafka
import aiokafka.coordinator.assignors.range
import aiokafka.coordinator.assignors.roundrobin
import confluent_kafka
import kafka as kafka_python
import kafka.coordinator.assignors.range
import kafka.coordinator.assignors.roundrobin

from kraft.client.response import Answer
from tests.clients.conftest import Kafka
from tests.integration.support.waiting import wait_until

POLL_S = 0.2
SESSION_MS = 10_000
DEADLINE_S = 60
REST = "application/vnd.kafka.text.v2+json, application/vnd.kafka.v2+json"


class Member:
    """What its thread writes, a test reads: `assigned`, `seen`, `failure`."""

    def __init__(self, kafka: Kafka, topic: str, group: str, **options: Any) -> None:
        self.kafka = kafka
        self.topic = topic
        self.group = group
        self.options = options
        self.assigned: frozenset[int] = frozenset()
        self.history: list[frozenset[int]] = []
        """Each assignment after the one before."""
        self.seen: list[str] = []
        self.failure: BaseException | None = None
        self._is_leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def leave(self) -> None:
        self._is_leaving.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), self
        if self.failure is not None:
            raise self.failure

    def check(self) -> None:
        if self.failure is not None:
            raise AssertionError(f"{self} failed") from self.failure

    def _run(self) -> None:
        try:
            self.consume(self._is_leaving.is_set)
        except BaseException as error:  # noqa: BLE001 the test's thread raises it
            self.failure = error
        self.assigned = frozenset()

    def _is_assigned(self, partitions: frozenset[int]) -> None:
        if partitions != self.assigned:
            self.assigned = partitions
            self.history.append(partitions)

    def consume(self, is_leaving: Callable[[], bool]) -> None:
        raise NotImplementedError


class ConfluentMember(Member):
    ASSIGNORS: ClassVar[Mapping[str, str]] = {name: name for name in ("range", "roundrobin", "cooperative-sticky")}

    def consume(self, is_leaving: Callable[[], bool]) -> None:
        options = dict(self.options)
        assignor = options.pop("assignor", "range")
        given = {
            "bootstrap.servers": self.kafka.bootstrap_servers,
            "group.id": self.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": SESSION_MS,
            "heartbeat.interval.ms": 500,
            "partition.assignment.strategy": assignor,
        }
        names = {"instance": "group.instance.id", "client_id": "client.id"}
        consumer = confluent_kafka.Consumer({**given, **{names[key]: value for key, value in options.items()}})
        consumer.subscribe([self.topic])
        try:
            while not is_leaving():
                messages = consumer.consume(num_messages=500, timeout=POLL_S)
                self._is_assigned(frozenset(each.partition for each in consumer.assignment()))
                for message in messages:
                    if message.error() is not None:
                        raise confluent_kafka.KafkaException(message.error())
                    self.seen.append(message.value().decode())
                if messages:
                    self._commit(consumer)
        finally:
            consumer.close()

    def _commit(self, consumer: confluent_kafka.Consumer) -> None:
        try:
            consumer.commit(asynchronous=False)
        except confluent_kafka.KafkaException as error:
            # In a rebalance, or while the coordinator moves: what comes next commits this, too.
            if not (error.args[0].retriable() or error.args[0].code() in LATER):
                raise


LATER = (
    confluent_kafka.KafkaError.REBALANCE_IN_PROGRESS,
    confluent_kafka.KafkaError.ILLEGAL_GENERATION,
    confluent_kafka.KafkaError.UNKNOWN_MEMBER_ID,
    confluent_kafka.KafkaError.NOT_COORDINATOR,
    confluent_kafka.KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    confluent_kafka.KafkaError.COORDINATOR_NOT_AVAILABLE,
    confluent_kafka.KafkaError._NO_OFFSET,
    confluent_kafka.KafkaError._TRANSPORT,
    confluent_kafka.KafkaError._TIMED_OUT,
    confluent_kafka.KafkaError._WAIT_COORD,
)


class PythonMember(Member):
    ASSIGNORS: ClassVar[Mapping[str, Any]] = {
        "range": kafka.coordinator.assignors.range.RangePartitionAssignor,
        "roundrobin": kafka.coordinator.assignors.roundrobin.RoundRobinPartitionAssignor,
    }

    def consume(self, is_leaving: Callable[[], bool]) -> None:
        names = {"instance": "group_instance_id", "client_id": "client_id"}
        options = dict(self.options)
        consumer = kafka_python.KafkaConsumer(
            bootstrap_servers=self.kafka.servers,
            group_id=self.group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=500,
            partition_assignment_strategy=[self.ASSIGNORS[options.pop("assignor", "range")]],
            **{names[key]: value for key, value in options.items()},
        )
        # kafka-python 3.0.12 forgets a rebalance that it began because it learned of partitions only then, if that
        # ends between two polls: it is a member without heartbeats and partitions from there on.
        consumer.partitions_for_topic(self.topic)
        consumer.subscribe([self.topic])
        try:
            while not is_leaving():
                polled = consumer.poll(timeout_ms=int(POLL_S * 1000))
                self._is_assigned(frozenset(each.partition for each in consumer.assignment()))
                for messages in polled.values():
                    self.seen += [message.value.decode() for message in messages]
                if polled:
                    try:
                        consumer.commit()
                    except (
                        kafka_python.errors.CommitFailedError,
                        kafka_python.errors.RebalanceInProgressError,
                        kafka_python.errors.RetriableError,
                    ):
                        continue
        finally:
            consumer.close()


class AioMember(Member):
    ASSIGNORS: ClassVar[Mapping[str, Any]] = {
        "range": aiokafka.coordinator.assignors.range.RangePartitionAssignor,
        "roundrobin": aiokafka.coordinator.assignors.roundrobin.RoundRobinPartitionAssignor,
    }

    def consume(self, is_leaving: Callable[[], bool]) -> None:
        asyncio.run(self._consume(is_leaving))

    async def _consume(self, is_leaving: Callable[[], bool]) -> None:
        names = {"instance": "group_instance_id", "client_id": "client_id"}
        options = dict(self.options)
        consumer = aiokafka.AIOKafkaConsumer(
            self.topic,
            bootstrap_servers=self.kafka.bootstrap_servers,
            group_id=self.group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=500,
            partition_assignment_strategy=(self.ASSIGNORS[options.pop("assignor", "range")],),
            **{names[key]: value for key, value in options.items()},
        )
        await consumer.start()
        try:
            while not is_leaving():
                polled = await consumer.getmany(timeout_ms=int(POLL_S * 1000))
                self._is_assigned(frozenset(each.partition for each in consumer.assignment()))
                for messages in polled.values():
                    self.seen += [message.value.decode() for message in messages]
                if polled:
                    try:
                        await consumer.commit()
                    except (aiokafka.errors.CommitFailedError, aiokafka.errors.IllegalStateError):
                        continue
        finally:
            await consumer.stop()


class RestMember(Member):
    """A consumer over REST, which offers all assignors; any node takes any of its requests."""

    def consume(self, is_leaving: Callable[[], bool]) -> None:
        name = self.options.get("client_id", f"rest-{id(self)}")
        config = {"name": name, "format": "text", "auto.offset.reset": "earliest", "auto.commit.enable": "false"}
        path = f"/consumers/{self.group}/instances/{name}"
        self._ask("POST", f"/consumers/{self.group}", config)
        try:
            self._ask("POST", path + "/subscription", {"topics": [self.topic]})
            while not is_leaving():
                records = self._ask("GET", f"{path}/records?timeout={int(POLL_S * 1000)}")
                owned = self._ask("GET", path + "/assignments")["partitions"]
                self._is_assigned(frozenset(each["partition"] for each in owned))
                self.seen += [record["value"] for record in records]
                if records:
                    self._ask("POST", path + "/offsets")
        finally:
            self._ask("DELETE", path)

    def _ask(self, method: str, path: str, document: Any = None) -> Any:
        answer = self.kafka.cluster.send(self.kafka.cluster.serving[0], method, path, document, Accept=REST)
        assert isinstance(answer, Answer), answer
        assert answer.is_success, (method, path, answer)
        return answer.json() if answer.body else None


CLIENTS: Mapping[str, type[Member]] = {
    "confluent-kafka": ConfluentMember,
    "kafka-python": PythonMember,
    "aiokafka": AioMember,
}


def wait_divided(*members: Member, partitions: int) -> None:
    """Until each partition has one member, and no member has two more than another."""

    def is_divided() -> bool:
        for member in members:
            member.check()
        shares = [member.assigned for member in members]
        sizes = [len(share) for share in shares]
        return sum(sizes) == len(frozenset().union(*shares)) == partitions and max(sizes) - min(sizes) <= 1

    wait_until(is_divided, deadline_s=DEADLINE_S, what=f"{partitions} partitions divided by {len(members)} members")


def wait_seen(wanted: set[str], *members: Member) -> None:
    def is_seen() -> bool:
        for member in members:
            member.check()
        return wanted <= {value for member in members for value in member.seen}

    wait_until(is_seen, deadline_s=DEADLINE_S, what=f"{len(wanted)} records")
