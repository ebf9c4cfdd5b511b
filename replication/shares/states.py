"""Delivery states of records in a share partition, and the state batches that stand in the log of the share coordinator
(KIP-932). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from itertools import pairwise
from typing import Final, NamedTuple

NO_OFFSET: Final = -1
"""A start offset that nobody has decided yet: share.auto.offset.reset decides it at the first use."""
NO_COUNT: Final = -1
"""A delivery complete count that is not known (KIP-1226)."""


class DeliveryState(IntEnum):
    """Kafka's numbers. ACQUIRED is soft: it never leaves the leader."""

    AVAILABLE = 0
    ACQUIRED = 1
    ACKNOWLEDGED = 2
    ARCHIVING = 3
    """On its way to the dead letter topic (KIP-1191)."""
    ARCHIVED = 4


TERMINAL: Final = frozenset({DeliveryState.ACKNOWLEDGED, DeliveryState.ARCHIVED})
"""A record in one of these states is never handed out again."""


class AcknowledgeType(IntEnum):
    """A consumer's word for what became of a record that it has acquired."""

    GAP = 0
    """The log has no such record: compacted away, or a control record."""
    ACCEPT = 1
    RELEASE = 2
    REJECT = 3
    RENEW = 4
    """It goes on working, and the lock begins again (KIP-1222)."""


class StateBatch(NamedTuple):
    """Offsets that follow each other, with one delivery state, one delivery count and one time."""

    first_offset: int
    last_offset: int
    state: int
    delivery_count: int
    not_before_ms: int = 0
    """When records that are available are handed out again, by the wall clock; 0: at once."""


def combined(batches: Iterable[StateBatch], newer: Iterable[StateBatch], start_offset: int) -> list[StateBatch]:
    """All batches as they stand after the newer ones came: in order, without overlaps, joined where neighbours are
    alike, and without what is below the start offset. Where two overlap, the higher delivery count wins, then the
    higher state, then the later time: writes of one leader only ever raise them, and one that arrives twice changes
    nothing.
    """
    kept: list[StateBatch] = []
    for first, last, *known in _resolved([*batches, *newer]):
        if last < start_offset:
            continue
        first = max(first, start_offset)
        before = kept[-1] if kept else None
        if before is not None and before[1:] == (first - 1, *known):
            kept[-1] = StateBatch(before.first_offset, last, *known)
        else:
            kept.append(StateBatch(first, last, *known))
    return kept


def _resolved(batches: list[StateBatch]) -> Iterator[StateBatch]:
    """The winner of each stretch between two bounds. At a bound batches begin or end, so a stretch has one winner."""
    opening = sorted(batches, key=lambda batch: batch.first_offset, reverse=True)
    bounds = sorted({bound for batch in batches for bound in (batch.first_offset, batch.last_offset + 1)})
    open_ones: list[StateBatch] = []
    for first, end in pairwise(bounds):
        while opening and opening[-1].first_offset == first:
            open_ones.append(opening.pop())
        open_ones = [batch for batch in open_ones if batch.last_offset >= first]
        if open_ones:
            winner = max(open_ones, key=lambda batch: (batch.delivery_count, batch.state, batch.not_before_ms))
            yield winner._replace(first_offset=first, last_offset=end - 1)
