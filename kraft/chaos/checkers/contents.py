"""The content of each partition at the end: records found, duplicated, reordered, or never sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from kraft.chaos.checkers.findings import Findings
from kraft.chaos.checkers.ledger import BEYOND, FOUND, OK, OUTCOME_BITS, RETRIED, UNKNOWN, Ledger
from kraft.chaos.checkers.offsets import NOTHING, OffsetMap
from kraft.chaos.checkers.reads import ClientReads, SeenRecords
from kraft.chaos.checkers.verdict import Kind
from kraft.chaos.evidence import LogRecord, ReadBack

ENDLESS: Final = 2**62
FIRST: Final = (-1, -1)


class FinalLogs:
    """Marks the records that are in the final logs, and collects duplicates and reordered records."""

    def __init__(self, ledger: Ledger, findings: Findings, reads: ClientReads) -> None:
        self._ledger = ledger
        self._findings = findings
        self._reads = reads
        self.maps: dict[int, OffsetMap] = {}
        self.log_starts: dict[int, int] = {}
        self.duplicates: list[tuple[int, int]] = []
        """Slot, and the offset of its second copy."""
        self.reordered: list[tuple[int, int]] = []
        """Slot, and the slot that overtook it."""

    @property
    def has_repeats(self) -> bool:
        return bool(self.duplicates or self.reordered)

    def items(self) -> Iterator[tuple[int, int]]:
        for each in self.maps.values():
            yield from each.items()

    # --- read back by the runner

    def read_back(self, partitions: Sequence[ReadBack]) -> None:
        for each in partitions:
            partition = self._ledger.partition_id(each.topic, each.partition)
            self.log_starts[partition] = each.log_start_offset
            values = self.maps[partition] = OffsetMap()
            self._walk(partition, self._collected(each, values))
            end = ENDLESS if each.error is None else values.end
            if each.error is not None:
                self._unread(each, partition, values.end)
            self._vanished(each, partition, values, end)

    def _collected(self, each: ReadBack, values: OffsetMap) -> Iterator[tuple[int, int]]:
        slot_of, put = self._ledger.slot, values.put
        record: LogRecord
        for record in each.records():
            slot = slot_of(record[2])
            before = put(record[0], slot)
            if before not in (NOTHING, slot):
                self._reads.two_values(each.topic, each.partition, record[0], before, slot, "the read-back found")
            yield record[0], slot

    def _unread(self, each: ReadBack, partition: int, end: int) -> None:
        """Marks records beyond the end of the read: their absence proves nothing."""
        text = f"{each.topic}-{each.partition} could be read back only up to offset {end}: {each.error}"
        self._findings.add(Kind.NOT_READ_BACK, text, topic=each.topic, partition=each.partition, offset=end)
        ledger = self._ledger
        for slot in ledger.slots_with(OUTCOME_BITS | FOUND, OK):
            offset = ledger.acked[slot]
            if ledger.partition_of(slot) == partition and (offset == UNKNOWN or offset >= end):
                ledger.flags[slot] |= BEYOND

    def _vanished(self, each: ReadBack, partition: int, values: OffsetMap, end: int) -> None:
        """A record that a client has read must still be in the log, unless the log start offset is above it."""
        shown = self._reads.shown.get(partition)
        if shown is None:
            return
        until = min(end, shown.values.end)
        for offset, slot, now in shown.values.differences(values, each.log_start_offset, until):
            if slot == NOTHING:
                continue
            if now != NOTHING:
                self._reads.two_values(each.topic, each.partition, offset, slot, now, "the read-back found")
            else:
                self._gone(each, offset, slot)

    def _gone(self, each: ReadBack, offset: int, slot: int) -> None:
        explanation = self._reads.explain(each.topic, each.partition, offset, slot)
        if explanation.reason == "topic deleted":
            return
        value = self._ledger.values.text(slot)
        self._findings.add(
            Kind.READ_VANISHED,
            f"a client read {value!r} at offset {offset} of {each.topic}-{each.partition}, and it is gone",
            topic=each.topic,
            partition=each.partition,
            offset=offset,
            explanation=explanation,
        )

    # --- from the clients' own reads

    def trust_clients(self) -> None:
        """Without a read-back, the last values that clients read count, up to where they read."""
        for partition, shown in self._reads.shown.items():
            self.maps[partition] = shown.values
            self._walk(partition, shown.values.items())
        ledger = self._ledger
        nothing = SeenRecords()
        for slot in list(ledger.slots_with(OUTCOME_BITS | FOUND, OK)):
            shown = self._reads.shown.get(ledger.partition_of(slot), nothing)
            if not _is_covered(shown, ledger.acked[slot], ledger.complete_us[ledger.operation[slot]]):
                ledger.flags[slot] |= BEYOND

    # --- both

    def _walk(self, partition: int, records: Iterator[tuple[int, int]]) -> None:
        ledger = self._ledger
        flags, operations, acked = ledger.flags, ledger.operation, ledger.acked
        partitions, processes = ledger.partition, ledger.process
        latest: dict[int, tuple[int, int]] = {}
        latest_slot: dict[int, int] = {}
        elsewhere: list[tuple[int, int]] = []
        for offset, slot in records:
            operation = operations[slot]
            if operation == UNKNOWN or partitions[operation] != partition:
                self._foreign(partition, offset, slot)
                continue
            flag = flags[slot]
            if flag & FOUND:
                self.duplicates.append((slot, offset))
                continue
            flags[slot] = flag | FOUND
            if flag & OUTCOME_BITS != OK:
                continue
            if acked[slot] not in (offset, UNKNOWN) and not flag & RETRIED:
                elsewhere.append((offset, slot))
            process = processes[operation]
            order = ledger.order(slot)
            if order > latest.get(process, FIRST):
                latest[process], latest_slot[process] = order, slot
            else:
                self.reordered.append((slot, latest_slot[process]))
        for offset, slot in elsewhere:
            self._elsewhere(partition, offset, slot)

    def _foreign(self, partition: int, offset: int, slot: int) -> None:
        topic, number = self._ledger.partitions[partition]
        value = self._ledger.values.text(slot)
        sent_to = self._ledger.partition_of(slot)
        place = f"offset {offset} of {topic}-{number}"
        if sent_to == UNKNOWN:
            text = f"{place} is {value!r}, which no client sent"
            self._findings.add(Kind.NEVER_SENT, text, topic=topic, partition=number, offset=offset)
            return
        right = "{}-{}".format(*self._ledger.partitions[sent_to])
        text = f"{place} is {value!r}, which was sent to {right}"
        self._findings.add(Kind.WRONG_OFFSET, text, topic=topic, partition=number, offset=offset)

    def _elsewhere(self, partition: int, offset: int, slot: int) -> None:
        acked = self._ledger.acked[slot]
        if self.maps[partition].get(acked) == slot:
            return  # a further copy, counted as a duplicate
        topic, number = self._ledger.partitions[partition]
        value = self._ledger.values.text(slot)
        text = f"{value!r} was acknowledged at offset {acked} of {topic}-{number}, and is at {offset}"
        self._findings.add(Kind.WRONG_OFFSET, text, topic=topic, partition=number, offset=offset)


def _is_covered(shown: SeenRecords, offset: int, complete_us: int) -> bool:
    """True if a read covered the offset of the record."""
    return complete_us <= shown.whole_us if offset == UNKNOWN else offset in shown.covered
