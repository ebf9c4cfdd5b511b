"""Waiting with a deadline: poll, never sleep for a guess."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
POLL_S = 0.02


class NotYet(AssertionError):
    """What was asked has no answer now: a failure, but for who waits until it has one."""


def wait_until(predicate: Callable[[], T], *, deadline_s: float = 30, what: str = "a condition") -> T:
    """The first true value of the predicate; NotYet counts as no value. Raises AssertionError at the deadline."""
    end = time.monotonic() + deadline_s
    pause = threading.Event()
    while not (value := _value_now(predicate)) or isinstance(value, NotYet):
        assert time.monotonic() < end, f"waited {deadline_s} s for {what}; last value {value!r}"
        pause.wait(POLL_S)
    return value


def _value_now(predicate: Callable[[], T]) -> T | NotYet:
    try:
        return predicate()
    except NotYet as why:
        return why
