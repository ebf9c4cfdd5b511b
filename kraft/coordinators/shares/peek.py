"""What a share group has not done with yet, for those who only look (`kraft queues peek`): nothing is acquired."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kraft.protocol.errors import KafkaError
from kraft.values import value
from replication.shares.partition import SharePartition
from replication.shares.states import DeliveryState


class InFlight(NamedTuple):
    """Records that were handed out, and are neither accepted nor archived."""

    first_offset: int
    last_offset: int
    state: DeliveryState
    delivery_count: int
    lock_ms: int
    """How long nobody gets them: their lock lasts while they are acquired, their delay while they are available."""


@value(kw_only=True)
class Peeked:
    """One share partition as its leader sees it."""

    error: KafkaError | None = None
    start_offset: int = -1
    end_offset: int = -1
    """Nobody was handed records from here on; -1: nothing is known behind `in_flight`."""
    in_flight: Sequence[InFlight] = ()
    dead_letters_lost: int = 0
    """Records that were given up without a dead letter since the node of this leader started."""
    last_dead_letter_error: str = ""

    def at(self, offset: int) -> InFlight | None:
        """What is known of a record; None when the group is done with it."""
        for each in self.in_flight:
            if each.first_offset <= offset <= each.last_offset:
                return each
        if 0 <= self.end_offset <= offset:
            return InFlight(offset, offset, DeliveryState.AVAILABLE, 0, 0)
        return None

    @property
    def known_to(self) -> int | None:
        """Where `in_flight` was cut off; None: it was not."""
        return self.in_flight[-1].last_offset + 1 if self.end_offset < 0 and self.in_flight else None

    def first_from(self, offset: int) -> int | None:
        """The first offset, from this one on, that the group is not done with; None: none is known."""
        for each in self.in_flight:
            if each.last_offset >= offset:
                return max(offset, each.first_offset)
        return None if self.end_offset < 0 else max(offset, self.end_offset)


def peeked(partition: SharePartition, *, records_max: int, now_ms: int) -> Peeked:
    """The first records that the group is not done with, about as many as asked for."""
    found: list[InFlight] = []
    left, start_offset = records_max, partition.start_offset
    for run in partition.runs():
        if run.is_terminal or run.last < start_offset:
            continue
        if left <= 0:
            return Peeked(start_offset=start_offset, in_flight=found)
        until_ms = run.lock_until_ms if run.state is DeliveryState.ACQUIRED else run.not_before_ms
        lock_ms = max(0, until_ms - now_ms)
        found.append(InFlight(max(run.first, start_offset), run.last, run.state, run.delivery_count, lock_ms))
        left -= run.size
    return Peeked(start_offset=start_offset, end_offset=partition.end_offset + 1, in_flight=found)
