"""kill -9 of some or all voters while they write, with a snapshot every few hundred entries."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_ports, own_host
from tests.support.repetitions import few_and_many

POLL_S = 0.02
PAUSE = threading.Event()
"""Never set: waiting for it is a pause."""
ROUNDS = int(os.environ.get("KRAFT_QUORUM_KILL_ROUNDS", "5"))
START_S = 40
CONVERGE_S = 40
"""Python needs seconds to start three times on a loaded machine; then the heartbeats are enough."""


class Output:
    """The JSON lines that one process has printed so far; each is read once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.acked: set[str] = set()
        self.states: list[dict[str, Any]] = []
        self._position = 0

    def read(self) -> None:
        with self.path.open("rb") as file:
            file.seek(self._position)
            whole, _, _ = file.read().rpartition(b"\n")
        self._position += len(whole) + 1 if whole else 0
        for text in whole.splitlines():
            line = json.loads(text)
            assert "fatal" not in line, line
            if "acked" in line:
                self.acked.add(line["acked"])
            elif "offset" in line:
                self.states.append(line)


class Voters:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        host = own_host()
        self._addresses = [f"{host}:{port}" for port in free_ports(3, host=host)]
        self._processes: dict[int, subprocess.Popen[str]] = {}
        self._outputs: list[Output] = []
        self._current: dict[int, Output] = {}

    def start(self, node: int, mode: str) -> None:
        output = Output(self._directory / f"out{len(self._outputs)}")
        self._outputs.append(output)
        self._current[node] = output
        command = [sys.executable, "-m", "tests.unit.quorum.voter_process", str(node), str(self._directory), mode]
        with output.path.open("w") as out:
            self._processes[node] = subprocess.Popen(
                [*command, *self._addresses], stdin=subprocess.PIPE, stdout=out, text=True
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
        for output in self._outputs:
            output.read()
        return set().union(*(output.acked for output in self._outputs))

    def ask(self, node: int) -> dict[str, Any]:
        output = self._current[node]
        before = len(output.states)
        stdin = self._processes[node].stdin
        assert stdin is not None
        stdin.write("\n")
        stdin.flush()
        poll(lambda: len(output.states) > before, output.read, f"voter {node} does not answer")
        return output.states[-1]

    def await_acks(self, more_than: int) -> float:
        """Seconds until another append was acknowledged."""
        begun = time.monotonic()
        poll(lambda: len(self.acked()) > more_than, lambda: None, "no append was acknowledged")
        return time.monotonic() - begun


def poll(condition: Callable[[], bool], refresh: Callable[[], None], problem: str) -> None:
    deadline = time.monotonic() + START_S
    refresh()
    while not condition():
        assert time.monotonic() < deadline, problem
        PAUSE.wait(POLL_S)
        refresh()


@pytest.fixture
def voters(tmp_path: Path) -> Iterator[Voters]:
    voters = Voters(tmp_path)
    yield voters
    voters.kill_all()


@few_and_many("rounds", 1, ROUNDS)
def test_no_acknowledged_append_is_lost(voters: Voters, rounds: int) -> None:
    """All, one and two of the voters are killed within three rounds."""
    rng = random.Random(1)
    for node in (1, 2, 3):
        voters.start(node, "write")
    voters.await_acks(0)
    for count in range(rounds):
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
    deadline = time.monotonic() + CONVERGE_S
    while True:
        states = [voters.ask(node) for node in (1, 2, 3)]
        if len({state["digest"] for state in states}) == 1 and acked <= set(states[0]["names"]):
            break
        assert time.monotonic() < deadline, describe(states, acked)
        PAUSE.wait(POLL_S)
    print(f"{len(acked)} acknowledged, none lost")


def describe(states: list[dict[str, Any]], acked: set[str]) -> str:
    lines = [f"{len(acked - set(states[0]['names']))} acknowledged appends are not at voter 1"]
    for node, state in enumerate(states, 1):
        lines += [f"voter {node} at offset {state['offset']}: {state['voter']}", *state["events"]]
    return "\n".join(lines)
