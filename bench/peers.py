"""`python -m bench.peers --kafka HOST:PORT`: besides throughput, what Apache Kafka and this cluster are to one client.

Rows: `latency` (one record at a time, 500 a second), `connections` (200 producers, a record a second each), `gap` (a
kill -9 of the leader, and of leader and controller, under an idempotent producer; afterwards every acknowledged record
is there once) and `topics` (1,000 topics of three partitions: creation, memory, idle processor time, a node killed, all
restarted). Kafka's nodes are found by the ports that they listen on, so they have to run on this machine; one that was
killed is started again by its own command line. Both sides are measured in turn. Needs confluent-kafka and aiokafka.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from aiokafka import AIOKafkaProducer
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench.cluster import BenchError, Cluster, process_cpu_s, process_resident_bytes
from bench.report import percentile
from kraft.wire.codec import decode_client_body, encode_body
from kraft.wire.generated.describe_quorum_request import DescribeQuorumRequestData, PartitionData, TopicData
from kraft.wire.generated.describe_quorum_response import DescribeQuorumResponseData

ROWS: Final = ("latency", "connections", "gap", "topics")
ROUNDS: Final = 5
ADMIN_S: Final = 60
WAIT_S: Final = 180.0
POLL_S: Final = 0.05
WARM_S: Final = 2.0
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
PARTITIONS: Final = 3
IDLE_SETTLE_S: Final = 10.0
IDLE_S: Final = 15.0
VERSION: Final = 1
"""Of DescribeQuorum: both sides have it."""
LISTENING: Final = "0A"
"""State of a socket in /proc/net/tcp."""


class Side(Protocol):
    """One of the two clusters, and what is done to its processes."""

    name: str

    @property
    def addresses(self) -> Mapping[int, str]:
        """`host:port` by node id."""
        ...

    @property
    def pids(self) -> Mapping[int, int]: ...

    def start_again(self, node_id: int) -> None: ...

    def stop_all(self) -> None: ...

    def start_all(self) -> None: ...


class Here:
    name = "here"

    def __init__(self) -> None:
        self._cluster = Cluster()
        self._cluster.start()

    @property
    def addresses(self) -> Mapping[int, str]:
        return {node_id: node["kafka"] for node_id, node in self._cluster.nodes.items()}

    @property
    def pids(self) -> Mapping[int, int]:
        return {node_id: node["pid"] for node_id, node in self._cluster.nodes.items()}

    def start_again(self, node_id: int) -> None:
        asyncio.run(self._cluster.restart_node(node_id))

    def stop_all(self) -> None:
        self._cluster.down()

    def start_all(self) -> None:
        self._cluster.start()

    def close(self) -> None:
        self._cluster.stop()


@dataclass(frozen=True, slots=True)
class Process:
    command: Sequence[str]
    folder: str
    environment: Mapping[str, str]

    @staticmethod
    def of(pid: int) -> Process:
        proc = Path(f"/proc/{pid}")
        command = [word.decode() for word in (proc / "cmdline").read_bytes().split(b"\0")[:-1]]
        pairs = (pair.decode().partition("=") for pair in (proc / "environ").read_bytes().split(b"\0") if pair)
        return Process(command, os.readlink(proc / "cwd"), {name: value for name, _, value in pairs})

    def start(self) -> int:
        quiet = subprocess.DEVNULL
        return subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=self.environment,
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
            start_new_session=True,
        ).pid


class Kafka:
    name = "Kafka"

    def __init__(self, bootstrap: str) -> None:
        brokers = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(timeout=ADMIN_S).brokers
        self.addresses: Mapping[int, str] = {node: f"{broker.host}:{broker.port}" for node, broker in brokers.items()}
        self.pids = {node_id: _listener(int(at.rpartition(":")[2])) for node_id, at in self.addresses.items()}
        self._processes = {node_id: Process.of(pid) for node_id, pid in self.pids.items()}

    def start_again(self, node_id: int) -> None:
        self.pids[node_id] = self._processes[node_id].start()

    def stop_all(self) -> None:
        for pid in self.pids.values():
            os.kill(pid, signal.SIGTERM)
        _until(lambda: not any(map(_lives, self.pids.values())), "Kafka's processes end")

    def start_all(self) -> None:
        for node_id in self.pids:
            self.start_again(node_id)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _listener(port: int) -> int:
    """The process of this machine that listens on the port."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for row in Path(table).read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if any(os.readlink(entry) in inodes for entry in Path(f"/proc/{pid}/fd").iterdir()):
                return int(pid)
        except OSError:
            continue
    raise BenchError(f"no process of this machine that can be seen listens on port {port}")


def _until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.perf_counter() + WAIT_S
    while not is_so():
        if time.perf_counter() > deadline:
            raise BenchError(f"not within {WAIT_S} s: {what}")
        time.sleep(POLL_S)


def _bootstrap(side: Side, *, without: int = -1) -> dict[str, Any]:
    servers = ",".join(address for node_id, address in side.addresses.items() if node_id != without)
    return {"bootstrap.servers": servers, "log_level": 0}


