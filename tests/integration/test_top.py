"""`kraft top` in a real terminal of 80 columns and 24 rows: each view, and the keys that break and heal; `kraft
explain` names causes that are planted."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kraft.cli.top_view import KEYS, LINK_KEYS
from kraft.testing.faults import FaultCluster
from tests.integration.support.terminal import DEADLINE_S, Terminal

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cluster() -> Iterator[FaultCluster]:
    with FaultCluster(nodes=3) as found:
        found.create_topic("flights", replicas=3)
        yield found


def kraft(cluster: FaultCluster, *words: str) -> Any:
    command = [sys.executable, "-m", "kraft", *words, "--json", "--data", str(cluster.data)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=DEADLINE_S).stdout)


def explained(cluster: FaultCluster, *words: str, cause: str) -> dict[str, Any]:
    """The explanation, once it names the cause."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        found: dict[str, Any] = kraft(cluster, "explain", *words)
        if found["cause"] == cause or time.monotonic() > deadline:
            assert found["cause"] == cause, found
            return found


@pytest.fixture
def terminal(cluster: FaultCluster) -> Iterator[Terminal]:
    made = Terminal(sys.executable, "-m", "kraft", "top", "--data", str(cluster.data))
    try:
        yield made
        made.press("x")
        assert made.end() == 0
        assert not made.display.overflowed
    finally:
        made.process.kill()


@pytest.mark.timeout(240)
def test_keys_pause_cut_kill_and_heal(cluster: FaultCluster, terminal: Terminal) -> None:
    leader = cluster.leader_of("flights")
    one, other = (each for each in (1, 2, 3) if each != leader)
    shown = terminal.until("flights-0")
    assert shown.splitlines()[-2:] == [KEYS, LINK_KEYS]
    terminal.press(f"K{one}\r\r")
    terminal.until(f"kraft fault kill {one}: done")
    terminal.until(lambda text: "not in the ISR" in text and f"  kraft node restart {one}\n" in text)
    found = explained(cluster, "partition", "flights", "0", cause="broker_fenced")
    assert (found["state"], found["fix"]) == ("under-replicated", [f"kraft node restart {one}"])
    assert explained(cluster, "node", str(one), cause="not_answering")["state"] == "down"
    top = kraft(cluster, "top")
    assert (top["partitions"][0]["standing"], top["groups"]) == ("behind", [])
    terminal.press(f"R{one}\r")
    terminal.until(f"kraft fault restart {one}: done")
    terminal.until("flights-0: ok")
    terminal.press(f"C{leader}-{other}\r")
    terminal.until("flights-0: BEHIND")
    terminal.press(f"P{one}\r")
    terminal.until(f"kraft fault pause {one}: done")
    terminal.press("H")
    terminal.until("kraft fault heal: done")
    terminal.until("flights-0: ok")
    explained(cluster, "partition", "flights", "0", cause="")


@pytest.mark.timeout(240)
def test_groups_and_queues_have_a_view(cluster: FaultCluster, terminal: Terminal) -> None:
    name = "readers-of-all-the-flights-of-the-world"
    for command in (
        ["produce", "flights", "late"],
        ["consume", "flights", "--group", name, "--max", "1", "--timeout", "9000"],
    ):
        done = [sys.executable, "-m", "kraft", *command, "--data", str(cluster.data)]
        subprocess.run(done, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=DEADLINE_S)
    kraft(cluster, "queues", "create", "mailers", "flights")
    terminal.press("g")
    shown = terminal.until("..ghts-of-the-world EMPTY")
    assert shown.splitlines()[0].split() == ["group", "state", "members", "lag"]
    assert shown.splitlines()[1].split() == ["readers-of-all-t..ghts-of-the-world", "EMPTY", "0", "0"]
    terminal.press("u")
    shown = terminal.until("mailers")
    assert shown.splitlines()[0].split() == ["queue", "state", "members", "lag"]
    assert shown.splitlines()[-2:] == [KEYS, LINK_KEYS]
    terminal.press("c")
    terminal.until("quorum leader")


@pytest.mark.timeout(240)
def test_a_quorum_without_a_leader_is_explained_by_the_node_that_is_left(cluster: FaultCluster, tmp_path: Path) -> None:
    cluster.kill(2, 3)
    try:
        found = explained(cluster, "node", "1", cause="quorum_without_leader")
        assert "2 are needed" in found["summary"]
        assert explained(cluster, "partition", "flights", "0", cause="quorum_without_leader")["views"] == []
    finally:
        cluster.restart(2, 3)
