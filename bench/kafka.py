"""The same work on a Kafka cluster and on ours: alternating runs, median, and the ratio.

Theirs is always done by librdkafka; ours over REST, and by librdkafka through the Kafka port. With the same client on
both sides, three nodes and the client have the machine to themselves: the nodes of the other cluster are stopped
(SIGSTOP) where they run on it, for idle ones take up to a fifth of a core.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bench.bodies import raw_body
from bench.cluster import BenchError, Cluster, listener, process_cpu_s
from bench.report import Row
from bench.rows import KIB, Produce, run_produce

ROUNDS = 5
ROUNDS_QUICK = 1
SECONDS = 4.0
SECONDS_QUICK = 1.5
FLUSH_S = 120
ADMIN_S = 30
SETTLE_S = 1.5
"""The wait after a topic is created, until its followers fetch: there is no notification on both sides."""
RESUMED_S = 3.0
"""The wait after stopped nodes of a cluster continue, until due elections and heartbeats are over: there is no
notification."""
USED_BYTES = 8 * KIB**3
"""Twice what three replicas of a round and the queue of the producer take."""
READ_S = 30
FULL_QUEUE_MS = 5
"""How long librdkafka fetches no more when its queue was full. With its default of a second a cluster that is faster
than the reader is measured as slower than one that is not."""
POLL_EVERY = 1000
CLIENT = "librdkafka"
"""Begins the names of the rows with the same client on both sides."""

# Name, bytes of a batch, connections of ours: about a megabyte and more under way, as librdkafka keeps with its default
# of a million requests in flight on one connection; HTTP/1.1 has one under way on each.
WORK = (("1 KB in 1 MiB batches", KIB * KIB, 4), ("1 KB in 64 KiB batches", 64 * KIB, 16))


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The load of librdkafka, equal on both clusters: RF 3, min.insync.replicas 2."""

    name: str
    record_bytes: int = 1000
    batch_bytes: int = KIB * KIB
    partitions: int = 1
    acks: str = "all"
    codec: str = "none"
    reads: bool = False
    """What was written is read back, and that is what is measured."""


class Found(NamedTuple):
    mb_per_s: float
    """MB/s of values."""
    nodes_ms: float | None
    """Processor time of all nodes for a MB of values; None where they run elsewhere."""


LOADS = (
    Load(name="produce 1 KB in 1 MiB batches"),
    Load(name="produce 1 KB in 1 MiB batches to 6 partitions", partitions=6),
    Load(name="produce 1 KB in 64 KiB batches", batch_bytes=64 * KIB),
    Load(name="produce 100 B in 64 KiB batches", record_bytes=100, batch_bytes=64 * KIB),
    Load(name="produce 100 B in 64 KiB batches, acks=1", record_bytes=100, batch_bytes=64 * KIB, acks="1"),
    Load(name="produce 100 B in 64 KiB batches, acks=0", record_bytes=100, batch_bytes=64 * KIB, acks="0"),
    Load(name="produce 100 B in 64 KiB batches, lz4", record_bytes=100, batch_bytes=64 * KIB, codec="lz4"),
    Load(name="produce 100 B in 64 KiB batches, zstd", record_bytes=100, batch_bytes=64 * KIB, codec="zstd"),
    Load(name="produce 1 KB in 64 KiB batches, lz4", batch_bytes=64 * KIB, codec="lz4"),
    Load(name="produce 1 KB in 64 KiB batches, zstd", batch_bytes=64 * KIB, codec="zstd"),
    Load(name="consume 1 KB", reads=True),
    Load(name="consume 1 KB from 6 partitions", partitions=6, reads=True),
    Load(name="consume 100 B", record_bytes=100, batch_bytes=64 * KIB, reads=True),
)


async def compare_clients(
    cluster: Cluster, bootstrap: str, *, quick: bool, is_wanted: Callable[[str], bool]
) -> AsyncIterator[Row]:
    """librdkafka on both sides, through our Kafka port and theirs."""
    kafka, ours = _Peer(bootstrap), _Peer(",".join(node["kafka"] for node in cluster.nodes.values()))
    seconds = SECONDS_QUICK if quick else SECONDS
    for load in LOADS:
        name = f"{CLIENT}: {load.name}"
        if not is_wanted(name):
            continue
        found: dict[str, list[Found]] = {"Kafka": [], "here": []}
        for _ in range(ROUNDS_QUICK if quick else ROUNDS):
            for which, peer, other in (("Kafka", kafka, ours), ("here", ours, kafka)):
                found[which].append(await asyncio.to_thread(peer.measure_without, other, load, seconds))
        theirs = statistics.median(each.mb_per_s for each in found["Kafka"])
        for which, several in found.items():
            median = statistics.median(each.mb_per_s for each in several)
            ratio = "" if which == "Kafka" else f"{median / theirs:.2f} x Kafka; "
            yield Row(name=f"{name}: {which}", mb_per_s=median, note=ratio + _outcome_of(several))


async def compare(cluster: Cluster, bootstrap: str, *, quick: bool) -> AsyncIterator[Row]:
    peer = _Peer(bootstrap)
    seconds = SECONDS_QUICK if quick else SECONDS
    for name, batch_bytes, connections in WORK:
        row = Produce(name=name, body=partial(raw_body, batch_bytes, 1000), connections=connections)
        ours, theirs = [], []
        for _ in range(ROUNDS_QUICK if quick else ROUNDS):
            found = await asyncio.to_thread(peer.measure, Load(name=name, batch_bytes=batch_bytes), seconds)
            theirs.append(found.mb_per_s)
            ours.append((await run_produce(cluster, row, seconds=seconds)).mb_per_s or 0.0)
        here, there = statistics.median(ours), statistics.median(theirs)
        yield Row(name=f"{name}: Kafka", mb_per_s=there, note=_each(theirs))
        yield Row(name=f"{name}: here", mb_per_s=here, note=f"{here / there:.2f} x Kafka; {_each(ours)}")


