"""Acknowledgements that may come again because their answer was lost: those over REST, where requests have no session.

The same one gets the same answer for as long as its lock would have lasted. A leader knows the acknowledgements that it
has taken by member; of those of the leader before it, it knows the states that it has loaded. Pure.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Final, NamedTuple

from replication.shares.acknowledgements import Part
from replication.shares.states import AcknowledgeType, DeliveryState, StateBatch

SETTLED_MAX: Final = 10_000
"""Acknowledged ranges that one share partition remembers. Beyond it the one whose lock would end first is forgotten:
if it comes again, it is refused as an expired one."""

_RESULTS: Final = {
    AcknowledgeType.ACCEPT: (DeliveryState.ACKNOWLEDGED,),
    AcknowledgeType.REJECT: (DeliveryState.ARCHIVED, DeliveryState.ARCHIVING),
    AcknowledgeType.RELEASE: (DeliveryState.AVAILABLE, DeliveryState.ARCHIVED, DeliveryState.ARCHIVING),
}


class Lease(NamedTuple):
    """One acknowledgement over REST: what is done, and the lock that it is done with."""

    member: str
    part: Part
    leader_epoch: int
    """The epoch of the leader that handed the records out."""
    delivery_count: int
    until_ms: int
    """When the lock would end, by the wall clock."""
    lock_ms: int
    """How long a renewal locks."""


class Before(NamedTuple):
    """What the leader before this one has left: the states as they were loaded first in a leader epoch."""

    leader_epoch: int
    start_offset: int
    batches: Sequence[StateBatch]


class _Entry(NamedTuple):
    until_ms: int
    member: str
    first: int
    last: int
    type: AcknowledgeType


class Settled:
    """What one share partition remembers of acknowledgements that took effect."""

    def __init__(self) -> None:
        self._by_end: list[_Entry] = []
        self._by_member: dict[str, list[_Entry]] = {}

    def __len__(self) -> int:
        return len(self._by_end)

    def add(self, member: str, part: Part, *, first: int, last: int, until_ms: int, now_ms: int) -> None:
        """`until_ms` is the end of the lock, by the leader's monotonic clock."""
        while self._by_end and (self._by_end[0].until_ms <= now_ms or len(self._by_end) >= SETTLED_MAX):
            gone = heapq.heappop(self._by_end)
            left = self._by_member[gone.member]
            left.remove(gone)
            if not left:
                del self._by_member[gone.member]
        entry = _Entry(until_ms, member, first, last, part.type)
        heapq.heappush(self._by_end, entry)
        self._by_member.setdefault(member, []).append(entry)

    def has(self, member: str, part: Part, now_ms: int) -> bool:
        """Whether the member has settled all of these offsets in this way, and its lock would still last."""
        at = part.first
        for entry in sorted(self._by_member.get(member, ()), key=lambda each: each.first):
            if entry.type is part.type and entry.first <= at <= entry.last and entry.until_ms > now_ms:
                at = entry.last + 1
        return at > part.last


def was_settled_before(lease: Lease, before: Before, *, wall_ms: int) -> bool:
    """Whether the leader before this one has taken the acknowledgement. No other leader was between the two, and nobody
    else can have settled the records while the lock lasted.
    """
    part = lease.part
    results = _RESULTS.get(part.type)
    if results is None or lease.leader_epoch != before.leader_epoch - 1 or lease.until_ms <= wall_ms:
        return False
    at = max(part.first, before.start_offset)
    for batch in before.batches:
        if batch.first_offset <= at <= batch.last_offset and batch.last_offset >= part.first:
            if batch.state not in results or batch.delivery_count != lease.delivery_count:
                return False
            at = batch.last_offset + 1
    return at > part.last
