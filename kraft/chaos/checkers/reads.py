"""The records that clients read: one value per offset, and a record that was read once may not disappear."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from kraft.chaos.checkers.causes import Causes, LostRecord
from kraft.chaos.checkers.findings import Explanation, Findings
from kraft.chaos.checkers.ledger import UNKNOWN, Ledger
from kraft.chaos.checkers.offsets import NOTHING, OffsetMap
from kraft.chaos.checkers.spans import Spans
from kraft.chaos.checkers.timeline import SLACK_US, Timeline
from kraft.chaos.checkers.verdict import Kind
from kraft.chaos.history import Read

OFFSET_OUT_OF_RANGE: Final = 1


@dataclass(slots=True)
class SeenRecords:
    """The reads of one partition by all clients."""

    values: OffsetMap = field(default_factory=OffsetMap)
    """The last value that was read at each offset."""
    covered: Spans = field(default_factory=Spans)
    whole_us: int = 0
    """The start time of the last read that reached the high watermark of its answer."""


class ClientReads:
    def __init__(self, ledger: Ledger, findings: Findings, timeline: Timeline, causes: Causes) -> None:
        self._ledger = ledger
        self._findings = findings
        self._timeline = timeline
        self._causes = causes
        self._seen: dict[tuple[str, int], Spans] = {}
        self.shown: dict[int, SeenRecords] = {}
        """The reads of each partition, by partition id."""

    def take(self, read: Read) -> None:
        partition = self._ledger.partition_id(read.topic, read.partition)
        if read.outcome != "ok":
            if read.kafka_code == OFFSET_OUT_OF_RANGE:
                self._refused(read, partition)
            return
        shown = self.shown.get(partition)
        if shown is None:
            shown = self.shown[partition] = SeenRecords()
        end = self._records(read, shown.values)
        if read.next_offset is not None:
            end = max(end, read.next_offset)
        seen = self._seen.setdefault((read.process, partition), Spans())
        if len(read.records) < end - read.offset and not read.is_read_committed:
            self._holes(read, shown, seen, end)
        seen.add(read.offset, end)
        shown.covered.add(read.offset, end)
        if read.high_watermark is not None and end >= read.high_watermark:
            shown.whole_us = max(shown.whole_us, read.invoke_us)

    def _records(self, read: Read, values: OffsetMap) -> int:
        slot_of, put = self._ledger.slot, values.put
        last = read.offset - 1
        for offset, value in read.records:
            if offset <= last:
                self._backwards(read, offset, last)
            last = offset
            slot = slot_of(value)
            before = put(offset, slot)
            if before not in (NOTHING, slot):
                self.two_values(read.topic, read.partition, offset, before, slot, f"{read.process} read")
        return last + 1

    def two_values(self, topic: str, partition: int, offset: int, before: int, after: int, who: str) -> None:
        if self._may_be_other_topic(topic, before, after):
            return
        first, second = self._ledger.values.text(before), self._ledger.values.text(after)
        self._findings.add(
            Kind.OFFSET_TWO_VALUES,
            f"offset {offset} of {topic}-{partition} was {first!r}, and then {who} {second!r} there",
            topic=topic,
            partition=partition,
            offset=offset,
            at_us=self._sent_us(before),
            explanation=self.explain(topic, partition, offset, before),
        )

    def explain(self, topic: str, partition: int, offset: int, slot: int) -> Explanation:
        """Why a value that a client has read is no longer in the log."""
        operation = self._ledger.operation[slot]
        if operation == UNKNOWN:
            return Explanation("", "")
        gone = LostRecord(
            topic=topic,
            partition=partition,
            offset=offset,
            invoke_us=self._ledger.invoke_us[operation],
            at_us=self._ledger.complete_us[operation],
        )
        return self._causes.of(gone)

    def _may_be_other_topic(self, topic: str, one: int, other: int) -> bool:
        """True if a topic of the same name was deleted between the reads: the values may belong to two topics."""
        deletions = self._timeline.deletions(topic)
        if not deletions:
            return False
        spans = [self._life(slot) for slot in (one, other)]
        begun, ended = min(invoke for invoke, _ in spans), max(complete for _, complete in spans)
        return any(begun <= at + SLACK_US and ended >= at - SLACK_US for at in deletions)

    def _life(self, slot: int) -> tuple[int, int]:
        operation = self._ledger.operation[slot]
        if operation == UNKNOWN:  # its operation has not completed yet
            return 0, 2**62
        return self._ledger.invoke_us[operation], self._ledger.complete_us[operation]

    def _sent_us(self, slot: int) -> int | None:
        operation = self._ledger.operation[slot]
        return None if operation == UNKNOWN else self._ledger.complete_us[operation]

    def _backwards(self, read: Read, offset: int, last: int) -> None:
        self._non_monotonic(read, offset, f"{read.process} received offset {offset} after {last} in one answer")

    def _holes(self, read: Read, shown: SeenRecords, seen: Spans, end: int) -> None:
        """An answer skipped an offset at which a client had read a record before."""
        given = {offset for offset, _value in read.records}
        for offset, slot in shown.values.items(read.offset, end):
            if offset in given or self._timeline.deletion_after(read.topic, self._life(slot)[0]) is not None:
                continue
            value = self._ledger.values.text(slot)
            text = f"offset {offset} of {read.topic}-{read.partition} was {value!r}, and then {read.process}"
            self._findings.add(
                Kind.NON_MONOTONIC_READ if offset in seen else Kind.OFFSET_TWO_VALUES,
                f"{text} {'read it again and' if offset in seen else ''} found nothing there".replace("  ", " "),
                topic=read.topic,
                partition=read.partition,
                offset=offset,
                at_us=read.invoke_us,
                explanation=self.explain(read.topic, read.partition, offset, slot),
            )

    def _refused(self, read: Read, partition: int) -> None:
        """A reader that continued at its position got OFFSET_OUT_OF_RANGE."""
        seen = self._seen.get((read.process, partition))
        if seen is None or read.offset - 1 not in seen:
            return
        timeline = self._timeline.partition(read.topic, read.partition, at_us=read.complete_us)
        starts = [start.offset for start in timeline.log_starts if start.at_us <= read.complete_us + SLACK_US]
        deleted = any(at <= read.complete_us + SLACK_US for at in self._timeline.deletions(read.topic))
        if deleted or max(starts, default=0) > read.offset:
            return
        slot = self.shown[partition].values.get(read.offset - 1)
        text = f"{read.process} had read up to offset {read.offset}, and got the answer that this is out of range"
        explanation = Explanation("", "")
        if slot != NOTHING:
            explanation = self.explain(read.topic, read.partition, read.offset - 1, slot)
        self._non_monotonic(read, read.offset, text, explanation)

    def _non_monotonic(
        self,
        read: Read,
        offset: int,
        text: str,
        explanation: Explanation = Explanation("", ""),  # noqa: B008 - frozen
    ) -> None:
        self._findings.add(
            Kind.NON_MONOTONIC_READ,
            text,
            topic=read.topic,
            partition=read.partition,
            offset=offset,
            at_us=read.invoke_us,
            explanation=explanation,
        )
