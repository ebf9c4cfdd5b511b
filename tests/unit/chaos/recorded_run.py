"""A planted run: what clients were told, what the logs hold, what nodes told; and its verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kraft.chaos.checkers.check import check_history
from kraft.chaos.checkers.verdict import Verdict
from kraft.chaos.evidence import (
    Event,
    Evidence,
    Fault,
    GroupOffset,
    LeaderSample,
    LogRecord,
    ReadBack,
    Records,
    ReplicaLog,
    VoterMetadata,
)
from kraft.chaos.history import (
    Acknowledge,
    Acks,
    Asked,
    Attempt,
    Commit,
    Delivered,
    Header,
    HistoryWriter,
    Operation,
    Produce,
    Read,
    Receive,
    Transaction,
    Word,
)
from kraft.client.outcome import Outcome

SECOND = 1_000_000
TOPIC = "t"


def records(values: Sequence[str | None], *, epoch: int = 0, start: int = 0) -> Records:
    """A log with these values; None is an offset without a record."""

    def iterate() -> Iterator[LogRecord]:
        for offset, value in enumerate(values, start):
            if value is not None:
                yield LogRecord(offset, epoch, value)

    return iterate


@dataclass
class Run:
    settings: dict[str, Any] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    readback: list[ReadBack] = field(default_factory=list)
    replicas: list[ReplicaLog] = field(default_factory=list)
    samples: list[LeaderSample] = field(default_factory=list)
    voters: list[VoterMetadata] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    committed: list[GroupOffset] | None = None
    _counters: dict[str, int] = field(default_factory=dict)
    _indexes: dict[str, int] = field(default_factory=dict)

    def sent(
        self,
        *values: str,
        at_s: float,
        outcome: Outcome = "ok",
        acks: Acks = "all",
        offset: int | None = None,
        node: int = 1,
        process: str = "p",
        partition: int = 0,
        took_s: float = 0.01,
        index: int | None = None,
        attempts: Sequence[Attempt] = (),
        kafka_code: int | None = None,
        transaction: int | None = None,
    ) -> None:
        offsets = None if offset is None else tuple(range(offset, offset + len(values)))
        begun = round(at_s * SECOND)
        self.operations.append(
            Produce(
                process=process,
                index=self._next(process) if index is None else index,
                invoke_us=begun,
                complete_us=begun + round(took_s * SECOND),
                topic=TOPIC,
                partition=partition,
                acks=acks,
                node=node,
                records=tuple((None, value) for value in values),
                outcome=outcome,
                kafka_code=kafka_code,
                offsets=offsets,
                attempts=tuple(attempts),
                transaction=transaction,
            )
        )

    def ends_transaction(
        self,
        number: int,
        asked: Asked,
        *,
        at_s: float,
        outcome: Outcome = "ok",
        kafka_code: int | None = None,
        attempts: int = 1,
        offset: int | None = None,
        process: str = "p",
    ) -> None:
        """`offset`: of group `g` in partition 0, committed with it."""
        begun = round(at_s * SECOND)
        self.operations.append(
            Transaction(
                process=process,
                index=self._next(process),
                invoke_us=begun,
                complete_us=begun + 5_000,
                transactional_id=process,
                number=number,
                asked=asked,
                attempts=attempts,
                offsets=() if offset is None else (("g", TOPIC, 0, offset),),
                outcome=outcome,
                kafka_code=kafka_code,
            )
        )

    def read(
        self,
        offset: int,
        values: Sequence[str | None],
        *,
        at_s: float,
        process: str = "r",
        high_watermark: int | None = None,
        outcome: Outcome = "ok",
        kafka_code: int | None = None,
        node: int = 1,
        group: str | None = None,
        generation: int | None = None,
        since_s: float | None = None,
        is_read_committed: bool = False,
    ) -> None:
        end = offset + len(values)
        begun = round(at_s * SECOND)
        self.operations.append(
            Read(
                process=process,
                index=self._next(process),
                invoke_us=begun,
                complete_us=begun + 5_000,
                topic=TOPIC,
                partition=0,
                node=node,
                offset=offset,
                next_offset=end,
                high_watermark=end if high_watermark is None else high_watermark,
                records=tuple((at, value) for at, value in enumerate(values, offset) if value is not None),
                outcome=outcome,
                kafka_code=kafka_code,
                group=group,
                generation=generation,
                since_us=None if since_s is None else round(since_s * SECOND),
                is_read_committed=is_read_committed,
            )
        )

    def commits(
        self,
        offset: int,
        *,
        at_s: float,
        process: str,
        outcome: Outcome = "ok",
        kafka_code: int | None = None,
        generation: int | None = None,
        group: str = "g",
    ) -> None:
        begun = round(at_s * SECOND)
        self.operations.append(
            Commit(
                process=process,
                index=self._next(process),
                invoke_us=begun,
                complete_us=begun + 5_000,
                group=group,
                topic=TOPIC,
                offsets=((0, offset),),
                generation=generation,
                outcome=outcome,
                kafka_code=kafka_code,
            )
        )

    def receives(
        self,
        offset: int,
        values: Sequence[str],
        *,
        at_s: float,
        process: str,
        delivery: int = 1,
        took_s: float = 0.01,
        lock_ms: int = 3_000,
        outcome: Outcome = "ok",
        group: str = "q",
    ) -> int:
        """The index of the operation."""
        index, begun = self._next(process), round(at_s * SECOND)
        self.operations.append(
            Receive(
                process=process,
                index=index,
                invoke_us=begun,
                complete_us=begun + round(took_s * SECOND),
                group=group,
                topic=TOPIC,
                records=tuple(Delivered(0, at, delivery, value) for at, value in enumerate(values, offset)),
                lock_ms=lock_ms,
                outcome=outcome,
            )
        )
        return index

    def acknowledges(
        self,
        receive: int,
        *offsets: int,
        at_s: float,
        process: str,
        word: Word = "accept",
        took_s: float = 0.005,
        outcome: Outcome = "ok",
        kafka_code: int | None = None,
        group: str = "q",
    ) -> None:
        begun = round(at_s * SECOND)
        self.operations.append(
            Acknowledge(
                process=process,
                index=self._next(process),
                invoke_us=begun,
                complete_us=begun + round(took_s * SECOND),
                group=group,
                topic=TOPIC,
                receive=receive,
                word=word,
                records=tuple((0, offset) for offset in offsets),
                outcome=outcome,
                kafka_code=kafka_code,
            )
        )

    def ends_with(
        self,
        *values: str | None,
        start: int = 0,
        error: str | None = None,
        partition: int = 0,
        committed: Sequence[str | None] | None = None,
        last_stable_offset: int | None = None,
    ) -> None:
        """The read-back. `committed`: as a reader of committed records has it."""
        self.readback.append(
            ReadBack(
                topic=TOPIC,
                partition=partition,
                records=records(values, start=start),
                log_start_offset=start,
                high_watermark=start + len(values),
                isr=(1, 2, 3),
                error=error,
                committed=None if committed is None else records(committed, start=start),
                last_stable_offset=start + len(values) if last_stable_offset is None else last_stable_offset,
            )
        )

    def copy(
        self, node: int, *values: str | None, high_watermark: int | None = None, epoch: int = 0, **more: Any
    ) -> None:
        end = len(values)
        self.replicas.append(
            ReplicaLog(
                node=node,
                topic=TOPIC,
                partition=0,
                records=records(values, epoch=epoch),
                log_end_offset=end,
                high_watermark=end if high_watermark is None else high_watermark,
                **more,
            )
        )

    def event(self, event: str, *, at_s: float, node: int = 1, **fields: Any) -> None:
        where: dict[str, Any] = {"topic": TOPIC, "partition": 0}
        self.events.append(Event(at_us=round(at_s * SECOND), node=node, event=event, fields=where | fields))

    def leads(
        self, node: int, epoch: int, *, at_s: float, start: int, reason: str = "broker fenced", **more: Any
    ) -> None:
        """Elected, and told of it."""
        if epoch:
            isr = more.pop("isr", [node])
            self.event("leader_elected", at_s=at_s, leader=node, leader_epoch=epoch, reason=reason, isr=isr, **more)
        self.event("became_leader", at_s=at_s + 0.01, node=node, leader_epoch=epoch, epoch_start_offset=start)

    def follows(self, node: int, leader: int, epoch: int, *, at_s: float) -> None:
        self.event("became_follower", at_s=at_s, node=node, leader=leader, leader_epoch=epoch, log_end_offset=0)

    def cut(self, node: int, from_offset: int, to_offset: int, *, at_s: float, epoch: int, leader_epoch: int) -> None:
        span = {"from_offset": from_offset, "to_offset": to_offset}
        self.event("truncated", at_s=at_s, node=node, **span, epoch=epoch, leader_epoch=leader_epoch)

    def fault(self, fault: str, *nodes: int, at_s: float, until_s: float | None = None, text: str = "") -> None:
        self.faults.append(
            Fault(
                at_us=round(at_s * SECOND),
                until_us=None if until_s is None else round(until_s * SECOND),
                fault=fault,
                nodes=nodes,
                text=text or f"{fault} {nodes}",
            )
        )

    def sample(
        self, node: int, epoch: int, high_watermark: int, *, at_s: float, isr: Sequence[int] = (1, 2, 3)
    ) -> None:
        self.samples.append(
            LeaderSample(
                at_us=round(at_s * SECOND),
                node=node,
                topic=TOPIC,
                partition=0,
                leader_epoch=epoch,
                high_watermark=high_watermark,
                log_end_offset=high_watermark,
                isr=tuple(isr),
            )
        )

    def write(self, folder: Path) -> Path:
        path = folder / "history.jsonl"
        header = Header(scenario="planted", seed=7, settings=self.settings, start_us=0, wall_ms=0)
        with HistoryWriter(path, header) as writer:
            for operation in self.operations:
                writer.record(operation)
        return path

    def evidence(self) -> Evidence:
        return Evidence(
            readback=self.readback,
            replicas=self.replicas,
            committed=self.committed,
            samples=self.samples,
            voters=self.voters,
            events=sorted(self.events, key=lambda event: event.at_us),
            faults=self.faults,
        )

    def verdict(self, folder: Path) -> Verdict:
        return check_history(self.write(folder), self.evidence())

    def _next(self, process: str) -> int:
        index = self._indexes[process] = self._indexes.get(process, -1) + 1
        return index


def values(first: int, count: int, process: str = "p") -> list[str]:
    return [f"{process}:{number}" for number in range(first, first + count)]


def take_and_accept(run: Run, count: int) -> None:
    """A worker of a queue receives and accepts the first records."""
    taken = run.receives(0, values(0, count), at_s=4, process="w1")
    run.acknowledges(taken, *range(count), at_s=4.1, process="w1")


def poison(run: Run) -> None:
    """Record 9 is released as often as the limit allows."""
    for number in range(1, 6):
        taken = run.receives(9, values(9, 1), at_s=4 + number, process="w2", delivery=number)
        run.acknowledges(taken, 9, at_s=4.1 + number, process="w2", word="release")


def dead_letters(run: Run, *copies: str) -> None:
    """The topic `dlq` takes dead letters, and has these."""
    run.settings |= {"topics": {"dlq": {"errors.deadletterqueue.group.enable": True}}}
    run.readback.append(ReadBack(topic="dlq", partition=0, records=records(copies), high_watermark=len(copies)))


def delayed(run: Run, *copies: str) -> None:
    """The topic is a delay topic, and its target has these."""
    run.settings |= {"topics": {TOPIC: {"delivery.target.topic": "due"}}}
    run.readback.append(ReadBack(topic="due", partition=0, records=records(copies), high_watermark=len(copies)))


def clean_run() -> Run:
    """Ten records, two reads, a clean change of the leader, everything as it should be."""
    run = Run()
    run.leads(1, 0, at_s=0.1, start=0)
    run.sent(*values(0, 6), at_s=1, offset=0)
    run.read(0, values(0, 6), at_s=1.5)
    run.sample(1, 0, 6, at_s=1.6)
    run.leads(2, 1, at_s=2, start=6, old_leader=1, isr=[2, 3])
    run.follows(1, 2, 1, at_s=2.1)
    run.sent(*values(6, 4), at_s=3, offset=6, node=2)
    run.read(6, values(6, 4), at_s=3.5, node=2)
    run.sample(2, 1, 10, at_s=3.6)
    run.ends_with(*values(0, 10))
    for node in (1, 2, 3):
        run.copy(node, *values(0, 10), epochs=((0, 0), (1, 6)))
    return run
