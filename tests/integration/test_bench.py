"""`python -m bench --quick`: every row that needs a cluster is measured, and its own checks of what was done hold."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bench.__main__ import GROUPS, names

QUICK_S = 280


@pytest.mark.slow
def test_every_row_is_measured() -> None:
    command = [sys.executable, "-m", "bench", "--quick", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=QUICK_S, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    measured = [json.loads(line)["name"] for line in done.stdout.splitlines()]
    for name in names():
        about = "consumer" if name == GROUPS else name
        assert any(about in each for each in measured), (name, measured)


@pytest.mark.slow
def test_three_nodes_are_measured_on_one_loop() -> None:
    command = [sys.executable, "-m", "bench.one_loop", "--only", "json 1 x", "--batches", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=QUICK_S, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert " us, median " in done.stdout, done.stdout


@pytest.mark.slow
def test_the_cost_of_security_is_measured() -> None:
    command = [sys.executable, "-m", "bench.security", "--rounds", "1", "--records", "1000", "--acls", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=QUICK_S, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(1.00)") >= 3, done.stdout
