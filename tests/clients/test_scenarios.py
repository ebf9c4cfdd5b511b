"""Stories with aiokafka, which tries again by itself: those of retries and duplicates always and beside clients that
speak HTTP, the rest of the catalogue with `-m slow`."""

from __future__ import annotations

import asyncio

import pytest

from kraft.chaos.catalogue import SCENARIOS
from kraft.chaos.live import NobodyWatches
from kraft.chaos.workload.client import ClientProtocol
from kraft.chaos.worlds.processes.run import run_scenario

LIMIT_S = 120
STORIES = ("lost-answer-retry", "lost-answer-idempotent")


TOLD_BY_KAFKA_CLIENTS = [name for name, story in SCENARIOS.items() if not story.rest_only]


@pytest.mark.parametrize("clients", ["rest", "kafka"])
@pytest.mark.parametrize("name", STORIES)
def test_a_story_ends_as_expected_through_both_doors(name: str, clients: ClientProtocol) -> None:
    check(name, clients)


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize("name", [name for name in TOLD_BY_KAFKA_CLIENTS if name not in STORIES])
def test_every_other_story_ends_as_expected_with_kafka_clients(name: str) -> None:
    check(name, "kafka")


def check(name: str, clients: ClientProtocol) -> None:
    reported = run_scenario(SCENARIOS[name], seed=1, watcher=NobodyWatches(), clients=clients)
    result = asyncio.run(asyncio.wait_for(reported, LIMIT_S))
    assert (result.outcome, result.problems) == ("as expected", ())
