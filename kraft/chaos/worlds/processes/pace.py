"""How often a run looks at its cluster, and how long it waits for its nodes. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from metadata.internal_topics import INTERNAL_TOPICS


def every_topic(_topic: str) -> bool:
    return True


def of_clients(topic: str) -> bool:
    """Not those in which the cluster keeps its own state: their records are no values that somebody sent."""
    return topic not in INTERNAL_TOPICS


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    poll_ms: int = 15
    """Between two looks while something is waited for."""
    sample_ms: int = 50
    """Between two looks at what leaders say of themselves."""
    is_sampled: Callable[[str], bool] = every_topic
    """Of which topics that is kept."""
    ask_timeout_ms: int = 500
    start_limit_ms: int = 60_000
    """Generous: a machine that is busy with other things takes long to load Python."""
    stop_limit_ms: int = 15_000
    change_limit_ms: int = 10_000
    """How long a change that nobody can carry out at the moment (no controller, no node) is tried again, and how long
    it is waited for until all nodes know of it."""
    change_timeout_ms: int = 5_000
    """Of one attempt."""


SHORT_STORIES: Final = Pace()
"""A few partitions and a story of seconds. A look at thousands of partitions costs what a story of them costs."""
