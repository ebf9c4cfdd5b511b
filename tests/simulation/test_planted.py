"""Each planted fault is found: by one of the seeds noted with it, or by one of the first few of its profile.

Which seed finds what moves with every change of the product, so a few more are tried before this fails;
`python -m tests.simulation faults` then says which seeds find it now.
"""

from __future__ import annotations

import pytest

from tests.simulation.planted import PLANTED, look_for

TRIED_MAX = 12


FOUND = [name for name, fault in PLANTED.items() if fault.found_by]
"""The others are looked for by the command only."""


@pytest.mark.parametrize("name", FOUND)
def test_a_planted_fault_is_found(name: str) -> None:
    found = look_for(PLANTED[name], seeds_max=TRIED_MAX)
    assert found is not None, f"{PLANTED[name].what}: not found; see `python -m tests.simulation faults --only {name}`"
