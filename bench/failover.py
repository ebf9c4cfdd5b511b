"""The longest gap between acknowledgements around a kill -9 of the leader, and the fate of every record.

One client sends one record after the other with acks=all to a node that survives, and goes on after an error; each
record has a number. Afterwards every acknowledged number must be in the log.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import signal
import statistics
import time
from dataclasses import dataclass, field

from bench.bodies import MEDIA
from bench.client import Client, request
from bench.cluster import BenchError, Cluster
from bench.report import Row

STEADY_S = 1.0
"""How long records are written before the kill: a gap is one between acknowledgements that come steadily."""
AFTER_S = 2.0
"""How long records are written after the kill, to include a second gap, for example of a preferred leader."""
GAP_MAX_S = 60.0
RETRY_S = 0.005
"""The wait after a refusal and between polls: the error of a measured gap."""
REQUEST_S = 30.0
READ_BYTES = 1_000_000
_ACKED = b'"error_code":null'


@dataclass(slots=True)
class Sender:
    """Sends numbers until `stop`; records the acknowledged ones with their times."""

    client: Client
    topic: str
    acked: list[tuple[int, float]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    is_stopping: bool = False

    async def run(self) -> None:
        number = 0
        while not self.is_stopping:
            body = json.dumps({"records": [{"value": number}]}).encode()
            path = f"/topics/{self.topic}/partitions/0?acks=all"
            data = request("POST", path, body=body, headers=(f"Content-Type: {MEDIA['json']}",))
            try:
                answer = await self.client.ask(data, timeout_s=REQUEST_S)
            except (OSError, TimeoutError) as error:
                self.errors.append(repr(error))
                await asyncio.sleep(RETRY_S)
            else:
                if answer.status == 200 and _ACKED in answer.body:
                    self.acked.append((number, time.perf_counter()))
                else:
                    self.errors.append(f"{answer.status} {answer.body[:200]!r}")
                    await asyncio.sleep(RETRY_S)
            number += 1

    async def wait_ack_after(self, moment: float) -> None:
        deadline = time.perf_counter() + GAP_MAX_S
        while not (self.acked and self.acked[-1][1] > moment):
            if time.perf_counter() > deadline:
                raise BenchError(f"no acknowledgement for {GAP_MAX_S} s; last errors: {self.errors[-3:]}")
            await asyncio.sleep(RETRY_S)

    def longest_gap_s(self) -> float:
        times = [moment for _, moment in self.acked]
        return max(later - earlier for earlier, later in itertools.pairwise(times))


async def run_failover(cluster: Cluster, *, is_controller: bool, rounds: int) -> Row:
    gaps = [await _one_gap(cluster, is_controller=is_controller) for _ in range(rounds)]
    who = "leader and controller" if is_controller else "leader"
    text = ", ".join(f"{gap * 1000:.0f}" for gap in gaps)
    return Row(name=f"gap at kill -9 of {who}", p50_ms=statistics.median(gaps) * 1000, note=f"each: {text} ms")


async def _one_gap(cluster: Cluster, *, is_controller: bool) -> float:
    controller = await cluster.controller_id()
    others = [node_id for node_id in cluster.nodes if node_id != controller]
    victim = controller if is_controller else others[0]
    survivors = [node_id for node_id in cluster.nodes if node_id != victim]
    topic = await cluster.create_topic(assignment=[victim, *survivors], configs={"min.insync.replicas": "2"})
    sender = Sender(Client(cluster.nodes[survivors[-1]]["rest"]), topic)
    task = asyncio.create_task(sender.run())
    try:
        await sender.wait_ack_after(time.perf_counter())
        await asyncio.sleep(STEADY_S)
        if await cluster.leader(topic) != victim or (await cluster.controller_id() == victim) != is_controller:
            raise BenchError(f"node {victim} is not what was to be killed any more")
        os.kill(cluster.nodes[victim]["pid"], signal.SIGKILL)
        await sender.wait_ack_after(time.perf_counter() + 0.1)
        await asyncio.sleep(AFTER_S)
    finally:
        sender.is_stopping = True
        await task
        sender.client.close()
    await _check_acked(cluster, sender, node_id=survivors[0])
    await cluster.restart_node(victim)
    await cluster.wait_in_sync(topic, node_id=survivors[0])
    await cluster.delete_topic(topic)
    return sender.longest_gap_s()


async def _check_acked(cluster: Cluster, sender: Sender, *, node_id: int) -> None:
    found: list[int] = []
    offset, end_offset = 0, await cluster.end_offset(sender.topic, node_id=node_id)
    while offset < end_offset:
        path = f"/topics/{sender.topic}/partitions/0/records?offset={offset}&max_bytes={READ_BYTES}"
        answer = await cluster.ask("GET", path, node_id=node_id, headers=(f"Accept: {MEDIA['binary']}",))
        found += [int(base64.b64decode(record["value"])) for record in json.loads(answer.body)]
        offset = int(answer.header("X-Next-Offset") or end_offset)
    lost = {number for number, _ in sender.acked} - set(found)
    if lost:
        raise BenchError(f"{len(lost)} acknowledged records are lost, the first is number {min(lost)}")
    if len(set(found)) != len(found):
        raise BenchError("a record is in the log twice, although nobody sent it twice")
