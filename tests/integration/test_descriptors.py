"""Nodes that may have few descriptors: more partitions than fit at once, connections that are refused in words, and no
replica that is lost for it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from kraft.client.response import Answer
from kraft.runtime.descriptors import LIMIT_MIN, share_out
from tests.integration.support.cluster import Cluster, kraft
from tests.integration.support.configuration import QUICK_CHORES, QUICK_FAILURES, write_config
from tests.integration.support.waiting import wait_until

LIMIT = 400
PARTITIONS = 120
"""Of one topic, on each node: 360 files, of which a third can be open."""
SHARES = share_out(LIMIT)
LOST = ("log_offline", "replica_offline", "replica_read_only", "log_not_loaded", "replica_removed")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("descriptors")
    config = write_config(folder / "cluster.toml", settings=QUICK_FAILURES)
    cluster = Cluster(data=str(folder / "data"), config=config, open_files_max=LIMIT)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.destroy()
        sys.stderr.write(cluster.logs())


def open_descriptors(nodes: Cluster, node_id: int) -> int:
    return len(os.listdir(f"/proc/{nodes.node(node_id).pid}/fd"))


def gauge(nodes: Cluster, node_id: int, name: str) -> float:
    answer = nodes.send(node_id, "GET", "/metrics")
    assert isinstance(answer, Answer)
    lines = [line.split() for line in answer.body.decode().splitlines()]
    return next(float(line[1]) for line in lines if line and line[0] == f"kraft_{name}")


def write_to_all(
    nodes: Cluster, topic: str, value: str, *, node_id: int = 1, partitions: int = PARTITIONS
) -> list[dict[str, Any]]:
    """acks=all, so that every replica has it; what was refused."""
    body = {"records": [{"partition": number, "value": value} for number in range(partitions)]}
    answer = nodes.send(node_id, "POST", f"/topics/{topic}", body, Content_Type="application/vnd.kafka.json.v2+json")
    assert isinstance(answer, Answer), answer
    assert answer.is_success, answer
    return [entry for entry in answer.json()["offsets"] if entry["error_code"]]


def test_more_partitions_than_descriptors_are_written_read_and_found_again(nodes: Cluster) -> None:
    nodes.create_topic("many", partitions=PARTITIONS)
    for turn in range(3):
        assert not write_to_all(nodes, "many", f"turn {turn}")
    for node_id in nodes.ids:
        assert open_descriptors(nodes, node_id) < LIMIT
        assert gauge(nodes, node_id, "open_files") <= gauge(nodes, node_id, "open_files_limit") == SHARES.files
        assert gauge(nodes, node_id, "descriptors_limit") == LIMIT
        assert gauge(nodes, node_id, "open_files_opened") > PARTITIONS
        assert gauge(nodes, node_id, "descriptors_refused") == 0
    nodes.kill(2)
    wait_until(lambda: not write_to_all(nodes, "many", "while one is away"), what="others to lead all of it")
    nodes.restart(2)
    for partition in range(0, PARTITIONS, 30):
        nodes.wait_for_isr("many", partition, nodes.ids)
        assert {len(nodes.log_bytes(node_id, "many", partition)) for node_id in nodes.ids} != {0}
        wait_until(
            lambda at=partition: len({nodes.log_bytes(node_id, "many", at) for node_id in nodes.ids}) == 1,
            what=f"equal copies of partition {partition}",
        )
    assert not nodes.events(*LOST)


@pytest.mark.slow
def test_files_that_nobody_uses_for_half_a_minute_are_given_back(nodes: Cluster) -> None:
    nodes.heal()
    nodes.create_topic("idle", partitions=PARTITIONS)
    assert not write_to_all(nodes, "idle", "x")
    assert gauge(nodes, 1, "open_files") > PARTITIONS / 2
    wait_until(lambda: gauge(nodes, 1, "open_files") < 20, deadline_s=90, what="idle files to be given back")


@pytest.mark.slow
def test_three_thousand_partitions_of_a_node_fit_in_1024_descriptors(tmp_path: Path) -> None:
    config = write_config(tmp_path / "cluster.toml", settings=QUICK_CHORES)
    cluster = Cluster(data=str(tmp_path / "data"), config=config, open_files_max=1_024)
    topics = [f"many-{number}" for number in range(3_000 // 500)]
    try:
        cluster.start()
        for topic in topics:
            answer = cluster.call("POST", "/topics", {"topic_name": topic, "partitions_count": 500})
            assert answer.status == 201, answer
        for topic in topics:
            wait_until(
                lambda of=topic: not write_to_all(cluster, of, "x", partitions=500),
                deadline_s=120,
                what="all to be led",
            )
        assert all(open_descriptors(cluster, node_id) < 1_024 for node_id in cluster.ids)
        cluster.stop_all()
        cluster.start_again()
        for topic in topics:
            wait_until(
                lambda of=topic: not write_to_all(cluster, of, "y", partitions=500),
                deadline_s=120,
                what="all to be led",
            )
        assert not cluster.events(*LOST)
    finally:
        cluster.destroy()


def test_connections_beyond_share_are_refused(nodes: Cluster) -> None:
    nodes.heal()
    nodes.create_topic("few", partitions=PARTITIONS)
    address = urlsplit(nodes.node(1).rest)
    with ExitStack() as stack:
        held = []
        for _ in range(2 * SHARES.clients):
            connection = stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=30))
            held.append(connection)
        answers = [_ask(connection) for connection in held]
        refused = [answer for answer in answers if b" 503 " in answer]
        assert refused, "one too many hears why"
        assert b"limit of open files" in refused[0]
        assert any(b" 200 " in answer for answer in answers)
        assert open_descriptors(nodes, 1) < LIMIT
        # Node 1 goes on replicating, leading and voting while its clients' share is used up.
        assert not write_to_all(nodes, "few", "x", node_id=2)
    wait_until(lambda: isinstance(nodes.send(1, "GET", "/health"), Answer), what="node 1 to take clients again")
    assert not nodes.events(*LOST)


def _ask(connection: socket.socket) -> bytes:
    """The answer; nothing from a connection that was closed before it asked."""
    try:
        connection.sendall(b"GET /kraft/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return connection.recv(65_536)
    except ConnectionError:
        return b""


def test_a_node_that_may_open_too_few_files_reports_it(tmp_path: Path) -> None:
    config = write_config(tmp_path / "cluster.toml")
    done = kraft(
        "up", "--detach", "--free-ports", "--data", str(tmp_path / "data"), config, check=False, open_files_max=200
    )
    assert done.returncode != 0
    reported = done.stdout + done.stderr
    assert f"200 open files and connections (RLIMIT_NOFILE), a node needs {LIMIT_MIN} or more" in reported, reported
