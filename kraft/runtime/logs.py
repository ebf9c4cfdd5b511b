"""A node's log lines on standard error: each line of the source is logged a few times in ten seconds, then only
counted.

Clients decide what a node logs, as often as they like; the file behind its standard error has no limit.
"""

from __future__ import annotations

import logging
import sys

from metadata.rate_limited_log import RateLimitedLog


class LeaveOut(logging.Filter):
    """Counts by the place in the source, so that the number of counters is that of the program's own log lines."""

    def __init__(self) -> None:
        super().__init__()
        self._places: dict[tuple[str, int], RateLimitedLog] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        line = self._places.setdefault((record.pathname, record.lineno), RateLimitedLog())
        left_out = line.admit(record.created * 1_000)
        if left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out} more like this were left out)", ()
        return left_out is not None


def log_to_standard_error() -> None:
    """Log warnings and errors. Called once, by the process of a node."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(LeaveOut())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
