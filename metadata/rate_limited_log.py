"""A limit on how often a line is logged: strangers decide how often something happens, and must not fill a log with it.

The first `LINES_MAX` lines in `WINDOW_MS` are admitted. Those that are left out are counted, and the count comes with
the next line that is admitted. Pure: the time is an argument.
"""

from __future__ import annotations

LINES_MAX = 20
WINDOW_MS = 10_000


class RateLimitedLog:
    """One line that may come too often."""

    __slots__ = ("_admitted", "_left_out", "_since_ms")

    def __init__(self) -> None:
        self._since_ms: float | None = None
        self._admitted = 0
        self._left_out = 0

    def admit(self, now_ms: float) -> int | None:
        """None when the line is to be left out; otherwise the number of lines that were left out before it."""
        if self._since_ms is None or now_ms - self._since_ms >= WINDOW_MS or now_ms < self._since_ms:
            self._since_ms, self._admitted = now_ms, 0
        if self._admitted >= LINES_MAX:
            self._left_out += 1
            return None
        self._admitted += 1
        left_out, self._left_out = self._left_out, 0
        return left_out
