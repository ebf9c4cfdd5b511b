"""What /metrics tells of transactions that nobody has decided yet."""

from __future__ import annotations

from kraft.broker.transaction_measures import LATE_AFTER_MS, PARTITIONS_MAX, transaction_measures
from replication.manager.status import OpenTransactions

MAX_MS = 900_000


def of(partition: int, *, age_ms: int, count: int = 1, lag: int = 5, is_leader: bool = True) -> OpenTransactions:
    return OpenTransactions(
        topic="t",
        partition=partition,
        is_leader=is_leader,
        count=count,
        oldest_ms=age_ms,
        last_stable_offset_lag=lag,
    )


def test_each_led_partition_has_its_numbers_and_the_late_ones_are_counted() -> None:
    late_ms = MAX_MS + LATE_AFTER_MS
    found = [of(0, age_ms=late_ms + 1, count=3), of(1, age_ms=late_ms), of(2, age_ms=late_ms + 9, is_leader=False)]
    measured = {each.name: dict(each.samples) for each in transaction_measures(found, max_timeout_ms=MAX_MS)}
    assert measured["open_transactions"] == {("t", "0"): 3, ("t", "1"): 1}
    assert measured["open_transactions_oldest_seconds"] == {("t", "0"): 1200.001, ("t", "1"): 1200}
    assert measured["last_stable_offset_lag"] == {("t", "0"): 5, ("t", "1"): 5}
    assert measured["partitions_with_late_transactions"] == {(): 1}


def test_no_more_series_than_the_limit_and_those_of_the_oldest() -> None:
    found = [of(number, age_ms=PARTITIONS_MAX * 2 - number) for number in range(PARTITIONS_MAX + 10)]
    measured = transaction_measures(found, max_timeout_ms=MAX_MS)[0]
    assert len(measured.samples) == PARTITIONS_MAX
    assert measured.samples[0][0] == ("t", "0")
