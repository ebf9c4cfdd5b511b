"""`kraft up` with nodes that are forks: who knows them, what outlives what, and what restarts are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kraft.launcher.fork_messages import SOCKET_FILE
from kraft.launcher.processes import is_alive
from kraft.launcher.python import PYTHON
from kraft.launcher.runfile import load_run
from tests.conftest import Processes
from tests.integration.support.cluster import Cluster, kraft
from tests.integration.support.configuration import BOTH, write_config
from tests.integration.support.waiting import wait_until

SMALL = {"default.replication.factor": 1, "min.insync.replicas": 1}


def arguments_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").split()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def exists(pid: int) -> bool:
    """As more than a zombie: who should reap it may be this process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def detached(stopped_cluster: Cluster, tmp_path: Path) -> Cluster:
    stopped_cluster.config = write_config(tmp_path / "cluster.toml", roles={1: BOTH}, settings=SMALL)
    stopped_cluster.start_by_command()
    return stopped_cluster


def test_fork_server_ends_with_the_cluster(detached: Cluster) -> None:
    pid = detached.node(1).pid
    forking = parent_of(pid)
    assert arguments_of(pid)[:4] == ["kraft", "node", "--id", "1"]
    assert arguments_of(forking)[0] == "kraft"
    kraft("node", "kill", "1", "--data", detached.data)
    assert not is_alive(pid)
    kraft("node", "restart", "1", "--data", detached.data)
    detached.ever_started.add(detached.node(1).pid)
    assert parent_of(detached.node(1).pid) == forking
    assert json.loads(kraft("status", "--json", "--data", detached.data).stdout)["controller_id"] == 1
    kraft("down", "--data", detached.data)
    wait_until(lambda: not exists(forking), what="the end of the process that forks")
    assert not (Path(detached.data) / SOCKET_FILE).exists()


def test_kill_of_fork_server_ends_no_node(detached: Cluster) -> None:
    pid = detached.node(1).pid
    os.kill(parent_of(pid), signal.SIGKILL)
    assert is_alive(pid)
    kraft("status", "--data", detached.data)
    kraft("node", "restart", "1", "--data", detached.data)
    detached.ever_started.add(detached.node(1).pid)
    assert arguments_of(detached.node(1).pid)[:3] == [*PYTHON, "-m"]
    kraft("down", "--data", detached.data)


@pytest.mark.long
def test_the_process_that_forks_does_not_stay_for_nodes_that_are_gone(detached: Cluster) -> None:
    pid = detached.node(1).pid
    forking = parent_of(pid)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not exists(forking), deadline_s=60, what="the end of the process that forks")


def test_a_node_has_what_a_program_would_inherit(
    stopped_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of who starts it again, not of who started the cluster."""
    stopped_cluster.config = write_config(tmp_path / "cluster.toml", roles={1: BOTH}, settings=SMALL)
    stopped_cluster.start_by_command()
    forking = parent_of(stopped_cluster.node(1).pid)
    stopped_cluster.open_files_max = 512
    stopped_cluster.restart(1)
    pid = stopped_cluster.node(1).pid
    limits = Path(f"/proc/{pid}/limits").read_text()
    assert "512" in next(line for line in limits.splitlines() if "open files" in line)
    assert parent_of(pid) != forking, "a process cannot raise its hard limit again, so that no fork may have another"


def started(processes: Processes, config: str, data: str) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    command = [*PYTHON, "-m", "kraft", "up", config, "--free-ports", "--no-console", "--json", "--data", data]
    process = processes.start(command)
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nodes_of_an_attached_cluster_stop_in_order_with_it(
    processes: Processes, tmp_path: Path, number: signal.Signals
) -> None:
    data = str(tmp_path / "data")
    config = write_config(tmp_path / "cluster.toml", roles={1: BOTH}, settings=SMALL)
    process, summary = started(processes, config, data)
    pid = summary["nodes"][0]["pid"]
    forking = parent_of(pid)
    process.send_signal(number)
    process.wait(60)
    wait_until(lambda: not is_alive(pid), what="the end of the node")
    assert "node 1 stopped" in (Path(data) / "node-1" / "node.log").read_text()
    wait_until(lambda: not exists(forking), deadline_s=60, what="the end of the process that forks")
    if number is signal.SIGINT:
        assert load_run(data) is None
