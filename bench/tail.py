"""From produce to event: one client sends at a steady rate with acks=all, another follows the partition as a stream.

Open loop: a record is sent when its time has come, whether the last one is answered or not, so that a slow answer does
not hide how long the next one would have taken. Each value is the time of sending; every record must arrive, in order.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import cast
from urllib.parse import urlsplit

from bench.bodies import MEDIA
from bench.client import Answer, Connection, open_connection, request
from bench.cluster import BenchError, Cluster
from bench.report import Row, percentile

RATE = 500
WARM_RECORDS = 200
ARRIVE_S = 10.0
LOOK_S = 0.01
"""The interval of checks whether all have arrived; each event has its own time of arrival."""
_DATA = b"data: "


class _Stream(asyncio.Protocol):
    """Notes when each event came; `latencies_s` is filled in the order of arrival."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._rest = b""
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.offsets: list[int] = []
        self.latencies_s: list[float] = []
        self.errors: list[bytes] = []
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(request("GET", self._path, headers=("Accept: text/event-stream",)))

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"retry:") and not self.begun.done():
                self.begun.set_result(None)
            if line.startswith(_DATA):
                record = json.loads(line[len(_DATA) :])
                if "offset" not in record:
                    self.errors.append(line)
                    continue
                self.offsets.append(record["offset"])
                self.latencies_s.append(now - record["value"])


class _Sender:
    """The sender: as many connections as unanswered requests."""

    def __init__(self, base: str, path: str) -> None:
        self._base = base
        self._path = path
        self._idle: list[Connection] = []
        self.refused: list[bytes] = []

    def _answered(self, connection: Connection, answer: Answer) -> None:
        if answer.status != 200 or b'"error_code":null' not in answer.body:
            self.refused.append(answer.body)
        self._idle.append(connection)

    async def send(self) -> None:
        if not self._idle:
            self._idle.append(await open_connection(self._base, self._answered, lambda _connection, _error: None))
        connection = self._idle.pop()
        body = json.dumps({"records": [{"value": time.perf_counter()}]}).encode()
        connection.send(request("POST", self._path, body=body, headers=(f"Content-Type: {MEDIA['json']}",)))

    def close(self) -> None:
        for connection in self._idle:
            connection.close()


async def run_tail(cluster: Cluster, *, is_forwarded: bool, seconds: float) -> Row:
    topic = await cluster.create_topic()
    leader = await cluster.leader(topic)
    followed = next(node_id for node_id in cluster.nodes if (node_id != leader) == is_forwarded)
    path = f"/topics/{topic}/partitions/0"
    url = urlsplit(cluster.nodes[followed]["rest"])
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_connection(
        lambda: _Stream(f"{path}/records?format=json"), url.hostname or "127.0.0.1", url.port
    )
    await stream.begun
    sender = _Sender(cluster.nodes[leader]["rest"], f"{path}?acks=all")
    count = WARM_RECORDS + int(RATE * seconds)
    begin = time.perf_counter()
    before, client_before = cluster.usage(), time.process_time()
    for number in range(count):
        await asyncio.sleep(max(0.0, begin + number / RATE - time.perf_counter()))
        await sender.send()
    elapsed, client_cpu_s, after = time.perf_counter() - begin, time.process_time() - client_before, cluster.usage()
    await _all_arrived(stream, sender, count)
    sender.close()
    assert stream.transport is not None
    stream.transport.close()
    await cluster.delete_topic(topic)
    latencies = sorted(stream.latencies_s[WARM_RECORDS:])
    return Row(
        name=tail_name(is_forwarded=is_forwarded),
        records_per_s=count / elapsed,
        p50_ms=percentile(latencies, 0.50) * 1000,
        p95_ms=percentile(latencies, 0.95) * 1000,
        p99_ms=percentile(latencies, 0.99) * 1000,
        nodes_cpu_percent=(after.cpu_s - before.cpu_s) / elapsed * 100,
        client_cpu_percent=client_cpu_s / elapsed * 100,
        memory_mb=after.resident_bytes / 1e6,
    )


async def _all_arrived(stream: _Stream, sender: _Sender, count: int) -> None:
    deadline = time.perf_counter() + ARRIVE_S
    while len(stream.offsets) < count and not stream.errors and time.perf_counter() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(LOOK_S)
    problems = [*stream.errors, *sender.refused]
    if problems or stream.offsets != list(range(count)):
        raise BenchError(f"{count} sent, {len(stream.offsets)} events came, {problems[:3]}")


def tail_name(*, is_forwarded: bool) -> str:
    return "SSE tail, 500 records/s, produce to event" + (", forwarded" if is_forwarded else "")
