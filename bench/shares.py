"""Share groups with librdkafka's ShareConsumers, the same on both sides: cost, latency, and a leader that is killed.

Each record is accepted by itself. The acceptance goes with the next fetch or with the commit at the end, where the cost
is measured; else it is committed after each poll, and its answer is waited for.
"""

from __future__ import annotations

import itertools
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final

from confluent_kafka import AcknowledgeType, Producer, ShareConsumer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from bench.cluster import BenchError, process_cpu_s
from bench.kafka import FULL_QUEUE_MS
from bench.report import percentiles_ms
from bench.sides import ADMIN_S, WAIT_S, WARM_S, Nodes, Side, Topics, bootstrap, until

RECORDS: Final = 100_000
WARM_RECORDS: Final = 20_000
"""Accepted before the measurement begins."""
FILLED: Final = 3 * RECORDS
"""Records of the topic: no partition runs empty. A share consumer asks one node after the other, and waits for half a
second at one that has nothing."""
SETTLE_S: Final = 0.5
"""The wait of each consumer between two polls until all of them, and all partitions, have their part."""
RECORD_BYTES: Final = 1_000
POLL_S: Final = 0.2
LATENCY_S: Final = 8.0
RATE: Final = 200
"""Records a second, for latency and for the gap."""
GAP_BEFORE_S: Final = 3.0
GAP_S_MAX: Final = 90.0
TAKERS: Final = 2
"""Consumers that accept records while the leader is killed."""

Accepted = Callable[[bytes], None]
"""Called with the value of a record."""
Settings = Mapping[str, int]
"""Settings of librdkafka by name."""


# cost


def share_consume(side: Side, *, partitions: int, consumers: int, at_a_time: int = 0) -> dict[str, float]:
    """Records a second, and processor time of the nodes for each. `at_a_time`: a consumer asks for so many records, and
    the batches of the log have as many, since librdkafka takes whole ones; 0: as both come by default."""
    topics = Topics(side)
    name = topics.create(partitions)
    try:
        fill(side, name, partitions, FILLED, {"batch.num.messages": at_a_time} if at_a_time else {})
        begin_at_the_start(topics.admin, name)
        settings = {"max.poll.records": at_a_time} if at_a_time else {}
        return _Consumed(side, name, partitions, consumers, settings).run()
    finally:
        topics.delete(name)


def fill(side: Side, name: str, partitions: int, count: int, settings: Settings = MappingProxyType({})) -> None:
    """Records of 1 KB in all partitions of the topic."""
    producer = Producer({**bootstrap(side), "acks": "all", "linger.ms": 5, **settings})
    value = b"." * RECORD_BYTES
    for number in range(count):
        while True:
            try:
                producer.produce(name, value, partition=number % partitions)
                break
            except BufferError:
                producer.poll(FULL_QUEUE_MS / 1_000)
    if producer.flush(WAIT_S):
        raise BenchError("the records of the share group were not acknowledged")


def begin_at_the_start(admin: AdminClient, group: str) -> None:
    """A new group has the records that are there already."""
    entry = ConfigEntry("share.auto.offset.reset", "earliest", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.GROUP, group, incremental_configs=[entry])
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(timeout=ADMIN_S)


class Counted:
    """Time and processor time of the nodes from the end of the warm-up to the last record that is counted."""

    def __init__(self, nodes: Nodes, *, warm: int, count: int) -> None:
        self._nodes, self._warm, self._wanted = nodes, warm, count
        self._lock = threading.Lock()
        self._count = 0
        self._begun: tuple[float, float] | None = None
        self._ended: tuple[float, float] | None = None

    @property
    def is_over(self) -> bool:
        return self._ended is not None

    def add(self, count: int) -> None:
        with self._lock:
            self._count += count
            if self._begun is None and self._count >= self._warm:
                self._begun = self._now()
            if self._ended is None and self._count >= self._warm + self._wanted:
                self._ended = self._now()

    def figures(self) -> dict[str, float]:
        if self._begun is None or self._ended is None:
            raise BenchError(f"{self._count} of {self._warm + self._wanted} records were accepted within {WAIT_S} s")
        took, cpu_s = (after - before for before, after in zip(self._begun, self._ended, strict=True))
        return {"records a second": self._wanted / took, "nodes' CPU us a record": cpu_s / self._wanted * 1e6}

    def _now(self) -> tuple[float, float]:
        return time.perf_counter(), sum(map(process_cpu_s, self._nodes.pids.values()))


