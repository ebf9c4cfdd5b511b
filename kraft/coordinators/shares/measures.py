"""What members of share groups did with their records, as metrics by group and topic.

A share partition counts since its leader began. What was counted before its end is added to the totals, so that a
counter never falls while the node runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, TypeAlias

from kraft.broker.measures import Measure
from replication.shares.partition import ShareCounts, SharePartition

SERIES_MAX: Final = 1_000
"""Groups and topics with series of their own; those that come later are counted together, without names."""
OTHERS: Final = ("", "")
LABELS: Final = ("group", "topic")

Names: TypeAlias = tuple[str, str]
"""Group and topic."""
_COUNTERS: Final[Sequence[tuple[str, str, Callable[[ShareCounts], int]]]] = (
    ("share_records_redelivered", "Records handed out again.", lambda it: it.redelivered),
    ("share_records_accepted", "Records accepted.", lambda it: it.accepted),
    ("share_records_released", "Records released, by members or with their sessions.", lambda it: it.released),
    ("share_locks_timed_out", "Records whose lock ran out.", lambda it: it.timed_out),
    (
        "share_records_lost_by_retention",
        "Records that the log deleted before anybody accepted them.",
        lambda it: it.lost_by_retention,
    ),
)
_REASONS: Final[Sequence[tuple[str, Callable[[ShareCounts], int]]]] = (
    ("rejected", lambda it: it.rejected),
    ("delivery_count_limit", lambda it: it.archived_at_limit),
    ("gap", lambda it: it.gaps),
    ("expired", lambda it: it.expired),
)


class ShareTotals:
    """The totals of one broker."""

    def __init__(self) -> None:
        self._ended: dict[Names, ShareCounts] = {}

    def add(self, names: Names, counts: ShareCounts) -> None:
        """A share partition has ended here."""
        _add(self._ended.setdefault(bounded(names, self._ended), ShareCounts()), counts)

    def measures(self, led: Iterable[tuple[Names, SharePartition]]) -> Sequence[Measure]:
        """With those that are led now."""
        totals: dict[Names, ShareCounts] = {}
        for names, counts in self._ended.items():
            _add(totals.setdefault(names, ShareCounts()), counts)
        in_flight: dict[Names, float] = {}
        for names, partition in led:
            shown = bounded(names, totals)
            _add(totals.setdefault(shown, ShareCounts()), partition.counts)
            in_flight[shown] = in_flight.get(shown, 0.0) + partition.in_flight
        each = totals.items()
        return (
            Measure(
                "share_records_in_flight",
                "Records of share groups that were handed out and are not done with.",
                "gauge",
                LABELS,
                list(in_flight.items()),
            ),
            _counter(
                "share_deliveries",
                "Records handed out, by the delivery count that they had.",
                ("delivery_count",),
                (((*names, str(n)), float(k)) for names, counts in each for n, k in sorted(counts.deliveries.items())),
            ),
            *(
                _counter(name, text, (), ((names, float(count(counts))) for names, counts in each))
                for name, text, count in _COUNTERS
            ),
            _counter(
                "share_records_archived",
                "Records that nobody gets any more, by reason.",
                ("reason",),
                (
                    ((*names, reason), float(count(counts)))
                    for names, counts in each
                    for reason, count in _REASONS
                    if count(counts)
                ),
            ),
        )


def _counter(
    name: str, text: str, further: tuple[str, ...], samples: Iterable[tuple[tuple[str, ...], float]]
) -> Measure:
    return Measure(name, text, "counter", (*LABELS, *further), list(samples))


def bounded(names: Names, known: Collection[Names]) -> Names:
    """The names of the series that counts what these name: their own one, or OTHERS."""
    return names if names in known or len(known) < SERIES_MAX else OTHERS


def _add(total: ShareCounts, counts: ShareCounts) -> None:
    for name in ShareCounts.__slots__:
        setattr(total, name, getattr(total, name) + getattr(counts, name))
