"""Waiting with a deadline: poll, never sleep for a guess."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
POLL_S = 0.02


def wait_until(predicate: Callable[[], T], *, deadline_s: float = 30, what: str = "a condition") -> T:
    """The first true value of the predicate. Raises AssertionError at the deadline."""
    end = time.monotonic() + deadline_s
    pause = threading.Event()
    while not (value := predicate()):
        assert time.monotonic() < end, f"waited {deadline_s} s for {what}; last value {value!r}"
        pause.wait(POLL_S)
    return value
