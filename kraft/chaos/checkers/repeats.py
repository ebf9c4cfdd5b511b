"""Why records are duplicated or reordered: the outcomes of the attempts to send them.

The columns do not contain attempts, so the history is read again, for these operations only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from kraft.chaos.checkers.contents import FinalLogs
from kraft.chaos.checkers.findings import Explanation
from kraft.chaos.checkers.ledger import Ledger
from kraft.chaos.checkers.ranges import Ranges
from kraft.chaos.evidence import Fault
from kraft.chaos.history import Attempt, Operation, Produce

OPERATIONS_MAX: Final = 100_000
"""The most operations whose attempts are looked up; duplicates of others count as unexplained."""
LINK_FAULTS: Final = frozenset(
    {"cut", "blackhole", "delay", "bandwidth", "drop_answer", "close", "delay_answer", "close_after"}
)
NODE_FAULTS: Final = frozenset({"kill", "stop", "power_loss", "pause", "disk_full"})
REASON_CHARACTERS_MAX: Final = 80


class Repeats:
    def __init__(self, ledger: Ledger, final: FinalLogs, faults: Sequence[Fault]) -> None:
        self._ledger = ledger
        self._final = final
        self._faults = faults
        self._tries: dict[tuple[int, int], tuple[Attempt, ...]] = {}

    def look_up(self, operations: Iterable[Operation]) -> None:
        """Read the attempts of the duplicated and reordered records."""
        wanted: set[tuple[int, int]] = set()
        for slot, _ in (*self._final.duplicates, *self._final.reordered):
            if len(wanted) < OPERATIONS_MAX:
                wanted.add(self._key(slot))
        if not wanted:
            return
        names = {name: number for number, name in enumerate(self._ledger.processes)}
        for operation in operations:
            if isinstance(operation, Produce):
                key = (names[operation.process], operation.index)
                if key in wanted:
                    self._tries[key] = operation.attempts

    def duplicates(self) -> Ranges:
        ranges = Ranges(self._ledger)
        for slot, offset in self._final.duplicates:
            ranges.add(slot, offset=offset, explanation=self._why_twice(slot))
        return ranges

    def reorders(self) -> Ranges:
        ranges = Ranges(self._ledger)
        for slot, overtaking in self._final.reordered:
            ranges.add(slot, offset=self._ledger.acked[slot], explanation=self._why_late(slot, overtaking))
        return ranges

    def _why_twice(self, slot: int) -> Explanation:
        unsure = [attempt for attempt in self._attempts(slot)[:-1] if attempt.outcome != "fail"]
        if not unsure:
            return Explanation("", "sent once, or again only after it was surely refused, and in the log twice")
        attempts = self._attempts(slot)
        first, last = unsure[0], attempts[-1]
        text = (
            f"the first attempt, to node {first.node}, {_unsure(first)}{self._while(first)}, "
            f"though it was carried out; the retry, to node {last.node}, appended them again"
        )
        return Explanation("retry", text)

    def _why_late(self, slot: int, overtaking: int) -> Explanation:
        if not self._overlap(slot, overtaking):
            if self._ledger.acks(slot) == "0":
                text = "with acks=0 the answer comes before the leader has it, and a later one was written first"
                return Explanation("not waited for", text)
            return Explanation("", "sent after the answer to the earlier ones, and yet before them in the log")
        attempts = self._attempts(slot)
        if len(attempts) > 1:
            first = attempts[0]
            text = (
                f"the first attempt, to node {first.node}, was not carried out in time{_why(first)}"
                f"{self._while(first)}; the retry came after later records that were in flight at the same time"
            )
            return Explanation("retry", text)
        return Explanation(
            "in flight", "sent while others were in flight, which were written first; their order is undefined"
        )

    def _overlap(self, slot: int, other: int) -> bool:
        mine, theirs = self._ledger.operation[slot], self._ledger.operation[other]
        return self._ledger.invoke_us[theirs] <= self._ledger.complete_us[mine]

    def _while(self, attempt: Attempt) -> str:
        for fault in self._faults:
            is_during = fault.at_us <= attempt.complete_us and (
                fault.until_us is None or fault.until_us >= attempt.invoke_us
            )
            is_its_node = fault.fault in NODE_FAULTS and attempt.node in fault.nodes
            if is_during and (fault.fault in LINK_FAULTS or is_its_node):
                return f" while this lasted: {fault.text}"
        return ""

    def _attempts(self, slot: int) -> tuple[Attempt, ...]:
        return self._tries.get(self._key(slot), ())

    def _key(self, slot: int) -> tuple[int, int]:
        operation = self._ledger.operation[slot]
        return self._ledger.process[operation], self._ledger.index[operation]


def _unsure(attempt: Attempt) -> str:
    return f"was answered with error {attempt.kafka_code}" if attempt.kafka_code else f"got no answer{_why(attempt)}"


def _why(attempt: Attempt) -> str:
    if attempt.kafka_code:
        return f" (error {attempt.kafka_code})"
    if attempt.outcome == "fail":
        return " (no connection)"
    if not attempt.error:
        return ""
    # Addresses differ from run to run, and would keep apart what happened for the same reason.
    return f" ({_ADDRESS.sub('', attempt.error)[:REASON_CHARACTERS_MAX]})"


_ADDRESS: Final = re.compile(r"https?://\S+: ")
