"""kill -9 of some or all voters while they write, with a snapshot every few hundred entries."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.quorum.cluster import free_ports

ROUNDS = int(os.environ.get("KRAFT_QUORUM_KILL_ROUNDS", "5"))
START_S = 20


class Voters:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ports = [str(port) for port in free_ports(3)]
        self._processes: dict[int, subprocess.Popen[str]] = {}
        self._outputs: list[Path] = []
        self._current: dict[int, Path] = {}

    def start(self, node: int, mode: str) -> None:
        output = self._directory / f"out{len(self._outputs)}"
        self._outputs.append(output)
        self._current[node] = output
        command = [sys.executable, "-m", "tests.unit.quorum.voter_process", str(node), str(self._directory), mode]
        with output.open("w") as out:
            self._processes[node] = subprocess.Popen(
                [*command, *self._ports], stdin=subprocess.PIPE, stdout=out, text=True
            )

    def kill(self, *nodes: int) -> None:
        for node in nodes:
            self._processes[node].kill()
        for node in nodes:
            process = self._processes.pop(node)
            process.wait(timeout=10)
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()

    def kill_all(self) -> None:
        self.kill(*list(self._processes))

    def acked(self) -> set[str]:
        return {line["acked"] for output in self._outputs for line in _lines(output) if "acked" in line}

    def ask(self, node: int) -> dict[str, Any]:
        before = len(_lines(self._current[node]))
        stdin = self._processes[node].stdin
        assert stdin is not None
        stdin.write("\n")
        stdin.flush()
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            for line in _lines(self._current[node])[before:]:
                if "offset" in line:
                    return line
        raise AssertionError(f"voter {node} does not answer: {_lines(self._current[node])[-3:]}")

    def await_acks(self, more_than: int) -> float:
        """Seconds until another append was acknowledged."""
        begun = time.monotonic()
        while time.monotonic() < begun + START_S:
            if len(self.acked()) > more_than:
                return time.monotonic() - begun
        raise AssertionError("no append was acknowledged")


def _lines(output: Path) -> list[dict[str, Any]]:
    lines = []
    for line in output.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(line))
    assert not [line for line in lines if "fatal" in line], lines[-3:]
    return lines


@pytest.fixture
def voters(tmp_path: Path) -> Iterator[Voters]:
    voters = Voters(tmp_path)
    yield voters
    voters.kill_all()


def test_no_acknowledged_append_is_lost(voters: Voters) -> None:
    rng = random.Random(1)
    for node in (1, 2, 3):
        voters.start(node, "write")
    voters.await_acks(0)
    for count in range(ROUNDS):
        voters.await_acks(len(voters.acked()) + 100 + rng.randrange(200))
        victims = rng.sample((1, 2, 3), (3, 1, 2)[count % 3])
        voters.kill(*victims)
        for node in victims:
            voters.start(node, "write")
        print(f"kill -9 of {victims}: next ack after {1000 * voters.await_acks(len(voters.acked())):.0f} ms")
    voters.kill_all()
    acked = voters.acked()
    for node in (1, 2, 3):
        voters.start(node, "idle")
    deadline = time.monotonic() + START_S
    while True:
        states = [voters.ask(node) for node in (1, 2, 3)]
        if len({state["digest"] for state in states}) == 1 and acked <= set(states[0]["names"]):
            break
        missing = acked - set(states[0]["names"])
        assert time.monotonic() < deadline, f"{len(missing)} lost, offsets {[s['offset'] for s in states]}"
    print(f"{len(acked)} acknowledged, none lost")
