"""The cost of transactions: transactions per second, the time of a commit, and reads across aborted records.

Each figure is of librdkafka, the same on both sides. What was committed is read back and counted: every record of the
transactions that were committed is there once, and the group is where the last one left it.
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from bench.cluster import BenchError, process_cpu_s
from bench.kafka import FULL_QUEUE_MS
from bench.report import percentile
from bench.sides import ADMIN_S, PARTITIONS, WARM_S, Side, Topics, bootstrap, until

TRANSACTIONS_S: Final = 8.0
RECORDS: Final = 100
"""The records of a transaction."""
RECORD_BYTES: Final = 100
READ_S: Final = 30
AT_ONCE: Final = 1000
MEGABYTES: Final = 1000
ABORTED: Final = 10_000
LARGE_RECORD_BYTES: Final = 1000
ABORTING: Final = 8
"""Producers whose transactions are aborted."""
TAIL_SHARE: Final = 0.1
"""The share of records that are read from the end."""


# transactions


class _Copier:
    """One producer that commits transaction after transaction, each with the offset that its group goes on from."""

    def __init__(self, side: Side, topic: str, number: int) -> None:
        self.group = f"{topic}-{number}"
        self.count = 0
        """The number of committed transactions."""
        self.commits: list[float] = []
        """Seconds that a commit took, after the time to get warm."""
        self.transactions: list[float] = []
        self._topic = topic
        self._producer = Producer({**bootstrap(side), "transactional.id": self.group})
        self._consumer = Consumer({**bootstrap(side), "group.id": self.group, "enable.auto.commit": False})
        self._producer.init_transactions(ADMIN_S)

    def run(self, *, after_s: float, every_s: float, warm_until: float, end: float) -> None:
        """One transaction after the other, or one in `every_s` seconds."""
        value, member = b"." * RECORD_BYTES, self._consumer.consumer_group_metadata()
        due = time.perf_counter() + after_s
        while (begin := time.perf_counter()) < end:
            if begin < due:
                time.sleep(due - begin)
                continue
            due = max(due + every_s, begin)
            self._producer.begin_transaction()
            for number in range(RECORDS):
                self._producer.produce(self._topic, value, partition=number % PARTITIONS)
            place = TopicPartition(self._topic, 0, self.count + 1)
            self._producer.send_offsets_to_transaction([place], member, ADMIN_S)
            committing = time.perf_counter()
            self._producer.commit_transaction(ADMIN_S)
            self.count += 1
            if begin >= warm_until:
                ended = time.perf_counter()
                self.commits.append(ended - committing)
                self.transactions.append(ended - begin)

    def check(self) -> None:
        (place,) = self._consumer.committed([TopicPartition(self._topic, 0)], ADMIN_S)
        self._consumer.close()
        if place.offset != self.count:
            raise BenchError(f"{self.group} is at {place.offset} after {self.count} commits")


def transactions(side: Side, *, producers: int, a_second: float | None = None) -> dict[str, float]:
    """Run as many transactions as possible, or so many of all producers together, to compare at the same load."""
    every_s = 0.0 if a_second is None else producers / a_second
    topics = Topics(side)
    name = topics.create(PARTITIONS)
    copiers = [_Copier(side, name, number) for number in range(producers)]
    warm_until = time.perf_counter() + WARM_S
    end = warm_until + TRANSACTIONS_S
    with ThreadPoolExecutor(producers) as threads:
        runs = [
            threads.submit(
                copier.run, after_s=number * every_s / producers, every_s=every_s, warm_until=warm_until, end=end
            )
            for number, copier in enumerate(copiers)
        ]
        time.sleep(max(0.0, warm_until - time.perf_counter()))
        counts, before = _measured(copiers), _cpu_s(side)
        begin = time.perf_counter()
        time.sleep(max(0.0, end - time.perf_counter()))
        done, cpu_s, spent = _measured(copiers) - counts, _cpu_s(side) - before, time.perf_counter() - begin
        for run in runs:
            run.result(ADMIN_S)
    for copier in copiers:
        copier.check()
    records = sum(copier.count for copier in copiers) * RECORDS
    places = [TopicPartition(name, number, 0) for number in range(PARTITIONS)]
    with _reading(side) as consumer:
        _read(consumer, places, records)
        if _is_more(consumer):
            raise BenchError(f"{side.name}: more than the {records} records that were committed")
    topics.delete(name)
    commits = sorted(itertools.chain.from_iterable(copier.commits for copier in copiers))
    took = sorted(itertools.chain.from_iterable(copier.transactions for copier in copiers))
    return {
        "transactions/s": done / spent,
        "commit p50 ms": percentile(commits, 0.5) * 1000,
        "commit p99 ms": percentile(commits, 0.99) * 1000,
        "transaction p50 ms": percentile(took, 0.5) * 1000,
        "transaction p99 ms": percentile(took, 0.99) * 1000,
        "nodes' CPU ms each": cpu_s / done * 1000,
    }


def _measured(copiers: list[_Copier]) -> int:
    return sum(copier.count for copier in copiers)


def _cpu_s(side: Side) -> float:
    return sum(map(process_cpu_s, side.pids.values()))


# aborted


def read_aborted(side: Side, *, megabytes: int, aborted: int, rounds: int) -> dict[str, float]:
    """One partition of plain records with aborted transactions among them, and its twin without."""
    topics = Topics(side)
    count = megabytes * 1_000_000 // LARGE_RECORD_BYTES
    with_aborted, twin = topics.create(1, replicas=1), topics.create(1, replicas=1)
    tails = {
        name: _write(side, name, count, pieces=aborted, aborts=name == with_aborted) for name in (with_aborted, twin)
    }

    leaders = {name: topics.leader(name) for name in tails}
    """With one replica they stay."""

    def read(begin: Callable[[str], int], records: int, *, is_restarted: bool = False) -> dict[str, list[_Speed]]:
        found: dict[str, list[_Speed]] = {with_aborted: [], twin: []}
        for _ in range(rounds):
            for name, each in found.items():
                if is_restarted:
                    _restart(side, topics, name, leaders[name])
                each.append(_speed(side, name, begin(name), records, leader=leaders[name]))
        return found

    _speed(side, twin, 0, count, leader=leaders[twin])  # the client is warm then
    found = {
        "whole": read(lambda name: 0, count),
        "tail": read(lambda name: tails[name], int(count * TAIL_SHARE)),
        "restarted": read(lambda name: 0, count, is_restarted=True),
    }
    topics.delete(with_aborted, twin)
    figures: dict[str, float] = {}
    for label, each in found.items():
        speeds = {name: statistics.median(speed.mb_per_s for speed in each[name]) for name in each}
        costs = {name: statistics.median(speed.cpu_s_per_gb for speed in each[name]) for name in each}
        figures[f"{label}: MB/s without"], figures[f"{label}: MB/s with"] = speeds[twin], speeds[with_aborted]
        figures[f"{label}: ratio"] = speeds[with_aborted] / speeds[twin]
        figures[f"{label}: leader CPU s a GB without"] = costs[twin]
        figures[f"{label}: leader CPU s a GB with"] = costs[with_aborted]
    return figures


def _write(side: Side, name: str, count: int, *, pieces: int, aborts: bool) -> int:
    """Plain records in so many batches, each behind a transaction that is aborted, or behind nothing. Answers the
    offset from which on the tail of the plain records is."""
    settings = {"batch.num.messages": max(1, count // pieces), "queue.buffering.max.kbytes": 1_048_576}
    plain = Producer({**bootstrap(side), **settings, "linger.ms": 50})
    offsets: list[int] = []
    value = b"." * LARGE_RECORD_BYTES
    lock = threading.Lock()

    def on_delivery(error: Any, message: Any) -> None:
        if error is not None:
            raise BenchError(str(error))
        offsets.append(message.offset())

    def produce(records: int) -> None:
        with lock:
            for _ in range(records):
                while True:
                    try:
                        plain.produce(name, value, partition=0, on_delivery=on_delivery)
                        break
                    except BufferError:
                        plain.poll(0.01)
            plain.poll(0)

    def abort(first: int) -> None:
        producer = Producer({**bootstrap(side), "transactional.id": f"{name}-{first}", "linger.ms": 0})
        producer.init_transactions(ADMIN_S)
        for piece in range(first, pieces, ABORTING):
            producer.begin_transaction()
            producer.produce(name, b"." * RECORD_BYTES, partition=0)
            producer.flush(ADMIN_S)
            producer.abort_transaction(ADMIN_S)
            produce(_piece(count, pieces, piece))

    if aborts:
        with ThreadPoolExecutor(ABORTING) as threads:
            for run in [threads.submit(abort, first) for first in range(min(ABORTING, pieces))]:
                run.result()
    else:
        produce(count)
    plain.flush(ADMIN_S)
    if len(offsets) != count:
        raise BenchError(f"{side.name}: {len(offsets)} of {count} records were written")
    return sorted(offsets)[-int(count * TAIL_SHARE)]


def _piece(count: int, pieces: int, number: int) -> int:
    """How many of `count` are in that piece."""
    return count * (number + 1) // pieces - count * number // pieces


def _knows(consumer: Any, name: str) -> bool:
    try:
        consumer.get_watermark_offsets(TopicPartition(name, 0), timeout=ADMIN_S)
    except KafkaException:
        return False
    return True


class _Speed(NamedTuple):
    mb_per_s: float
    cpu_s_per_gb: float
    """The processor time of the leader."""


def _speed(side: Side, name: str, begin_offset: int, records: int, *, leader: int) -> _Speed:
    """MB/s of committed records from the offset to the end, with a consumer that knows the leader."""
    with _reading(side) as consumer:
        until(lambda: _knows(consumer, name), f"a consumer knows {name}")
        pid = side.pids[leader]
        before, begin = _precise_cpu_s(pid), time.perf_counter()
        _read(consumer, [TopicPartition(name, 0, begin_offset)], records)
        spent, cpu_s = time.perf_counter() - begin, _precise_cpu_s(pid) - before
        gigabytes = records * LARGE_RECORD_BYTES / 1e9
        return _Speed(gigabytes * 1000 / spent, cpu_s / gigabytes)


def _precise_cpu_s(pid: int) -> float:
    """In nanoseconds where `process_cpu_s` has hundredths: a read may be over in one of those."""
    spent = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            spent += int((thread / "schedstat").read_text().split()[0])
    return spent / 1e9


def _restart(side: Side, topics: Topics, name: str, leader: int) -> None:
    side.restart(leader)
    until(lambda: _is_led(topics, name), f"{name} is led again")


def _is_led(topics: Topics, name: str) -> bool:
    try:
        return topics.leader(name) >= 0
    except (KafkaException, KeyError):
        return False


# reading


@contextmanager
def _reading(side: Side) -> Iterator[Consumer]:
    settings = {"group.id": "bench", "enable.auto.commit": False, "isolation.level": "read_committed"}
    fetching = {"queued.max.messages.kbytes": 262_144, "fetch.queue.backoff.ms": FULL_QUEUE_MS}
    consumer = Consumer({**bootstrap(side), **settings, **fetching})
    try:
        yield consumer
    finally:
        consumer.close()


def _read(consumer: Any, places: list[TopicPartition], records: int) -> None:
    consumer.assign(places)
    count = 0
    for messages in _batches(consumer):
        count += len(messages)
        if count >= records:
            break
    if count != records:
        raise BenchError(f"{count} records came, and {records} were committed")


def _batches(consumer: Any) -> Iterator[list[Any]]:
    """Until none comes for long."""
    while messages := consumer.consume(AT_ONCE, timeout=READ_S):
        for message in messages:
            if message.error() is not None:
                raise BenchError(str(message.error()))
        yield messages


def _is_more(consumer: Any) -> bool:
    return bool(consumer.consume(1, timeout=1))
