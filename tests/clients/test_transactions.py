"""Transactions of clients that nobody here wrote: committed they are read once, aborted never, whoever dies."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import confluent_kafka
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import ProducerFenced
from confluent_kafka import KafkaError, KafkaException

from kraft.coordinators.java import abs_hash
from tests.clients.conftest import SETTINGS, Kafka
from tests.integration.conftest import run_cluster
from tests.integration.support.cluster import Cluster
from tests.integration.support.waiting import wait_until

PARTITIONS = 3
END_S = 60
READ_S = 60
KILLS = 3
BETWEEN_KILLS_S = 3.0
EACH = 6
"""Records of a transaction."""


def new_id() -> str:
    return f"id-{uuid.uuid4().hex[:8]}"


def producer_of(kafka: Kafka, transactional_id: str, **settings: Any) -> confluent_kafka.Producer:
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "transactional.id": transactional_id,
            "linger.ms": 1,
            "log_level": 0,
            **settings,
        }
    )
    producer.init_transactions(END_S)
    return producer


def write(producer: confluent_kafka.Producer, topic: str, *values: bytes) -> None:
    """One to each partition in turn. Returns when all are in the logs."""
    for number, value in enumerate(values):
        producer.produce(topic, value, partition=number % PARTITIONS)
    assert producer.flush(END_S) == 0


def committed(kafka: Kafka, topic: str) -> list[bytes]:
    """All that a consumer of committed records finds until the ends that it is told."""
    return _read(kafka, topic, "read_committed")


def _read(kafka: Kafka, topic: str, isolation: str) -> list[bytes]:
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": new_id(),
            "isolation.level": isolation,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "log_level": 0,
        }
    )
    with closing(consumer):
        consumer.assign([confluent_kafka.TopicPartition(topic, n, 0) for n in range(PARTITIONS)])
        values, ended = [], set()
        deadline = time.monotonic() + READ_S
        while len(ended) < PARTITIONS:
            assert time.monotonic() < deadline, f"{len(values)} records, ends of {ended}"
            message = consumer.poll(0.5)
            if message is None:
                continue
            if message.error() is None:
                values.append(message.value())
            elif message.error().code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
            elif not message.error().retriable():
                raise KafkaException(message.error())
    return values


def coordinator_of(cluster: Cluster, transactional_id: str) -> int:
    return cluster.leader_of("__transaction_state", abs_hash(transactional_id) % 50)


def until_committed(kafka: Kafka, topic: str, expected: set[bytes]) -> None:
    """Markers come after the answer, so the end that a consumer is told may be below for a moment."""
    wait_until(lambda: set(committed(kafka, topic)) >= expected, what=f"{len(expected)} committed records")
    assert sorted(committed(kafka, topic)) == sorted(expected)


# --- one producer ----------------------------------------------------------------------------------------------------


def test_confluent_commits_and_aborts(kafka: Kafka) -> None:
    topic = kafka.topic(partitions=PARTITIONS)
    producer = producer_of(kafka, new_id())
    expected = set()
    for number in range(6):
        producer.begin_transaction()
        values = [b"%d.%d" % (number, each) for each in range(EACH)]
        write(producer, topic, *values)
        if number % 2:
            producer.abort_transaction(END_S)
        else:
            producer.commit_transaction(END_S)
            expected |= set(values)
    until_committed(kafka, topic, expected)
    assert len(_read(kafka, topic, "read_uncommitted")) == 6 * EACH


def test_aiokafka_commits_and_aborts(kafka: Kafka) -> None:
    topic = kafka.topic(partitions=PARTITIONS)

    async def story() -> list[bytes]:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.servers, transactional_id=new_id())
        await producer.start()
        try:
            async with producer.transaction():
                for number in range(EACH):
                    await producer.send_and_wait(topic, b"kept %d" % number, partition=number % PARTITIONS)
            await producer.begin_transaction()
            await producer.send_and_wait(topic, b"dropped", partition=0)
            await producer.abort_transaction()
            async with producer.transaction():
                await producer.send_and_wait(topic, b"last", partition=0)
        finally:
            await producer.stop()
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka.servers, isolation_level="read_committed")
        await consumer.start()
        try:
            partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
            consumer.assign(partitions)
            await consumer.seek_to_beginning(*partitions)
            found: list[bytes] = []
            async with asyncio.timeout(READ_S):
                while len(found) < EACH + 1:
                    batches = await consumer.getmany(
                        timeout_ms=500
                    )  # short: what has not come yet comes with the next look
                    found += [record.value for records in batches.values() for record in records]
            return found
        finally:
            await consumer.stop()

    found = asyncio.run(story())
    assert sorted(found) == sorted([*(b"kept %d" % number for number in range(EACH)), b"last"])


def test_what_is_open_is_not_read(kafka: Kafka) -> None:
    topic = kafka.topic(partitions=PARTITIONS)
    producer = producer_of(kafka, new_id())
    producer.begin_transaction()
    write(producer, topic, b"a", b"b", b"c")
    assert committed(kafka, topic) == []
    assert len(_read(kafka, topic, "read_uncommitted")) == 3
    producer.commit_transaction(END_S)
    until_committed(kafka, topic, {b"a", b"b", b"c"})


# --- fencing ----------------------------------------------------------------------------------------------------------


def test_a_second_instance_fences_the_first(kafka: Kafka) -> None:
    topic, transactional_id = kafka.topic(partitions=PARTITIONS), new_id()
    zombie = producer_of(kafka, transactional_id)
    zombie.begin_transaction()
    write(zombie, topic, b"of the zombie")
    heir = producer_of(kafka, transactional_id)
    heir.begin_transaction()
    write(heir, topic, b"of the heir")
    with pytest.raises(KafkaException) as refused:
        zombie.commit_transaction(END_S)
    assert refused.value.args[0].code() == KafkaError._FENCED
    heir.commit_transaction(END_S)
    until_committed(kafka, topic, {b"of the heir"})


def test_a_second_aiokafka_fences_the_first(kafka: Kafka) -> None:
    topic, transactional_id = kafka.topic(partitions=PARTITIONS), new_id()

    async def story() -> None:
        first = AIOKafkaProducer(bootstrap_servers=kafka.servers, transactional_id=transactional_id)
        second = AIOKafkaProducer(bootstrap_servers=kafka.servers, transactional_id=transactional_id)
        await first.start()
        try:
            await first.begin_transaction()
            await first.send_and_wait(topic, b"of the zombie", partition=0)
            await second.start()
            async with second.transaction():
                await second.send_and_wait(topic, b"of the heir", partition=0)
            with pytest.raises(ProducerFenced):
                await first.commit_transaction()
        finally:
            await second.stop()
            await first.stop()

    asyncio.run(story())
    until_committed(kafka, topic, {b"of the heir"})


def test_what_is_open_for_too_long_is_aborted(quick: Kafka) -> None:
    """By its timeout, and its producer cannot commit it any more."""
    topic = quick.topic(partitions=PARTITIONS)
    producer = producer_of(quick, new_id(), **{"transaction.timeout.ms": 2_000, "message.timeout.ms": 1_500})
    producer.begin_transaction()
    write(producer, topic, b"too late")
    other = producer_of(quick, new_id())
    other.begin_transaction()
    write(other, topic, b"in time")
    other.commit_transaction(END_S)
    until_committed(quick, topic, {b"in time"})
    with pytest.raises(KafkaException) as refused:
        producer.commit_transaction(END_S)
    assert refused.value.args[0].fatal() or refused.value.args[0].txn_requires_abort()
    assert committed(quick, topic) == [b"in time"]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """Where it is looked every second for what is open for too long."""
    settings = {**SETTINGS, "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1_000}
    for cluster in run_cluster(tmp_path_factory.mktemp("quick"), settings=settings):
        yield Kafka(cluster)


# --- nodes that die ---------------------------------------------------------------------------------------------------


def test_the_coordinator_dies_right_after_it_has_decided(kafka: Kafka) -> None:
    """With kill -9, between the answer and some of the markers or all: time after time."""
    topic, transactional_id = kafka.topic(partitions=PARTITIONS), new_id()
    producer = producer_of(kafka, transactional_id)
    expected = set()
    for number in range(4):
        producer.begin_transaction()
        values = [b"%d.%d" % (number, each) for each in range(EACH)]
        write(producer, topic, *values)
        coordinator = coordinator_of(kafka.cluster, transactional_id)
        with dead_after(kafka.cluster, coordinator, number * 0.003):
            if number % 2:
                producer.abort_transaction(END_S)
            else:
                producer.commit_transaction(END_S)
                expected |= set(values)
        until_committed(kafka, topic, expected)


def test_the_leader_of_a_partition_dies_before_its_marker(kafka: Kafka) -> None:
    topic, transactional_id = kafka.topic(partitions=PARTITIONS), new_id()
    producer = producer_of(kafka, transactional_id)
    for commits in (True, False):
        producer.begin_transaction()
        value = b"kept" if commits else b"dropped"
        producer.produce(topic, value, partition=0)
        assert producer.flush(END_S) == 0
        leader = kafka.cluster.leader_of(topic)
        kafka.cluster.kill(leader)
        try:
            (producer.commit_transaction if commits else producer.abort_transaction)(END_S)
            until_committed(kafka, topic, {b"kept"})
        finally:
            kafka.cluster.heal()


@contextmanager
def dead_after(cluster: Cluster, node_id: int, seconds: float) -> Iterator[None]:
    """Killed about when the block is over, and started again before this returns."""

    def kill() -> None:
        time.sleep(seconds)
        cluster.kill(node_id)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    finally:
        killer.join()
        cluster.heal()


@pytest.mark.parametrize("client", ["confluent", "aiokafka"])
def test_transactions_go_on_while_nodes_are_killed(kafka: Kafka, client: str) -> None:
    """What a commit has acknowledged is read, all of it and once; nothing that was aborted is; of those whose end is
    not known all or nothing."""
    topic = kafka.topic(partitions=PARTITIONS)
    stop = threading.Event()
    ended: dict[int, bool | None] = {}
    run = {"confluent": _with_confluent, "aiokafka": _with_aiokafka}[client]
    worker = threading.Thread(target=run, args=(kafka, topic, stop, ended))
    worker.start()
    try:
        for number in range(KILLS):
            time.sleep(BETWEEN_KILLS_S)
            node_id = kafka.cluster.ids[number % 3]
            kafka.cluster.kill(node_id)
            time.sleep(1)
            kafka.cluster.heal()
    finally:
        stop.set()
        worker.join(180)
    assert not worker.is_alive()
    assert sum(each is True for each in ended.values()) > KILLS
    found = _settled(kafka, topic, {number for number, end in ended.items() if end})
    for number, end in ended.items():
        count = found.pop(number, 0)
        assert count == (EACH if end else 0) or (end is None and count == EACH), (number, end, count)
    assert not found


def _settled(kafka: Kafka, topic: str, needed: set[int]) -> dict[int, int]:
    """How many records of each transaction are committed, once those that are needed are there."""
    found: dict[int, int] = {}

    def look() -> bool:
        found.clear()
        for value in committed(kafka, topic):
            number = int(value)
            found[number] = found.get(number, 0) + 1
        return needed <= found.keys()

    wait_until(look, what="what was committed")
    return found


def _with_confluent(kafka: Kafka, topic: str, stop: threading.Event, ended: dict[int, bool | None]) -> None:
    producer = producer_of(kafka, transactional_id := new_id())
    number = 0
    while not stop.is_set():
        number += 1
        ended[number] = None
        commits = number % 4 != 0
        try:
            producer.begin_transaction()
            for each in range(EACH):
                producer.produce(topic, b"%d" % number, partition=each % PARTITIONS)
            if commits:
                _until_ended(producer.commit_transaction)
            else:
                _until_ended(producer.abort_transaction)
            ended[number] = commits
        except KafkaException as error:
            if error.args[0].txn_requires_abort():
                _until_ended(producer.abort_transaction)
                ended[number] = False
            elif error.args[0].fatal():
                producer = producer_of(kafka, transactional_id)
            else:
                raise


def _until_ended(end: Callable[[float], Any]) -> None:
    while True:
        try:
            end(END_S)
            return
        except KafkaException as error:
            if not error.args[0].retriable():
                raise


def _with_aiokafka(kafka: Kafka, topic: str, stop: threading.Event, ended: dict[int, bool | None]) -> None:
    async def work() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.servers, transactional_id=new_id(), linger_ms=1)
        await producer.start()
        number = 0
        try:
            while not stop.is_set():
                number += 1
                ended[number] = None
                await producer.begin_transaction()
                for each in range(EACH):
                    await producer.send(topic, b"%d" % number, partition=each % PARTITIONS)
                if number % 4:
                    await producer.commit_transaction()
                else:
                    await producer.abort_transaction()
                ended[number] = bool(number % 4)
        finally:
            await producer.stop()

    asyncio.run(work())


# --- from read to write -----------------------------------------------------------------------------------------------


def test_records_are_carried_from_topic_to_topic_once(kafka: Kafka) -> None:
    """Consume, transform, produce with the offsets in the transaction, while nodes are killed and instances abort."""
    source, sink, group = kafka.topic(partitions=PARTITIONS), kafka.topic(partitions=PARTITIONS), new_id()
    producer = confluent_kafka.Producer({"bootstrap.servers": kafka.bootstrap_servers, "enable.idempotence": True})
    expected = {b"%d" % number for number in range(600)}
    write(producer, source, *sorted(expected))
    carried: list[int] = []
    failures: list[BaseException] = []
    copier = threading.Thread(target=_copy, args=(kafka, source, sink, group, len(expected), carried, failures))
    copier.start()
    for number in range(2):
        time.sleep(1.5)
        node_id = kafka.cluster.ids[(number + 1) % 3]
        kafka.cluster.kill(node_id)
        time.sleep(1)
        kafka.cluster.heal()
    copier.join(180)
    assert not copier.is_alive(), carried
    assert not failures, failures
    until_committed(kafka, sink, expected)


def _copy(
    kafka: Kafka, source: str, sink: str, group: str, count: int, carried: list[int], failures: list[BaseException]
) -> None:
    try:
        _carry(kafka, source, sink, group, count, carried)
    except BaseException as error:  # noqa: BLE001 - told to the test, which fails with it
        failures.append(error)


def _carry(kafka: Kafka, source: str, sink: str, group: str, count: int, carried: list[int]) -> None:
    """Each transaction has some records of each partition; every third one is aborted, and read again."""
    transactional_id = new_id()
    done = 0
    rounds = 0
    while done < count:
        consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "group.id": group,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        producer = producer_of(kafka, transactional_id)
        with closing(consumer):
            consumer.subscribe([source])
            while done < count:
                messages = [each for each in consumer.consume(20, 1.0) if each.error() is None]
                if not messages:
                    continue
                rounds += 1
                try:
                    producer.begin_transaction()
                    for message in messages:
                        producer.produce(sink, message.value(), partition=message.partition())
                    producer.send_offsets_to_transaction(
                        consumer.position(consumer.assignment()), consumer.consumer_group_metadata(), END_S
                    )
                    if rounds % 3 == 0:
                        _until_ended(producer.abort_transaction)
                        break
                    _until_ended(producer.commit_transaction)
                except KafkaException as error:
                    if error.args[0].txn_requires_abort():
                        _until_ended(producer.abort_transaction)
                    elif not (error.args[0].fatal() or error.args[0].retriable()):
                        raise
                    break
                done += len(messages)
                carried.append(done)
