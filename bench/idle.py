"""`python -m bench.idle 5000`: so many idle long polls and as many idle streams on one node, which leads nothing of it.

Prints the memory each takes, what healthz and a produce through that node take meanwhile, and how long one record needs
to wake them all.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import uvloop

from bench.bodies import MEDIA
from bench.client import Client, request
from bench.cluster import BenchError, Cluster, process_resident_bytes

AT_ONCE = 200
PROBES = 20
SETTLE_S = 2.0
"""A node accepts and parses after the client has connected: its memory is looked at when that is over."""
WAKE_S = 30.0
LOOK_S = 0.01
"""How often is looked whether all are woken: what is measured takes a second."""
BODY = b'{"records":[{"value":1}]}'


class Idle(asyncio.Protocol):
    """Sends one request and waits."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._data)

    def data_received(self, data: bytes) -> None:
        self.received += data

    @property
    def is_woken(self) -> bool:
        return b'"offset"' in self.received


def _produce(topic: str) -> bytes:
    return request(
        "POST", f"/topics/{topic}/partitions/0?acks=all", body=BODY, headers=(f"Content-Type: {MEDIA['json']}",)
    )


async def _probe(base: str, topic: str) -> str:
    client, took = Client(base), {"healthz": list[float](), "produce": list[float]()}
    for _ in range(PROBES):
        for name, data in (("healthz", request("GET", "/healthz")), ("produce", _produce(topic))):
            begin = time.perf_counter()
            answer = await client.ask(data)
            took[name].append((time.perf_counter() - begin) * 1000)
            if answer.status != 200:
                raise BenchError(f"{name}: {answer.status} {answer.body!r}")
    client.close()
    return ", ".join(f"{name} {sorted(ms)[PROBES // 2]:.1f} ms (longest {max(ms):.1f})" for name, ms in took.items())


async def _open(base: str, data: bytes, count: int) -> list[Idle]:
    url, loop, opened = urlsplit(base), asyncio.get_running_loop(), list[Idle]()
    while len(opened) < count:
        some = min(AT_ONCE, count - len(opened))
        made = (loop.create_connection(lambda: Idle(data), url.hostname or "", url.port or 80) for _ in range(some))
        opened += [idle for _, idle in await asyncio.gather(*made)]
    await asyncio.sleep(SETTLE_S)
    return opened


@dataclass(frozen=True)
class Costs:
    """`kib_each` by what waits: the resident memory of the node that serves it, divided by their number."""

    kib_each: Mapping[str, float]
    resident_mib: float
    """The memory of the node with all of them."""
    woken_s: float
    """From one produce until every one of them has its record."""


async def run(count: int, *, wake_s: float = WAKE_S) -> Costs:
    """Raises BenchError when not all are woken within `wake_s`."""
    cluster = Cluster({"max.connections": 2 * count + 100, "rest.max.waiting.reads": 2 * count})
    cluster.start()
    try:
        topic, other = await cluster.create_topic(), await cluster.create_topic()
        leader = await cluster.leader(topic)
        node = next(node_id for node_id in cluster.nodes if node_id != leader)
        base, pid = cluster.nodes[node]["rest"], cluster.nodes[node]["pid"]
        print("before:", await _probe(base, other))
        path, everyone, kib_each = f"/topics/{topic}/partitions/0/records?", list[Idle](), dict[str, float]()
        for name, data in (
            ("long polls", request("GET", path + "timeout=300000")),
            ("streams", request("GET", path + "heartbeat=300000", headers=("Accept: text/event-stream",))),
        ):
            before = process_resident_bytes(pid)
            everyone += await _open(base, data, count)
            kib_each[name] = (process_resident_bytes(pid) - before) / count / 1024
            print(f"{count} {name}: {kib_each[name]:.1f} KiB each; {await _probe(base, other)}")
        resident_mib = process_resident_bytes(pid) / 1024 / 1024
        begin, client = time.perf_counter(), Client(base)
        await client.ask(_produce(topic))
        while not all(idle.is_woken for idle in everyone):
            if time.perf_counter() - begin > wake_s:
                raise BenchError(f"only {sum(idle.is_woken for idle in everyone)} were woken")
            await asyncio.sleep(LOOK_S)
        woken_s = time.perf_counter() - begin
        print(f"one record woke all {len(everyone)} in {woken_s:.2f} s; the node has {resident_mib:.0f} MiB")
        return Costs(kib_each=kib_each, resident_mib=resident_mib, woken_s=woken_s)
    finally:
        cluster.stop()


if __name__ == "__main__":
    uvloop.run(run(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000))
