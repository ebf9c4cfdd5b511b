"""Ranges of records with the same fate and the same cause, each with one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kraft.chaos.checkers.findings import Explanation
from kraft.chaos.checkers.ledger import UNKNOWN, Ledger
from kraft.chaos.checkers.verdict import NOT_EXPLAINED, Range

RANGES_MAX: Final = 1_000
"""Ranges beyond this are merged into the last one of their kind."""


@dataclass(slots=True)
class _Group:
    explanation: Explanation
    first: int
    last: int
    records: int = 0
    first_offset: int = UNKNOWN
    last_offset: int = UNKNOWN
    at_us: int = 0


class Ranges:
    """Grouped by partition, acks and explanation, in the order in which they were first seen."""

    def __init__(self, ledger: Ledger, *, nouns: tuple[str, str] = ("record", "records")) -> None:
        """`nouns`: what is added, in singular and plural."""
        self._ledger = ledger
        self._nouns = nouns
        self._groups: dict[tuple[int, str, Explanation], _Group] = {}

    def add(self, slot: int, *, offset: int, explanation: Explanation) -> None:
        """Add a record; `offset` is the offset to show, or UNKNOWN."""
        key = (self._ledger.partition_of(slot), self._ledger.acks(slot), explanation)
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= RANGES_MAX:
                group = self._groups[next(reversed(self._groups))]
            else:
                at_us = self._ledger.complete_us[self._ledger.operation[slot]]
                group = self._groups[key] = _Group(explanation, slot, slot, at_us=at_us)
        group.records += 1
        group.at_us = min(group.at_us, self._ledger.complete_us[self._ledger.operation[slot]])
        if offset == UNKNOWN:
            group.last = slot
            return
        if group.first_offset == UNKNOWN or offset < group.first_offset:
            group.first_offset, group.first = offset, slot
        if offset >= group.last_offset:
            group.last_offset, group.last = offset, slot

    def finished(self) -> tuple[Range, ...]:
        return tuple(self._range(partition, acks, group) for (partition, acks, _), group in self._groups.items())

    def _range(self, partition: int, acks: str, group: _Group) -> Range:
        topic, number = self._ledger.partitions[partition]
        text = self._ledger.values.text
        has_offsets = group.first_offset != UNKNOWN
        count = _count(group.records, self._nouns)
        return Range(
            topic=topic,
            partition=number,
            first_offset=group.first_offset if has_offsets else None,
            last_offset=group.last_offset if has_offsets else None,
            records=group.records,
            acks=acks,
            first_value=text(group.first),
            last_value=text(group.last),
            at_us=group.at_us,
            cause=f"{_where(group)} ({count}, acks={acks}): {group.explanation.text or NOT_EXPLAINED}",
            reason=group.explanation.reason,
        )


def _where(group: _Group) -> str:
    if group.first_offset == UNKNOWN:
        return "unknown offset"
    if group.first_offset == group.last_offset:
        return f"offset {group.first_offset}"
    return f"offset {group.first_offset}-{group.last_offset}"


def _count(number: int, nouns: tuple[str, str]) -> str:
    one, several = nouns
    return f"1 {one}" if number == 1 else f"{number} {several}"
