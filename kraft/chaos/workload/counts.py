"""Counts of records of one client so far."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counts:
    sent: int = 0
    acked: int = 0
    failed: int = 0
    """Certainly not written."""
    unknown: int = 0
    read: int = 0
    uncommitted: int = 0
    """Read by a member and not committed yet; held by a worker; or written in the open transaction of a producer."""
    accepted: int = 0
    """Records of a queue whose acceptance was answered with success."""
    committed: int = 0
    """Transactions."""
    aborted: int = 0
    """Transactions."""
    is_done: bool = False
    """True if the client sends no more and waits for no answer."""
    codes: Counter[int] = field(default_factory=Counter)
    """Kafka code -> records of operations that ended with this code."""

    def with_code(self, kafka_code: int) -> int:
        return self.codes[kafka_code]
