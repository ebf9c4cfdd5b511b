"""The documented example on a slice of its data; `python examples/flights/run.py` takes all of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "flights" / "run.py"
FLIGHTS = 8_000


@pytest.mark.long
def test_no_flight_is_lost_in_failures():
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--rows", str(FLIGHTS), "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert (result["lost"], result["changed"], result["out_of_order"]) == (0, 0, 0)
    assert result["flights"] == FLIGHTS
    assert result["read"] - result["duplicates"] == FLIGHTS
    story = done.stderr.splitlines()
    assert [any(word in line for line in story) for word in ("leader of", "active controller", "paused")] == [True] * 3
