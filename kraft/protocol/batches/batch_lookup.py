"""Looking into one batch of a log for a record: at once if that is little work, else as something for a worker. Pure.

A search of a log runs on the event loop, and cannot wait there. It gets the answer that a worker
has to look (`NeedsWorker`), lets one do so, keeps what was found, and searches again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from kraft.protocol.batches.budget import Budget, OverBudget
from kraft.protocol.batches.header import header_at
from kraft.protocol.batches.records import plain_within
from kraft.protocol.primitives import Buffer

Found: TypeAlias = tuple[int, int] | None
"""Offset and timestamp of a record."""


class NeedsWorker(Exception):
    def __init__(self, base_offset: int, work: Callable[[], Found]) -> None:
        super().__init__(f"the batch at offset {base_offset} is too large to be looked at here")
        self.base_offset = base_offset
        self.work = work


class Looking:
    """What one search has found in the batches that a worker looked at, by base offset."""

    def __init__(self) -> None:
        self.known: dict[int, Found] = {}

    def into(self, batch: Buffer, function: Callable[[Buffer], Found]) -> Found:
        """Raises NeedsWorker, CorruptMessage."""
        header = header_at(batch)
        if header.base_offset in self.known:
            return self.known[header.base_offset]
        try:
            plain = plain_within(batch, header, Budget.inline())
        except OverBudget:
            raise NeedsWorker(header.base_offset, lambda: function(batch)) from None
        return function(plain)
