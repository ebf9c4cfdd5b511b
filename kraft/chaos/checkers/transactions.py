"""Transactions: all or nothing, for `read_committed` consumers and for the offsets of groups.

The history of the client decides the fate of each transaction. `committed`: the commit was acknowledged. `aborted`: no
commit was sent, or the only commit was certainly refused. `unknown`: a commit was sent and has no known outcome, so all
of the transaction is visible in the end, or nothing. Each record is judged alone, so that a finding names the record.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from kraft.chaos.checkers.findings import Findings
from kraft.chaos.checkers.ledger import FOUND, OK, OUTCOME_BITS, Ledger
from kraft.chaos.checkers.verdict import Kind, Transactions
from kraft.chaos.evidence import GroupOffset, ReadBack
from kraft.chaos.history import Produce, Read, Transaction

Fate: TypeAlias = Literal["committed", "aborted", "unknown"]
Key: TypeAlias = tuple[str, int]
"""Process, number of its transaction."""
REFUSED_ENDS: Final[Mapping[int, str]] = {
    47: "INVALID_PRODUCER_EPOCH: fenced",
    48: "INVALID_TXN_STATE: the transaction is none that could be committed",
    49: "INVALID_PRODUCER_ID_MAPPING: the id belongs to another producer, or has expired",
    53: "TRANSACTIONAL_ID_AUTHORIZATION_FAILED: checked before anything else",
    90: "PRODUCER_FENCED: a later instance has the id",
    120: "TRANSACTION_ABORTABLE: it can only be aborted",
}
"""Codes of EndTxn that come before anything is decided (TransactionCoordinator.endTransaction)."""


@dataclass(slots=True)
class _KnownEnd:
    end: Transaction | None = None
    slots: list[int] = field(default_factory=list)

    @property
    def fate(self) -> Fate:
        return "aborted" if self.end is None else fate_of(self.end)


def fate_of(end: Transaction) -> Fate:
    if end.asked != "commit":
        return "aborted"
    if end.outcome == "ok":
        return "committed"
    is_refused = end.outcome == "fail" and end.attempts == 1
    return "aborted" if is_refused else "unknown"


class TransactionCheck:
    def __init__(self, ledger: Ledger, findings: Findings) -> None:
        self._ledger = ledger
        self._findings = findings
        self._known: dict[Key, _KnownEnd] = defaultdict(_KnownEnd)
        self._of_slot: dict[int, Key] = {}
        self._shown: list[tuple[Read, int, int]] = []
        """(read, offset, slot) of `read_committed` reads of records whose transaction may be aborted."""
        self._is_read_back = False

    # --- the history ------------------------------------------------------------------------------------------------

    def take_produce(self, sent: Produce) -> None:
        if sent.transaction is None:
            return
        key = (sent.process, sent.transaction)
        slots = [self._ledger.slot(value) for _, value in sent.records]
        self._known[key].slots += slots
        self._of_slot.update(dict.fromkeys(slots, key))

    def take_end(self, end: Transaction) -> None:
        self._known[end.process, end.number].end = end

    def take_read(self, read: Read) -> None:
        if read.is_read_committed and read.outcome == "ok":
            for offset, value in read.records:
                self._shown.append((read, offset, self._ledger.slot(value)))

    # --- what must hold ---------------------------------------------------------------------------------------------

    def counts(self) -> Transactions:
        counts = Transactions()
        for known in self._known.values():
            setattr(counts, known.fate, getattr(counts, known.fate) + 1)
        return counts

    def check(self, readback: Sequence[ReadBack], committed: Sequence[GroupOffset] | None) -> None:
        if not self._known:
            return
        for read, offset, slot in self._shown:
            self._may_be_shown(read.topic, read.partition, offset, slot, f"{read.process} received", read.invoke_us)
        visible = self._visible(readback)
        if self._is_read_back:
            for key, known in self._known.items():
                self._all_or_nothing(key, known, visible)
        if committed is not None:
            self._offsets({each[:3]: each.offset for each in committed}, visible)

    def hidden(self) -> Collection[int]:
        """Slots of records that a `read_committed` consumer must not receive: a group may skip them."""
        return {slot for known in self._known.values() if known.fate != "committed" for slot in known.slots}

    def _visible(self, readback: Sequence[ReadBack]) -> set[int]:
        """Slots of all records that a `read_committed` consumer receives after healing."""
        visible: set[int] = set()
        for each in readback:
            if each.committed is None or each.error is not None:
                continue
            self._is_read_back = True
            for offset, _, value in each.committed():
                slot = self._ledger.slot(value)
                visible.add(slot)
                self._may_be_shown(each.topic, each.partition, offset, slot, "the read-back is given", None)
            if each.last_stable_offset is not None and each.last_stable_offset < each.high_watermark:
                text = (
                    f"{each.topic}-{each.partition}: the last stable offset stays at {each.last_stable_offset}, below "
                    f"the high watermark {each.high_watermark}, though no transaction is open"
                )
                where = each.last_stable_offset
                self._findings.add(
                    Kind.TRANSACTION_HANGS, text, topic=each.topic, partition=each.partition, offset=where
                )
        return visible

    def _may_be_shown(self, topic: str, partition: int, offset: int, slot: int, who: str, at_us: int | None) -> None:
        key = self._of_slot.get(slot)
        if key is None or self._known[key].fate != "aborted":
            return
        shown = repr(self._ledger.values.text(slot))
        text = f"{who} {shown} at offset {offset} of {topic}-{partition}, {self._outcome_of(key)}"
        self._findings.add(Kind.ABORTED_VISIBLE, text, topic=topic, partition=partition, offset=offset, at_us=at_us)

    def _all_or_nothing(self, key: Key, known: _KnownEnd, visible: set[int]) -> None:
        """Checks acknowledged records that are in the log; lost records are judged elsewhere."""
        acked = [slot for slot in known.slots if self._ledger.flags[slot] & (OUTCOME_BITS | FOUND) == OK | FOUND]
        missing = [slot for slot in acked if slot not in visible]
        if not missing or known.fate == "aborted":
            return
        if known.fate == "committed":
            self._is_missing(key, missing[0], len(missing), Kind.COMMITTED_MISSING, self._outcome_of(key))
        elif len(missing) < len(acked):
            others = (
                f"and {len(acked) - len(missing)} other records of its transaction are visible, {self._outcome_of(key)}"
            )
            self._is_missing(key, missing[0], len(missing), Kind.PARTLY_VISIBLE, others)

    def _is_missing(self, key: Key, slot: int, count: int, kind: Kind, why: str) -> None:
        topic, partition = self._ledger.partitions[self._ledger.partition_of(slot)]
        end = self._known[key].end
        text = (
            f"{self._ledger.values.text(slot)!r} of {topic}-{partition} is in the log and shown to no reader of "
            f"committed records ({count} records), {why}"
        )
        self._findings.add(kind, text, topic=topic, partition=partition, at_us=None if end is None else end.complete_us)

    def _outcome_of(self, key: Key) -> str:
        process, number = key
        end, fate = self._known[key].end, self._known[key].fate
        named = f"transaction {number} of {process}"
        if end is None or end.asked == "nothing":
            return f"{named}, which has no commit"
        if fate == "committed":
            return f"{named}, whose commit was acknowledged"
        if end.asked == "abort":
            return f"{named}, which was aborted"
        if fate == "aborted":
            return f"{named}, whose commit was refused ({REFUSED_ENDS.get(end.kafka_code or 0, end.error)})"
        return f"{named}, whose commit has an unknown outcome"

    # --- offsets of groups ------------------------------------------------------------------------------------------

    def _offsets(self, committed: Mapping[tuple[str, str, int], int], visible: set[int]) -> None:
        """Checks the offsets of groups. They only rise in these histories, so the largest is the last one."""
        tried: dict[tuple[str, str, int], list[tuple[int, Key]]] = defaultdict(list)
        for key, known in self._known.items():
            for group, topic, partition, offset in known.end.offsets if known.end is not None else ():
                tried[group, topic, partition].append((offset, key))
        for place, offers in tried.items():
            found = committed.get(place, -1)
            self._is_lost(place, offers, found)
            for offset, key in offers:
                known = self._known[key]
                if offset != found:
                    continue
                if known.fate == "aborted":
                    text = f"group {place[0]} has {found} for {place[1]}-{place[2]}, of {self._outcome_of(key)}"
                    self._findings.add(Kind.ABORTED_OFFSETS, text, topic=place[1], partition=place[2], offset=found)
                elif known.fate == "unknown" and self._is_read_back and self._is_invisible(known, visible):
                    text = (
                        f"group {place[0]} has {found} for {place[1]}-{place[2]} and no record is visible, "
                        f"of {self._outcome_of(key)}"
                    )
                    self._findings.add(Kind.PARTLY_VISIBLE, text, topic=place[1], partition=place[2], offset=found)

    def _is_lost(self, place: tuple[str, str, int], offers: Sequence[tuple[int, Key]], found: int) -> None:
        committed = [(offset, key) for offset, key in offers if self._known[key].fate == "committed"]
        if committed and found < max(committed)[0]:
            offset, key = max(committed)
            shown = found if found >= 0 else "nothing"
            text = (
                f"group {place[0]} has {shown} for {place[1]}-{place[2]}, and {offset} was of {self._outcome_of(key)}"
            )
            self._findings.add(Kind.COMMIT_LOST, text, topic=place[1], partition=place[2], offset=offset)

    def _is_invisible(self, known: _KnownEnd, visible: set[int]) -> bool:
        acked = [slot for slot in known.slots if self._ledger.flags[slot] & (OUTCOME_BITS | FOUND) == OK | FOUND]
        return bool(acked) and not any(slot in visible for slot in acked)
