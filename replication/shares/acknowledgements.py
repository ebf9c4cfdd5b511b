"""A consumer's acknowledgements of records that it has acquired: one partition's part of a ShareFetch, of a
ShareAcknowledge or of an acknowledgement over REST. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, NamedTuple

from kraft.protocol.errors import InvalidRequest, KafkaError
from replication.shares.states import AcknowledgeType

GROUP_DELAY: Final = -1
"""A delay that nobody has named: share.retry.backoff.ms of the group decides it."""
DELAY_MS_MAX: Final = 43_200_000
"""Twelve hours, as SQS lets a visibility timeout last. A delayed record is in flight, and holds up the start offset."""

_TYPES: Final = {int(kind): kind for kind in AcknowledgeType}


class AcknowledgementBatch(NamedTuple):
    """A range of offsets, with one type for all of them or one for each."""

    first_offset: int
    last_offset: int
    types: Sequence[int]
    reason: str = ""
    """The consumer's own words for it; it goes to the dead letter topic with the record."""


class Part(NamedTuple):
    """A range of offsets with one type."""

    first: int
    last: int
    type: AcknowledgeType
    reason: str
    delay_ms: int = GROUP_DELAY
    """How long nobody gets what is released."""

    def includes(self, other: Part) -> bool:
        """Whether it does the same with all offsets of the other."""
        return self.type is other.type and self.first <= other.first and other.last <= self.last


@dataclass(slots=True, eq=False)
class Acknowledgement:
    """One request's acknowledgements of one partition. All of them take effect, or none."""

    member: str
    parts: Sequence[Part]
    may_repeat: bool = False
    """It came over REST, and may come again: it is remembered for as long as its lock would have lasted."""
    error: KafkaError | None = None
    """Why its write failed; known when it has ended."""


def checked(batches: Sequence[AcknowledgementBatch], *, may_renew: bool) -> list[Part]:
    """The ranges of one request, by type. Raises InvalidRequest for ranges that run backwards, overlap or are out of
    order, for types that do not exist, and for a number of types that is neither 1 nor that of the offsets.
    """
    parts: list[Part] = []
    previous = -1
    for batch in batches:
        first, last, types, reason = batch
        if first <= previous or last < first:
            raise InvalidRequest(
                f"the offsets {first} to {last} are not behind {previous}: send ascending ranges without overlaps"
            )
        if len(types) not in (1, last - first + 1):
            raise InvalidRequest(
                f"{len(types)} types for {last - first + 1} offsets: send one for all, or one for each"
            )
        parts += _parts(first, last, [_type(number, may_renew=may_renew) for number in types], reason)
        previous = last
    return parts


def _type(number: int, *, may_renew: bool) -> AcknowledgeType:
    kind = _TYPES.get(number)
    if kind is None:
        raise InvalidRequest(f"{number} is no type of acknowledgement: 0 gap, 1 accept, 2 release, 3 reject, 4 renew")
    if kind is AcknowledgeType.RENEW and not may_renew:
        raise InvalidRequest(
            "a lock is renewed by a request that is marked so (IsRenewAck), if share.renew.acknowledge.enable lets it"
        )
    return kind


def _parts(first: int, last: int, types: Sequence[AcknowledgeType], reason: str) -> Iterator[Part]:
    if len(types) == 1:
        yield Part(first, last, types[0], reason)
        return
    for kind, offsets in groupby(range(first, last + 1), key=lambda offset: types[offset - first]):
        those = list(offsets)
        yield Part(those[0], those[-1], kind, reason)