def controller(side: Side, *, ask: int) -> int:
    """The leader of the metadata quorum, as that node tells: clients are told any broker otherwise (KIP-500)."""
    topic = TopicData.make(topic_name="__cluster_metadata", partitions=[PartitionData.make(partition_index=0)])
    body = b"".join(encode_body(DescribeQuorumRequestData.make(topics=[topic]), VERSION))
    head = struct.pack(">hhih", DescribeQuorumRequestData.API_KEY, VERSION, 1, -1) + b"\0"
    host, _, port = side.addresses[ask].rpartition(":")
    with socket.create_connection((host, int(port)), ADMIN_S) as link, link.makefile("rb") as answers:
        link.sendall(struct.pack(">i", len(head) + len(body)) + head + body)
        (size,) = struct.unpack(">i", answers.read(4))
        frame = memoryview(answers.read(size))
    answer = decode_client_body(DescribeQuorumResponseData, VERSION, frame, 5)
    return answer.topics[0].partitions[0].leader_id


class Topics:
    """Of one side, made with its own administration."""

    def __init__(self, side: Side, *, without: int = -1) -> None:
        self.admin = AdminClient(_bootstrap(side, without=without))

    def create(self, partitions: int, *, is_warm: bool = True) -> str:
        name = f"bench-{time.time_ns()}"
        self.create_named(name, partitions)
        if is_warm:
            time.sleep(WARM_S)
        return name

    def create_named(self, name: str, partitions: int) -> None:
        new = NewTopic(name, partitions, 3, config={"min.insync.replicas": "2"})
        for future in self.admin.create_topics([new]).values():
            future.result(ADMIN_S)

    def delete(self, *names: str) -> None:
        for future in self.admin.delete_topics(list(names)).values():
            future.result(ADMIN_S)

    def leader(self, name: str) -> int:
        return int(self.admin.list_topics(name, timeout=ADMIN_S).topics[name].partitions[0].leader)

    def are_there(self, names: Sequence[str], *, without: int = -1, is_whole: bool = False) -> bool:
        """All partitions have a leader other than the dead node, in the metadata that one of the living tells."""
        try:
            topics = self.admin.list_topics(timeout=ADMIN_S).topics
        except KafkaException:
            return False
        found = [part for name in names if name in topics for part in topics[name].partitions.values()]
        return len(found) == len(names) * PARTITIONS and all(
            part.leader not in (-1, without) and (len(part.isrs) == 3 or not is_whole) for part in found
        )


# latency


def latency(side: Side) -> dict[str, float]:
    topics = Topics(side)
    name = topics.create(1)
    acked: list[float] = []
    arrived: list[float] = []
    is_over = threading.Event()
    reader = threading.Thread(target=_tail, args=(side, name, arrived, is_over))
    reader.start()
    producer = Producer({**_bootstrap(side), "acks": "all", "linger.ms": 0})
    padding = b"." * (RECORD_BYTES - 8)

    def on_delivery(error: Any, message: Any) -> None:
        if error is not None:
            raise BenchError(str(error))
        acked.append(_age(message))

    try:
        begin = time.perf_counter()
        for number in range(int((WARM_S + LATENCY_S) * LATENCY_RATE)):
            due = begin + number / LATENCY_RATE
            while (left := due - time.perf_counter()) > 0:
                producer.poll(left)
            value = struct.pack(">d", time.perf_counter()) + padding
            producer.produce(name, value, partition=0, on_delivery=on_delivery)
        producer.flush(ADMIN_S)
        _until(lambda: len(arrived) >= len(acked), "every record is read")
    finally:
        is_over.set()
        reader.join()
        topics.delete(name)
    warm = int(WARM_S * LATENCY_RATE)
    return _percentiles("ack", acked[warm:]) | _percentiles("end to end", arrived[warm:])


def _tail(side: Side, name: str, arrived: list[float], is_over: threading.Event) -> None:
    settings = {"group.id": "bench", "enable.auto.commit": False, "fetch.min.bytes": 1}
    consumer = Consumer({**_bootstrap(side), **settings})
    consumer.assign([TopicPartition(name, 0, 0)])
    while not is_over.is_set():
        message = consumer.poll(POLL_S)
        if message is not None and message.error() is None:
            arrived.append(_age(message))
    consumer.close()


def _age(message: Any) -> float:
    """Seconds since it was made: its value begins with the time."""
    return time.perf_counter() - float(struct.unpack(">d", message.value()[:8])[0])


