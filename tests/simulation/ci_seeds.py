"""The seeds that CI plays for every change, and those of the nightly run."""

from __future__ import annotations

from collections.abc import Mapping

from tests.simulation import profiles
from tests.simulation.seed_runs import Job

FIRST = ("swarm", "network", "reconfigure", "unclean", "disk")
"""The first profiles of CI, of which it also plays fixed seeds."""
LEFT_OUT: Mapping[str, str] = {}
"""Profile -> a known failure of its fresh seeds. Empty: every profile takes its turn."""
PROFILES = tuple(profile for profile in profiles.PROFILES if profile not in LEFT_OUT)

FIXED: tuple[Job, ...] = (
    *((seed, "swarm") for seed in range(1, 7)),
    *((1, profile) for profile in FIRST if profile != "swarm"),
    *((seed, "rare") for seed in (1, 5)),
)

SECONDS = 90.0
"""The wall time after which CI begins no run. The fixed seeds come first."""
FRESH_MAX = 4
"""The fresh seeds of each profile. A quiet machine plays them all in that time, so that a change is checked alike
everywhere; a busy one plays a seed of every profile before the next seed of the first."""

NIGHTLY_SEEDS = range(1, 101)
"""The seeds of all profiles: a state of `states.NIGHTLY` that one run in a thousand reaches is likely to be reached."""


def described() -> str:
    seeds: dict[str, list[str]] = {}
    for seed, profile in FIXED:
        seeds.setdefault(profile, []).append(str(seed))
    return "; ".join(f"{profile} {' '.join(numbers)}" for profile, numbers in seeds.items())
