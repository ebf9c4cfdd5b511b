"""Strangers decide how often something happens to a node, and not how much it logs."""

from __future__ import annotations

import logging

from kraft.runtime.logs import LeaveOut
from metadata.rate_limited_log import LINES_MAX, WINDOW_MS, RateLimitedLog


def record(number: int, *, at_s: float, line: int = 7) -> logging.LogRecord:
    made = logging.LogRecord("kraft", logging.WARNING, "tcp.py", line, "closing %d", (number,), None)
    made.created = at_s
    return made


def test_the_same_is_said_a_few_times_and_then_counted():
    line = RateLimitedLog()
    said = [line.admit(float(now_ms)) for now_ms in range(1_000)]
    assert said == [0] * LINES_MAX + [None] * (1_000 - LINES_MAX)
    assert line.admit(WINDOW_MS) == 1_000 - LINES_MAX
    assert line.admit(WINDOW_MS) == 0


def test_what_is_rare_is_always_said():
    line = RateLimitedLog()
    assert [line.admit(now_ms) for now_ms in range(0, 1_000 * WINDOW_MS, WINDOW_MS)] == [0] * 1_000


def test_a_clock_that_is_set_back_silences_nothing():
    line = RateLimitedLog()
    for _ in range(2 * LINES_MAX):
        line.admit(1e12)
    assert line.admit(0) == LINES_MAX


def test_a_line_that_is_logged_too_often_is_left_out_and_others_are_not():
    leave_out = LeaveOut()
    kept = [each for number in range(1_000) if leave_out.filter(each := record(number, at_s=5.0))]
    assert [each.getMessage() for each in kept] == [f"closing {number}" for number in range(LINES_MAX)]
    assert leave_out.filter(record(1, at_s=5.0, line=8)), "another line"
    later = record(2, at_s=5.0 + WINDOW_MS / 1_000)
    assert leave_out.filter(later)
    assert later.getMessage() == f"closing 2 ({1_000 - LINES_MAX} more like this were left out)"
