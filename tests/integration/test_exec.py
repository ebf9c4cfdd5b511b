"""`kraft exec`: its command, its signals, its exit codes, and what is left of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from kraft.cli import execute
from kraft.launcher.processes import is_alive, log_tail
from kraft.launcher.python import PYTHON
from kraft.launcher.runfile import load_run
from tests.conftest import Processes
from tests.integration.support.waiting import wait_until

LIMIT_S = 120
OUTCOME_CODES = """
import json, os
names = ("KAFKA_BOOTSTRAP_SERVERS", "KRAFT_REST", "KRAFT_DATA")
print(json.dumps({**{name: os.environ[name] for name in names}, "pid": os.getpid()}), flush=True)
"""
"""What a command does first in these tests."""


def exec_command(*options: str, story: str = "") -> list[str]:
    return [*PYTHON, "-m", "kraft", "exec", *options, "--", sys.executable, "-c", OUTCOME_CODES + story]


def run(*options: str, story: str = "") -> subprocess.CompletedProcess[str]:
    command = exec_command(*options, story=story)
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def pids_of(data: str) -> list[int]:
    found = load_run(data)
    assert found is not None
    return [node.pid for node in found.nodes]


class Running:
    """A `kraft exec` whose command waits."""

    def __init__(self, processes: Processes, *options: str, story: str) -> None:
        command = exec_command(*options, story=story)
        self.process = processes.start(command)
        assert self.process.stdout is not None
        self.reported: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.data = self.reported["KRAFT_DATA"]
        self.nodes = pids_of(self.data)


def test_exec_passes_exit_code_and_signals() -> None:
    story = """
import signal
from urllib.request import urlopen
status = json.load(urlopen(os.environ["KRAFT_REST"].split(",")[2] + "/kraft/status"))
assert [node["state"] for node in status["nodes"]] == ["active"] * 3, status
assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
raise SystemExit(7)
"""
    done = run(story=story)
    assert done.returncode == 7, done.stderr
    reported = json.loads(done.stdout)
    assert len(reported["KAFKA_BOOTSTRAP_SERVERS"].split(",")) == 3
    assert not Path(reported["KRAFT_DATA"]).exists()
    assert done.stderr == ""


def test_a_command_that_cannot_be_run_differs_from_one_that_is_not_there(tmp_path: Path) -> None:
    """Once the cluster runs; what that does to it is what any exit code does."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert execute._run(["no-such-command"], {}, mask=mask) == 127
    assert execute._run([str(tmp_path)], {}, mask=mask) == 126


def test_a_cluster_that_cannot_be_started_is_distinguished() -> None:
    command = [*PYTHON, "-m", "kraft", "exec", "--nodes", "1", "--set", "min.insync.replica=1", "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 125
    assert "did you mean min.insync.replicas?" in done.stderr
    with pytest.raises(typer.BadParameter, match="NAME=VALUE") as refused:
        execute._setting("nonsense")
    assert refused.value.exit_code == 2


def test_a_node_that_does_not_start_has_its_log_shown(tmp_path: Path) -> None:
    """Its code on disk is broken: what has been loaded says so in the node's log."""
    (tmp_path / "sitecustomize.py").write_text(
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
    )
    done = subprocess.run(
        [*PYTHON, "-m", "kraft", "exec", "--nodes", "1", "--", "true"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 125
    assert "Last lines of" in done.stderr
    assert "node 1 failed" in done.stderr


def test_exec_keeps_folder_and_returns_signal() -> None:
    done = run("--nodes", "1", "--keep-on-failure", story="import signal\nos.kill(os.getpid(), signal.SIGKILL)")
    assert done.returncode == 128 + signal.SIGKILL
    folder = Path(json.loads(done.stdout)["KRAFT_DATA"])
    try:
        assert str(folder) in done.stderr
        assert log_tail(str(folder / "node-1" / "node.log"))[-1] == "node 1 stopped"
    finally:
        subprocess.run(["rm", "-r", str(folder)], check=True)


def test_signals_reach_the_command(processes: Processes) -> None:
    """Each is passed on, and `kraft exec` itself waits for the command."""
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1]
    story = f"""
import signal
numbers = {[int(number) for number in numbers]}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
print("waits", flush=True)
for _ in numbers:
    print(signal.sigwait(numbers), flush=True)
raise SystemExit(50)
"""
    running = Running(processes, "--nodes", "1", story=story)
    assert running.process.stdout is not None
    assert running.process.stdout.readline() == b"waits\n"
    for number in numbers:
        running.process.send_signal(number)
        assert int(running.process.stdout.readline()) == number
    assert running.process.wait(LIMIT_S) == 50
    assert not Path(running.data).exists()
    assert not any(map(is_alive, running.nodes))


def test_a_signal_during_the_start_ends_it(processes: Processes) -> None:
    process = processes.start(exec_command("--nodes", "1"))
    ready = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    forking = wait_until(lambda: ready.read_text().split(), what="the process that forks")[0]
    process.send_signal(signal.SIGTERM)
    # Before it has read its arguments, the signal itself ends it: a shell says 143 to both.
    assert process.wait(LIMIT_S) in (128 + signal.SIGTERM, -signal.SIGTERM)
    wait_until(lambda: not Path(f"/proc/{forking}").exists(), what="the end of the process that forks")


def test_kill_9_of_exec_leaves_no_process_and_no_folder(processes: Processes) -> None:
    story = """
import subprocess, sys, time
below = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(below.pid, flush=True)
time.sleep(600)
"""
    running = Running(processes, "--nodes", "1", story=story)
    assert running.process.stdout is not None
    below = int(running.process.stdout.readline())
    running.process.kill()
    wait_until(lambda: not Path(running.data).exists(), what="the end of the folder")
    for pid in (*running.nodes, running.reported["pid"], below):
        wait_until(lambda gone=pid: not Path(f"/proc/{gone}").exists(), what=f"the end of process {pid}")


def test_nodes_are_broken_from_the_command_by_its_folder() -> None:
    story = """
import sys
from kraft.cli.main import main
for action in ("kill", "restart", "stop"):
    sys.argv[1:] = ["node", action, "1", "--data", os.environ["KRAFT_DATA"]]
    try:
        main()
    except SystemExit as end:
        assert not end.code, action
"""
    done = run("--nodes", "1", "--keep-on-failure", story=story)
    assert done.returncode == 0, done.stderr
    assert "node 1" in done.stdout
    assert not Path(json.loads(done.stdout.splitlines()[0])["KRAFT_DATA"]).exists(), "nothing has failed"
