"""Seeded runs of the whole voter. `KRAFT_QUORUM_SEEDS=1000` runs more; a failing seed and plan are the test's name."""

from __future__ import annotations

import os

import pytest

from tests.simulation.quorum.plan import Plan
from tests.simulation.quorum.story import Story

SEEDS = int(os.environ.get("KRAFT_QUORUM_SEEDS", "17"))
"""Seeds of each plan."""
QUICK = 3
"""So many of them in the default run."""

PLANS = {
    "power": Plan(power=1.0),
    "kill": Plan(power=0.0, large_share=0.25),
    "snapshots": Plan(snapshot_bytes=40_000, large_share=0.1, outage=0.1, orphan=0.3),
    "five": Plan(nodes=5, orphan=0.3, large_share=0.05),
    "idle": Plan(snapshot_bytes=20_000, large_bytes=5_000, last_outage=True, drop=0.5),
}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize(
    "seed", [*range(min(QUICK, SEEDS)), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(QUICK, SEEDS))]
)
def test_seed(seed: int, name: str) -> None:
    Story(seed, PLANS[name]).play()
