"""Stories of retries and duplicates with clients that speak HTTP, and with aiokafka, which tries again by itself."""

from __future__ import annotations

import asyncio

import pytest

from kraft.chaos.catalogue import SCENARIOS
from kraft.chaos.live import NobodyWatches
from kraft.chaos.workload.client import Door
from kraft.chaos.worlds.processes.run import run_scenario

LIMIT_S = 120
STORIES = ("lost-answer-retry", "lost-answer-idempotent")


@pytest.mark.parametrize("clients", ["rest", "kafka"])
@pytest.mark.parametrize("name", STORIES)
def test_a_story_ends_as_expected_through_both_doors(name: str, clients: Door) -> None:
    told = run_scenario(SCENARIOS[name], seed=1, watcher=NobodyWatches(), clients=clients)
    result = asyncio.run(asyncio.wait_for(told, LIMIT_S))
    assert (result.outcome, result.problems) == ("as expected", ())
