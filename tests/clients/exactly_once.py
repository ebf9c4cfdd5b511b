"""What scripts of transactions share: records of a topic, nodes that are killed with -9, and what a reader finds.

Topics have `PARTITIONS` partitions.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import confluent_kafka
from confluent_kafka import KafkaError

from tests.integration.support.cluster import Cluster

PARTITIONS = 2
DEADLINE_S = 240
KILL_EVERY_S = 3.0


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


def write(bootstrap: str, topic: str, values: Iterable[bytes], *, every_s: float = 0.0) -> None:
    """All partitions in turn, one each `every_s` seconds."""
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    for number, value in enumerate(values):
        producer.produce(topic, value, partition=number % PARTITIONS)
        producer.poll(every_s)
    assert producer.flush(DEADLINE_S) == 0


def committed_values(bootstrap: str, topic: str) -> list[bytes]:
    return [value for _, value in committed_pairs(bootstrap, topic)]


def committed_pairs(bootstrap: str, topic: str) -> list[tuple[bytes, bytes]]:
    """Keys and values, partition by partition, up to the ends that a reader of committed records is told."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    found: dict[int, list[tuple[bytes, bytes]]] = {number: [] for number in range(PARTITIONS)}
    with closing(consumer):
        consumer.assign([confluent_kafka.TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
        ended: set[int] = set()
        deadline = time.monotonic() + DEADLINE_S
        while len(ended) < PARTITIONS:
            assert time.monotonic() < deadline, (ended, {number: len(each) for number, each in found.items()})
            message = consumer.poll(1)
            if message is None:
                continue
            if message.error() is None:
                found[message.partition()].append((message.key(), message.value()))
            elif message.error().code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
    return [pair for number in range(PARTITIONS) for pair in found[number]]


def difference(found: Counter[bytes], wanted: Counter[bytes]) -> str:
    return f"missing {sorted((wanted - found).items())[:9]}, too often {sorted((found - wanted).items())[:9]}"
