"""All records that were sent, in columns: one row per record (indexed by slot), one row per produce operation.

A record takes 17 bytes here and 16 in `Values`; an operation takes 40, with any number of records. `flags` has the fate
of each record, so that counting is a search for a byte.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Final

from kraft.chaos.checkers.values import TEXT_PROCESS, Values
from kraft.chaos.history import Acks, HistoryError, Produce
from kraft.client.outcome import Outcome

OUTCOME_BITS: Final = 0b11
OUTCOMES: Final[dict[Outcome, int]] = {"ok": 1, "fail": 2, "info": 3}
OK, FAIL, INFO = 1, 2, 3
ACKS_SHIFT: Final = 2
ACKS: Final[tuple[Acks, ...]] = ("0", "1", "all")
FOUND: Final = 1 << 4
RETRIED: Final = 1 << 5
"""The operation of the record had more than one attempt."""
BEYOND: Final = 1 << 6
"""No read reached the offset of the record."""
FLAGS: Final = 1 << 7

UNKNOWN: Final = -1


class Ledger:
    def __init__(self) -> None:
        self.values = Values()
        self.partitions: list[tuple[str, int]] = []
        self._partition_ids: dict[tuple[str, int], int] = {}
        self.processes: list[str] = []
        self._process_ids: dict[str, int] = {}
        # per record
        self.flags = bytearray()
        self.operation = array("i")
        self.acked = array("q")
        """The offset in the answer, or UNKNOWN."""
        # per operation
        self.partition = array("i")
        self.process = array("i")
        self.index = array("q")
        self.invoke_us = array("q")
        self.complete_us = array("q")
        self.node = array("i")

    def partition_id(self, topic: str, partition: int) -> int:
        key = (topic, partition)
        found = self._partition_ids.get(key)
        if found is None:
            found = self._partition_ids[key] = len(self.partitions)
            self.partitions.append(key)
        return found

    def slot(self, value: str) -> int:
        """The slot of a value that was sent or read."""
        slot = self.values.slot(value)
        if slot == len(self.flags):
            self.flags.append(0)
            self.operation.append(UNKNOWN)
            self.acked.append(UNKNOWN)
        return slot

    def add(self, sent: Produce) -> int:
        """Add a produce operation; returns its number. Raises HistoryError for a value that was sent before."""
        operation = len(self.partition)
        self._add_operation(sent)
        flag = OUTCOMES[sent.outcome] | ACKS.index(sent.acks) << ACKS_SHIFT
        if len(sent.attempts) > 1:
            flag |= RETRIED
        slots = [self.slot(value) for _key, value in sent.records]
        flags, operations = self.flags, self.operation
        for position, slot in enumerate(slots):
            if flags[slot]:
                raise HistoryError(f"value {self.values.text(slot)!r} was sent twice; values are unique in a run")
            flags[slot] = flag
            operations[slot] = operation
            if self.values.process[slot] == TEXT_PROCESS:
                self.values.counter[slot] = position
        if sent.offsets is not None and sent.outcome == "ok":
            self._note_offsets(sent, slots)
        return operation

    def _note_offsets(self, sent: Produce, slots: list[int]) -> None:
        assert sent.offsets is not None
        if len(sent.offsets) != len(slots):
            raise HistoryError(
                f"operation {sent.index} of {sent.process!r} has {len(slots)} records and {len(sent.offsets)} offsets"
            )
        for slot, offset in zip(slots, sent.offsets, strict=True):
            self.acked[slot] = offset

    def _add_operation(self, sent: Produce) -> None:
        process = self._process_ids.get(sent.process)
        if process is None:
            process = self._process_ids[sent.process] = len(self.processes)
            self.processes.append(sent.process)
        self.partition.append(self.partition_id(sent.topic, sent.partition))
        self.process.append(process)
        self.index.append(sent.index)
        self.invoke_us.append(sent.invoke_us)
        self.complete_us.append(sent.complete_us)
        self.node.append(sent.node)

    def order(self, slot: int) -> tuple[int, int]:
        """Sorts the records of one process by their sending."""
        return self.index[self.operation[slot]], self.values.counter[slot]

    def acks(self, slot: int) -> Acks:
        return ACKS[self.flags[slot] >> ACKS_SHIFT & 0b11]

    def partition_of(self, slot: int) -> int:
        operation = self.operation[slot]
        return UNKNOWN if operation == UNKNOWN else self.partition[operation]

    def slots_with(self, mask: int, wanted: int) -> Iterator[int]:
        """Slots whose flags are `wanted` under `mask`, ascending."""
        for flag in range(FLAGS):
            if flag & mask == wanted:
                yield from _positions(self.flags, flag)


def _positions(flags: bytearray, flag: int) -> Iterator[int]:
    at = flags.find(flag)
    while at >= 0:
        yield at
        at = flags.find(flag, at + 1)
