"""The cost of a page of the console: processor time of each node for one stream, without and with writes.

python -m bench.console [--partitions 200] [--nodes 3] [--replicas 3] [--rate 4] [--streams 8] [--seconds 20]
    [--rounds 3] [--writes 500] [--limit 200]

Rounds without and with streams alternate; the cost is the difference of the medians, for one stream. The streams have
scopes of their own, as pages with different filters: those of one scope share what is gathered.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import aiohttp
import msgspec
from confluent_kafka import Producer

from bench.cluster import BenchError, process_cpu_s, process_resident_bytes
from kraft.testing import Cluster

TOPIC: Final = "abcdefghijklmnop"
"""Each scope filters by another letter of it, and has all partitions."""
TOPIC_PARTITIONS_MAX: Final = 500
RECORD: Final = b"x" * 100
SETTLE_S: Final = 2.0
CREATED_LIMIT_S: Final = 600.0
STREAM_LIMIT_S: Final = 60.0
WRITES_A_TURN: Final = 20


@dataclass(slots=True)
class Taken:
    """What the streams have sent since the last look."""

    frames: int = 0
    bytes: int = 0
    whole_bytes: int = 0
    """The largest frame so far: the whole state."""


async def create(session: aiohttp.ClientSession, cluster: Cluster, partitions: int, replicas: int) -> None:
    """Topics with so many partitions together; returns when each has a leader."""
    url = f"{cluster.rest_url}/v3/clusters/{cluster.cluster_id}/topics"
    deadline = time.monotonic() + CREATED_LIMIT_S
    for begin in range(0, partitions, TOPIC_PARTITIONS_MAX):
        count = min(TOPIC_PARTITIONS_MAX, partitions - begin)
        body = {"topic_name": f"{TOPIC}.{begin}", "partitions_count": count, "replication_factor": replicas}
        while (found := await posted(session, url, body)) is not None:
            if time.monotonic() > deadline:
                raise BenchError(found)
            await asyncio.sleep(1)  # a busy broker was fenced for a moment
    while time.monotonic() < deadline:
        totals = (await changes(session, cluster, "limit=1"))["totals"]
        if totals["partitions"] >= partitions and not totals["offline"] + totals["under_replicated"]:
            return
        await asyncio.sleep(0.5)
    raise BenchError(f"{totals} after {CREATED_LIMIT_S:.0f} s")


async def posted(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> str | None:
    """Why the topic was not created; None: it is there."""
    async with session.post(url, json=body) as answer:
        text = await answer.text()
    return None if answer.status == 201 or "already exists" in text else text


async def changes(session: aiohttp.ClientSession, cluster: Cluster, query: str) -> dict[str, Any]:
    """The state in one answer."""
    async with session.get(f"{cluster.rest_url}/kraft/changes?{query}") as answer:
        found: dict[str, Any] = msgspec.json.decode(await answer.read())["set"]
    return found


async def take(session: aiohttp.ClientSession, url: str, taken: Taken, begun: asyncio.Event) -> None:
    """Reads a stream until it is cancelled."""
    async with session.get(url, timeout=aiohttp.ClientTimeout(total=None)) as stream:
        if stream.status != 200:
            raise BenchError(await stream.text())
        size = 0
        async for part, _ in stream.content.iter_chunks():
            size += len(part)
            taken.bytes += len(part)
            if part.endswith(b"\n\n"):
                taken.frames += 1
                taken.whole_bytes, size = max(taken.whole_bytes, size), 0
                begun.set()


@asynccontextmanager
async def streams(session: aiohttp.ClientSession, cluster: Cluster, asked: argparse.Namespace) -> AsyncIterator[Taken]:
    """So many pages at node 1."""
    taken, tasks = Taken(), []
    try:
        for number in range(asked.streams):
            url, begun = f"{cluster.rest_urls[1]}/kraft/live?rate={asked.rate}&limit={asked.limit}", asyncio.Event()
            tasks.append(asyncio.create_task(take(session, f"{url}&filter={TOPIC[number]}", taken, begun)))
            await asyncio.wait_for(begun.wait(), STREAM_LIMIT_S)
        yield taken
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@asynccontextmanager
async def writes(cluster: Cluster, asked: argparse.Namespace, rate: int) -> AsyncIterator[list[int]]:
    """So many records a second, to all partitions in turn; yields how many are acknowledged."""
    done = [0]

    def count(error: Any, _: Any) -> None:
        if error is not None:
            raise BenchError(str(error))
        done[0] += 1

    async def write() -> None:
        options = {"bootstrap.servers": cluster.bootstrap_servers, "linger.ms": 20, "on_delivery": count}
        producer = Producer(options)
        due, number = time.monotonic(), 0
        while True:
            for _ in range(WRITES_A_TURN):
                topic, partition = divmod(number % asked.partitions, TOPIC_PARTITIONS_MAX)
                producer.produce(f"{TOPIC}.{topic * TOPIC_PARTITIONS_MAX}", RECORD, partition=partition)
                number += 1
            producer.poll(0)
            due += WRITES_A_TURN / rate
            await asyncio.sleep(max(due - time.monotonic(), 0))

    task = asyncio.create_task(write()) if rate else None
    try:
        yield done
    finally:
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def used(cluster: Cluster, seconds: float) -> list[float]:
    """Share of a core that each node takes."""
    await asyncio.sleep(SETTLE_S)
    pids = [cluster.node(node).pid for node in cluster.ids]
    before, began = [process_cpu_s(pid) for pid in pids], time.monotonic()
    await asyncio.sleep(seconds)
    passed = time.monotonic() - began
    return [(process_cpu_s(pid) - each) / passed for pid, each in zip(pids, before, strict=True)]


def medians(found: Sequence[Sequence[float]]) -> list[float]:
    """The median of each node."""
    return [median(each) for each in zip(*found, strict=True)]


async def measure(session: aiohttp.ClientSession, cluster: Cluster, asked: argparse.Namespace, rate: int) -> None:
    """One line."""
    without, with_them = list[list[float]](), list[list[float]]()
    frames = bytes_ = whole = 0
    async with writes(cluster, asked, rate) as written:
        first, since = written[0], time.monotonic()
        for _ in range(asked.rounds):
            without.append(await used(cluster, asked.seconds))
            async with streams(session, cluster, asked) as taken:
                await asyncio.sleep(SETTLE_S)
                began, taken.frames, taken.bytes = time.monotonic(), 0, 0
                with_them.append(await used(cluster, asked.seconds))
                passed = (time.monotonic() - began) * asked.streams
                frames, bytes_, whole = taken.frames / passed, taken.bytes / passed, taken.whole_bytes
        written_a_second = (written[0] - first) / (time.monotonic() - since)
    idle, busy = medians(without), medians(with_them)
    costs = [f"{(after - before) / asked.streams:.2%}" for before, after in zip(idle, busy, strict=True)]
    sys.stdout.write(
        f"{written_a_second:>6.0f} records/s: one stream costs {', '.join(costs)} of a core; {frames:.1f} frames/s, "
        f"{bytes_ / 1_000:.1f} kB/s, the whole {whole / 1_000:.0f} kB; without: {', '.join(f'{x:.1%}' for x in idle)}\n"
    )
    sys.stdout.flush()


async def run(cluster: Cluster, asked: argparse.Namespace) -> None:
    """All lines."""
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        began = time.monotonic()
        await create(session, cluster, asked.partitions, asked.replicas)
        resident = [process_resident_bytes(cluster.node(node).pid) // 2**20 for node in cluster.ids]
        sys.stdout.write(f"{asked.partitions} partitions in {time.monotonic() - began:.1f} s, nodes of {resident} MB\n")
        for query in (f"limit={asked.limit}", "limit=20&only_bad=true", "limit=20&filter=.0-17"):
            began = time.monotonic()
            found = await changes(session, cluster, query)
            totals = {name: found["totals"][name] for name in ("partitions", "matched", "shown")}
            sys.stdout.write(f"{query}: {(time.monotonic() - began) * 1_000:.0f} ms, {totals}\n")
        for rate in (0, asked.writes):
            await measure(session, cluster, asked, rate)


def main() -> None:
    """Starts the cluster."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("partitions", 200), ("nodes", 3), ("replicas", 3), ("rate", 4), ("streams", 8), ("seconds", 20),
        ("rounds", 3), ("writes", 500), ("limit", 200),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    with Cluster(nodes=asked.nodes) as cluster:
        asyncio.run(run(cluster, asked))


if __name__ == "__main__":
    main()
