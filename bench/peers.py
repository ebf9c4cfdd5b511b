"""`python -m bench.peers --kafka HOST:PORT`: compares Apache Kafka and this cluster for one client, besides throughput.

Rows: `latency` (one record at a time, 500 a second), `connections` (200 producers, a record a second each), `gap` (a
kill -9 of the leader, and of leader and controller, under an idempotent producer; afterwards every acknowledged record
is there once) and `topics` (1,000 topics of three partitions: creation, memory, idle processor time, a node killed, all
restarted), `transactions` (of 100 records over 3 partitions and a group's offsets) and `aborted` (reading committed
records of a partition with many aborted transactions, beside one without; --megabytes and --aborted say how large) and
`shares` (share consumers that accept each record of 1 KB), `share-latency` (from a record's production to its
acceptance, 200 a second) and `share-gap` (a kill -9 of the leader while a member has locks; every record is accepted).
Kafka's nodes are found by the ports that they listen on, so they have to run on this machine; one that was killed is
started again by its own command line. Both sides are measured in turn. Needs confluent-kafka and aiokafka.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import itertools
import os
import signal
import statistics
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from confluent_kafka import Consumer, Producer, TopicPartition

from bench.cluster import POLL_S, BenchError, process_cpu_s, process_resident_bytes
from bench.report import percentiles_ms
from bench.shares import share_consume, share_gap, share_latency
from bench.sides import (
    ADMIN_S,
    PARTITIONS,
    WARM_S,
    Here,
    Kafka,
    Side,
    Topics,
    bootstrap,
    controller,
    until,
)
from bench.transactions import ABORTED, MEGABYTES, read_aborted, transactions

SHARES: Final = ("shares", "share-latency", "share-gap")
ROWS: Final = (
    "latency",
    "connections",
    "gap",
    "topics",
    "transactions",
    "aborted",
    "shares",
    "share-latency",
    "share-gap",
)
ROUNDS: Final = 5
LATENCY_S: Final = 8.0
LATENCY_RATE: Final = 500
RECORD_BYTES: Final = 100
CONNECTIONS: Final = 200
CONNECTIONS_S: Final = 15.0
GAP_BEFORE_S: Final = 2.0
GAP_AFTER_S: Final = 3.0
GAP_S_MAX: Final = 60.0
GAP_RATE: Final = 200
TOPICS: Final = 1000
IDLE_SETTLE_S: Final = 10.0
"""The wait before the measurement of idle nodes, so that work of the load before is not counted."""
IDLE_S: Final = 15.0
"""The duration of the measurement of idle nodes."""


# latency


def latency(side: Side) -> dict[str, float]:
    topics = Topics(side)
    name = topics.create(1)
    acked: list[float] = []
    arrived: list[float] = []
    is_over = threading.Event()
    reader = threading.Thread(target=_tail, args=(side, name, arrived, is_over))
    reader.start()
    producer = Producer({**bootstrap(side), "acks": "all", "linger.ms": 0})
    padding = b"." * (RECORD_BYTES - 8)

    def on_delivery(error: Any, message: Any) -> None:
        if error is not None:
            raise BenchError(str(error))
        acked.append(_age(message))

    warm = int(WARM_S * LATENCY_RATE)
    try:
        begin, before = time.perf_counter(), 0.0
        for number in range(warm + int(LATENCY_S * LATENCY_RATE)):
            if number == warm:
                before = sum(map(process_cpu_s, side.pids.values()))
            due = begin + number / LATENCY_RATE
            while (left := due - time.perf_counter()) > 0:
                producer.poll(left)
            value = struct.pack(">d", time.perf_counter()) + padding
            producer.produce(name, value, partition=0, on_delivery=on_delivery)
        producer.flush(ADMIN_S)
        cpu_s = sum(map(process_cpu_s, side.pids.values())) - before
        until(lambda: len(arrived) >= len(acked), "every record is read")
    finally:
        is_over.set()
        reader.join()
        topics.delete(name)
    cost = {"nodes' CPU ms a record": cpu_s / len(acked[warm:]) * 1000}
    return percentiles_ms("ack", acked[warm:]) | percentiles_ms("end to end", arrived[warm:]) | cost


def _tail(side: Side, name: str, arrived: list[float], is_over: threading.Event) -> None:
    settings = {"group.id": "bench", "enable.auto.commit": False, "fetch.min.bytes": 1}
    consumer = Consumer({**bootstrap(side), **settings})
    consumer.assign([TopicPartition(name, 0, 0)])
    while not is_over.is_set():
        message = consumer.poll(POLL_S)
        if message is not None and message.error() is None:
            arrived.append(_age(message))
    consumer.close()


def _age(message: Any) -> float:
    """Seconds since it was made: its value begins with the time."""
    return time.perf_counter() - float(struct.unpack(">d", message.value()[:8])[0])


# connections


def connections(side: Side) -> dict[str, float]:
    topics = Topics(side)
    name = topics.create(6)
    try:
        return asyncio.run(_many_producers(side, name))
    finally:
        topics.delete(name)


async def _many_producers(side: Side, name: str) -> dict[str, float]:
    before = sum(map(process_resident_bytes, side.pids.values()))
    sockets_before = _sockets(side)
    servers = list(side.addresses.values())
    producers = [AIOKafkaProducer(bootstrap_servers=servers, acks="all") for _ in range(CONNECTIONS)]
    took: list[float] = []

    async def write(number: int, producer: AIOKafkaProducer) -> None:
        begin = time.perf_counter() + number / CONNECTIONS
        for second in range(int(WARM_S + CONNECTIONS_S)):
            await asyncio.sleep(max(0.0, begin + second - time.perf_counter()))
            sent = time.perf_counter()
            await producer.send_and_wait(name, b"." * RECORD_BYTES, partition=number % 6)
            if second >= WARM_S:
                took.append(time.perf_counter() - sent)

    try:
        for producer in producers:
            await producer.start()
        await asyncio.gather(*(write(number, producer) for number, producer in enumerate(producers)))
        opened = _sockets(side) - sockets_before
        grown = sum(map(process_resident_bytes, side.pids.values())) - before
    finally:
        await asyncio.gather(*(producer.stop() for producer in producers))
    return percentiles_ms("ack", took) | {"KB a connection": grown / opened / 1000, "connections": float(opened)}


def _sockets(side: Side) -> int:
    links = 0
    for pid in side.pids.values():
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                links += os.readlink(entry).startswith("socket:")
            except FileNotFoundError:
                continue
    return links


# gap


def gap(side: Side, *, is_controller: bool) -> dict[str, float]:
    """The longest time between two acknowledgements around a kill -9, of a producer that sends 200 records a second."""
    topics = Topics(side)
    name = topics.create_led(is_controller=is_controller)
    victim = topics.leader(name)
    acked: list[tuple[float, bytes]] = []
    failures: list[str] = []
    settings = {"acks": "all", "enable.idempotence": True, "linger.ms": 0, "message.timeout.ms": int(GAP_S_MAX * 1000)}
    producer = Producer({**bootstrap(side), **settings})

    def on_delivery(error: Any, message: Any) -> None:
        failures.append(str(error)) if error is not None else acked.append((time.perf_counter(), message.value()))

    begin, number, killed = time.perf_counter(), 0, 0.0
    while not killed or (time.perf_counter() < killed + GAP_S_MAX and not _is_served_since(acked, killed)):
        while number < (time.perf_counter() - begin) * GAP_RATE:
            producer.produce(name, b"%d" % number, partition=0, on_delivery=on_delivery)
            number += 1
        producer.poll(1 / GAP_RATE)
        if not killed and time.perf_counter() > begin + GAP_BEFORE_S:
            os.kill(side.pids[victim], signal.SIGKILL)
            killed = time.perf_counter()
    producer.flush(ADMIN_S)
    times = sorted(moment for moment, _ in acked)
    longest = max(later - earlier for earlier, later in itertools.pairwise(times))
    side.start_again(victim)
    until(lambda: topics.is_whole(name), f"{name} is in sync again")
    _check(side, name, [value for _, value in acked], failures)
    topics.delete(name)
    return {"gap ms": longest * 1000}


def _is_served_since(acked: Sequence[tuple[float, bytes]], killed: float) -> bool:
    """Acknowledgements have come for some time: the one after the kill of a record before it is not enough."""
    first = bisect.bisect(acked, killed + 0.1, key=lambda each: each[0])
    served_s = acked[-1][0] - acked[first][0] if first < len(acked) else 0.0
    return served_s > GAP_AFTER_S / 4 and time.perf_counter() > killed + GAP_AFTER_S


def _check(side: Side, name: str, acked: Sequence[bytes], failures: Sequence[str]) -> None:
    if failures:
        raise BenchError(f"{side.name}: {len(failures)} records were refused, the first: {failures[0]}")
    consumer = Consumer({**bootstrap(side), "group.id": "bench", "enable.auto.commit": False})
    place = TopicPartition(name, 0, 0)
    _, end_offset = consumer.get_watermark_offsets(place, timeout=ADMIN_S)
    consumer.assign([place])
    found: list[bytes] = []
    while len(found) < end_offset:
        messages = consumer.consume(min(1000, end_offset - len(found)), timeout=ADMIN_S)
        if not messages:
            raise BenchError(f"{side.name}: {len(found)} of {end_offset} records of {name} could be read")
        found += [bytes(message.value() or b"") for message in messages if message.error() is None]
    consumer.close()
    lost = set(acked) - set(found)
    if lost or len(set(found)) != len(found):
        raise BenchError(f"{side.name}: {len(lost)} acknowledged records lost, {len(found) - len(set(found))} twice")


# topics


def many_topics(side: Side) -> dict[str, float]:
    topics = Topics(side)
    names = [f"many-{time.time_ns()}-{number}" for number in range(TOPICS)]
    figures: dict[str, float] = {}
    begin = time.perf_counter()
    for name in names:
        topics.create_named(name, PARTITIONS)
    until(lambda: topics.are_there(names, is_whole=True), "all topics are there")
    figures["created s"] = time.perf_counter() - begin
    figures |= _idle(side)
    some = next(iter(side.addresses))
    victim = next(node_id for node_id in side.addresses if node_id != controller(side, ask=some))
    survivors = Topics(side, without=victim)
    until(lambda: survivors.are_there(names), "the survivors are known")
    begin = time.perf_counter()
    os.kill(side.pids[victim], signal.SIGKILL)
    until(lambda: survivors.are_there(names, without=victim), "all are led by survivors")
    figures["node killed: all led s"] = time.perf_counter() - begin
    side.start_again(victim)
    until(lambda: topics.are_there(names, is_whole=True), "all are in sync again")
    begin = time.perf_counter()
    side.stop_all()
    figures["stopped s"] = time.perf_counter() - begin
    begin = time.perf_counter()
    side.start_all()
    fresh = Topics(side)
    until(lambda: fresh.are_there(names), "all are led after the restart")
    figures["started: all led s"] = time.perf_counter() - begin
    until(lambda: fresh.are_there(names, is_whole=True), "all are in sync after the restart")
    fresh.delete(*names)
    return figures


def _idle(side: Side) -> dict[str, float]:
    time.sleep(IDLE_SETTLE_S)
    pids = list(side.pids.values())
    before, begin = sum(map(process_cpu_s, pids)), time.perf_counter()
    time.sleep(IDLE_S)
    share = (sum(map(process_cpu_s, pids)) - before) / (time.perf_counter() - begin)
    return {"memory MB": sum(map(process_resident_bytes, pids)) / 1e6, "idle, % of a core": share * 100}


def measures(row: str, options: argparse.Namespace) -> list[tuple[str, Callable[[Side], dict[str, float]], int]]:
    """Name, what is measured, rounds at most."""
    match row:
        case "latency":
            return [("one at a time, 500/s", latency, ROUNDS)]
        case "connections":
            return [("200 producers, a record a second each", connections, 3)]
        case "gap":
            return [
                ("kill -9 of the leader", lambda side: gap(side, is_controller=False), ROUNDS),
                ("kill -9 of leader and controller", lambda side: gap(side, is_controller=True), ROUNDS),
            ]
        case "transactions":
            return [
                ("transactions of one producer", partial(transactions, producers=1), ROUNDS),
                ("transactions of eight producers", partial(transactions, producers=8), ROUNDS),
                ("60 transactions/s of eight producers", partial(transactions, producers=8, a_second=60), ROUNDS),
            ]
        case "aborted":
            measure = partial(read_aborted, megabytes=options.megabytes, aborted=options.aborted, rounds=options.rounds)
            return [(f"{options.megabytes} MB read, {options.aborted} aborted transactions among them", measure, 1)]
        case "shares":
            return [
                (
                    f"share consume 1 KB, explicit accept, {partitions} partitions, {consumers} consumers",
                    partial(share_consume, partitions=partitions, consumers=consumers),
                    ROUNDS,
                )
                for partitions in (1, 6)
                for consumers in (1, 8)
            ]
        case "share-latency":
            return [("from produce to accept, 200/s", share_latency, ROUNDS)]
        case "share-gap":
            return [("kill -9 of the leader with locks held", share_gap, ROUNDS)]
        case _:
            return [("1,000 topics x 3", many_topics, 1)]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--kafka", metavar="BOOTSTRAP", help="a Kafka cluster of this machine; none: only this product")
    parser.add_argument("--only", default=",".join(ROWS), metavar="ROWS", help=f"of {', '.join(ROWS)}, by comma")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--megabytes", type=int, default=MEGABYTES, help="of records that the row `aborted` reads")
    parser.add_argument("--aborted", type=int, default=ABORTED, help="transactions among them")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended"))  # not without ending the nodes
    peers = [Kafka(options.kafka)] if options.kafka else []
    here = Here()
    sides: list[Side] = [*peers, here]
    try:
        for row in options.only.split(","):
            for name, measure, most in measures(row, options):
                _compare(name, measure, sides, rounds=min(most, options.rounds))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        here.close()
    return 0


def _compare(name: str, measure: Callable[[Side], dict[str, float]], sides: Sequence[Side], *, rounds: int) -> None:
    found: dict[str, list[dict[str, float]]] = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides:
            figures_of = measure(side)
            found[side.name].append(figures_of)
            figures = ", ".join(f"{figure} {value:.2f}" for figure, value in figures_of.items())
            print(f"{name}, round {number + 1} of {rounds}, {side.name}: {figures}", file=sys.stderr, flush=True)
    print(name)
    for figure in found[sides[0].name][0]:
        each = {side.name: [round_[figure] for round_ in found[side.name]] for side in sides}
        medians = {which: statistics.median(values) for which, values in each.items()}
        text = "; ".join(
            f"{which} {medians[which]:.2f} (" + ", ".join(f"{value:.1f}" for value in values) + ")"
            for which, values in each.items()
        )
        ratio = f"  x {medians['here'] / medians['Kafka']:.2f}" if medians.get("Kafka") else ""
        print(f"  {figure:26}{text}{ratio}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
