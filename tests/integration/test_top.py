"""`kraft top` in a real terminal shows a partition and why, and kills a node by keys; `kraft explain` names causes that
are planted."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kraft.testing.cluster import Cluster

pytestmark = pytest.mark.long
DEADLINE_S = 60
ROWS, COLUMNS = 30, 80


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(nodes=3) as found:
        command = [sys.executable, "-m", "kraft", "topics", "create", "flights", "--replication-factor", "3"]
        subprocess.run([*command, "--data", str(found.data)], check=True, timeout=DEADLINE_S)
        yield found


def kraft(cluster: Cluster, *words: str) -> Any:
    command = [sys.executable, "-m", "kraft", *words, "--json", "--data", str(cluster.data)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=DEADLINE_S).stdout)


def explained(cluster: Cluster, *words: str, cause: str) -> dict[str, Any]:
    """The explanation, once it names the cause."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        found: dict[str, Any] = kraft(cluster, "explain", *words)
        if found["cause"] == cause or time.monotonic() > deadline:
            assert found["cause"] == cause, found
            return found


class Terminal:
    """A program in a terminal of 80 columns."""

    def __init__(self, *command: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        environment = {**os.environ, "TERM": "xterm"}
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        self.text = ""

    def press(self, keys: str) -> None:
        for key in keys:  # a person's keys come one by one
            os.write(self._master, key.encode())
            self._read(0.2)

    def until(self, wanted: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while wanted not in self.text:
            assert time.monotonic() < deadline, (wanted, self.text[-3_000:])
            self._read(0.2)

    def end(self) -> int:
        code = self.process.wait(DEADLINE_S)
        os.close(self._master)
        return code

    def _read(self, wait_s: float) -> None:
        ready, _, _ = select.select([self._master], [], [], wait_s)
        if ready:
            self.text += os.read(self._master, 65_536).decode(errors="replace")


@pytest.mark.timeout(240)
def test_keys_show_a_partition_and_kill_a_node(cluster: Cluster) -> None:
    follower = next(each for each in (1, 2, 3) if each != cluster.leader_of("flights"))
    terminal = Terminal(sys.executable, "-m", "kraft", "top", "--data", str(cluster.data))
    try:
        terminal.until("flights-0")
        terminal.press(f"K{follower}\r\r")
        terminal.until("not in the ISR")
        terminal.until(f"kraft node restart {follower}")
        terminal.press("x")
        assert terminal.end() == 0
    finally:
        terminal.process.kill()
    found = explained(cluster, "partition", "flights", "0", cause="broker_fenced")
    assert (found["state"], found["fix"]) == ("under-replicated", [f"kraft node restart {follower}"])
    assert explained(cluster, "node", str(follower), cause="not_answering")["state"] == "down"
    top = kraft(cluster, "top")
    assert top["partitions"][0]["standing"] == "behind"
    assert top["groups"] is not None
    cluster.restart(follower)
    explained(cluster, "partition", "flights", "0", cause="")


@pytest.mark.timeout(240)
def test_a_quorum_without_a_leader_is_explained_by_the_node_that_is_left(cluster: Cluster, tmp_path: Path) -> None:
    cluster.kill(2, 3)
    try:
        found = explained(cluster, "node", "1", cause="quorum_without_leader")
        assert "2 are needed" in found["summary"]
        assert explained(cluster, "partition", "flights", "0", cause="quorum_without_leader")["views"] == []
    finally:
        cluster.restart(2, 3)
