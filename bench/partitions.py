"""`python -m bench.partitions --topics 1000 --each 3`: what many partitions cost, and how long they are away.

Creates the topics one after the other, then kills the leader of a third of the partitions, kills the active
controller, and stops and starts the whole cluster. "Led" means that every surviving node's metadata has a leader for
each partition; "whole" that every ISR is full, too. Files are all descriptors of a node, sockets included.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import uvloop

from bench.cluster import POLL_S, BenchError, Cluster, Usage

WAIT_S = 900.0
NEAR = 10
"""The topics around the measured one: the result is their median."""
EARLY = 50


@dataclass
class Figures:
    lines: list[tuple[str, str]] = field(default_factory=list)

    def show(self, name: str, text: str) -> None:
        self.lines.append((name, text))
        print(f"{name:52}{text}", flush=True)

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.show(name, f"{time.perf_counter() - begin:.2f} s")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.partitions", description=__doc__)
    parser.add_argument("--topics", type=int, default=1000)
    parser.add_argument("--each", type=int, default=3, metavar="PARTITIONS", help="of one topic")
    parser.add_argument("--open-files", type=int, metavar="N", help="hard limit (ulimit -Hn) of each node")
    parser.add_argument("--only-create", action="store_true", help="end when all are there")
    return parser.parse_args()


async def create(cluster: Cluster, figures: Figures, *, topics: int, each: int) -> None:
    took: list[float] = []
    begin = time.perf_counter()
    for number in range(topics):
        document = {"topic_name": f"many-{number:05}", "partitions_count": each, "replication_factor": 3}
        before = time.perf_counter()
        await cluster.ask("POST", f"/v3/clusters/{cluster.cluster_id}/topics", document=document)
        took.append(time.perf_counter() - before)
    figures.show(f"{topics} topics x {each} created", f"{time.perf_counter() - begin:.2f} s")
    if topics >= 2 * EARLY:
        early, late = _near(took, EARLY), _near(took, topics - NEAR)
        figures.show(
            f"topic {EARLY}, topic {topics}", f"{early * 1000:.1f}, {late * 1000:.1f} ms: x {late / early:.2f}"
        )
    else:
        figures.show("slowest topic", f"{max(took):.2f} s")


def _near(took: list[float], number: int) -> float:
    return statistics.median(took[max(0, number - NEAR) : number + NEAR])


async def wait_until(cluster: Cluster, total: int, *, nodes: list[int], is_whole: bool, fenced: int = -1) -> None:
    """Each of these nodes shows all partitions led (and in sync), and that node fenced."""
    deadline = time.perf_counter() + WAIT_S
    left, seen = set(nodes), None
    while left:
        for node_id in sorted(left):
            try:
                seen = await cluster.json("GET", "/kraft/status", node_id=node_id)
            except (BenchError, OSError, TimeoutError) as error:
                seen = repr(error)
                continue
            if _is_there(seen, total, is_whole=is_whole, fenced=fenced):
                left.discard(node_id)
        if time.perf_counter() > deadline:
            raise BenchError(f"nodes {sorted(left)} are not there after {WAIT_S} s: {seen}")
        await asyncio.sleep(POLL_S)


def _is_there(status: Any, total: int, *, is_whole: bool, fenced: int) -> bool:
    totals = status["partitions"]
    states = {node["id"]: node["state"] for node in status["nodes"]}
    if totals["total"] < total or totals["offline"] or (is_whole and totals["under_replicated"]):
        return False
    return fenced == -1 or states[fenced] != "active"


async def kill(cluster: Cluster, figures: Figures, node_id: int, total: int, *, who: str) -> None:
    others = [other for other in cluster.nodes if other != node_id]
    os.kill(cluster.nodes[node_id]["pid"], signal.SIGKILL)
    with figures.timed(f"{who} killed -9: all led"):
        await wait_until(cluster, total, nodes=others, is_whole=False, fenced=node_id)
    with figures.timed("  restarted: ready"):
        await cluster.restart_node(node_id)
    with figures.timed("  then: whole"):
        await wait_until(cluster, total, nodes=list(cluster.nodes), is_whole=True)


def tell_use(cluster: Cluster, figures: Figures, name: str, before: Usage | None, total: int) -> Usage:
    usage, files = cluster.usage(), sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in cluster.pids)
    text = f"{usage.resident_bytes / len(cluster.pids) / 1e6:.0f} MB and {files / len(cluster.pids):.0f} files a node"
    if before is not None:
        text += f", {(usage.resident_bytes - before.resident_bytes) / (3 * total) / 1000:.1f} KB a replica"
    figures.show(name, text)
    return usage


async def measure(cluster: Cluster, figures: Figures, options: argparse.Namespace) -> None:
    total = options.topics * options.each
    empty = tell_use(cluster, figures, "empty", None, total)
    await create(cluster, figures, topics=options.topics, each=options.each)
    with figures.timed("  then: whole"):
        await wait_until(cluster, total, nodes=list(cluster.nodes), is_whole=True)
    tell_use(cluster, figures, f"with {total} partitions", empty, total)
    if options.only_create:
        return
    controller = await cluster.controller_id()
    leader = next(node_id for node_id in cluster.nodes if node_id != controller)
    await kill(cluster, figures, leader, total, who="leader")
    await kill(cluster, figures, await cluster.controller_id(), total, who="controller")
    with figures.timed("kraft down"):
        cluster.down()
    with figures.timed("kraft up: ready"):
        cluster.start()
    with figures.timed("  then: whole"):
        await wait_until(cluster, total, nodes=list(cluster.nodes), is_whole=True)
    tell_use(cluster, figures, "after the restart", empty, total)


def main() -> int:
    options, figures, cluster = arguments(), Figures(), Cluster()
    if options.open_files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (options.open_files, options.open_files))
    try:
        cluster.start()
        uvloop.run(measure(cluster, figures, options))
    except BenchError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    finally:
        cluster.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
