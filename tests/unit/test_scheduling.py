"""Tests that share a cluster run in one process, one after the other: it ends when one follows that does not use it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scheduling import SHARES, costly_first, together

INTEGRATION = Path(__file__).parents[1] / "integration"


@pytest.mark.parametrize("cluster", SHARES)
def test_who_uses_a_shared_cluster_is_listed(cluster: str) -> None:
    asked = re.compile(rf"\b{cluster}: Cluster\b")
    users = {
        path.relative_to(INTEGRATION).as_posix()
        for path in INTEGRATION.rglob("test_*.py")
        if asked.search(path.read_text(encoding="utf-8"))
    }
    assert users
    assert users <= set(SHARES[cluster]), "put them into tests/scheduling.py"
    assert all((INTEGRATION / file).is_file() for file in SHARES[cluster])


def test_files_that_share_stand_one_after_the_other() -> None:
    files = sorted(f"tests/integration/{path.relative_to(INTEGRATION)}" for path in INTEGRATION.rglob("test_*.py"))
    files += ["tests/simulation/test_world.py", "tests/unit/test_scheduling.py"]
    units = [together(f"{file}::test") for file in sorted(files, key=lambda file: costly_first(f"{file}::test"))]
    firsts = [unit for unit, before in zip(units, [None, *units], strict=False) if unit != before]
    assert len(firsts) == len(set(firsts))
    assert firsts[: len(SHARES)] == list(SHARES)


@pytest.mark.parametrize("options", [("-p", "no:xdist"), ("--pdb",)])
def test_a_single_process_can_run_the_tests(options: tuple[str, ...]) -> None:
    """A debugger needs the terminal of the process that fails; `-n` belongs on the command line, not into addopts."""
    command = [sys.executable, "-m", "pytest", "-q", *options, "tests/architecture/test_floors.py"]
    run = subprocess.run(
        command, cwd=INTEGRATION.parents[1], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout
