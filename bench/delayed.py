"""`python -m bench.delayed`: what a delayed record costs beside an ordinary one, how late it comes, and a million.

Rows: `cost` (1 KB produced by librdkafka and accepted by share consumers: straight into the topic, and by way of a
delay topic; processor time of the nodes for a record, in turn), `late` (records that become due one after the other:
how long after its time each is with a receiver over REST) and `million` (records that wait: memory of the nodes, and
how long they take to forward the next one after a kill, and after a start of all).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from confluent_kafka import AcknowledgeType, Consumer, Producer, TopicPartition
from confluent_kafka.admin import NewTopic

from bench.client import Client, request
from bench.cluster import JSON, BenchError, process_cpu_s, process_resident_bytes
from bench.kafka import FULL_QUEUE_MS
from bench.queues import Figures, compare
from bench.report import percentiles_ms
from bench.shares import POLL_S, RECORD_BYTES, begin_at_the_start, share_consumer
from bench.sides import ADMIN_S, WAIT_S, Here, Topics, bootstrap, until

ROWS: Final = ("cost", "late", "million")
ROUNDS: Final = 3
PARTITIONS: Final = 3
RECORDS: Final = 60_000
CONSUMERS: Final = 3
LATE: Final = 400
LATE_EVERY_MS: Final = 20
SETTLE_S: Final = 2.0
"""Until the followers have fetched the last records, whose memory counts too."""
MILLION: Final = 1_000_000
FAR_MS: Final = 6 * 3_600_000


def _delay_topic(topics: Topics, target: str) -> str:
    name = f"{target}.later"
    config = {"delivery.target.topic": target, "segment.bytes": str(16 << 20), "min.insync.replicas": "2"}
    new = NewTopic(name, PARTITIONS, replication_factor=3, config=config)
    topics.admin.create_topics([new])[name].result(timeout=ADMIN_S)
    return name


def _produce(side: Here, name: str, count: int, due_ms: Callable[[int], int | None]) -> None:
    producer = Producer({**bootstrap(side), "acks": "all", "linger.ms": 5})
    value = b"." * RECORD_BYTES
    for number in range(count):
        at = due_ms(number)
        headers = [] if at is None else [("kraft.deliver.at", str(at).encode())]
        while True:
            try:
                producer.produce(name, value, partition=number % PARTITIONS, headers=headers)
                break
            except BufferError:
                producer.poll(FULL_QUEUE_MS / 1_000)
    if producer.flush(WAIT_S):
        raise BenchError("not all records were acknowledged")


# cost


def cost(side: Here, *, is_delayed: bool) -> Figures:
    """Produced and accepted at the same time."""
    topics = Topics(side)
    name = topics.create(PARTITIONS)
    to = _delay_topic(topics, name) if is_delayed else name
    begin_at_the_start(topics.admin, name)
    accepted, is_over = [0] * CONSUMERS, threading.Event()

    def consume(number: int) -> None:
        consumer: Any = share_consumer(side, name)
        while not is_over.is_set():
            messages = consumer.poll(POLL_S)
            for message in messages:
                consumer.acknowledge(message, AcknowledgeType.ACCEPT)
            accepted[number] += len(messages)
        consumer.close()

    threads = [threading.Thread(target=consume, args=(number,)) for number in range(CONSUMERS)]
    for thread in threads:
        thread.start()
    try:
        _produce(side, to, RECORDS // 10, lambda _: int(time.time() * 1_000) + 100 if is_delayed else None)
        until(lambda: sum(accepted) >= RECORDS // 10, "the warm-up is accepted")
        begun = sum(accepted), sum(map(process_cpu_s, side.pids.values())), time.perf_counter()
        _produce(side, to, RECORDS, lambda _: int(time.time() * 1_000) + 100 if is_delayed else None)
        until(lambda: sum(accepted) >= begun[0] + RECORDS, "all records are accepted")
        cpu_s, took = sum(map(process_cpu_s, side.pids.values())) - begun[1], time.perf_counter() - begun[2]
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    for each in {name, to}:
        topics.delete(each)
    return {"nodes' CPU us a record": cpu_s / RECORDS * 1e6, "records a second": RECORDS / took}


# lateness


def late(side: Here) -> Figures:
    """Milliseconds after its time, as a receiver over REST sees it: the clocks are those of one machine."""
    topics = Topics(side)
    name = topics.create(1)
    to = _delay_topic(topics, name)
    found = asyncio.run(_receive(side, name, to))
    for each in (to, name):
        topics.delete(each)
    return percentiles_ms("late", found)


async def _receive(side: Here, name: str, to: str) -> list[float]:
    client = Client(next(iter(side.rest.values())))
    group = f"/v3/clusters/{side.cluster_id}/share-groups"
    body = json.dumps({"share_group_id": name, "topics": [name]}).encode()
    await client.ask(request("POST", group, body=body, headers=JSON))
    begin_ms = int(time.time() * 1_000) + 2_000
    producer = Producer({**bootstrap(side), "acks": "all"})
    for number in random.Random(1).sample(range(LATE), LATE):
        at = str(begin_ms + number * LATE_EVERY_MS).encode()
        producer.produce(to, at, partition=0, headers=[("kraft.deliver.at", at)])
    producer.flush(WAIT_S)
    asked = {"topics": [name], "max_wait_ms": 1_000, "format": "STRING", "acknowledgement": "implicit"}
    receive = request("POST", f"{group}/{name}/records:receive", body=json.dumps(asked).encode(), headers=JSON)
    took: list[float] = []
    deadline = time.perf_counter() + WAIT_S
    while len(took) < LATE and time.perf_counter() < deadline:
        answer = json.loads((await client.ask(receive)).body)
        now_ms = time.time() * 1_000
        took += [(now_ms - int(record["value"]["data"])) / 1_000 for record in answer.get("records", ())]
    client.close()
    if len(took) != LATE or min(took) < 0:
        raise BenchError(f"{len(took)} of {LATE} records came, the first {min(took, default=0):.3f} s after its time")
    return took


# a million


def million(side: Here, *, count: int) -> Figures:
    """All wait for hours. The leader of one delay partition is killed, and then all nodes are stopped and started; a
    record that is due at once shows each time how long its partition had nobody."""
    topics = Topics(side)
    name = topics.create(PARTITIONS)
    to = _delay_topic(topics, name)
    pids = side.pids
    before = sum(map(process_resident_bytes, pids.values()))
    rng = random.Random(1)
    far_ms = int(time.time() * 1_000) + FAR_MS
    _produce(side, to, count, lambda _: far_ms + rng.randrange(FAR_MS))
    time.sleep(SETTLE_S)
    grown = sum(map(process_resident_bytes, pids.values()))
    leader = topics.leader(to)
    os.kill(pids[leader], signal.SIGKILL)
    killed = _forwarded(side, name, to, before=0)
    side.start_again(leader)
    until(lambda: topics.is_whole(to), "the killed node is in sync")
    side.stop_all()
    begin = time.perf_counter()
    side.start_all()
    started = time.perf_counter() - begin
    restarted = _forwarded(side, name, to, before=PARTITIONS)
    time.sleep(SETTLE_S)
    after = sum(map(process_resident_bytes, side.pids.values()))
    Topics(side).delete(to, name)  # the nodes have other ports now
    return {
        "MB before": before / 1e6,
        "MB more": (grown - before) / 1e6,
        "next record that is due after a kill, s": killed,
        "start of all nodes, s": started,
        "next record that is due after it, s": restarted,
        "MB more after it": (after - before) / 1e6,
    }


def _forwarded(side: Here, name: str, to: str, *, before: int) -> float:
    """Seconds until a record of each delay partition, due at once, has come. Offsets do not show it: markers of
    forwarders that took over have some, too. Nodes that start again have other ports: this is a new reader."""
    reader = Consumer({**bootstrap(side), "group.id": "reader", "auto.offset.reset": "earliest"})
    reader.assign([TopicPartition(name, number, 0) for number in range(PARTITIONS)])
    begin, count = time.perf_counter(), -before
    _produce(side, to, PARTITIONS, lambda _: int(time.time() * 1_000))
    while count < PARTITIONS:
        message = reader.poll(POLL_S)
        count += message is not None and message.error() is None
        if time.perf_counter() > begin + WAIT_S:
            raise BenchError(f"{count} of {PARTITIONS} records that are due came")
    took = time.perf_counter() - begin
    reader.close()
    return took


# all


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.delayed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(ROWS), metavar="ROWS", help=f"of {', '.join(ROWS)}, by comma")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--million", type=int, default=MILLION, metavar="COUNT", help="records of the row `million`")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: ended"))  # not without ending the nodes
    wanted = asked.only.split(",")
    here = Here()
    try:
        if "late" in wanted:
            compare(f"{LATE} records, one due every {LATE_EVERY_MS} ms", asked.rounds, partial(late, here))
        if "cost" in wanted:
            sides = partial(cost, here, is_delayed=False), partial(cost, here, is_delayed=True)
            compare("1 KB produced and accepted, straight and delayed", asked.rounds, *sides)
        if "million" in wanted:
            compare(f"{asked.million:,} records wait", 1, partial(million, here, count=asked.million))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        here.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
