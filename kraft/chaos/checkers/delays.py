"""Records of delay topics: each acknowledged one is in the target once.

A target has copies of records of another topic, as a topic of dead letters has, so that no client is asked about its
records. A record whose copy is there counts as kept, also when its delay topic has deleted it meanwhile: it does that
with what was forwarded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kraft.chaos.checkers.causes import Causes, LostRecord
from kraft.chaos.checkers.findings import Findings
from kraft.chaos.checkers.ledger import FOUND, OK, OUTCOME_BITS, UNKNOWN, Ledger
from kraft.chaos.checkers.verdict import Kind
from kraft.chaos.evidence import ReadBack

TARGET: Final = "delivery.target.topic"


def targets_of(settings: Mapping[str, Any]) -> Mapping[str, str]:
    """Delay topic -> its target."""
    topics = settings.get("topics", {})
    return {name: str(configs[TARGET]) for name, configs in topics.items() if configs.get(TARGET)}


class DelayCheck:
    """Nothing happens to it in a run without delay topics."""

    def __init__(self, ledger: Ledger, findings: Findings, causes: Causes, *, settings: Mapping[str, Any]) -> None:
        self._ledger = ledger
        self._findings = findings
        self._causes = causes
        self._targets = targets_of(settings)

    def check(self, readback: Sequence[ReadBack]) -> None:
        """After the delay topics were read back. Nothing is missed in a target that could not be read."""
        ledger = self._ledger
        for delay, target in self._targets.items():
            parts = [each for each in readback if each.topic == target]
            found: Counter[int] = Counter()
            for each in parts:
                for record in each.records():
                    found[ledger.slot(record.value)] += 1
            for slot, count in found.items():
                operation = ledger.operation[slot]
                if operation == UNKNOWN or ledger.partitions[ledger.partition[operation]][0] != delay:
                    continue
                ledger.flags[slot] |= FOUND
                if count > 1:
                    self._add(Kind.DELIVERED_TWICE, slot, target, f"is {count} times in {target}")
            if parts and all(each.error is None for each in parts):
                self._find_missing(delay, target, found)

    def _find_missing(self, delay: str, target: str, found: Counter[int]) -> None:
        ledger = self._ledger
        for slot in list(ledger.slots_with(OUTCOME_BITS, OK)):
            topic = ledger.partitions[ledger.partition_of(slot)][0]
            if topic == delay and slot not in found:
                self._add(Kind.NOT_DELIVERED, slot, target, f"was acknowledged, and has not come to {target}")

    def _add(self, kind: Kind, slot: int, target: str, text: str) -> None:
        ledger = self._ledger
        operation = ledger.operation[slot]
        topic, partition = ledger.partitions[ledger.partition[operation]]
        lost = LostRecord(
            topic=target,
            partition=partition,
            offset=ledger.acked[slot],
            invoke_us=ledger.invoke_us[operation],
            at_us=ledger.complete_us[operation],
            node=ledger.node[operation],
            acks=ledger.acks(slot),
        )
        self._findings.add(
            kind,
            f"{ledger.values.text(slot)!r} of {topic}-{partition} {text}",
            topic=topic,
            partition=partition,
            offset=ledger.acked[slot],
            explanation=self._causes.of(lost),
        )
