"""How often the same is said: strangers decide how often something happens, and must not fill a log with it.

The first `SAID_MAX` times in `WINDOW_MS` are said; what is left out is counted, and the count is told with the next one
that is said. Pure: the time is an argument.
"""

from __future__ import annotations

SAID_MAX = 20
WINDOW_MS = 10_000


class Saying:
    """One thing that may be said too often."""

    __slots__ = ("_left_out", "_said", "_since_ms")

    def __init__(self) -> None:
        self._since_ms: float | None = None
        self._said = 0
        self._left_out = 0

    def once_more(self, now_ms: float) -> int | None:
        """None: leave it out. Otherwise say it, and how many were left out before it."""
        if self._since_ms is None or now_ms - self._since_ms >= WINDOW_MS or now_ms < self._since_ms:
            self._since_ms, self._said = now_ms, 0
        if self._said >= SAID_MAX:
            self._left_out += 1
            return None
        self._said += 1
        left_out, self._left_out = self._left_out, 0
        return left_out
