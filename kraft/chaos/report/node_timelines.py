"""The role of each node in each partition over time, from events, samples and faults. Pure.

A timeline belongs to one node: it has a row for each partition, and a strip for its process (running, fenced, ...).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from kraft.chaos.evidence import Event, Evidence, Fault

ROWS_MAX: Final = 6
"""The most partitions with a row; further ones are not drawn."""
SEGMENTS_MAX: Final = 500
"""The most segments of one row; a row with more is cut, with a note."""
_DEATHS: Final = frozenset({"kill", "stop", "power_loss", "wipe", "crash"})


class State(StrEnum):
    LEADER = "leader"
    IN_ISR = "isr"
    FOLLOWER = "out"
    """A follower outside of the ISR."""
    ALIVE = "alive"
    FENCED = "fenced"
    DEAD = "dead"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Segment:
    from_us: int
    until_us: int
    state: State
    epoch: int = -1


@dataclass(slots=True)
class Row:
    """Segments of one node in one partition, or of its process (`name` is empty)."""

    name: str
    segments: list[Segment] = field(default_factory=list)


@dataclass(slots=True)
class NodeTimeline:
    node: int
    process: Row
    partitions: list[Row] = field(default_factory=list)


@dataclass(slots=True)
class _Partition:
    name: str
    leader: int = -1
    epoch: int = -1
    isr: frozenset[int] = frozenset()
    replicas: set[int] = field(default_factory=set)
    has_isr: bool = False
    changes: list[tuple[int, int, int, frozenset[int], frozenset[int]]] = field(default_factory=list)
    """(time, leader, epoch, ISR, replicas)."""

    def note(self, at_us: int) -> None:
        isr = self.isr if self.has_isr else frozenset(self.replicas)
        self.changes.append((at_us, self.leader, self.epoch, isr, frozenset(self.replicas)))


def node_timelines(evidence: Evidence, *, from_us: int, until_us: int) -> list[NodeTimeline]:
    partitions = _partitions(evidence)
    down = {node: _down(node, evidence, until_us) for node in _nodes(evidence)}
    drawn = []
    for node in sorted(down):
        process = Row("", _process_segments(down[node], _fenced(node, evidence.events, until_us), from_us, until_us))
        timeline = NodeTimeline(node, process)
        for partition in partitions[:ROWS_MAX]:
            segments = _segments(partition, node, down[node], from_us, until_us)
            if segments:
                timeline.partitions.append(Row(partition.name, segments[:SEGMENTS_MAX]))
        drawn.append(timeline)
    return drawn


def _nodes(evidence: Evidence) -> set[int]:
    nodes = {event.node for event in evidence.events} | {sample.node for sample in evidence.samples}
    return nodes | {node for fault in evidence.faults for node in fault.nodes}


# --- partitions


def _partitions(evidence: Evidence) -> list[_Partition]:
    found: dict[tuple[str, int], _Partition] = {}
    facts: list[tuple[int, str, int, dict[str, Any]]] = [
        (event.at_us, event.event, event.node, event.fields) for event in evidence.events
    ]
    facts += [
        (
            sample.at_us,
            "sample",
            sample.node,
            {
                "topic": sample.topic,
                "partition": sample.partition,
                "leader_epoch": sample.leader_epoch,
                "isr": sample.isr,
            },
        )
        for sample in evidence.samples
    ]
    facts.sort(key=lambda fact: fact[0])
    for at_us, what, node, fields in facts:
        if "topic" not in fields or "partition" not in fields:
            continue
        key = (fields["topic"], fields["partition"])
        partition = found.setdefault(key, _Partition(f"{key[0]}-{key[1]}"))
        if _learn(partition, what, node, fields):
            partition.note(at_us)
    return [found[key] for key in sorted(found) if found[key].changes]


def _learn(partition: _Partition, what: str, node: int, fields: dict[str, Any]) -> bool:
    match what:
        case "became_leader" | "sample":
            partition.replicas.add(node)
            if fields["leader_epoch"] >= partition.epoch:
                partition.leader, partition.epoch = node, fields["leader_epoch"]
            if what == "sample":
                _learn_isr(partition, fields["isr"])
        case "became_follower":
            partition.replicas.add(node)
        case "leader_elected":
            partition.leader, partition.epoch = fields["leader"], fields["leader_epoch"]
            _learn_isr(partition, fields.get("isr", ()))
        case "isr_changed":
            _learn_isr(partition, fields["isr"])
        case "replica_removed":
            partition.replicas.discard(node)
        case _:
            return False
    return True


def _learn_isr(partition: _Partition, isr: Iterable[int]) -> None:
    partition.isr, partition.has_isr = frozenset(isr), True
    partition.replicas |= partition.isr


def _segments(
    partition: _Partition, node: int, down: Sequence[tuple[int, int, State]], from_us: int, until_us: int
) -> list[Segment]:
    whole: list[Segment] = []
    ends = [change[0] for change in partition.changes[1:]] + [until_us]
    for (at_us, leader, epoch, isr, replicas), end_us in zip(partition.changes, ends, strict=True):
        if node not in replicas:
            continue
        state = State.LEADER if node == leader else State.IN_ISR if node in isr else State.FOLLOWER
        shown_epoch = epoch if state is State.LEADER else -1
        begin = max(at_us, from_us)
        last = whole[-1] if whole else None
        if last is not None and (last.state, last.epoch, last.until_us) == (state, shown_epoch, begin):
            whole[-1] = Segment(last.from_us, max(begin, end_us), state, shown_epoch)
        elif end_us > begin:
            whole.append(Segment(begin, end_us, state, shown_epoch))
    return [part for segment in whole for part in _without(segment, down)]


def _without(segment: Segment, down: Sequence[tuple[int, int, State]]) -> list[Segment]:
    """Remove the spans in which the process was down: a dead node has no role, even if the metadata has one."""
    parts = [segment]
    for begin, end, state in down:
        if state is State.DEAD:
            parts = [rest for part in parts for rest in _cut(part, begin, end)]
    return parts


def _cut(part: Segment, begin: int, end: int) -> list[Segment]:
    if end <= part.from_us or begin >= part.until_us:
        return [part]
    before = Segment(part.from_us, begin, part.state, part.epoch)
    after = Segment(end, part.until_us, part.state, part.epoch)
    return [each for each in (before, after) if each.until_us > each.from_us]


# --- processes


def _down(node: int, evidence: Evidence, until_us: int) -> list[tuple[int, int, State]]:
    """Spans in which the process was gone or paused."""
    starts = sorted(event.at_us for event in evidence.events if event.node == node and event.event == "node_starting")
    spans = []
    for fault in evidence.faults:
        if node not in fault.nodes:
            continue
        if fault.fault in _DEATHS:
            back = fault.until_us or next((at for at in starts if at > fault.at_us), until_us)
            spans.append((fault.at_us, back, State.DEAD))
        elif fault.fault == "pause":
            spans.append((fault.at_us, _resumed(node, fault, evidence.faults, until_us), State.PAUSED))
    return spans


def _resumed(node: int, pause: Fault, faults: Sequence[Fault], until_us: int) -> int:
    if pause.until_us is not None:
        return pause.until_us
    later = (f.at_us for f in faults if f.fault == "resume" and node in f.nodes and f.at_us > pause.at_us)
    return next(later, until_us)


def _fenced(node: int, events: Sequence[Event], until_us: int) -> list[tuple[int, int, State]]:
    spans: list[tuple[int, int, State]] = []
    since: int | None = None
    for event in events:
        if event.fields.get("broker") != node:
            continue
        if event.event in ("broker_fenced", "broker_registered") and since is None:
            since = event.at_us
        elif event.event == "broker_unfenced" and since is not None:
            spans.append((since, event.at_us, State.FENCED))
            since = None
    if since is not None:
        spans.append((since, until_us, State.FENCED))
    return spans


def _process_segments(
    down: list[tuple[int, int, State]], fenced: list[tuple[int, int, State]], from_us: int, until_us: int
) -> list[Segment]:
    """The segments of the process; later ones are drawn on top: alive, fenced, paused, dead."""
    segments = [Segment(from_us, until_us, State.ALIVE)]
    order = (State.FENCED, State.PAUSED, State.DEAD)
    for begin, end, state in sorted(fenced + down, key=lambda span: (order.index(span[2]), span[0])):
        begin, end = max(begin, from_us), min(max(end, from_us), until_us)
        if end > begin:
            segments.append(Segment(begin, end, state))
    return segments[:SEGMENTS_MAX]