class _Consumed:
    """What the consumers of one group have accepted together. They go slowly until each has records and each partition
    is assigned: a share partition is assigned when its state is there, some at a later heartbeat than others."""

    def __init__(self, side: Side, topic: str, partitions: int, consumers: int, settings: Settings) -> None:
        self._side = side
        self._settings = settings
        self._topic = topic
        self._partitions, self._consumers = partitions, consumers
        self._seen: set[tuple[str, int]] = set()
        self._counted = Counted(side, warm=WARM_RECORDS, count=RECORDS)

    def run(self) -> dict[str, float]:
        deadline = time.perf_counter() + WAIT_S
        with ThreadPoolExecutor(self._consumers) as threads:
            for each in [threads.submit(self._accept, number, deadline) for number in range(self._consumers)]:
                each.result()
        return self._counted.figures()

    def _accept(self, number: int, deadline: float) -> None:
        consumer = share_consumer(self._side, self._topic, self._settings)
        while not self._counted.is_over and time.perf_counter() < deadline:
            messages = consumer.poll(POLL_S)
            for message in messages:
                if message.error() is not None:
                    raise BenchError(str(message.error()))
                consumer.acknowledge(message, AcknowledgeType.ACCEPT)
            if len(self._seen) == self._partitions + self._consumers:
                self._counted.add(len(messages))
            elif messages:
                self._seen.add(("consumer", number))
                self._seen.update(("partition", message.partition()) for message in messages)
                time.sleep(SETTLE_S)
        consumer.close()


def share_consumer(side: Side, topic: str, settings: Settings = MappingProxyType({})) -> Any:
    """A member of the group that is named as the topic is."""
    of_group = {"group.id": topic, "share.acknowledgement.mode": "explicit"}
    consumer = ShareConsumer({**bootstrap(side), **of_group, **settings})
    consumer.subscribe([topic])
    return consumer


# latency


def share_latency(side: Side) -> dict[str, float]:
    """From the call of the producer until the answer to the acceptance has come, record by record."""
    topics = Topics(side)
    name = topics.create(1)
    begin_at_the_start(topics.admin, name)
    took: list[float] = []
    with _accepting(side, name, 1, lambda value: took.append(time.perf_counter() - _made_at(value))):
        paced = _Paced(side, name)
        paced.go_on(lambda: bool(took))
        paced.go_on_for(WARM_S)
        first, before = len(took), sum(map(process_cpu_s, side.pids.values()))
        paced.go_on_for(LATENCY_S)
        paced.end()
        until(lambda: len(took) >= paced.acked, "every record is accepted")
        cpu_s = sum(map(process_cpu_s, side.pids.values())) - before
    topics.delete(name)
    measured = took[first:]
    return percentiles_ms("accepted", measured) | {"nodes' CPU ms a record": cpu_s / len(measured) * 1000}


def _made_at(value: bytes) -> float:
    return float(struct.unpack(">d", value[:8])[0])


