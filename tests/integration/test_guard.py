"""Nodes end with the test process that started them, also when that is killed with -9 in the middle of a test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid

from tests import guard
from tests.integration.support.waiting import wait_until

MARK = "KRAFT_TEST_GUARDED"
GUARDED = f"""
import os, signal, subprocess, sys
from tests import guard

print(guard.start("{MARK}", os.environ["{MARK}"]).pid, flush=True)
for _ in range(2):
    child = subprocess.Popen(["sleep", "60"], start_new_session=True, stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
child.send_signal(signal.SIGSTOP)
sys.stdin.read()
"""


def test_what_a_killed_process_leaves_behind_ends_even_when_it_is_paused() -> None:
    value = str(uuid.uuid4())
    command = [sys.executable, "-c", GUARDED]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, MARK: value, "PYTHONPATH": os.getcwd()},
    ) as guarded:
        assert guarded.stdout is not None
        guards = int(guarded.stdout.readline())
        children = [int(guarded.stdout.readline()) for _ in range(2)]
        wait_until(lambda: set(children) <= set(guard.marked(MARK, value)), what="the mark of what has just begun")
        guarded.send_signal(signal.SIGKILL)
        wait_until(lambda: not guard.marked(MARK, value), what="the end of the children")
        wait_until(lambda: not _runs(guards), what="the end of their guard")


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except FileNotFoundError:
        return False
