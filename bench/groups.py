"""REST consumers: reading through one, its first record, and how long partitions take to move in a large group.

The client reads JSON with the standard library, as most do, and its share of the processor is a column.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from bench.bodies import MEDIA, Body, raw_body
from bench.client import ClosedLoop, request
from bench.cluster import BenchError, Cluster
from bench.report import Row, percentile

SETTINGS = {"group.initial.rebalance.delay.ms": 0}
"""Otherwise each first member would wait three seconds for more."""
KIB = 1024
FILL_RECORDS = 1_500_000
FILL_SECONDS = 120.0
FILL_CONNECTIONS = 4
READ_BYTES = KIB * KIB
FORMATS = ("binary", "json")
FIRST_ROUNDS, FIRST_ROUNDS_QUICK = 20, 5
MEMBERS = 20
PARTITIONS = 100
REBALANCES, REBALANCES_QUICK = 10, 3
REBALANCE_MAX_S = 30.0
LOOK_S = 0.005

_V2 = ("Content-Type: application/vnd.kafka.v2+json",)
_names = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Consumer:
    cluster: Cluster
    path: str
    node_id: int
    format: str

    async def read(self, *, wait_ms: int = 1_000) -> list[dict[str, Any]]:
        path = f"{self.path}/records?timeout={wait_ms}&max_bytes={READ_BYTES}"
        answer = await self.cluster.ask("GET", path, node_id=self.node_id, headers=(f"Accept: {MEDIA[self.format]}",))
        records: list[dict[str, Any]] = json.loads(answer.body)
        return records

    async def partitions(self) -> list[tuple[str, int]]:
        found = await self.cluster.json("GET", self.path + "/assignments", node_id=self.node_id)
        return [(each["topic"], each["partition"]) for each in found["partitions"]]

    async def delete(self) -> None:
        await self.cluster.ask("DELETE", self.path, node_id=self.node_id)


async def new_consumer(cluster: Cluster, group: str, topic: str, *, node_id: int, form: str = "json") -> Consumer:
    name = f"c{next(_names)}"
    document = {"name": name, "format": form, "auto.offset.reset": "earliest"}
    await cluster.ask("POST", f"/consumers/{group}", node_id=node_id, document=document)
    path = f"/consumers/{group}/instances/{name}"
    await cluster.ask("POST", path + "/subscription", node_id=node_id, document={"topics": [topic]})
    return Consumer(cluster, path, node_id, form)


async def run_groups(cluster: Cluster, *, seconds: float, is_quick: bool) -> AsyncIterator[Row]:
    topic = await _filled(cluster, FILL_RECORDS)
    for form in FORMATS:
        yield await _run_read(cluster, topic, form, seconds=seconds)
    yield await _run_first(cluster, topic, rounds=FIRST_ROUNDS_QUICK if is_quick else FIRST_ROUNDS)
    await cluster.delete_topic(topic)
    yield await _run_rebalances(cluster, rounds=REBALANCES_QUICK if is_quick else REBALANCES)


async def _filled(cluster: Cluster, records: int) -> str:
    """A topic of 100 B records in batches of 64 KiB."""
    topic, body = await cluster.create_topic(), raw_body(64 * KIB, 100)
    base = cluster.nodes[await cluster.leader(topic)]["rest"]
    path = f"/topics/{topic}/partitions/0?acks=all"
    data = request("POST", path, body=body.data, headers=(f"Content-Type: {body.media_type}",))
    wanted = -(-records // body.records)
    fill = ClosedLoop(base, data, connections=FILL_CONNECTIONS, seconds=FILL_SECONDS, requests_max=wanted)
    load = await fill.run()
    if load.errors or load.answers < wanted:
        raise BenchError(f"{load.answers} of {wanted} batches were written: {load.errors[:3]}")
    return topic


async def _run_read(cluster: Cluster, topic: str, form: str, *, seconds: float) -> Row:
    """From the start to the end, again by a new consumer, until the time is over; every offset has to come once."""
    body: Body = raw_body(64 * KIB, 100)
    latencies: list[float] = []
    records = received = 0
    consumer = await new_consumer(cluster, f"read-{form}", topic, node_id=await cluster.leader(topic), form=form)
    await consumer.read()
    before, client_before, begin = cluster.usage(), time.process_time(), time.perf_counter()
    while (now := time.perf_counter()) - begin < seconds:
        batch = await consumer.read()
        latencies.append(time.perf_counter() - now)
        if not batch:
            raise BenchError(f"{records} records came within {now - begin:.2f} s, then none: write more than that")
        first = batch[0]["offset"]
        if [record["offset"] for record in batch] != list(range(first, first + len(batch))):
            raise BenchError(f"offsets of an answer are not contiguous from {first}")
        if received and first != received:
            raise BenchError(f"an answer begins with offset {first}, not with {received}")
        received = first + len(batch)
        records += len(batch)
    taken, client_cpu_s, after = time.perf_counter() - begin, time.process_time() - client_before, cluster.usage()
    await consumer.delete()
    latencies.sort()
    return Row(
        name=f"consumer read {form}, 100 B, 1 MiB",
        records_per_s=records / taken,
        requests_per_s=len(latencies) / taken,
        mb_per_s=records / taken * (body.value_bytes / body.records) / 1e6,
        p50_ms=percentile(latencies, 0.50) * 1000,
        p95_ms=percentile(latencies, 0.95) * 1000,
        p99_ms=percentile(latencies, 0.99) * 1000,
        nodes_cpu_percent=(after.cpu_s - before.cpu_s) / taken * 100,
        client_cpu_percent=client_cpu_s / taken * 100,
        memory_mb=after.resident_bytes / 1e6,
    )


async def _run_first(cluster: Cluster, topic: str, *, rounds: int) -> Row:
    """From the request that creates a consumer of a new group to its first records, at each node in turn."""
    seconds = []
    for number in range(rounds):
        node_id = list(cluster.nodes)[number % len(cluster.nodes)]
        begin = time.perf_counter()
        consumer = await new_consumer(cluster, f"first-{number}", topic, node_id=node_id)
        if not await consumer.read(wait_ms=10_000):
            raise BenchError("a new consumer got no record")
        seconds.append(time.perf_counter() - begin)
        await consumer.delete()
    return _times("consumer created to first records", seconds)


async def _run_rebalances(cluster: Cluster, *, rounds: int) -> Row:
    """One member comes, then one goes: each time until all members know their shares of all partitions."""
    document = {"topic_name": "bench-many", "partitions_count": PARTITIONS, "replication_factor": 3}
    await cluster.ask("POST", f"/v3/clusters/{cluster.cluster_id}/topics", document=document)
    ids = list(cluster.nodes)
    members = [
        await new_consumer(cluster, "many", "bench-many", node_id=ids[number % len(ids)]) for number in range(MEMBERS)
    ]
    await _wait_shared(members)
    seconds = []
    for number in range(rounds):
        begin = time.perf_counter()
        members.append(await new_consumer(cluster, "many", "bench-many", node_id=ids[number % len(ids)]))
        await _wait_shared(members)
        seconds.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        await members.pop(0).delete()
        await _wait_shared(members)
        seconds.append(time.perf_counter() - begin)
    for member in members:
        await member.delete()
    await cluster.delete_topic("bench-many")
    return _times(f"rebalance, {MEMBERS} members, {PARTITIONS} partitions", seconds)


async def _wait_shared(members: list[Consumer]) -> None:
    """Until each partition has one owner and the members' shares differ by one at most."""
    deadline = time.perf_counter() + REBALANCE_MAX_S
    shares: list[int] = []
    while time.perf_counter() < deadline:
        found = [await member.partitions() for member in members]
        owners = Counter(partition for each in found for partition in each)
        shares = [len(each) for each in found]
        if len(owners) == PARTITIONS == sum(shares) and max(shares) - min(shares) <= 1:
            return
        await asyncio.sleep(LOOK_S)
    raise BenchError(f"after {REBALANCE_MAX_S} s the members' shares are {shares}")


def _times(name: str, seconds: list[float]) -> Row:
    seconds.sort()
    return Row(
        name=name,
        p50_ms=percentile(seconds, 0.50) * 1000,
        p95_ms=percentile(seconds, 0.95) * 1000,
        p99_ms=percentile(seconds, 0.99) * 1000,
        note=f"of {len(seconds)}",
    )
