"""Intervals and timeouts of a run. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from metadata.internal_topics import INTERNAL_TOPICS


def every_topic(_topic: str) -> bool:
    return True


def of_clients(topic: str) -> bool:
    """False for internal topics: their records are not values of clients."""
    return topic not in INTERNAL_TOPICS


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    poll_ms: int = 15
    """Interval of looks while a run waits for a condition."""
    sample_ms: int = 50
    """Interval of samples of leaders."""
    is_sampled: Callable[[str], bool] = every_topic
    """The topics whose samples are kept."""
    ask_timeout_ms: int = 500
    start_limit_ms: int = 60_000
    """Long: a busy machine needs much time to load Python."""
    stop_limit_ms: int = 15_000
    change_limit_ms: int = 10_000
    """How long a change is retried while no node can carry it out, and how long a run waits until all nodes know it."""
    change_timeout_ms: int = 5_000
    """The timeout of one attempt."""


SHORT_STORIES: Final = Pace()
"""The pace of a story of seconds with few partitions. A look at thousands of partitions is expensive."""
