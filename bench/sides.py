"""The two clusters that `bench.peers` compares: Apache Kafka's processes on this machine, and a cluster of our own.

Kafka's nodes are found by the ports that they listen on; one that was ended is started again by its own command line.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from bench.cluster import POLL_S, BenchError, Cluster, listener
from kraft.protocol.codec import decode_client_body, encode_body
from kraft.protocol.messages.describe_quorum_request import DescribeQuorumRequestData, PartitionData, TopicData
from kraft.protocol.messages.describe_quorum_response import DescribeQuorumResponseData

ADMIN_S: Final = 60
WAIT_S: Final = 180.0
WARM_S: Final = 2.0
"""After a topic is created, and of each load before it is measured: a JVM compiles what is hot meanwhile."""
PARTITIONS: Final = 3
"""The wait for each of many topics."""
VERSION: Final = 1
"""The version of DescribeQuorum: both sides have it."""


class Nodes(Protocol):
    """Processes whose processor time is measured."""

    @property
    def pids(self) -> Mapping[int, int]: ...


class Side(Protocol):
    """One of the two clusters, and what is done to its processes."""

    name: str

    @property
    def addresses(self) -> Mapping[int, str]:
        """`host:port` by node id."""
        ...

    @property
    def pids(self) -> Mapping[int, int]: ...

    def start_again(self, node_id: int) -> None:
        """One that was killed."""
        ...

    def restart(self, node_id: int) -> None:
        """One that lives is stopped in order, and started."""
        ...

    def stop_all(self) -> None: ...

    def start_all(self) -> None: ...


class Here:
    name = "here"

    def __init__(self) -> None:
        self._cluster = Cluster()
        self._cluster.start()

    @property
    def cluster_id(self) -> str:
        return self._cluster.cluster_id

    @property
    def rest(self) -> Mapping[int, str]:
        """URL by node id."""
        return {node_id: node["rest"] for node_id, node in self._cluster.nodes.items()}

    @property
    def addresses(self) -> Mapping[int, str]:
        return {node_id: node["kafka"] for node_id, node in self._cluster.nodes.items()}

    @property
    def pids(self) -> Mapping[int, int]:
        return {node_id: node["pid"] for node_id, node in self._cluster.nodes.items()}

    def start_again(self, node_id: int) -> None:
        asyncio.run(self._cluster.restart_node(node_id))

    def restart(self, node_id: int) -> None:
        self.start_again(node_id)

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

    def __init__(self, servers: str) -> None:
        brokers = AdminClient({"bootstrap.servers": servers, "log_level": 0}).list_topics(timeout=ADMIN_S).brokers
        self.addresses: Mapping[int, str] = {node: f"{broker.host}:{broker.port}" for node, broker in brokers.items()}
        self.pids = {node_id: listener(int(at.rpartition(":")[2])) for node_id, at in self.addresses.items()}
        self._processes = {node_id: Process.of(pid) for node_id, pid in self.pids.items()}

    def start_again(self, node_id: int) -> None:
        self.pids[node_id] = self._processes[node_id].start()

    def restart(self, node_id: int) -> None:
        os.kill(self.pids[node_id], signal.SIGTERM)
        until(lambda: not _lives(self.pids[node_id]), f"Kafka's node {node_id} ends")
        self.start_again(node_id)

    def stop_all(self) -> None:
        for pid in self.pids.values():
            os.kill(pid, signal.SIGTERM)
        until(lambda: not any(map(_lives, self.pids.values())), "Kafka's processes end")

    def start_all(self) -> None:
        for node_id in self.pids:
            self.start_again(node_id)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(is_so: Callable[[], bool], what: str, *, limit_s: float = WAIT_S) -> None:
    deadline = time.perf_counter() + limit_s
    while not is_so():
        if time.perf_counter() > deadline:
            raise BenchError(f"not within {limit_s} s: {what}")
        time.sleep(POLL_S)


def bootstrap(side: Side, *, without: int = -1) -> dict[str, Any]:
    servers = ",".join(address for node_id, address in side.addresses.items() if node_id != without)
    return {"bootstrap.servers": servers, "log_level": 0}


def controller(side: Side, *, ask: int) -> int:
    """The leader of the metadata quorum, in the answer of that node: clients otherwise get any broker (KIP-500)."""
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
    """A topic of one side, created with its own administration."""

    def __init__(self, side: Side, *, without: int = -1) -> None:
        self._side = side
        self.admin = AdminClient(bootstrap(side, without=without))

    def create(self, partitions: int, *, is_warm: bool = True, replicas: int = 3) -> str:
        name = f"bench-{time.time_ns()}"
        self.create_named(name, partitions, replicas=replicas)
        if is_warm:
            time.sleep(WARM_S)
        return name

    def create_named(self, name: str, partitions: int, *, replicas: int = 3) -> None:
        new = NewTopic(name, partitions, replicas, config={"min.insync.replicas": str(max(1, replicas - 1))})
        for future in self.admin.create_topics([new]).values():
            future.result(ADMIN_S)

    def create_led(self, *, is_controller: bool) -> str:
        """One partition, whose leader is the active controller, or is not."""
        some = next(iter(self._side.addresses))
        deadline = time.perf_counter() + WAIT_S
        name = self.create(1, is_warm=False)
        while (self.leader(name) == controller(self._side, ask=some)) != is_controller:
            self.delete(name)
            if time.perf_counter() > deadline:
                raise BenchError("no topic could be made whose leader is what is to be killed")
            name = self.create(1, is_warm=False)
        time.sleep(WARM_S)
        return name

    def delete(self, *names: str) -> None:
        for future in self.admin.delete_topics(list(names)).values():
            future.result(ADMIN_S)

    def leader(self, name: str) -> int:
        """The leader of its first partition. A broker that has just learned of the topic may lack its partitions."""
        deadline = time.perf_counter() + WAIT_S
        while time.perf_counter() < deadline:
            partitions = self.admin.list_topics(name, timeout=ADMIN_S).topics[name].partitions
            if 0 in partitions and partitions[0].leader >= 0:
                return int(partitions[0].leader)
            time.sleep(POLL_S)
        raise BenchError(f"{name} has no leader after {WAIT_S} s")

    def is_whole(self, name: str) -> bool:
        """All replicas of its first partition are in sync."""
        try:
            return len(self.admin.list_topics(name, timeout=ADMIN_S).topics[name].partitions[0].isrs) == 3
        except (KafkaException, KeyError):
            return False

    def are_there(self, names: Sequence[str], *, without: int = -1, is_whole: bool = False) -> bool:
        """All partitions have a leader other than the dead node, in the metadata of a live node."""
        try:
            topics = self.admin.list_topics(timeout=ADMIN_S).topics
        except KafkaException:
            return False
        found = [part for name in names if name in topics for part in topics[name].partitions.values()]
        return len(found) == len(names) * PARTITIONS and all(
            part.leader not in (-1, without) and (len(part.isrs) == 3 or not is_whole) for part in found
        )
