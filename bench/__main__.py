"""`python -m bench`: start a cluster, load it, check what it did, and print a table."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from functools import partial

import uvloop

from bench import rows
from bench.cluster import BenchError, Cluster
from bench.failover import run_failover
from bench.groups import SETTINGS, run_groups
from bench.kafka import CLIENT, compare, compare_clients
from bench.report import Row, header, line
from bench.tail import run_tail, tail_name

IDLE_S = 15.0
"""The duration of the measurement of idle nodes."""
IDLE_SETTLE_S = 5.0
"""The wait before it, so that work of the load before is not counted."""
STARTS = 5
STARTS_QUICK = 1
ROUNDS = 5
ROUNDS_QUICK = 1
NAME_WIDTH = 44
GROUPS = "consumers"
"""The names of the rows about consumer groups, which are measured together."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short rows and one round each, to see that all works")
    parser.add_argument("--only", default="", metavar="TEXTS", help="rows whose name has one of these texts, by comma")
    parser.add_argument("--json", action="store_true", help="one JSON object per row")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument(
        "--kafka",
        metavar="BOOTSTRAP",
        help="compare with a Kafka cluster that runs there, alternating, median of five (pip: confluent-kafka)",
    )
    return parser.parse_args()


def start_rows(options: argparse.Namespace) -> Row:
    """Command to ready, each time with an empty folder."""
    seconds = []
    for _ in range(STARTS_QUICK if options.quick else STARTS):
        cluster = Cluster()
        try:
            seconds.append(cluster.start())
        finally:
            cluster.stop()
    seconds.sort()
    text = ", ".join(f"{value:.2f}" for value in seconds)
    return Row(name="command to ready", p50_ms=seconds[len(seconds) // 2] * 1000, note=f"each: {text} s")


async def idle_row(cluster: Cluster) -> Row:
    await asyncio.sleep(IDLE_SETTLE_S)
    before, begin = cluster.usage(), time.perf_counter()
    await asyncio.sleep(IDLE_S)
    after, seconds = cluster.usage(), time.perf_counter() - begin
    return Row(
        name="three idle nodes",
        nodes_cpu_percent=(after.cpu_s - before.cpu_s) / seconds * 100,
        memory_mb=after.resident_bytes / 1e6,
    )


def names() -> list[str]:
    produce = [row.name for row in rows.PRODUCE]
    gaps = ["gap at kill -9 of leader", "gap at kill -9 of leader and controller"]
    tails = [tail_name(is_forwarded=is_forwarded) for is_forwarded in (False, True)]
    return ["command to ready", "three idle nodes", *produce, "read back", *tails, GROUPS, *gaps]


async def cluster_rows(cluster: Cluster, options: argparse.Namespace) -> AsyncIterator[Row]:
    seconds = rows.SECONDS_QUICK if options.quick else rows.SECONDS
    rounds = ROUNDS_QUICK if options.quick else ROUNDS
    if wanted(options, "three idle nodes"):
        yield await idle_row(cluster)
    for produce in rows.PRODUCE:
        if wanted(options, produce.name):
            yield await rows.run_produce(cluster, produce, seconds=seconds)
    if wanted(options, "read back"):
        for row in await rows.run_reads(cluster, seconds=seconds):
            yield row
    for is_forwarded in (False, True):
        if wanted(options, tail_name(is_forwarded=is_forwarded)):
            yield await run_tail(cluster, is_forwarded=is_forwarded, seconds=seconds)
    if wanted(options, GROUPS):
        async for row in run_groups(cluster, seconds=seconds, is_quick=options.quick):
            yield row
    if wanted(options, "gap at kill -9 of leader"):
        yield await run_failover(cluster, is_controller=False, rounds=rounds)
    if wanted(options, "gap at kill -9 of leader and controller"):
        yield await run_failover(cluster, is_controller=True, rounds=rounds)


def wanted(options: argparse.Namespace, name: str) -> bool:
    return not options.only or any(text.strip() in name for text in options.only.split(","))


def show(row: Row, options: argparse.Namespace) -> None:
    print(row.as_json() if options.json else line(row, NAME_WIDTH), flush=True)


async def run(options: argparse.Namespace) -> None:
    cluster = Cluster(SETTINGS)
    try:
        cluster.start()
        async for row in cluster_rows(cluster, options):
            show(row, options)
        if options.kafka:
            if CLIENT not in options.only:
                async for row in compare(cluster, options.kafka, quick=options.quick):
                    show(row, options)
            is_wanted = partial(wanted, options)
            async for row in compare_clients(cluster, options.kafka, quick=options.quick, is_wanted=is_wanted):
                show(row, options)
    finally:
        cluster.stop()


def main() -> int:
    options = arguments()
    if options.list:
        print("\n".join(names()))
        return 0
    if not options.json:
        print(f"{os.cpu_count()} processors, Python {sys.version.split()[0]}; client and nodes on one machine")
        print(header(NAME_WIDTH), flush=True)
    try:
        if wanted(options, "command to ready"):
            show(start_rows(options), options)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(options))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
