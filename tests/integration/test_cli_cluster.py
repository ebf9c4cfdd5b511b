"""The command line against a real cluster: start, topics, records, a killed node, dumps, stop and start again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from kraft.launcher.processes import is_alive, reap
from tests.integration.support.cluster import Cluster, kraft
from tests.integration.support.waiting import wait_until

FOLLOWER_ENDS_S: Final = 20


def values(cluster: Cluster, topic: str) -> list[str]:
    lines = kraft("consume", topic, "--data", cluster.data, "--json").stdout.splitlines()
    return [json.loads(line)["value"] for line in lines]


@pytest.fixture
def nodes(fragile_cluster: Cluster) -> Cluster:
    fragile_cluster.heal()
    return fragile_cluster


def test_records_survive_a_killed_leader_and_a_stop_of_everything(nodes: Cluster):
    nodes.create_topic("survives")
    kraft("produce", "survives", "one", "two", "--data", nodes.data)
    leader = nodes.leader_of("survives")
    kraft("node", "kill", str(leader), "--data", nodes.data)
    nodes.wait_for_leader("survives", other_than=leader)
    kraft("produce", "survives", "--data", nodes.data, stdin="three\nfour\n")
    assert values(nodes, "survives") == ["one", "two", "three", "four"]
    kraft("node", "restart", str(leader), "--data", nodes.data)
    wait_until(lambda: sorted(nodes.isr_of("survives")) == [1, 2, 3], what="the whole ISR")
    folder = nodes.node(leader).data
    kraft("node", "stop", "2", "--data", nodes.data)
    kraft("down", "--data", nodes.data)
    dumped = [json.loads(line) for line in kraft("metadata", "dump", folder, "--json").stdout.splitlines()]
    assert "TopicRecord" in json.dumps(dumped)
    nodes.start_again(by_command=True)
    assert values(nodes, "survives") == ["one", "two", "three", "four"]
    assert all(nodes.events("log_directory_opened", node_id=node_id)[-1]["was_clean"] for node_id in nodes.ids)


def test_status_topics_and_the_log(nodes: Cluster):
    status = json.loads(kraft("status", "--json", "--data", nodes.data).stdout)
    assert status["controller_id"] in nodes.ids
    assert [node["state"] for node in status["nodes"]] == ["active"] * 3
    create = ("topics", "create", "shown", "--partitions", "2", "--replication-factor", "3")
    kraft(*create, "--config", "retention.ms=5000", "--data", nodes.data)
    listed = json.loads(kraft("topics", "list", "--json", "--data", nodes.data).stdout)
    assert {"topic": "shown", "partitions": 2, "replication_factor": 3} in listed
    kraft("topics", "alter", "shown", "--partitions", "3", "--data", nodes.data)
    kraft("produce", "shown", "hello", "--partition", "0", "--data", nodes.data)
    described = json.loads(kraft("topics", "describe", "shown", "--json", "--data", nodes.data).stdout)
    assert [row["partition"] for row in described["partitions"]] == [0, 1, 2]
    assert described["partitions"][0]["end_offset"] == 1
    folder = str(nodes.folder(described["partitions"][0]["leader"], "shown"))
    rows = [json.loads(line) for line in kraft("log", "dump", folder, "--records", "--json").stdout.splitlines()]
    assert {"batch", "record"} <= {row["kind"] for row in rows}
    kraft("topics", "delete", "shown", "--data", nodes.data)


def test_the_first_line_of_json_is_the_cluster(nodes: Cluster):
    """`Cluster.start` has read it."""
    assert nodes.ids == [1, 2, 3]
    for node in nodes.nodes:
        assert node.rest.startswith("http://127.")
        assert nodes.is_running(node.id)


@pytest.mark.slow
def test_replicas_move_leaders_change_and_records_come_from_files(nodes: Cluster, tmp_path: Path):
    data = ("--data", nodes.data)
    kraft("topics", "create", "moves", "--partitions", "1", "--replication-factor", "2", *data)
    described = json.loads(kraft("topics", "describe", "moves", "--json", *data).stdout)["partitions"][0]
    outside = next(node for node in nodes.ids if node not in described["replicas"])
    wanted = [outside, described["replicas"][0]]
    kraft("reassign", "moves", "0", "--replicas", ",".join(map(str, wanted)), *data)
    wait_until(lambda: sorted(nodes.isr_of("moves")) == sorted(wanted), what="the replicas that were asked for")
    kraft("elect", "moves", *data)
    wait_until(lambda: nodes.leader_of("moves") == outside, what="the preferred leader")
    assert json.loads(kraft("reassign", "--json", *data).stdout) == []
    lines = tmp_path / "lines.jsonl"
    lines.write_text("".join(json.dumps({"key": f"k{n}", "value": f"v{n}"}) + "\n" for n in range(1_200)))
    placed = kraft("produce", "moves", "--file", str(lines), "--records", *data).stdout.splitlines()
    assert placed == [f"0\t{offset}" for offset in range(1_200)]
    assert values(nodes, "moves") == [f"v{n}" for n in range(1_200)]


@pytest.mark.slow
def test_follow_shows_a_record_that_comes_later(nodes: Cluster):
    nodes.create_topic("followed")
    command = [sys.executable, "-m", "kraft", "consume", "followed", "--follow", "--max", "2", "--data", nodes.data]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        try:
            assert follower.stdout is not None
            kraft("produce", "followed", "first", "--data", nodes.data)
            assert follower.stdout.readline().rstrip("\n").endswith("\tfirst")
            kraft("produce", "followed", "second", "--data", nodes.data)
            assert follower.stdout.readline().rstrip("\n").endswith("\tsecond")
            assert follower.wait(FOLLOWER_ENDS_S) == 0
        finally:
            follower.kill()


@pytest.mark.slow
def test_a_node_ends_when_it_is_asked_to_even_with_its_folder_deleted(cluster: Cluster):
    """It cannot hand over, checkpoint or mark anything any more; the process must not stay for that."""
    cluster.create_topic("t", partitions=3)
    pids = [node.pid for node in cluster.nodes]
    shutil.rmtree(Path(cluster.data))
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: (reap(pids), not any(map(is_alive, pids)))[1], deadline_s=20, what="all nodes to end")
