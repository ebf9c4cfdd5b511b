"""The throughput and latency rows: their requests, and the checks of the result.

After each produce row the offsets answered must be contiguous from 0 to the log end, and records read back from the
first, a middle and the last request must be the ones that were sent.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from bench.bodies import MEDIA, Body, binary_body, json_body, raw_body
from bench.client import ClosedLoop, Load, request
from bench.cluster import BenchError, Cluster, Usage
from bench.report import Row, percentile

SECONDS = 5.0
SECONDS_QUICK = 1.5
BYTES_MAX = 400_000_000
"""The bytes of values of one row: three replicas must fit on the disk, and in the page cache."""
WARM_REQUESTS = 50
KIB = 1024
_OFFSET = re.compile(rb'"offset":\s*(\d+)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Produce:
    name: str
    body: Callable[[], Body]
    connections: int
    acks: str = "all"
    replication_factor: int = 3
    is_forwarded: bool = False
    """Send to a node that does not lead."""
    configs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    name: str
    format: str
    bytes_max: int = KIB * KIB
    connections: int = 1


def _rest() -> list[Produce]:
    makers: tuple[tuple[str, Callable[[int, int], Body]], ...] = (("json", json_body), ("binary", binary_body))
    rows = []
    for label, make in makers:
        for records, connections in ((1, 16), (10, 16), (100, 8), (1000, 4)):
            rows.append(
                Produce(
                    name=f"{label} {records} x 100 B, {connections} conn",
                    body=lambda make=make, records=records: make(records, 100),  # type: ignore[misc]
                    connections=connections,
                )
            )
    return rows


def _raw(size: str, batch_bytes: int, acks: str, replication_factor: int, connections: int) -> Produce:
    return Produce(
        name=f"raw {size}, acks={acks}, RF {replication_factor}, {connections} conn",
        body=lambda: raw_body(batch_bytes, 1000),
        connections=connections,
        acks=acks,
        replication_factor=replication_factor,
    )


PRODUCE: tuple[Produce, ...] = (
    Produce(name="one json record, unloaded, 1 conn", body=lambda: json_body(1, 100), connections=1),
    *_rest(),
    Produce(
        name="json 100 x 100 B, 8 conn, forwarded", body=lambda: json_body(100, 100), connections=8, is_forwarded=True
    ),
    *(
        Produce(
            name=f"json 100 x 100 B, acks={acks}, RF {factor}, 8 conn",
            body=lambda: json_body(100, 100),
            connections=8,
            acks=acks,
            replication_factor=factor,
        )
        for acks, factor in (("0", 3), ("1", 3), ("all", 1))
    ),
    *(
        _raw(size, batch_bytes, acks, factor, 4)
        for size, batch_bytes in (("64 KiB", 64 * KIB), ("1 MiB", KIB * KIB))
        for acks, factor in (("all", 3), ("1", 3), ("0", 3), ("all", 1))
    ),
    Produce(
        name="raw 1 MiB, fsync before each ack, 4 conn",
        body=lambda: raw_body(KIB * KIB, 1000),
        connections=4,
        configs={"flush.messages": "1"},
    ),
)

READ: tuple[Read, ...] = tuple(Read(name=f"read back {name}, 1 MiB", format=name) for name in ("raw", "binary", "json"))


class NewTopic(NamedTuple):
    """A topic, and the request that a row sends it again and again."""

    name: str
    base: str
    """URL of the node that is asked."""
    body: Body
    data: bytes
    """The whole request."""


async def to_new_topic(cluster: Cluster, row: Produce) -> NewTopic:
    topic = await cluster.create_topic(replication_factor=row.replication_factor, configs=row.configs)
    leader = await cluster.leader(topic)
    asked = next(node_id for node_id in cluster.nodes if (node_id == leader) != row.is_forwarded)
    body = row.body()
    data = request(
        "POST",
        f"/topics/{topic}/partitions/0?acks={row.acks}",
        body=body.data,
        headers=(f"Content-Type: {body.media_type}",),
    )
    return NewTopic(topic, cluster.nodes[asked]["rest"], body, data)


async def run_produce(cluster: Cluster, row: Produce, *, seconds: float) -> Row:
    topic, base, body, data = await to_new_topic(cluster, row)
    warm = await ClosedLoop(base, data, connections=row.connections, seconds=seconds, requests_max=WARM_REQUESTS).run()
    before, client_before = cluster.usage(), time.process_time()
    requests_max = max(row.connections, BYTES_MAX // body.value_bytes)
    load = await ClosedLoop(base, data, connections=row.connections, seconds=seconds, requests_max=requests_max).run()
    client_cpu_s, after = time.process_time() - client_before, cluster.usage()
    await check_written(cluster, topic, body, [warm, load], acks=row.acks)
    await cluster.delete_topic(topic)
    return _row(row.name, load, before, after, client_cpu_s, records=body.records, value_bytes=body.value_bytes)


def _row(
    name: str, load: Load, before: Usage, after: Usage, client_cpu_s: float, *, records: float, value_bytes: float
) -> Row:
    """`records` and `value_bytes` are those of one request."""
    latencies = sorted(load.latencies_s)
    per_s = load.answers / load.seconds
    return Row(
        name=name,
        records_per_s=per_s * records,
        requests_per_s=per_s,
        mb_per_s=per_s * value_bytes / 1e6,
        p50_ms=percentile(latencies, 0.50) * 1000,
        p95_ms=percentile(latencies, 0.95) * 1000,
        p99_ms=percentile(latencies, 0.99) * 1000,
        nodes_cpu_percent=(after.cpu_s - before.cpu_s) / load.seconds * 100,
        client_cpu_percent=client_cpu_s / load.seconds * 100,
        memory_mb=after.resident_bytes / 1e6,
    )


async def check_written(cluster: Cluster, topic: str, body: Body, loads: list[Load], *, acks: str) -> None:
    """Raises BenchError unless every answered record is in the log, once, at the offset of the answer."""
    errors = [error for load in loads for error in load.errors]
    if errors:
        raise BenchError(f"{len(errors)} requests failed, the first: {errors[0]}")
    answers = sum(load.answers for load in loads)
    await cluster.wait_end_offset(topic, answers * body.records)
    if acks != "0":
        _check_contiguous([first for load in loads for first in load.bodies], records=body.records)
    for number in {0, answers // 2, answers - 1}:
        await _check_record(cluster, topic, number * body.records, body)


def _check_contiguous(bodies: list[bytes], *, records: int) -> None:
    offsets = []
    for body in bodies:
        found = _OFFSET.search(body)
        if found is None:
            raise BenchError(f"an answer without an offset: {body!r}")
        offsets.append(int(found.group(1)))
    offsets.sort()
    for number, offset in enumerate(offsets):
        if offset != number * records:
            raise BenchError(f"request {number} of {records} records was answered offset {offset}")


async def _check_record(cluster: Cluster, topic: str, offset: int, body: Body) -> None:
    path = f"/topics/{topic}/partitions/0/records?offset={offset}&max_bytes=1"
    answer = await cluster.ask("GET", path, headers=(f"Accept: {MEDIA['binary']}",))
    found = json.loads(answer.body)
    if not found or found[0]["offset"] != offset or base64.b64decode(found[0]["value"]) != body.first:
        raise BenchError(f"read back at {offset}: {str(found)[:300]}")


async def run_reads(cluster: Cluster, *, seconds: float) -> list[Row]:
    """Fill one topic with 1 KB records, then read it from the start in each format, again and again."""
    topic, body = await cluster.create_topic(), raw_body(KIB * KIB, 1000)
    base = cluster.nodes[await cluster.leader(topic)]["rest"]
    data = request(
        "POST",
        f"/topics/{topic}/partitions/0?acks=all",
        body=body.data,
        headers=(f"Content-Type: {body.media_type}",),
    )
    fill = await ClosedLoop(base, data, connections=4, seconds=60, requests_max=100).run()
    await check_written(cluster, topic, body, [fill], acks="all")
    rows = [await _run_read(cluster, topic, base, body, read, seconds=seconds) for read in READ]
    await cluster.delete_topic(topic)
    return rows


async def _run_read(cluster: Cluster, topic: str, base: str, body: Body, read: Read, *, seconds: float) -> Row:
    """Each request reads one whole batch, the one in the middle of the log."""
    end_offset = await cluster.end_offset(topic)
    offset = end_offset // body.records // 2 * body.records
    path = f"/topics/{topic}/partitions/0/records?offset={offset}&max_bytes={read.bytes_max}"
    answer = await cluster.ask("GET", path, headers=(f"Accept: {MEDIA[read.format]}",))
    records = int(answer.header("X-Next-Offset") or -1) - offset
    if records <= 0:
        raise BenchError(f"{path} answered no record: {answer.head!r}")
    if read.format == "raw" and answer.body[61:] != body.data[61:]:
        raise BenchError("the batch read back is not the one that was written")
    if read.format != "raw" and len(json.loads(answer.body)) != records:
        raise BenchError(f"{path} has {records} records in its name and another number in it")
    data = request("GET", path, headers=(f"Accept: {MEDIA[read.format]}",))
    before, client_before = cluster.usage(), time.process_time()
    load = await ClosedLoop(base, data, connections=read.connections, seconds=seconds, requests_max=10**9).run()
    client_cpu_s, after = time.process_time() - client_before, cluster.usage()
    if load.errors:
        raise BenchError(load.errors[0])
    return _row(read.name, load, before, after, client_cpu_s, records=records, value_bytes=records * 1000)
