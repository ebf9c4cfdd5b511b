"""A soak on real processes: a minute that ends clean, and bugs planted into the nodes that it finds."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from kraft.chaos.result import AS_EXPECTED, NOT_AS_EXPECTED
from kraft.chaos.soak.plan import SoakOptions
from kraft.chaos.soak.result import SoakResult
from kraft.chaos.soak.session import soak
from tests.integration.planted.bugs import planted_in_nodes

pytestmark = pytest.mark.slow

SEED = 1


def run(options: SoakOptions) -> SoakResult:
    result = asyncio.run(soak(options, say=print))
    if result.directory is not None:
        shutil.rmtree(result.directory)
    return result


@pytest.mark.timeout(900)
def test_a_minute_ends_whole_with_every_record_there() -> None:
    result = run(SoakOptions(minutes=1, seed=SEED, partitions=200, pace_s=2.0))
    assert result.exit_code == AS_EXPECTED, result.problems
    assert result.verdict is not None
    assert result.verdict.counts.kept > 500
    assert result.verdict.counts.lost == result.verdict.counts.duplicated == 0
    assert len(result.whole_ms) >= 2
    assert sum(result.faults.values()) > 10
    assert result.group.joined > 2
    assert result.group.commits > 20
    assert {growth.node for growth in result.growth} == {1, 2, 3}


@pytest.mark.timeout(900)
def test_acknowledgements_that_come_too_early_are_found() -> None:
    with planted_in_nodes("acks_all_too_early"):
        result = run(SoakOptions(minutes=1.5, seed=SEED, partitions=20, pace_s=1.0, rate=300))
    assert result.exit_code == NOT_AS_EXPECTED, result
    assert any(problem.startswith("lost: ") for problem in result.problems), result.problems
