"""Below the high watermark all replicas have the same value and the same leader epoch at each offset.

A member of the final ISR must agree up to the final high watermark. Another replica, which may be dead or behind, must
agree up to its own checkpointed high watermark, which is never above the real one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kraft.chaos.checkers.causes import DAMAGE
from kraft.chaos.checkers.contents import FinalLogs
from kraft.chaos.checkers.findings import Explanation, Findings
from kraft.chaos.checkers.ledger import Ledger
from kraft.chaos.checkers.offsets import NOTHING, OffsetMap
from kraft.chaos.checkers.reads import ClientReads
from kraft.chaos.checkers.timeline import Timeline
from kraft.chaos.checkers.verdict import Kind
from kraft.chaos.evidence import ReadBack, ReplicaLog


@dataclass(slots=True)
class _Copy:
    values: OffsetMap
    epochs: OffsetMap
    who: str
    start: int
    bound: int


@dataclass(slots=True)
class _Reference:
    values: OffsetMap
    who: str
    start: int
    epochs: OffsetMap = field(default_factory=OffsetMap)
    epochs_of: str = ""


class ReplicaCheck:
    def __init__(
        self, ledger: Ledger, findings: Findings, reads: ClientReads, final: FinalLogs, timeline: Timeline
    ) -> None:
        self._ledger = ledger
        self._findings = findings
        self._reads = reads
        self._final = final
        self._timeline = timeline

    def compare(self, replicas: Sequence[ReplicaLog], readback: Sequence[ReadBack]) -> None:
        read = {(each.topic, each.partition): each for each in readback}
        by_partition: dict[tuple[str, int], list[ReplicaLog]] = {}
        for replica in replicas:
            by_partition.setdefault((replica.topic, replica.partition), []).append(replica)
        for key, copies in by_partition.items():
            self._compare(copies, read.get(key))

    def _compare(self, replicas: list[ReplicaLog], readback: ReadBack | None) -> None:
        reference: _Reference | None = None
        if readback is not None and readback.error is None:
            partition = self._ledger.partition_id(readback.topic, readback.partition)
            reference = _Reference(self._final.maps[partition], "the read-back", readback.log_start_offset)
        # The widest copy first: without a read-back, the others are compared with it.
        for replica in sorted(replicas, key=lambda each: -_bound(each, readback)):
            copy = self._load(replica, _bound(replica, readback))
            if reference is None:
                reference = _Reference(copy.values, copy.who, copy.start, copy.epochs, copy.who)
                continue
            self._values_differ(replica, copy, reference)
            if not reference.epochs_of:
                reference.epochs, reference.epochs_of = copy.epochs, copy.who
            else:
                self._epochs_differ(replica, copy, reference)

    def _load(self, replica: ReplicaLog, bound: int) -> _Copy:
        values, epochs = OffsetMap(), OffsetMap()
        slot_of = self._ledger.slot
        for offset, epoch, value in replica.records():
            if offset >= bound:
                break
            values.put(offset, slot_of(value))
            if epoch >= 0:
                epochs.put(offset, epoch)
        who = f"node {replica.node}"
        if replica.error is not None and values.end < bound:
            self._unreadable(replica, values.end)
            bound = values.end
        return _Copy(values, epochs, who, replica.log_start_offset, bound)

    def _unreadable(self, replica: ReplicaLog, end: int) -> None:
        place = f"{replica.topic}-{replica.partition}"
        damaged = self._timeline.faults_on([replica.node], DAMAGE, from_us=0)
        explanation = Explanation("damaged segment", damaged[-1].text) if damaged else Explanation("", "")
        self._findings.add(
            Kind.REPLICAS_DIFFER,
            f"the log of {place} on node {replica.node} cannot be read from offset {end} on: {replica.error}",
            topic=replica.topic,
            partition=replica.partition,
            offset=end,
            explanation=explanation,
        )

    def _values_differ(self, replica: ReplicaLog, copy: _Copy, reference: _Reference) -> None:
        start = max(copy.start, reference.start)
        for offset, own, other in copy.values.differences(reference.values, start, copy.bound):
            text = f"{copy.who} has {self._shown(own)}, {reference.who} has {self._shown(other)}"
            self._add(replica, offset, text, slot=own if own != NOTHING else other)

    def _epochs_differ(self, replica: ReplicaLog, copy: _Copy, reference: _Reference) -> None:
        start = max(copy.start, reference.start)
        for offset, own, other in copy.epochs.differences(reference.epochs, start, copy.bound):
            if NOTHING not in (own, other):
                self._add(replica, offset, f"{copy.who} has it in epoch {own}, {reference.epochs_of} in epoch {other}")

    def _add(self, replica: ReplicaLog, offset: int, text: str, *, slot: int = NOTHING) -> None:
        explanation = Explanation("", "")
        if slot != NOTHING:
            explanation = self._reads.explain(replica.topic, replica.partition, offset, slot)
        self._findings.add(
            Kind.REPLICAS_DIFFER,
            f"at offset {offset} of {replica.topic}-{replica.partition}, below the high watermark, {text}",
            topic=replica.topic,
            partition=replica.partition,
            offset=offset,
            explanation=explanation,
        )

    def _shown(self, slot: int) -> str:
        return "nothing" if slot == NOTHING else repr(self._ledger.values.text(slot))


def _bound(replica: ReplicaLog, readback: ReadBack | None) -> int:
    if readback is not None and readback.error is None and replica.node in readback.isr:
        return readback.high_watermark
    return min(replica.high_watermark, replica.log_end_offset)
