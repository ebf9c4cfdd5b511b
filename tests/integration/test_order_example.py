"""The example that docs/testing.md is about: its tests pass, as somebody runs them who has copied the folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "orders"
PLUGIN = ("-p", "no:kraft", "-p", "kraft.testing.plugin", "-p", "no:schemathesis", "-p", "no:cacheprovider")
"""By its module, whether this installation knows of the entry point or not."""


@pytest.mark.long
def test_the_order_service_on_aiokafka_passes_its_tests(tmp_path: Path):
    shutil.copytree(EXAMPLE, tmp_path / "orders")
    command = [sys.executable, "-P", "-m", "pytest", *PLUGIN, "test_aiokafka_orders.py"]
    done = subprocess.run(command, cwd=tmp_path / "orders", capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
