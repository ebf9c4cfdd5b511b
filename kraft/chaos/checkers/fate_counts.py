"""Counts of records by fate. A fate is a byte of `Ledger.flags`, so counting is a search for the byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from kraft.chaos.checkers.contents import FinalLogs
from kraft.chaos.checkers.ledger import (
    ACKS,
    ACKS_SHIFT,
    BEYOND,
    FAIL,
    FLAGS,
    FOUND,
    INFO,
    OK,
    OUTCOME_BITS,
    UNKNOWN,
    Ledger,
)
from kraft.chaos.checkers.verdict import Counts


def count_all(ledger: Ledger, final: FinalLogs) -> Counts:
    counts = _counts({flag: ledger.flags.count(flag) for flag in range(FLAGS)})
    counts.duplicated, counts.reordered = len(final.duplicates), len(final.reordered)
    return counts


def count_by_acks(ledger: Ledger, final: FinalLogs) -> dict[str, Counts]:
    """The counts for each value of acks that was used."""
    by_flag = {flag: ledger.flags.count(flag) for flag in range(FLAGS)}
    counted: dict[str, Counts] = {}
    for number, acks in enumerate(ACKS):
        own = {flag: count for flag, count in by_flag.items() if flag >> ACKS_SHIFT & 0b11 == number}
        if any(count for flag, count in own.items() if flag & OUTCOME_BITS):
            counted[acks] = _counts(own)
    for slot, _ in final.duplicates:
        counted[ledger.acks(slot)].duplicated += 1
    for slot, _ in final.reordered:
        counted[ledger.acks(slot)].reordered += 1
    return counted


def count_by_topic(ledger: Ledger, final: FinalLogs) -> dict[str, Counts]:
    """The counts for each topic that received records."""
    topics = sorted({topic for topic, _ in ledger.partitions})
    if len(topics) < 2:
        return {topic: count_all(ledger, final) for topic in topics}
    by_topic: dict[str, Counter[int]] = {topic: Counter() for topic in topics}
    pairs: Counter[tuple[int, int]] = Counter(
        (ledger.partition[operation], flag)
        for operation, flag in zip(ledger.operation, ledger.flags, strict=True)
        if operation != UNKNOWN
    )
    for (partition, flag), count in pairs.items():
        by_topic[ledger.partitions[partition][0]][flag] += count
    counted = {topic: _counts(flags) for topic, flags in by_topic.items()}
    for slot, _ in final.duplicates:
        counted[ledger.partitions[ledger.partition_of(slot)][0]].duplicated += 1
    for slot, _ in final.reordered:
        counted[ledger.partitions[ledger.partition_of(slot)][0]].reordered += 1
    return counted


def _counts(flags: Mapping[int, int]) -> Counts:
    counts = Counts()
    for flag, count in flags.items():
        found = bool(flag & FOUND)
        match flag & OUTCOME_BITS:
            case 1 if found:
                counts.kept += count
            case 1 if flag & BEYOND:
                counts.unread += count
            case 1:
                counts.lost += count
            case 2 if found:
                counts.phantom += count
            case 2:
                counts.failed += count
            case 3 if found:
                counts.unknown_kept += count
            case 3:
                counts.unknown_gone += count
    return counts


assert (OK, FAIL, INFO) == (1, 2, 3), "the cases above are these"