def _percentiles(name: str, seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {f"{name} {label} ms": percentile(ordered, share) * 1000 for label, share in (("p50", 0.5), ("p99", 0.99))}


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
    return _percentiles("ack", took) | {"KB a connection": grown / opened / 1000, "connections": float(opened)}


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
    some = next(iter(side.addresses))
    deadline = time.perf_counter() + WAIT_S
    name = topics.create(1, is_warm=False)
    while (topics.leader(name) == controller(side, ask=some)) != is_controller:
        topics.delete(name)
        if time.perf_counter() > deadline:
            raise BenchError("no topic could be made whose leader is what is to be killed")
        name = topics.create(1, is_warm=False)
    time.sleep(WARM_S)
    victim = topics.leader(name)
    acked: list[tuple[float, bytes]] = []
    failures: list[str] = []
    settings = {"acks": "all", "enable.idempotence": True, "linger.ms": 0, "message.timeout.ms": int(GAP_S_MAX * 1000)}
    producer = Producer({**_bootstrap(side), **settings})

    def on_delivery(error: Any, message: Any) -> None:
        failures.append(str(error)) if error is not None else acked.append((time.perf_counter(), message.value()))

    begin, number, killed = time.perf_counter(), 0, 0.0
    while not killed or (time.perf_counter() < killed + GAP_S_MAX and not _is_served_since(acked, killed)):
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
    _until(lambda: _is_whole(topics, name), f"{name} is in sync again")
    _check(side, name, [value for _, value in acked], failures)
    topics.delete(name)
    return {"gap ms": longest * 1000}


def _is_served_since(acked: Sequence[tuple[float, bytes]], killed: float) -> bool:
    """Acknowledgements have come for some seconds: the one after the kill of a record before it is not enough."""
    late = [moment for moment, _ in acked[-int(GAP_AFTER_S * GAP_RATE / 2) :] if moment > killed + 0.1]
    return bool(late) and late[-1] - late[0] > GAP_AFTER_S / 4 and time.perf_counter() > killed + GAP_AFTER_S


def _is_whole(topics: Topics, name: str) -> bool:
    try:
        return len(topics.admin.list_topics(name, timeout=ADMIN_S).topics[name].partitions[0].isrs) == 3
    except (KafkaException, KeyError):
        return False


def _check(side: Side, name: str, acked: Sequence[bytes], failures: Sequence[str]) -> None:
    if failures:
        raise BenchError(f"{side.name}: {len(failures)} records were refused, the first: {failures[0]}")
    consumer = Consumer({**_bootstrap(side), "group.id": "bench", "enable.auto.commit": False})
    place = TopicPartition(name, 0, 0)
    _, end_offset = consumer.get_watermark_offsets(place, timeout=ADMIN_S)
    consumer.assign([place])
    found: list[bytes] = []
    while len(found) < end_offset:
        messages = consumer.consume(1000, timeout=ADMIN_S)
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
    _until(lambda: topics.are_there(names, is_whole=True), "all topics are there")
    figures["created s"] = time.perf_counter() - begin
    figures |= _idle(side)
    some = next(iter(side.addresses))
    victim = next(node_id for node_id in side.addresses if node_id != controller(side, ask=some))
    survivors = Topics(side, without=victim)
    _until(lambda: survivors.are_there(names), "the survivors are known")
    begin = time.perf_counter()
    os.kill(side.pids[victim], signal.SIGKILL)
    _until(lambda: survivors.are_there(names, without=victim), "all are led by survivors")
    figures["node killed: all led s"] = time.perf_counter() - begin
    side.start_again(victim)
    _until(lambda: topics.are_there(names, is_whole=True), "all are in sync again")
    begin = time.perf_counter()
    side.stop_all()
    figures["stopped s"] = time.perf_counter() - begin
    begin = time.perf_counter()
    side.start_all()
    fresh = Topics(side)
    _until(lambda: fresh.are_there(names), "all are led after the restart")
    figures["started: all led s"] = time.perf_counter() - begin
    _until(lambda: fresh.are_there(names, is_whole=True), "all are in sync after the restart")
    fresh.delete(*names)
    return figures


def _idle(side: Side) -> dict[str, float]:
    time.sleep(IDLE_SETTLE_S)
    pids = list(side.pids.values())
    before, begin = sum(map(process_cpu_s, pids)), time.perf_counter()
    time.sleep(IDLE_S)
    share = (sum(map(process_cpu_s, pids)) - before) / (time.perf_counter() - begin)
    return {"memory MB": sum(map(process_resident_bytes, pids)) / 1e6, "idle, % of a core": share * 100}


def measures(row: str) -> list[tuple[str, Callable[[Side], dict[str, float]], int]]:
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
        case _:
            return [("1,000 topics x 3", many_topics, 1)]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--kafka", metavar="BOOTSTRAP", help="a Kafka cluster of this machine; none: only this product")
    parser.add_argument("--only", default=",".join(ROWS), metavar="ROWS", help=f"of {', '.join(ROWS)}, by comma")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    return parser.parse_args()


def main() -> int:
    options = arguments()
    peers = [Kafka(options.kafka)] if options.kafka else []
    here = Here()
    sides: list[Side] = [*peers, here]
    try:
        for row in options.only.split(","):
            for name, measure, most in measures(row):
                _compare(name, measure, sides, rounds=min(most, options.rounds))
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        here.close()
    return 0


def _compare(name: str, measure: Callable[[Side], dict[str, float]], sides: Sequence[Side], *, rounds: int) -> None:
    found: dict[str, list[dict[str, float]]] = {side.name: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            found[side.name].append(measure(side))
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
