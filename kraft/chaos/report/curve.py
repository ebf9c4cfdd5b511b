"""Writes over time, from one pass over the history: records per second, acknowledged, refused or unknown.

A gap in availability is a time in which clients wrote to a partition, and no write was acknowledged.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from kraft.chaos.history import Operation, Produce

BUCKETS_MAX: Final = 240
BUCKETS_MIN: Final = 40
WRITES_PER_BUCKET: Final = 8
"""The least width of a bucket; a smaller one shows the rhythm of clients instead of their rate."""
FINE_BUCKETS: Final = 4_000
"""The resolution of gaps."""
GAP_US_MIN: Final = 300_000
GAPS_MAX: Final = 200
"""The most gaps; the longest ones are kept."""
WAITING_SHARE: Final = 0.5
"""A pause is a gap if a write failed in it, or if writes were waiting in at least this share of it."""


@dataclass(frozen=True, slots=True)
class Gap:
    topic: str
    partition: int
    from_us: int
    until_us: int


@dataclass(slots=True)
class Curve:
    from_us: int
    until_us: int
    ok: array[int]
    fail: array[int]
    info: array[int]
    gaps: list[Gap] = field(default_factory=list)

    @property
    def buckets(self) -> int:
        return len(self.ok)

    @property
    def bucket_us(self) -> float:
        return max(self.until_us - self.from_us, 1) / self.buckets

    @property
    def highest(self) -> int:
        return max(sum(bucket) for bucket in zip(self.ok, self.info, self.fail, strict=True))

    def per_second(self, records: int) -> float:
        return records / (self.bucket_us / 1e6)


class _Partition:
    def __init__(self, from_us: int) -> None:
        self.last_ok_us = from_us
        self.has_ok = False
        self.pauses: list[tuple[int, int]] = []
        self.waiting = array("i", bytes(4 * (FINE_BUCKETS + 1)))
        """Differences: +1 where a write begins to wait, -1 where it ends."""
        self.refused = bytearray(FINE_BUCKETS + 1)


def curve(operations: Iterable[Operation], *, from_us: int, until_us: int, writes: int) -> Curve:
    """The curve; `writes` is the number of all writes."""
    buckets = min(max(writes // WRITES_PER_BUCKET, BUCKETS_MIN), BUCKETS_MAX)
    ok, fail, info = (array("q", bytes(8 * buckets)) for _ in range(3))
    drawn = Curve(from_us, until_us, ok, fail, info)
    counts = {"ok": drawn.ok, "fail": drawn.fail, "info": drawn.info}
    partitions: dict[tuple[str, int], _Partition] = {}
    span = max(until_us - from_us, 1)
    for operation in operations:
        if not isinstance(operation, Produce):
            continue
        at = min(max((operation.complete_us - from_us) * buckets // span, 0), buckets - 1)
        counts[operation.outcome][at] += len(operation.records)
        key = (operation.topic, operation.partition)
        partition = partitions.get(key)
        if partition is None:
            partition = partitions[key] = _Partition(from_us)
        _note(partition, operation, from_us, span)
    for (topic, number), partition in partitions.items():
        _finish(partition, until_us)
        drawn.gaps += [Gap(topic, number, *pause) for pause in _gaps(partition, from_us, span)]
    drawn.gaps = sorted(drawn.gaps, key=lambda gap: gap.from_us - gap.until_us)[:GAPS_MAX]
    drawn.gaps.sort(key=lambda gap: gap.from_us)
    return drawn


def _note(partition: _Partition, sent: Produce, from_us: int, span: int) -> None:
    begun = min(max((sent.invoke_us - from_us) * FINE_BUCKETS // span, 0), FINE_BUCKETS - 1)
    ended = min(max((sent.complete_us - from_us) * FINE_BUCKETS // span, begun), FINE_BUCKETS - 1) + 1
    partition.waiting[begun] += 1
    partition.waiting[ended] -= 1
    if sent.outcome != "ok":
        partition.refused[ended] = 1
        return
    if partition.has_ok and sent.complete_us - partition.last_ok_us >= GAP_US_MIN:
        partition.pauses.append((partition.last_ok_us, sent.complete_us))
    partition.has_ok = True
    partition.last_ok_us = max(partition.last_ok_us, sent.complete_us)


def _finish(partition: _Partition, until_us: int) -> None:
    if until_us - partition.last_ok_us >= GAP_US_MIN:
        partition.pauses.append((partition.last_ok_us, until_us))


def _gaps(partition: _Partition, from_us: int, span: int) -> Iterable[tuple[int, int]]:
    waiting, now = bytearray(FINE_BUCKETS), 0
    for at in range(FINE_BUCKETS):
        now += partition.waiting[at]
        waiting[at] = now > 0
    for begin, end in partition.pauses:
        first = (begin - from_us) * FINE_BUCKETS // span
        last = max((end - from_us) * FINE_BUCKETS // span, first + 1)
        is_refused = 1 in partition.refused[first : last + 1]
        if is_refused or waiting[first:last].count(1) >= WAITING_SHARE * (last - first):
            yield begin, end
