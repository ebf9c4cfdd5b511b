"""From a run to its verdict. One pass over the history fills the columns; everything else works on those.

Memory: about 75 bytes a record and 4 bytes an offset per log that is compared; 10 million records fit into 2 GB.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Final

from kraft.chaos.checkers.causes import Causes
from kraft.chaos.checkers.contents import FinalLogs
from kraft.chaos.checkers.delays import DelayCheck, targets_of
from kraft.chaos.checkers.expiry import Expiry
from kraft.chaos.checkers.fate_counts import count_all, count_by_acks, count_by_topic
from kraft.chaos.checkers.findings import Explanation, Findings
from kraft.chaos.checkers.groups import GroupCheck
from kraft.chaos.checkers.leadership import LeadershipCheck
from kraft.chaos.checkers.ledger import FAIL, FOUND, OUTCOME_BITS, Ledger
from kraft.chaos.checkers.losses import Losses
from kraft.chaos.checkers.queues import QueueCheck, dead_letter_topics
from kraft.chaos.checkers.ranges import Ranges
from kraft.chaos.checkers.reads import ClientReads
from kraft.chaos.checkers.repeats import Repeats
from kraft.chaos.checkers.replicas import ReplicaCheck
from kraft.chaos.checkers.timeline import Timeline
from kraft.chaos.checkers.transactions import TransactionCheck
from kraft.chaos.checkers.verdict import Operations, Range, Verdict
from kraft.chaos.checkers.voters import VoterCheck
from kraft.chaos.evidence import Evidence, read_events, read_faults
from kraft.chaos.history import Acknowledge, Commit, History, HistoryError, Produce, Receive, Transaction

HISTORY_FILE: Final = "history.jsonl"
EVENTS_FILE: Final = "events.jsonl"
FAULTS_FILE: Final = "faults.jsonl"
PHANTOM: Final = Explanation("", "refused by the answer to their client, and yet in the log")


def check_history(path: str | Path, evidence: Evidence | None = None) -> Verdict:
    """The verdict. Without evidence, the reads of the clients decide which records were kept. Raises HistoryError."""
    return _Check(History(path), evidence or Evidence()).verdict()


def check_beside(path: str | Path) -> Verdict:
    """The verdict of a history, with events.jsonl and faults.jsonl in the same folder if they exist. Raises
    HistoryError."""
    folder, header = Path(path).parent, History(path).header
    events, faults = folder / EVENTS_FILE, folder / FAULTS_FILE
    evidence = Evidence(
        events=read_events(events, header) if events.exists() else (),
        faults=read_faults(faults) if faults.exists() else (),
    )
    return check_history(path, evidence)


class _Check:
    def __init__(self, history: History, evidence: Evidence) -> None:
        self._history = history
        self._evidence = evidence
        self._ledger = Ledger()
        self._findings = Findings()
        self._operations = Operations()
        self._timeline = Timeline(events=evidence.events, faults=evidence.faults)
        self._timeline.learn_samples(evidence.samples)
        self._timeline.learn_epochs(evidence.replicas)
        log_starts = {(each.topic, each.partition): each.log_start_offset for each in evidence.readback}
        self._causes = Causes(self._timeline, settings=history.header.settings, log_starts=log_starts)
        self._reads = ClientReads(self._ledger, self._findings, self._timeline, self._causes)
        self._final = FinalLogs(self._ledger, self._findings, self._reads)
        self._transactions = TransactionCheck(self._ledger, self._findings)
        self._groups = GroupCheck(self._ledger, self._findings, self._final, self._timeline)
        self._expiry = Expiry(self._ledger, history.header, evidence.events)
        self._queues = QueueCheck(
            self._ledger,
            self._findings,
            self._final,
            self._timeline,
            self._causes,
            settings=history.header.settings,
            events=evidence.events,
            expiry=self._expiry,
        )

        self._delays = DelayCheck(self._ledger, self._findings, self._causes, settings=history.header.settings)

    def verdict(self) -> Verdict:
        evidence, settings = self._evidence, self._history.header.settings
        letters = dead_letter_topics(settings) | frozenset(targets_of(settings).values())
        readback = [each for each in evidence.readback if each.topic not in letters]
        self._take_history()
        if readback:
            self._final.read_back(readback)
        else:
            self._final.trust_clients()
        self._delays.check(evidence.readback)
        replicas = ReplicaCheck(self._ledger, self._findings, self._reads, self._final, self._timeline)
        replicas.compare([each for each in evidence.replicas if each.topic not in letters], readback)
        LeadershipCheck(self._findings).check(evidence.events, evidence.samples)
        VoterCheck(self._findings).check(evidence.voters, evidence.events)
        repeats = Repeats(self._ledger, self._final, evidence.faults)
        repeats.look_up(self._history.operations() if self._final.has_repeats else ())
        self._groups.check(evidence.committed)
        self._transactions.check(readback, evidence.committed)
        self._queues.check(evidence.readback, aborted=self._transactions.hidden())
        losses = Losses(self._ledger, self._timeline, self._causes, self._final).ranges().finished()
        return self._assemble(losses, repeats.duplicates().finished(), repeats.reorders().finished())

    def _take_history(self) -> None:
        outcomes: Counter[str] = Counter()
        seen = self._operations
        for line, operation in enumerate(self._history.operations(), 2):
            outcomes[operation.outcome] += 1
            try:
                if isinstance(operation, Produce):
                    seen.produces += 1
                    self._expiry.take(operation, self._ledger.add(operation))
                    self._transactions.take_produce(operation)
                elif isinstance(operation, Commit):
                    seen.commits += 1
                    self._groups.take_commit(operation)
                elif isinstance(operation, Transaction):
                    self._transactions.take_end(operation)
                elif isinstance(operation, Receive):
                    seen.receives += 1
                    self._queues.take_receive(operation)
                elif isinstance(operation, Acknowledge):
                    seen.receives += 1
                    self._queues.take_acknowledge(operation)
                else:
                    seen.reads += 1
                    self._reads.take(operation)
                    self._groups.take_read(operation)
                    self._transactions.take_read(operation)
            except HistoryError as error:
                raise HistoryError(f"{self._history.path}:{line}: {error}") from error
            if not seen.first_us or operation.invoke_us < seen.first_us:
                seen.first_us = operation.invoke_us
            seen.last_us = max(seen.last_us, operation.complete_us)
        seen.ok, seen.fail, seen.info = outcomes["ok"], outcomes["fail"], outcomes["info"]

    def _phantoms(self) -> tuple[Range, ...]:
        ranges = Ranges(self._ledger)
        for slot in self._ledger.slots_with(OUTCOME_BITS | FOUND, FAIL | FOUND):
            ranges.add(slot, offset=self._ledger.acked[slot], explanation=PHANTOM)
        return ranges.finished()

    def _assemble(
        self, losses: tuple[Range, ...], duplicates: tuple[Range, ...], reorders: tuple[Range, ...]
    ) -> Verdict:
        redeliveries = (*self._groups.redeliveries().finished(), *self._queues.redeliveries.finished())
        archives, expiries = self._queues.archives.finished(), self._queues.expiries.finished()
        too_old = self._queues.too_old.finished()
        skips = self._groups.skips(self._evidence.committed, aborted=self._transactions.hidden()).finished()
        anomalies = self._findings.anomalies()
        phantoms = self._phantoms()
        ranges = (*losses, *duplicates, *reorders, *phantoms, *redeliveries, *skips, *archives, *expiries, *too_old)
        counts = count_all(self._ledger, self._final)
        counts.redelivered, counts.skipped = self._groups.redelivered, self._groups.skipped
        self._queues.count(counts)
        unexplained = sum(not each.explained for each in ranges) + sum(not each.explained for each in anomalies)
        return Verdict(
            scenario=self._history.header.scenario,
            seed=self._history.header.seed,
            counts=counts,
            by_acks=count_by_acks(self._ledger, self._final),
            by_topic=count_by_topic(self._ledger, self._final),
            operations=self._operations,
            transactions=self._transactions.counts(),
            anomalies=anomalies,
            losses=losses,
            duplicates=duplicates,
            reorders=reorders,
            phantoms=phantoms,
            redeliveries=redeliveries,
            skips=skips,
            archives=archives,
            expiries=expiries,
            too_old=too_old,
            unexplained=unexplained,
        )
