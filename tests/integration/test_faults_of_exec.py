"""`kraft exec --faults` and `kraft fault`: a suite in any language breaks its cluster from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kraft.launcher.processes import is_alive
from kraft.launcher.runfile import load_run
from tests.conftest import Processes
from tests.integration.support.waiting import wait_until

LIMIT_S = 240
KRAFT = (sys.executable, "-P", "-m", "kraft")
SUITE = """
import asyncio, contextlib, io, json, os, subprocess, sys
from aiokafka import AIOKafkaProducer
from kraft.cli.main import main

def program(*arguments):
    subprocess.run([sys.executable, "-P", "-m", "kraft", *arguments], stdout=subprocess.DEVNULL, check=True)

def kraft(*arguments, code=0):
    # In this process: to start Python anew for each command costs more than most of them.
    said, ended = io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        sys.argv[1:] = arguments
        try:
            main()
        except SystemExit as end:
            ended = end.code or 0
    assert ended == code, (arguments, ended, said.getvalue())
    return said.getvalue()

async def write(value, **options):
    producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"], acks="all", retry_backoff_ms=20, **options
    )
    await producer.start()
    try:
        return (await producer.send_and_wait("orders", value)).offset
    finally:
        await producer.stop()
"""


def run(script: str, folder: Path, *options: str) -> dict[str, Any]:
    """What the script has told, under `kraft exec`."""
    path = folder / "suite.py"
    path.write_text(SUITE + script)
    command = [*KRAFT, "exec", *options, "--", sys.executable, "-P", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    reported: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert not os.path.exists(reported["data"])
    return reported


@pytest.mark.long
def test_a_suite_breaks_links_and_answers(tmp_path: Path):
    reported = run(
        """
kraft("topics", "create", "orders", "--partitions", "1")
kraft("fault", "answer", "Produce", "--error", "6", "--times", "3")
first = asyncio.run(write(b"1"))
program("fault", "drop-answer", "Produce", "--topic", "orders")
second = asyncio.run(write(b"2"))
kraft("fault", "kill", "leader:orders-0")
third = asyncio.run(write(b"3"))
kraft("fault", "heal")
kraft("fault", "cut", "1-2")
kraft("fault", "slow", "clients-3", "--ms", "5")
kraft("fault", "heal")
wrong = [
    kraft("fault", "cut", "1-9", code=1),
    kraft("fault", "answer", "Produces", "--error", "6", code=1),
    kraft("fault", "kill", "leader:nothing-0", code=1),
    kraft("fault", "kill", "somebody", code=1),
]
print(json.dumps({"data": os.environ["KRAFT_DATA"], "offsets": [first, second, third], "wrong": wrong}))
""",
        tmp_path,
        "--faults",
    )
    assert reported["offsets"] == [0, 2, 3], "the second one was written twice"
    for text, said in zip(
        reported["wrong"], ("9 is no end", "did you mean Produce", "no partition nothing-0", "no node"), strict=True
    ):
        assert said in text


def test_without_links_nodes_can_be_broken_and_the_rest_reports_what_it_needs(tmp_path: Path):
    reported = run(
        """
kraft("topics", "create", "orders", "--partitions", "1")
asyncio.run(write(b"1"))
program("fault", "kill", "leader:orders")
second = asyncio.run(write(b"2"))
kraft("fault", "pause", "controller")
kraft("fault", "heal")
kraft("fault", "power-loss", "1")
kraft("fault", "heal")
links = ("cut", "1-2"), ("answer", "Produce", "--error", "6"), ("fill-disk", "1")
needs = [kraft("fault", *what, code=1) for what in links]
print(json.dumps({"data": os.environ["KRAFT_DATA"], "second": second, "needs": needs}))
""",
        tmp_path,
    )
    assert reported["second"] == 1
    assert all("kraft exec --faults" in text for text in reported["needs"])


def test_a_killed_exec_with_links_leaves_no_process_and_no_folder(tmp_path: Path, processes: Processes):
    write = f"open({str(tmp_path / 'told')!r}, 'w').write(os.environ['KRAFT_DATA'] + ' ' + str(os.getpid()))"
    script = f"import os, time; {write}; time.sleep(600)"
    started = processes.start([*KRAFT, "exec", "--faults", "--", sys.executable, "-P", "-c", script])
    reported = tmp_path / "told"
    wait_until(lambda: reported.exists() and " " in reported.read_text(), what="the command runs", deadline_s=LIMIT_S)
    data, pid = reported.read_text().split()
    found = load_run(data)
    assert found is not None
    started.send_signal(signal.SIGKILL)
    wait_until(lambda: not os.path.exists(Path(data).parent), what="the folder is gone", deadline_s=LIMIT_S)
    wait_until(lambda: not any(is_alive(node.pid) for node in found.nodes), what="no node runs", deadline_s=LIMIT_S)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), what="the command is gone", deadline_s=LIMIT_S)
