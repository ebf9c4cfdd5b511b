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


def test_records_survive_a_killed_leader_and_a_stop_of_everything(cluster: Cluster):
    cluster.create_topic("t")
    kraft("produce", "t", "one", "two", "--data", cluster.data)
    leader = cluster.leader_of("t")
    kraft("node", "kill", str(leader), "--data", cluster.data)
    cluster.wait_for_leader("t", other_than=leader)
    kraft("produce", "t", "--data", cluster.data, stdin="three\nfour\n")
    assert values(cluster, "t") == ["one", "two", "three", "four"]
    kraft("node", "restart", str(leader), "--data", cluster.data)
    wait_until(lambda: sorted(cluster.isr_of("t")) == [1, 2, 3], what="the whole ISR")
    cluster.stop_all()
    cluster.start()
    assert values(cluster, "t") == ["one", "two", "three", "four"]


def test_status_topics_and_dumps(cluster: Cluster):
    status = json.loads(kraft("status", "--json", "--data", cluster.data).stdout)
    assert status["controller_id"] in cluster.ids
    assert [node["state"] for node in status["nodes"]] == ["active"] * 3
    cluster.create_topic("t", partitions=2, retention_ms="5000")
    listed = json.loads(kraft("topics", "list", "--json", "--data", cluster.data).stdout)
    assert {"topic": "t", "partitions": 2, "replication_factor": 3} in listed
    kraft("topics", "alter", "t", "--partitions", "3", "--data", cluster.data)
    kraft("produce", "t", "hello", "--partition", "0", "--data", cluster.data)
    described = json.loads(kraft("topics", "describe", "t", "--json", "--data", cluster.data).stdout)
    assert [row["partition"] for row in described["partitions"]] == [0, 1, 2]
    assert described["partitions"][0]["end_offset"] == 1
    leader = cluster.node(described["partitions"][0]["leader"])
    folder = str(Path(leader.data) / "logs" / "t-0")
    rows = [json.loads(line) for line in kraft("log", "dump", folder, "--records", "--json").stdout.splitlines()]
    assert {"batch", "record"} <= {row["kind"] for row in rows}
    kraft("topics", "delete", "t", "--data", cluster.data)
    cluster.stop_all()
    dumped = kraft("metadata", "dump", leader.data, "--json").stdout
    assert '"TopicRecord"' in dumped or '"Topic' in dumped


def test_the_first_line_of_json_is_the_cluster(cluster: Cluster):
    assert cluster.ids == [1, 2, 3]
    for node in cluster.nodes:
        assert node.rest.startswith("http://127.0.0.1:")
        assert cluster.is_running(node.id)


@pytest.mark.slow
def test_replicas_move_leaders_change_and_records_come_from_files(cluster: Cluster, tmp_path: Path):
    data = ("--data", cluster.data)
    kraft("topics", "create", "t", "--partitions", "1", "--replication-factor", "2", *data)
    described = json.loads(kraft("topics", "describe", "t", "--json", *data).stdout)["partitions"][0]
    outside = next(node for node in cluster.ids if node not in described["replicas"])
    wanted = [outside, described["replicas"][0]]
    kraft("reassign", "t", "0", "--replicas", ",".join(map(str, wanted)), *data)
    wait_until(lambda: sorted(cluster.isr_of("t")) == sorted(wanted), what="the replicas that were asked for")
    kraft("elect", "t", *data)
    wait_until(lambda: cluster.leader_of("t") == outside, what="the preferred leader")
    assert json.loads(kraft("reassign", "--json", *data).stdout) == []
    lines = tmp_path / "lines.jsonl"
    lines.write_text("".join(json.dumps({"key": f"k{n}", "value": f"v{n}"}) + "\n" for n in range(1_200)))
    placed = kraft("produce", "t", "--file", str(lines), "--records", *data).stdout.splitlines()
    assert placed == [f"0\t{offset}" for offset in range(1_200)]
    assert values(cluster, "t") == [f"v{n}" for n in range(1_200)]


@pytest.mark.slow
def test_follow_shows_a_record_that_comes_later(cluster: Cluster):
    cluster.create_topic("t")
    command = [sys.executable, "-m", "kraft", "consume", "t", "--follow", "--max", "2", "--data", cluster.data]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        try:
            assert follower.stdout is not None
            kraft("produce", "t", "first", "--data", cluster.data)
            assert follower.stdout.readline().rstrip("\n").endswith("\tfirst")
            kraft("produce", "t", "second", "--data", cluster.data)
            assert follower.stdout.readline().rstrip("\n").endswith("\tsecond")
            assert follower.wait(FOLLOWER_ENDS_S) == 0
        finally:
            follower.kill()


@pytest.mark.slow
def test_a_node_ends_when_it_is_told_to_even_with_its_folder_deleted(cluster: Cluster):
    """It cannot hand over, checkpoint or mark anything any more; the process must not stay for that."""
    cluster.create_topic("t", partitions=3)
    pids = [node.pid for node in cluster.nodes]
    shutil.rmtree(Path(cluster.data))
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: (reap(pids), not any(map(is_alive, pids)))[1], deadline_s=20, what="all nodes to end")