def _each(values: list[float]) -> str:
    return "each: " + ", ".join(f"{value:.0f}" for value in values)


def _outcome_of(several: list[Found]) -> str:
    costs = [each.nodes_ms for each in several if each.nodes_ms is not None]
    text = _each([each.mb_per_s for each in several])
    return f"nodes {statistics.median(costs):.2f} ms of processor time per MB; {text}" if costs else text


def _settle_memory() -> None:
    """What was written before is on the disk, and there are free pages that have been used a moment ago: a virtual
    machine gives those that nobody uses back to its host, and to get one again costs more than all that is done with
    it here, on whichever side is the first to need it."""
    os.sync()
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(memory["MemAvailable"].split()[0]) * KIB
    used_at_once = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    mmap.mmap(-1, min(USED_BYTES, available // 2), flags=used_at_once).close()


class _Peer:
    def __init__(self, bootstrap: str) -> None:
        try:
            import confluent_kafka
            import confluent_kafka.admin
        except ImportError as error:
            raise BenchError("--kafka needs librdkafka: pip install confluent-kafka") from error
        self._library: Any = confluent_kafka
        self._bootstrap = {"bootstrap.servers": bootstrap}

    def _nodes(self, admin: Any) -> list[int]:
        """The processes of its nodes, if they are on this machine."""
        brokers = admin.list_topics(timeout=ADMIN_S).brokers.values()
        try:
            return [listener(broker.port) for broker in brokers]
        except BenchError:
            return []

    def measure_without(self, other: _Peer, load: Load, seconds: float) -> Found:
        with other.stopped():
            time.sleep(RESUMED_S)
            _settle_memory()
            return self.measure(load, seconds)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Its nodes take no processor time meanwhile."""
        nodes = self._nodes(self._library.admin.AdminClient(self._bootstrap))
        try:
            for node in nodes:
                os.kill(node, signal.SIGSTOP)
            yield
        finally:
            for node in nodes:
                os.kill(node, signal.SIGCONT)

    def measure(self, load: Load, seconds: float) -> Found:
        topic = f"bench-{time.time_ns()}"
        admin = self._library.admin.AdminClient(self._bootstrap)
        new = self._library.admin.NewTopic(topic, load.partitions, 3, config={"min.insync.replicas": "2"})
        for future in admin.create_topics([new]).values():
            future.result(ADMIN_S)
        time.sleep(SETTLE_S)
        try:
            nodes = self._nodes(admin)
            before = sum(map(process_cpu_s, nodes))
            records, spent = self._write(topic, load, seconds)
            if load.reads:
                os.sync()  # who reads does not share the machine with what was written
                before = sum(map(process_cpu_s, nodes))
                records, spent = self._read(topic, load, records)
            megabytes = records * load.record_bytes / 1e6
            nodes_s = sum(map(process_cpu_s, nodes)) - before
            return Found(megabytes / spent, nodes_s / megabytes * 1000 if nodes else None)
        finally:
            for future in admin.delete_topics([topic]).values():
                future.result(ADMIN_S)

    def _write(self, topic: str, load: Load, seconds: float) -> tuple[int, float]:
        settings = {"linger.ms": 5, "queue.buffering.max.messages": 1_000_000, "queue.buffering.max.kbytes": 1_048_576}
        chosen = {"acks": load.acks, "batch.size": load.batch_bytes, "compression.type": load.codec}
        producer = self._library.Producer({**self._bootstrap, **settings, **chosen})
        value = raw_body(1, load.record_bytes).first
        failures: list[str] = []
        delivered = 0

        def on_delivery(error: Any, _: Any) -> None:
            nonlocal delivered
            delivered += 1
            if error is not None:
                failures.append(str(error))

        begin = time.perf_counter()
        while time.perf_counter() < begin + seconds:
            for _ in range(POLL_EVERY):
                self._send(producer, topic, value, on_delivery)
            producer.poll(0)
        producer.flush(FLUSH_S)
        spent = time.perf_counter() - begin
        if failures:
            raise BenchError(f"{len(failures)} records were refused, the first: {failures[0]}")
        return delivered, spent

    def _send(self, producer: Any, topic: str, value: bytes, on_delivery: Any) -> None:
        while True:
            try:
                producer.produce(topic, value, on_delivery=on_delivery)
                return
            except BufferError:
                producer.poll(0.01)

    def _read(self, topic: str, load: Load, records: int) -> tuple[int, float]:
        settings = {"group.id": "bench", "enable.auto.commit": False, "queued.max.messages.kbytes": 262_144}
        settings["fetch.queue.backoff.ms"] = FULL_QUEUE_MS
        consumer = self._library.Consumer({**self._bootstrap, **settings})
        try:
            begin = time.perf_counter()
            consumer.assign([self._library.TopicPartition(topic, number, 0) for number in range(load.partitions)])
            count = 0
            while count < records:
                messages = consumer.consume(POLL_EVERY, timeout=READ_S)
                if not messages:
                    raise BenchError(f"{count} of {records} records came; then none in {READ_S} s")
                count += len(messages)
            return count, time.perf_counter() - begin
        finally:
            consumer.close()
