"""The example of docs/testing.md with confluent-kafka: its tests pass for somebody who has copied the folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kraft.launcher.python import PYTHON

EXAMPLE = Path(__file__).parents[2] / "examples" / "orders"
PLUGIN = ("-p", "no:kraft", "-p", "kraft.testing.plugin", "-p", "no:schemathesis", "-p", "no:cacheprovider")
"""By its module, whether this installation knows of the entry point or not."""
LIMIT_S = 600


def test_the_order_service_on_confluent_kafka_passes_its_tests(tmp_path: Path):
    shutil.copytree(EXAMPLE, tmp_path / "orders")
    command = [sys.executable, "-P", "-m", "pytest", *PLUGIN, "test_confluent_orders.py"]
    done = subprocess.run(command, cwd=tmp_path / "orders", capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def under_exec(folder: Path, *command: str) -> str:
    """What a suite in another language prints that `kraft exec --faults` has run."""
    variables = os.environ | {"PATH": f"{with_kraft(folder.parent)}:{os.environ['PATH']}"}
    done = subprocess.run(
        [*PYTHON, "-m", "kraft", "exec", "--faults", "--", *command],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def with_kraft(folder: Path) -> Path:
    """A folder with the command, as where the package is installed."""
    found = folder / "bin"
    found.mkdir()
    command = found / "kraft"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m kraft "$@"\n')
    command.chmod(0o755)
    return found


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S)
@pytest.mark.skipif(shutil.which("go") is None, reason="needs Go, and its modules")
def test_the_suite_in_go_passes(tmp_path: Path):
    shutil.copytree(EXAMPLE / "go", tmp_path / "go")
    assert under_exec(tmp_path / "go", "go", "test", "-count=1", "./...").startswith("ok")


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S)
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js, and npm's packages")
def test_the_suite_in_node_passes(tmp_path: Path):
    shutil.copytree(EXAMPLE / "node", tmp_path / "node")
    subprocess.run(["npm", "install"], cwd=tmp_path / "node", check=True, capture_output=True, timeout=LIMIT_S)
    said = under_exec(tmp_path / "node", "npm", "test")
    assert "fail 0" in said
