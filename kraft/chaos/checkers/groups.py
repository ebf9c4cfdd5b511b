"""Records and commits of groups: no acknowledged commit is forgotten, and no record is skipped.

A group may receive a record again: the next owner of a partition begins at the committed offset. So each redelivered
record must be above every commit that was acknowledged before the reader requested the committed offset, and the
verdict contains the reason why the first reader had not committed it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from kraft.chaos.checkers.contents import FinalLogs
from kraft.chaos.checkers.findings import Explanation, Findings
from kraft.chaos.checkers.ledger import UNKNOWN, Ledger
from kraft.chaos.checkers.ranges import Ranges
from kraft.chaos.checkers.spans import Spans
from kraft.chaos.checkers.timeline import Timeline
from kraft.chaos.checkers.verdict import Kind
from kraft.chaos.evidence import GroupOffset
from kraft.chaos.history import Commit, Read
from kraft.protocol.errors import for_code

Key: TypeAlias = tuple[str, str, int]
"""Group, topic, partition."""
COMMITTED_BEFORE: Final = Explanation("", "received again after an acknowledged commit")
PASSED_OVER: Final = Explanation("", "committed by the group, and never received by a member")


@dataclass(frozen=True, slots=True)
class _Delivery:
    process: str
    start: int
    end: int
    since_us: int
    """The earliest time at which the member requested the committed offset."""
    complete_us: int
    generation: int | None


def _exact() -> Spans:
    return Spans(spans_max=None)


@dataclass(slots=True)
class _Progress:
    """The deliveries and commits of a group in one partition."""

    spans: Spans = field(default_factory=_exact)
    given: list[_Delivery] = field(default_factory=list)
    again: list[tuple[_Delivery, tuple[tuple[int, str], ...]]] = field(default_factory=list)
    """(delivery, records) that a member had received before."""
    commits: list[tuple[Commit, int]] = field(default_factory=list)
    """(commit, its offset for this partition), in order of completion."""
    acked_us: list[int] = field(default_factory=list)
    acked: list[int] = field(default_factory=list)
    """For each time in `acked_us`, the largest offset whose commit was acknowledged until then."""

    def floor(self, at_us: int) -> int:
        """The lowest committed offset that a correct coordinator returns at this time."""
        at = bisect_left(self.acked_us, at_us)
        return self.acked[at - 1] if at else 0

    def commit(self, commit: Commit, offset: int) -> None:
        self.commits.append((commit, offset))
        if commit.outcome == "ok":
            self.acked_us.append(commit.complete_us)
            self.acked.append(max(offset, self.acked[-1] if self.acked else 0))


class GroupCheck:
    def __init__(self, ledger: Ledger, findings: Findings, final: FinalLogs, timeline: Timeline) -> None:
        self._ledger = ledger
        self._findings = findings
        self._final = final
        self._timeline = timeline
        self._progress: dict[Key, _Progress] = {}
        self.redelivered = 0
        self.skipped = 0

    # --- the history, in order of completion ------------------------------------------------------------------------

    def take_read(self, read: Read) -> None:
        if read.group is None or read.outcome != "ok" or not read.records:
            return
        progress = self._progress.setdefault((read.group, read.topic, read.partition), _Progress())
        since_us = read.invoke_us if read.since_us is None else read.since_us
        again = tuple(record for record in read.records if record[0] in progress.spans)
        for start, end in _runs([offset for offset, _ in read.records]):
            given = _Delivery(read.process, start, end, since_us, read.complete_us, read.generation)
            part = tuple(record for record in again if start <= record[0] < end)
            if part:
                progress.again.append((given, part))
            progress.given.append(given)
            progress.spans.add(start, end)

    def take_commit(self, commit: Commit) -> None:
        for partition, offset in commit.offsets:
            key = (commit.group, commit.topic, partition)
            self._progress.setdefault(key, _Progress()).commit(commit, offset)

    # --- what must hold ---------------------------------------------------------------------------------------------

    def check(self, committed: Sequence[GroupOffset] | None) -> None:
        offsets = None if committed is None else {each[:3]: each.offset for each in committed}
        for key, progress in self._progress.items():
            self._old_generations(key, progress)
            if offsets is not None and progress.acked and offsets.get(key, 0) < progress.acked[-1]:
                self._lost_commit(key, progress, offsets.get(key))

    def _lost_commit(self, key: Key, progress: _Progress, found: int | None) -> None:
        group, topic, partition = key
        commit = next(each for each, offset in progress.commits if _is_acked(each) and offset == progress.acked[-1])
        text = (
            f"group {group} had committed {progress.acked[-1]} of {topic}-{partition}, acknowledged to "
            f"{commit.process}, and its coordinator returns {'nothing' if found is None else found}"
        )
        self._findings.add(Kind.COMMIT_LOST, text, topic=topic, partition=partition, at_us=commit.complete_us)

    def _old_generations(self, key: Key, progress: _Progress) -> None:
        """A generation has certainly begun when a member of it has received records."""
        group, topic, partition = key
        for commit, offset in progress.commits:
            if not _is_acked(commit) or commit.generation is None:
                continue
            for given in progress.given:
                is_newer = given.generation is not None and given.generation > commit.generation
                if is_newer and given.complete_us < commit.invoke_us:
                    text = (
                        f"a commit of {offset} for {topic}-{partition} by {commit.process}, sent in generation "
                        f"{commit.generation} of group {group}, was accepted after {given.process} had read in "
                        f"generation {given.generation}"
                    )
                    where = {"topic": topic, "partition": partition, "at_us": commit.invoke_us}
                    self._findings.add(Kind.COMMIT_OF_OLD_GENERATION, text, **where)  # type: ignore[arg-type]
                    break

    def redeliveries(self) -> Ranges:
        ranges = Ranges(self._ledger)
        for key, progress in self._progress.items():
            for given, records in progress.again:
                self.redelivered += len(records)
                floor = progress.floor(given.since_us)
                if records[0][0] < floor:
                    self._went_back(key, progress, given, records[0][0], floor)
                why = _not_committed(progress, given, records)
                for offset, value in records:
                    self._add(ranges, value, offset, COMMITTED_BEFORE if offset < floor else why)
        return ranges

    def _went_back(self, key: Key, progress: _Progress, given: _Delivery, offset: int, floor: int) -> None:
        group, topic, partition = key
        commit = next(each for each, at in progress.commits if _is_acked(each) and at == floor)
        text = (
            f"group {group} had committed {floor} of {topic}-{partition}, acknowledged to {commit.process}, and "
            f"then {given.process} received offset {offset}"
        )
        self._findings.add(
            Kind.COMMIT_LOST, text, topic=topic, partition=partition, offset=offset, at_us=given.since_us
        )

    def skips(self, committed: Sequence[GroupOffset] | None, *, aborted: Collection[int] = ()) -> Ranges:
        """Records below the committed offset of a group that no member received. `aborted`: slots of records that a
        `read_committed` consumer does not receive."""
        ranges = Ranges(self._ledger)
        offsets = {each[:3]: each.offset for each in committed or ()}
        for key, progress in self._progress.items():
            _group, topic, number = key
            partition = self._ledger.partition_id(topic, number)
            kept = self._final.maps.get(partition)
            if kept is None or self._timeline.deletions(topic):
                continue
            until = max(offsets.get(key, 0), progress.acked[-1] if progress.acked else 0)
            for offset, slot in kept.items(self._final.log_starts.get(partition, 0), until):
                if offset not in progress.spans and slot not in aborted and self._is_known(slot):
                    self.skipped += 1
                    ranges.add(slot, offset=offset, explanation=PASSED_OVER)
        return ranges

    def _add(self, ranges: Ranges, value: str, offset: int, explanation: Explanation) -> None:
        slot = self._ledger.slot(value)
        if self._is_known(slot):
            ranges.add(slot, offset=offset, explanation=explanation)

    def _is_known(self, slot: int) -> bool:
        return self._ledger.operation[slot] != UNKNOWN


def _is_acked(commit: Commit) -> bool:
    return commit.outcome == "ok"


def _not_committed(progress: _Progress, again: _Delivery, records: Sequence[tuple[int, str]]) -> Explanation:
    """Why the first member did not commit the records in time."""
    first, after = records[0][0], records[-1][0] + 1
    before = next(
        each
        for each in reversed(progress.given)
        if each.start < after and first < each.end and each is not again and each.complete_us <= again.complete_us
    )
    if before.process == again.process and before.since_us == again.since_us:
        return Explanation("", f"received twice by {again.process}, which fetched the committed offset once")
    return Explanation(
        "not committed", f"received by {again.process} after {before.process}, {_why(progress, before, again)}"
    )


def _why(progress: _Progress, before: _Delivery, again: _Delivery) -> str:
    """The fate of the commit of a member for these records."""
    tried = [
        commit
        for commit, offset in progress.commits
        if commit.process == before.process and commit.invoke_us >= before.complete_us and offset > before.start
    ]
    if not tried:
        return "which had not committed them"
    commit = tried[0]
    match commit.outcome:
        case "ok":
            return f"whose commit was acknowledged only after {again.process} had fetched the committed offset"
        case "info":
            return "whose commit got no answer"
    return f"whose commit was refused{_with(commit.kafka_code)}"


def _with(code: int | None) -> str:
    return f" with {for_code(code).name}" if code else ""


def _runs(offsets: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending offsets as half-open spans."""
    start = end = offsets[0]
    for offset in offsets:
        if offset != end:
            yield start, end
            start = offset
        end = offset + 1
    yield start, end
