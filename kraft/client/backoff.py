"""How long to wait before the next attempt: twice as long each time, up to a limit, with jitter (KIP-580). Pure."""

from __future__ import annotations

import random
from typing import Final

JITTER: Final = 0.2
"""Clients that failed together come back apart."""
DOUBLINGS_MAX: Final = 30


def backoff_ms(failures: int, *, base_ms: int, max_ms: int, rng: random.Random) -> float:
    """After so many failures in a row, the first of which is 1. 0 when `base_ms` is."""
    assert failures >= 1, failures
    grown: int = base_ms * 2 ** min(failures - 1, DOUBLINGS_MAX)
    return min(grown, max(max_ms, base_ms)) * rng.uniform(1 - JITTER, 1 + JITTER)
