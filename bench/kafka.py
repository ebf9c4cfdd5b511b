"""The same work on a Kafka cluster beside ours, through librdkafka: alternating runs, median, and the ratio."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from bench.bodies import raw_body
from bench.cluster import BenchError, Cluster
from bench.report import Row
from bench.rows import KIB, Produce, run_produce

ROUNDS = 5
ROUNDS_QUICK = 1
SECONDS = 4.0
SECONDS_QUICK = 1.5
FLUSH_S = 120
ADMIN_S = 30
SETTLE_S = 1.5
POLL_EVERY = 1000

# Name, bytes of a batch, connections of ours: about a megabyte and more under way, as librdkafka keeps with its default
# of a million requests in flight on one connection; HTTP/1.1 has one under way on each.
WORK = (("1 KB in 1 MiB batches", KIB * KIB, 4), ("1 KB in 64 KiB batches", 64 * KIB, 16))


async def compare(cluster: Cluster, bootstrap: str, *, quick: bool) -> AsyncIterator[Row]:
    peer = _Peer(bootstrap)
    seconds = SECONDS_QUICK if quick else SECONDS
    for name, batch_bytes, connections in WORK:
        row = Produce(name=name, body=partial(raw_body, batch_bytes, 1000), connections=connections)
        ours, theirs = [], []
        for _ in range(ROUNDS_QUICK if quick else ROUNDS):
            theirs.append(await asyncio.to_thread(peer.produce, batch_bytes, seconds))
            ours.append((await run_produce(cluster, row, seconds=seconds)).mb_per_s or 0.0)
        here, there = statistics.median(ours), statistics.median(theirs)
        yield Row(name=f"{name}: Kafka", mb_per_s=there, note=_each(theirs))
        yield Row(name=f"{name}: here", mb_per_s=here, note=f"{here / there:.2f} x Kafka; {_each(ours)}")


def _each(values: list[float]) -> str:
    return "each: " + ", ".join(f"{value:.0f}" for value in values)


class _Peer:
    def __init__(self, bootstrap: str) -> None:
        try:
            import confluent_kafka
            import confluent_kafka.admin
        except ImportError as error:
            raise BenchError("--kafka needs librdkafka: pip install confluent-kafka") from error
        self._library: Any = confluent_kafka
        self._bootstrap = {"bootstrap.servers": bootstrap}
        self._value = raw_body(1, 1000).first

    def produce(self, batch_bytes: int, seconds: float) -> float:
        """MB/s of values, RF 3, acks=all, one partition."""
        topic = f"bench-{time.time_ns()}"
        admin = self._library.admin.AdminClient(self._bootstrap)
        new = self._library.admin.NewTopic(topic, 1, 3, config={"min.insync.replicas": "2"})
        for future in admin.create_topics([new]).values():
            future.result(ADMIN_S)
        time.sleep(SETTLE_S)
        try:
            return self._load(topic, batch_bytes, seconds)
        finally:
            for future in admin.delete_topics([topic]).values():
                future.result(ADMIN_S)

    def _load(self, topic: str, batch_bytes: int, seconds: float) -> float:
        settings = {"acks": "all", "linger.ms": 5, "batch.size": batch_bytes, "queue.buffering.max.messages": 1_000_000}
        producer = self._library.Producer({**self._bootstrap, **settings, "queue.buffering.max.kbytes": 1_048_576})
        failures: list[str] = []
        delivered = 0

        def on_delivery(error: Any, _: Any) -> None:
            nonlocal delivered
            delivered += 1
            if error is not None:
                failures.append(str(error))

        begin = time.perf_counter()
        while time.perf_counter() < begin + seconds:
            self._send(producer, topic, on_delivery)
        producer.flush(FLUSH_S)
        spent = time.perf_counter() - begin
        if failures:
            raise BenchError(f"Kafka refused {len(failures)} records, the first: {failures[0]}")
        return delivered * len(self._value) / 1e6 / spent

    def _send(self, producer: Any, topic: str, on_delivery: Any) -> None:
        for _ in range(POLL_EVERY):
            while True:
                try:
                    producer.produce(topic, self._value, partition=0, on_delivery=on_delivery)
                    break
                except BufferError:
                    producer.poll(0.01)
        producer.poll(0)
