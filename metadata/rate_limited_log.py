"""A limit on how often a line is logged: clients that are not authenticated must not be able to fill a log.

The first `LINES_MAX` lines in `WINDOW_MS` are admitted, or another number of them. The others are left out and counted;
the next admitted line reports the count. Pure: the time is an argument.
"""

from __future__ import annotations

LINES_MAX = 20
WINDOW_MS = 10_000


class RateLimitedLog:
    """One line that may be logged too often."""

    __slots__ = ("_admitted", "_left_out", "_lines_max", "_since_ms")

    def __init__(self, lines_max: int = LINES_MAX) -> None:
        self._lines_max = lines_max
        self._since_ms: float | None = None
        self._admitted = 0
        self._left_out = 0

    def admit(self, now_ms: float) -> int | None:
        """None when the line is to be left out; otherwise the number of lines that were left out before it."""
        if self._since_ms is None or now_ms - self._since_ms >= WINDOW_MS or now_ms < self._since_ms:
            self._since_ms, self._admitted = now_ms, 0
        if self._admitted >= self._lines_max:
            self._left_out += 1
            return None
        self._admitted += 1
        left_out, self._left_out = self._left_out, 0
        return left_out
