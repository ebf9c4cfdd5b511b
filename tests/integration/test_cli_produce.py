"""`kraft produce` while the nodes that it talks to are killed: every line is stored, once, and in order."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import cycle
from pathlib import Path

import pytest

from tests.integration.support.cluster import Cluster

pytestmark = pytest.mark.slow

LINES = 30_000
PAUSE_S = 0.001
ROUNDS_MAX = 12
DEADLINE_S = 150


@pytest.fixture(scope="module")
def cluster(fragile_cluster: Cluster) -> Cluster:
    return fragile_cluster


def feed(process: subprocess.Popen[str], is_over: threading.Event) -> int:
    """Lines one after the other, until the killing is over and there are enough; how many."""
    assert process.stdin is not None
    number = 0
    while number < LINES or not is_over.is_set():
        process.stdin.write(f"{number % 100}:{number}\n")
        number += 1
        if number % 20 == 0:
            process.stdin.flush()
            time.sleep(PAUSE_S * 20)
    process.stdin.close()
    return number


def test_lines_are_stored_once_while_nodes_die(cluster: Cluster, tmp_path: Path) -> None:
    topic = "cli-produce-deaths"
    cluster.create_topic(topic, partitions=3)
    out, err = tmp_path / "out", tmp_path / "err"
    command = [sys.executable, "-m", "kraft", "produce", topic, "--separator", ":", "--json", "--data", cluster.data]
    is_over = threading.Event()
    fed: list[int] = []
    with out.open("w") as stdout, err.open("w") as stderr:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, text=True)
        feeder = threading.Thread(target=lambda: fed.append(feed(process, is_over)))
        feeder.start()
        try:
            kill_until_an_answer_is_lost(cluster, err)
        finally:
            is_over.set()
            feeder.join(DEADLINE_S)
            code = process.wait(DEADLINE_S)
    assert code == 0, err.read_text()
    places = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(places) == fed[0]
    stored = cluster_records(cluster, topic)
    assert Counter(stored.values()) == Counter(str(number) for number in range(fed[0])), "all of them, each once"
    assert [stored[place["partition"], place["offset"]] for place in places] == [str(n) for n in range(fed[0])]


def kill_until_an_answer_is_lost(cluster: Cluster, err: Path) -> None:
    """One node after the other, the first to be asked first, until an attempt that may have been carried out had to be
    repeated."""
    for _, victim in zip(range(ROUNDS_MAX), cycle(cluster.ids)):
        time.sleep(1)
        cluster.kill(victim)
        time.sleep(1)
        cluster.restart(victim)
        cluster.heal()
        if "after the request was sent" in err.read_text():
            return
    raise AssertionError(f"no answer was lost in {ROUNDS_MAX} rounds: nothing was proved\n{err.read_text()}")


def cluster_records(cluster: Cluster, topic: str) -> dict[tuple[int, int], str]:
    command = [sys.executable, "-m", "kraft", "consume", topic, "--json", "--data", cluster.data]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return {(record["partition"], record["offset"]): record["value"] for record in records}
