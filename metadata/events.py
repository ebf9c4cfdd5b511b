"""Events that operators read: one line of JSON each in a node's `events.jsonl`. This is the side that emits them."""

from __future__ import annotations

from typing import Protocol


class Events(Protocol):
    def emit(self, event: str, /, **fields: object) -> None:
        """Record one event, e.g. `emit("isr_shrunk", topic="t", partition=0, ...)`. Never raises, never blocks.

        Fields are JSON values (str, int, float, bool, None, lists and dicts of them).
        """
        ...
