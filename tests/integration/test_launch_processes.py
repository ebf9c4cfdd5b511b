"""The launcher against stand-ins for nodes: ports, readiness, dying nodes, limits, the parent's end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kraft.launcher import processes, up
from kraft.launcher.actions import NotRunning, bring_down, kill_node, restart_node
from kraft.launcher.processes import LaunchError, is_alive, start_node, start_program
from kraft.launcher.runfile import load_run, remove_run
from tests.integration.support.waiting import wait_until

FAKE = str(Path(__file__).parent / "support" / "fake_node.py")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The data folder of a cluster of fakes; whatever still runs from it at the end is killed."""
    monkeypatch.setattr(processes, "NODE_COMMAND", (sys.executable, FAKE, "node"))
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    yield str(tmp_path)
    run = load_run(str(tmp_path))
    for node in run.nodes if run else ():
        if is_alive(node.pid):
            os.kill(node.pid, signal.SIGKILL)
            processes.wait_for_end([node], limit_ms=5_000)


def start(data: str, said: list[str] | None = None, **options):
    reported = said if said is not None else []
    return up.start_cluster(
        None, data=data, free_ports=True, detach=True, say=reported.append, start=start_program, **options
    )


def test_a_cluster_starts_reports_what_it_waits_for_and_stops(fakes):
    said: list[str] = []
    run = start(fakes, said)
    assert [node.id for node in run.nodes] == [1, 2, 3]
    assert all(is_alive(node.pid) for node in run.nodes)
    assert said == [f"cluster {run.cluster_id}: starting 3 nodes in {fakes}"], "a start of seconds is one line"
    summary = json.loads(json.dumps(run.summary()))
    assert set(summary["nodes"][0]) == {
        *("id", "roles", "pid", "rest", "kafka", "quorum", "data"),
        *("logs_in", "ca", "certificate"),
    }
    bring_down(fakes, say=said.append)
    assert not any(is_alive(node.pid) for node in run.nodes)
    assert load_run(fakes) is None
    assert not any("killed" in line for line in said)


def test_a_second_start_from_the_same_folder_is_refused(fakes):
    run = start(fakes)
    with pytest.raises(LaunchError, match="already runs"):
        start(fakes)
    assert all(is_alive(node.pid) for node in run.nodes)


def test_a_node_that_dies_while_starting_shows_its_log_and_stops_the_others(fakes, monkeypatch):
    monkeypatch.setenv("FAKE_DIE", "2")
    monkeypatch.setenv("FAKE_READY_AFTER_S", "60")
    with pytest.raises(LaunchError, match=r"(?s)node 2 .*the disk of this node is on fire"):
        start(fakes)
    assert load_run(fakes) is None


def test_the_timeout_ends_a_start_and_stops_the_nodes(fakes, monkeypatch):
    monkeypatch.setenv("FAKE_READY_AFTER_S", "600")
    with pytest.raises(LaunchError, match=r"not ready after 1 s \(--timeout\): .*; all nodes were stopped"):
        start(fakes, limit_ms=1_000)
    assert load_run(fakes) is None


def test_a_node_that_ignores_sigterm_is_killed_at_the_limit_and_that_is_said(fakes, monkeypatch):
    monkeypatch.setenv("FAKE_STUBBORN", "3")
    run = start(fakes)
    said: list[str] = []
    processes.stop_nodes([run.node(1), run.node(2)], say=said.append)
    processes.stop_nodes([run.node(3)], say=said.append, limit_ms=300)
    remove_run(fakes)
    assert len(said) == 1
    assert "node 3" in said[0]
    assert "killed" in said[0]
    assert not is_alive(run.node(3).pid)


@pytest.mark.long
def test_a_node_that_is_busy_stopping_is_not_killed(fakes, monkeypatch):
    """One with 20,000 partitions takes longer than the limit, and begins with a look at all of them if it is killed."""
    monkeypatch.setenv("FAKE_BUSY_STOP_S", "1.2")
    monkeypatch.setattr(processes, "BUSY_SHARE", 0.001)
    run = start(fakes)
    said: list[str] = []
    processes.stop_nodes([run.node(1)], say=said.append, limit_ms=1_000)
    assert said == []
    assert not is_alive(run.node(1).pid)


def test_a_paused_node_is_stopped_too(fakes):
    run = start(fakes)
    os.kill(run.node(2).pid, signal.SIGSTOP)
    said: list[str] = []
    bring_down(fakes, say=said.append)
    assert said == []
    assert not is_alive(run.node(2).pid)


def test_a_killed_node_comes_back_with_another_pid(fakes):
    run = start(fakes)
    kill_node(fakes, 2)
    assert not is_alive(run.node(2).pid)
    with pytest.raises(NotRunning, match="node restart 2"):
        kill_node(fakes, 2)
    started = restart_node(fakes, 2, say=lambda _: None)
    assert is_alive(started.pid)
    assert started.pid != run.node(2).pid
    assert load_run(fakes).node(2).pid == started.pid
    bring_down(fakes, say=lambda _: None)
    assert not is_alive(started.pid)


def test_a_taken_port_is_named_with_the_node_and_the_key(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = tmp_path / "cluster.toml"
        config.write_text(f"[[nodes]]\nid = 7\nkafka_port = {port}\n")
        with pytest.raises(LaunchError) as raised:
            up.start_cluster(str(config), data=str(tmp_path), free_ports=False, detach=True, say=lambda _: None)
    message = str(raised.value)
    assert str(port) in message
    assert "kafka_port of node 7" in message
    assert "--free-ports" in message


def test_a_node_ends_with_its_parent_even_when_that_is_killed(fakes):
    up_process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    run = start(fakes)
    node = run.node(1)
    orphan = start_node(config=run.config, node_id=1, data=fakes, log=f"{fakes}/orphan.log", parent_pid=up_process.pid)
    assert orphan.poll() is None
    os.kill(node.pid, signal.SIGKILL)  # its port becomes free for the other one
    up_process.kill()
    up_process.wait()
    wait_until(lambda: orphan.poll() is not None, what="the node to end with its parent")


HALF_ENDED = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""
"""As a killed node is for a moment: its main thread has ended, another one still holds the sockets."""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="the state of a process is read from /proc")
def test_a_node_has_ended_when_its_last_thread_has_and_not_before():
    with subprocess.Popen([sys.executable, "-c", HALF_ENDED, "node"]) as ending:

        def state() -> str:
            return Path(f"/proc/{ending.pid}/stat").read_text().rpartition(")")[2].split()[0]

        try:
            wait_until(lambda: state() == "Z", what="the end of the main thread")
            assert is_alive(ending.pid)
        finally:
            ending.kill()
        wait_until(lambda: not is_alive(ending.pid), what="the end of all threads")


def test_nothing_to_stop_is_said(tmp_path):
    with pytest.raises(NotRunning, match="no cluster was started"):
        bring_down(str(tmp_path), say=lambda _: None)
