"""Undecided transactions of a node's partitions as metrics: what read_committed consumers wait for, and what hangs.

A transaction is late when it has been open for longer than any may be, and some minutes: its coordinator does not know
it, or cannot reach this partition (Kafka's PartitionsWithLateTransactionsCount, KIP-664).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kraft.broker.measures import Measure
from replication.manager.status import OpenTransactions

PARTITIONS_MAX = 1_000
"""With series of their own: those whose transactions have been open for longest."""
LATE_AFTER_MS = 5 * 60_000
"""Beyond transaction.max.timeout.ms (ProducerStateManager.LATE_TRANSACTION_BUFFER_MS)."""
LABELS = ("topic", "partition")


def transaction_measures(found: Sequence[OpenTransactions], *, max_timeout_ms: int) -> Sequence[Measure]:
    """`found`: of the node's partitions, the oldest first."""
    led = [each for each in found if each.is_leader]
    shown = led[:PARTITIONS_MAX]

    def measure(name: str, text: str, value: Callable[[OpenTransactions], float]) -> Measure:
        return Measure(
            name, text, "gauge", LABELS, [((each.topic, str(each.partition)), value(each)) for each in shown]
        )

    late = sum(each.oldest_ms > max_timeout_ms + LATE_AFTER_MS for each in led)
    return (
        measure("open_transactions", "Open transactions of a led partition that has any.", lambda it: it.count),
        measure("open_transactions_oldest_seconds", "Age of the oldest of them.", lambda it: it.oldest_ms / 1_000),
        measure(
            "last_stable_offset_lag",
            "Records below the high watermark that are not decided.",
            lambda it: it.last_stable_offset_lag,
        ),
        Measure(
            "partitions_with_late_transactions",
            "Led partitions with a transaction that is open for longer than any may be.",
            "gauge",
            (),
            [((), float(late))],
        ),
    )