class _Paced:
    """An idempotent producer that sends `RATE` records a second, each with the time when it was made."""

    def __init__(self, side: Side, name: str) -> None:
        settings = {"acks": "all", "enable.idempotence": True, "linger.ms": 0}
        settings["message.timeout.ms"] = int(GAP_S_MAX * 1000)
        self._producer = Producer({**bootstrap(side), **settings})
        self._name = name
        self._sent = 0
        self._begin = time.perf_counter()
        self.values: list[bytes] = []
        """Values of the records that were acknowledged."""
        self._failures: list[str] = []

    @property
    def acked(self) -> int:
        return len(self.values)

    def go_on(self, is_enough: Callable[[], bool]) -> None:
        deadline = time.perf_counter() + WAIT_S
        while not is_enough():
            if time.perf_counter() > deadline:
                raise BenchError(f"not within {WAIT_S} s: records are accepted")
            while self._sent < (time.perf_counter() - self._begin) * RATE:
                value = struct.pack(">dI", time.perf_counter(), self._sent).ljust(RECORD_BYTES, b".")
                self._producer.produce(self._name, value, partition=0, on_delivery=self._delivered)
                self._sent += 1
            self._producer.poll(1 / RATE)

    def go_on_for(self, seconds: float) -> None:
        end = time.perf_counter() + seconds
        self.go_on(lambda: time.perf_counter() > end)

    def end(self) -> None:
        if self._producer.flush(GAP_S_MAX) or self._failures:
            raise BenchError(f"records were not acknowledged: {self._failures[:1]}")

    def _delivered(self, error: Any, message: Any) -> None:
        self._failures.append(str(error)) if error is not None else self.values.append(message.value())


@contextmanager
def _accepting(
    side: Side, name: str, consumers: int, accepted: Accepted, doubtful: Accepted = lambda _: None
) -> Iterator[None]:
    """Consumers of the group take and accept while the block runs, and commit after each poll. Of a failed commit it is
    not known whether the records are accepted."""
    is_over = threading.Event()

    def run() -> None:
        consumer = share_consumer(side, name)
        while not is_over.is_set():
            values = []
            for message in consumer.poll(POLL_S):
                if message.error() is None:
                    consumer.acknowledge(message, AcknowledgeType.ACCEPT)
                    values.append(bytes(message.value()))
            if values:
                is_done = all(error is None for error in consumer.commit_sync(GAP_S_MAX).values())
                for value in values:
                    accepted(value) if is_done else doubtful(value)
        consumer.close()

    with ThreadPoolExecutor(consumers) as threads:
        running = [threads.submit(run) for _ in range(consumers)]
        try:
            yield
        finally:
            is_over.set()
    for each in running:
        each.result()


# a leader that is killed


def share_gap(side: Side) -> dict[str, float]:
    """The leader is killed while a member has locks that it keeps: how long nothing is accepted, and when the locked
    records are. Every acknowledged record has to be accepted."""
    topics = Topics(side)
    name = topics.create_led(is_controller=False)
    begin_at_the_start(topics.admin, name)
    accepted: list[tuple[float, bytes]] = []
    doubtful: set[bytes] = set()
    paced, holder = _Paced(side, name), share_consumer(side, name)
    held: set[bytes] = set()

    def is_held() -> bool:
        held.update(bytes(message.value()) for message in holder.poll(0) if message.error() is None)
        return bool(held)

    paced.go_on(is_held)

    def accept(value: bytes) -> None:
        accepted.append((time.perf_counter(), value))

    def is_done(values: Iterable[bytes]) -> bool:
        return set(values) <= doubtful.union(value for _, value in accepted)

    with _accepting(side, name, TAKERS, accept, doubtful.add):
        paced.go_on(lambda: bool(accepted))
        paced.go_on_for(GAP_BEFORE_S)
        victim = topics.leader(name)
        os.kill(side.pids[victim], signal.SIGKILL)
        killed = time.perf_counter()
        paced.go_on(lambda: is_done(held))
        paced.go_on_for(GAP_BEFORE_S)
        paced.end()
        until(lambda: is_done(paced.values), "every record is accepted")
    holder.close()
    side.start_again(victim)
    until(lambda: topics.is_whole(name), f"{name} is in sync again")
    topics.delete(name)
    return _around(killed, accepted, held)


def _around(killed: float, accepted: Sequence[tuple[float, bytes]], held: set[bytes]) -> dict[str, float]:
    times = [moment for moment, _ in accepted]
    last_before = max((moment for moment in times if moment <= killed), default=killed)
    after = [last_before, *sorted(moment for moment in times if moment > killed)]
    gap_s = max(later - earlier for earlier, later in itertools.pairwise(after))
    held_s = max(moment for moment, value in accepted if value in held) - killed
    return {"gap ms": gap_s * 1000, "locked records accepted ms": held_s * 1000}
