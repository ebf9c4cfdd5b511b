"""Every lost record with its cause. Records sent with acks=0 have no offset: their neighbours give an estimate."""

from __future__ import annotations

from typing import Final

from kraft.chaos.checkers.causes import Causes, LostRecord, believed_leaderships
from kraft.chaos.checkers.contents import FinalLogs
from kraft.chaos.checkers.findings import UNEXPLAINED, Explanation
from kraft.chaos.checkers.ledger import BEYOND, FOUND, OK, OUTCOME_BITS, UNKNOWN, Ledger
from kraft.chaos.checkers.ranges import Ranges
from kraft.chaos.checkers.timeline import Leadership, PartitionTimeline, Timeline

UNCONFIRMED_US_MAX: Final = 10_000_000
"""A fault may be the cause of the loss of a record that was sent with acks=0 during it, or so shortly before it."""


class Losses:
    def __init__(self, ledger: Ledger, timeline: Timeline, causes: Causes, final: FinalLogs) -> None:
        self._ledger = ledger
        self._timeline = timeline
        self._causes = causes
        self._next_kept = _NextKept(ledger, final)

    def ranges(self) -> Ranges:
        ranges = Ranges(self._ledger)
        for slot in self._ledger.slots_with(OUTCOME_BITS | FOUND | BEYOND, OK):
            offset = self._ledger.acked[slot]
            explanation = self._unconfirmed(slot) if offset == UNKNOWN else self._causes.of(self.gone(slot, offset))
            ranges.add(slot, offset=offset, explanation=explanation)
        return ranges

    def gone(self, slot: int, offset: int) -> LostRecord:
        ledger, operation = self._ledger, self._ledger.operation[slot]
        topic, partition = ledger.partitions[ledger.partition[operation]]
        return LostRecord(
            topic=topic,
            partition=partition,
            offset=offset,
            invoke_us=ledger.invoke_us[operation],
            at_us=ledger.complete_us[operation],
            node=ledger.node[operation],
            acks=ledger.acks(slot),
        )

    def _unconfirmed(self, slot: int) -> Explanation:
        """The answer had no offset: acks=0, or an answer without offsets."""
        gone = self.gone(slot, 0)
        deleted_us = self._timeline.deletion_after(gone.topic, gone.invoke_us)
        if deleted_us is not None:
            return Explanation("topic deleted", f"topic {gone.topic} was deleted afterwards")
        partition = self._timeline.partition(gone.topic, gone.partition, at_us=gone.at_us)
        kept_offset = self._next_kept.offset(slot)
        for leadership in believed_leaderships(partition, gone.invoke_us, gone.at_us):
            successor = _next_leadership(partition, leadership)
            if successor is None or successor.start_offset is None:
                continue
            if kept_offset == UNKNOWN or kept_offset >= successor.start_offset:
                explanation = self._causes.of(_at_start(gone, successor.start_offset))
                if explanation.reason:  # none: it may have gone to the successor itself, and got lost on the way
                    return explanation
        return self._dropped(partition, gone)

    def _dropped(self, partition: PartitionTimeline, gone: LostRecord) -> Explanation:
        """Never appended: with acks=0 a server can only close the connection (P8)."""
        if gone.acks != "0":
            return UNEXPLAINED
        for leadership in partition.in_order()[1:]:
            if abs(leadership.since_us - gone.at_us) <= UNCONFIRMED_US_MAX:
                text = f"sent around the change to epoch {leadership.epoch}, and a write with acks=0 has no answer"
                return Explanation("unconfirmed", text)
        for fault in self._timeline.faults:
            until_us = fault.at_us if fault.until_us is None else fault.until_us
            if fault.at_us - UNCONFIRMED_US_MAX <= gone.at_us <= until_us + UNCONFIRMED_US_MAX:
                text = f"sent around a fault ({fault.text}), and a write with acks=0 has no answer"
                return Explanation("unconfirmed", text)
        return UNEXPLAINED


def _next_leadership(partition: PartitionTimeline, leadership: Leadership) -> Leadership | None:
    return next((r for r in partition.in_order() if r.epoch > leadership.epoch and r.leader >= 0), None)


def _at_start(gone: LostRecord, offset: int) -> LostRecord:
    """The record, taken as the first one that the next leader did not have."""
    return LostRecord(
        topic=gone.topic,
        partition=gone.partition,
        offset=offset,
        invoke_us=gone.invoke_us,
        at_us=gone.at_us,
        node=gone.node,
        acks=gone.acks,
    )


class _NextKept:
    """The offset of the next kept record of the same process. Built at the first call.

    Operations with acks=0 complete as they are sent, so that the order of the history is the order of sending.
    """

    def __init__(self, ledger: Ledger, final: FinalLogs) -> None:
        self._ledger = ledger
        self._final = final
        self._offsets: list[int] | None = None

    def offset(self, slot: int) -> int:
        if self._offsets is None:
            self._offsets = self._build()
        return self._offsets[self._ledger.operation[slot]]

    def _build(self) -> list[int]:
        """The next kept offset for each operation."""
        ledger = self._ledger
        kept = [UNKNOWN] * len(ledger.partition)
        for offset, slot in self._final.items():
            if ledger.operation[slot] != UNKNOWN:
                kept[ledger.operation[slot]] = offset
        following: dict[tuple[int, int], int] = {}
        for operation in range(len(kept) - 1, -1, -1):
            key = (ledger.process[operation], ledger.partition[operation])
            own, kept[operation] = kept[operation], following.get(key, UNKNOWN)
            if own != UNKNOWN:
                following[key] = own
        return kept
