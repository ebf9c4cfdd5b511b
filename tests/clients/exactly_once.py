"""What scripts of transactions share: records of a topic, nodes and clients that are killed with -9, and what is found.

Topics have `PARTITIONS` partitions where nothing else is given.
"""

from __future__ import annotations

import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import confluent_kafka
from confluent_kafka import KafkaError

from tests.clients.login import Login
from tests.integration.support.cluster import Cluster

PARTITIONS = 2
DEADLINE_S = 240
KILL_EVERY_S = 3.0
INSTANCE_DIES_EVERY_S = 15.0
"""Whoever takes its place waits until its session is over, 6 s."""
FATAL = (
    "OUT_OF_ORDER_SEQUENCE_NUMBER",
    "INVALID_TXN_STATE",
    "INVALID_PRODUCER_ID_MAPPING",
    "PRODUCER_FENCED",
    "UNKNOWN_PRODUCER_ID",
)
"""No client that does everything right is answered these: its instances end for good. Each transactional id has one
instance at a time here, whose transactions are shorter than their timeout."""


@contextmanager
def killing(cluster: Cluster) -> Iterator[list[int]]:
    """Nodes, one after the other with -9 and started again, while the block runs; those that were."""
    stop, killed = threading.Event(), list[int]()

    def kill() -> None:
        while not stop.wait(KILL_EVERY_S):
            node_id = cluster.ids[len(killed) % len(cluster.ids)]
            cluster.kill(node_id)
            killed.append(node_id)
            cluster.heal()

    with ThreadPoolExecutor(max_workers=1) as pool:
        killer = pool.submit(kill)
        try:
            yield killed
        finally:
            stop.set()
        killer.result()


def write(
    bootstrap: str,
    topic: str,
    values: Iterable[bytes],
    *,
    every_s: float = 0.0,
    partitions: int = PARTITIONS,
    login: Login | None = None,
) -> None:
    """All partitions in turn, one each `every_s` seconds. Each record is written once: with more than one request in
    flight librdkafka may begin an epoch while it does not know what became of the first (docs/clients.md)."""
    producer = confluent_kafka.Producer(
        {
            **(login or {}),
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "max.in.flight.requests.per.connection": 1,
        }
    )
    for number, value in enumerate(values):
        producer.produce(topic, value, partition=number % partitions)
        producer.poll(every_s)
    assert producer.flush(DEADLINE_S) == 0


def committed_values(
    bootstrap: str, topic: str, *, partitions: int = PARTITIONS, login: Login | None = None
) -> list[bytes]:
    return [value for _, value in committed_pairs(bootstrap, topic, partitions=partitions, login=login)]


def committed_pairs(
    bootstrap: str, topic: str, *, partitions: int = PARTITIONS, login: Login | None = None
) -> list[tuple[bytes, bytes]]:
    """Keys and values, partition by partition, up to the ends that a reader of committed records is told."""
    consumer = confluent_kafka.Consumer(
        {
            **(login or {}),
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    found: dict[int, list[tuple[bytes, bytes]]] = {number: [] for number in range(partitions)}
    with closing(consumer):
        consumer.assign([confluent_kafka.TopicPartition(topic, number, 0) for number in range(partitions)])
        ended: set[int] = set()
        deadline = time.monotonic() + DEADLINE_S
        while len(ended) < partitions:
            assert time.monotonic() < deadline, (ended, {number: len(each) for number, each in found.items()})
            message = consumer.poll(1)
            if message is None:
                continue
            if message.error() is None:
                found[message.partition()].append((message.key(), message.value()))
            elif message.error().code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
    return [pair for number in range(partitions) for pair in found[number]]


def difference(found: Counter[bytes], wanted: Counter[bytes]) -> str:
    return f"missing {sorted((wanted - found).items())[:9]}, too often {sorted((found - wanted).items())[:9]}"


class Instance:
    """A place of a group: who has it dies every few seconds, and another one takes its transactional id over."""

    def __init__(self, command: Sequence[str], log: Path, *, dies_every_s: float = INSTANCE_DIES_EVERY_S) -> None:
        self._command, self._log, self._dies_every_s = command, log, dies_every_s
        self.starts = self.given_up = 0
        self.fatal: list[str] = []
        """Last lines of those that ended by themselves with one of `FATAL`."""

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self.starts += 1
            with self._log.open("a") as output:
                process = subprocess.Popen(self._command, stdout=output, stderr=output)
                try:
                    if self._ends(process, stop):
                        self.given_up += 1
                        self._look()
                finally:
                    process.kill()
                    process.wait()

    def _ends(self, process: subprocess.Popen[bytes], stop: threading.Event) -> bool:
        """By itself; after its time it is killed."""
        for _ in range(round(self._dies_every_s / 0.1)):
            if process.poll() is not None:
                return True
            if stop.wait(0.1):
                return False
        return False

    def _look(self) -> None:
        last = (self.reported().splitlines() or [""])[-1]
        if any(name in last for name in FATAL):
            self.fatal.append(f"{self._log.stem}: {last}")

    def reported(self) -> str:
        return self._log.read_text()[-2000:]

    def committed(self) -> str:
        """Transactions of all of its lives; each line has the counts of one life so far."""
        ends, last = Counter[str](), Counter[str]()
        for line in [*self._log.read_text().splitlines(), "0 committed, 0 aborted"]:
            words = line.replace(",", "").split()
            if words[1::2] == ["committed", "aborted"]:
                reported = Counter({"committed": int(words[0]), "aborted": int(words[2])})
                if reported.total() <= last.total():
                    ends += last
                last = reported
        return f"{ends['committed']} transactions committed, {ends['aborted']} aborted"


@contextmanager
def running(instances: Sequence[Instance]) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=instance.run, args=(stop,)) for instance in instances]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
