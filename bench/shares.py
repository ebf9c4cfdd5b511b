"""The cost of share groups: records that librdkafka's ShareConsumers accept one by one, the same on both sides.

The topic is filled before, and the group begins at its start. Each record is accepted by exactly one consumer, and the
acceptance goes with the next fetch, or with the commit at the end.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from confluent_kafka import AcknowledgeType, Producer, ShareConsumer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from bench.cluster import BenchError, process_cpu_s
from bench.kafka import FULL_QUEUE_MS
from bench.sides import ADMIN_S, WAIT_S, Side, Topics, bootstrap

RECORDS: Final = 120_000
WARM_RECORDS: Final = 5_000
"""Accepted before the measurement begins."""
RECORD_BYTES: Final = 1_000
POLL_S: Final = 0.2


def share_consume(side: Side, *, partitions: int, consumers: int) -> dict[str, float]:
    """Records a second, and processor time of the nodes for each."""
    topics = Topics(side)
    name = topics.create(partitions)
    try:
        _fill(side, name, partitions)
        _begin_at_the_start(topics.admin, name)
        return _Consumed(side, name).by(consumers)
    finally:
        topics.delete(name)


def _fill(side: Side, name: str, partitions: int) -> None:
    producer = Producer({**bootstrap(side), "acks": "all", "linger.ms": 5})
    value = b"." * RECORD_BYTES
    for number in range(WARM_RECORDS + RECORDS):
        while True:
            try:
                producer.produce(name, value, partition=number % partitions)
                break
            except BufferError:
                producer.poll(FULL_QUEUE_MS / 1_000)
    if producer.flush(WAIT_S):
        raise BenchError("the records of the share group were not acknowledged")


def _begin_at_the_start(admin: AdminClient, group: str) -> None:
    entry = ConfigEntry("share.auto.offset.reset", "earliest", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.GROUP, group, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(timeout=ADMIN_S)


class _Consumed:
    """What the consumers of one group have accepted together."""

    def __init__(self, side: Side, topic: str) -> None:
        self._side = side
        self._topic = topic
        self._lock = threading.Lock()
        self._count = 0
        self._begun: tuple[float, float] | None = None
        self._ended: tuple[float, float] | None = None

    def by(self, consumers: int) -> dict[str, float]:
        deadline = time.perf_counter() + WAIT_S
        with ThreadPoolExecutor(consumers) as threads:
            for each in [threads.submit(self._accept, deadline) for _ in range(consumers)]:
                each.result()
        if self._begun is None or self._ended is None:
            raise BenchError(f"{self._count} of {WARM_RECORDS + RECORDS} records were accepted within {WAIT_S} s")
        took, cpu_s = (after - before for before, after in zip(self._begun, self._ended, strict=True))
        return {"records a second": RECORDS / took, "nodes' CPU us a record": cpu_s / RECORDS * 1e6}

    def _accept(self, deadline: float) -> None:
        settings = {"group.id": self._topic, "share.acknowledgement.mode": "explicit"}
        consumer = ShareConsumer({**bootstrap(self._side), **settings})
        consumer.subscribe([self._topic])
        while self._ended is None and time.perf_counter() < deadline:
            messages = consumer.poll(POLL_S)
            for message in messages:
                if message.error() is not None:
                    raise BenchError(str(message.error()))
                consumer.acknowledge(message, AcknowledgeType.ACCEPT)
            self._accepted(len(messages))
        consumer.close()

    def _accepted(self, count: int) -> None:
        with self._lock:
            self._count += count
            if self._begun is None and self._count >= WARM_RECORDS:
                self._begun = self._now()
            if self._ended is None and self._count >= WARM_RECORDS + RECORDS:
                self._ended = self._now()

    def _now(self) -> tuple[float, float]:
        return time.perf_counter(), sum(map(process_cpu_s, self._side.pids.values()))
