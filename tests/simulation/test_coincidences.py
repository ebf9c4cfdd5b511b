"""The stories of `coincidences` reach their states; random faults never did, in twelve thousand runs."""

from __future__ import annotations

import pytest

from tests.simulation.plan_generator import draw_plan
from tests.simulation.rare_plan import PROFILE
from tests.simulation.run import play
from tests.simulation.shrink import story_of

TRIED_MAX = 8
"""Which seed gets there moves with every change of the product."""


@pytest.mark.parametrize(
    ("state", "seed"), [("metadata command dropped", 3), ("produce acks=-1 error 20", 5)], ids=["overtaken", "min-isr"]
)
def test_rare_state_is_reached(state: str, seed: int) -> None:
    for each in (seed, *range(1, TRIED_MAX)):
        result = play(draw_plan(each, PROFILE))
        assert result.failure is None, story_of(result)
        if result.states[state]:
            return
    pytest.fail(f"no seed up to {TRIED_MAX} reached {state!r}")
