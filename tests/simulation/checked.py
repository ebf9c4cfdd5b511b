"""Which seeds are played when nobody is asked: by CI for every change, and by the nightly run."""

from __future__ import annotations

from collections.abc import Mapping

from tests.simulation import profiles
from tests.simulation.many import Job

FIRST = ("swarm", "network", "reconfigure", "unclean", "disk")
"""Those that CI has played from the beginning: of them it plays fixed seeds too."""
LEFT_OUT: Mapping[str, str] = {}
"""Profile -> why a fresh seed of it that fails would be no news. Nothing here: every profile takes its turn."""
PROFILES = tuple(profile for profile in profiles.PROFILES if profile not in LEFT_OUT)

FIXED: tuple[Job, ...] = (
    *((seed, "swarm") for seed in range(1, 7)),
    *((1, profile) for profile in FIRST if profile != "swarm"),
    *((seed, "rare") for seed in (1, 5)),
)

SECONDS = 90.0
"""Wall time after which CI begins no run: of the two minutes that it may take. The fixed ones come first."""
FRESH_MAX = 4
"""Of each profile. A quiet machine plays them all in that time, so that a change is checked alike wherever it is; a
busy one gets through every profile before it begins with the next seed of the first."""

NIGHTLY_SEEDS = range(1, 101)
"""Of all profiles: so many that a state of `states.NIGHTLY` which a run in a thousand reaches is likely to be met."""


def described() -> str:
    seeds: dict[str, list[str]] = {}
    for seed, profile in FIXED:
        seeds.setdefault(profile, []).append(str(seed))
    return "; ".join(f"{profile} {' '.join(numbers)}" for profile, numbers in seeds.items())
