"""Which transactions of a coordinator are wanted: ListTransactions (KIP-664, KIP-994, KIP-1152). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from kraft.coordinators.groups.patterns import compiled
from kraft.coordinators.transactions.state import Phase, Transaction
from kraft.protocol.errors import InvalidRegularExpression

ANY_DURATION = -1


class Listed(NamedTuple):
    transactional_id: str
    producer_id: int
    phase: Phase


@dataclass(frozen=True, slots=True)
class ListFilters:
    """A transaction has to pass each that is given."""

    states: tuple[str, ...] = ()
    """Names of states; empty: any. Unknown names are returned in the answer, and filter nothing else."""
    producer_ids: tuple[int, ...] = ()
    open_ms_min: int = ANY_DURATION
    """Only those that run for longer than this."""
    pattern: str | None = None
    """A regular expression (RE2) that the whole of the id matches; empty: any."""

    @property
    def unknown_states(self) -> tuple[str, ...]:
        known = {phase.kafka_name for phase in Phase}
        return tuple(state for state in self.states if state not in known)


def listed(transactions: Iterable[Transaction], filters: ListFilters, *, now_ms: int) -> list[Listed]:
    """The transactions that pass, sorted by id; `now_ms` is wall time. Raises InvalidRegularExpression 128."""
    matches = _matcher(filters.pattern) if filters.pattern else None
    return sorted(
        Listed(each.transactional_id, each.producer_id, each.phase)
        for each in transactions
        if (not filters.states or each.phase.kafka_name in filters.states)
        and (not filters.producer_ids or each.producer_id in filters.producer_ids)
        and (filters.open_ms_min < 0 or _runs_for(each, now_ms=now_ms) > filters.open_ms_min)
        and (matches is None or matches(each.transactional_id))
    )


def _matcher(pattern: str) -> Callable[[str], object]:
    try:
        expression = compiled(pattern)
    except ValueError as error:
        raise InvalidRegularExpression(f"pattern of transactional ids {pattern!r}: {error}") from error
    return lambda transactional_id: expression.fullmatch(transactional_id)


def _runs_for(transaction: Transaction, *, now_ms: int) -> int:
    """The duration as Kafka counts it: a transaction that never began runs since 1970."""
    return now_ms - transaction.started_ms
