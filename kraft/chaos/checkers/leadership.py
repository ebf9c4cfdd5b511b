"""One leader and one controller per epoch, the leader in its ISR, and a high watermark that only rises in an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from kraft.chaos.checkers.findings import Findings
from kraft.chaos.checkers.verdict import Kind
from kraft.chaos.evidence import Event, LeaderSample

_Place: TypeAlias = tuple[str, str, int]
"""Topic, topic id, partition."""


class LeadershipCheck:
    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._leaders: dict[tuple[_Place, int], int] = {}
        self._ids: dict[str, str] = {}

    def check(self, events: Sequence[Event], samples: Sequence[LeaderSample]) -> None:
        self._controllers(events)
        self._quorum_leaders(events)
        for event in events:
            fields = event.fields
            if event.event == "topic_deleted":
                self._ids.pop(fields["topic"], None)
            elif event.event == "became_leader":
                self._leads(self._place(fields), event.node, fields["leader_epoch"], event.at_us)
            elif event.event in ("leader_elected", "isr_changed"):
                self._announced(self._place(fields), event)
        for sample in samples:
            place = (sample.topic, sample.topic_id or self._ids.get(sample.topic, ""), sample.partition)
            self._leads(place, sample.node, sample.leader_epoch, sample.at_us)
            if sample.node not in sample.isr:
                self._without(place, sample.node, sample.isr, sample.at_us)
        self._high_watermarks(samples)

    def _place(self, fields: dict[str, object]) -> _Place:
        topic, partition = str(fields["topic"]), fields["partition"]
        assert isinstance(partition, int)
        topic_id = str(fields.get("topic_id", "")) or self._ids.get(topic, "")
        self._ids[topic] = topic_id
        return topic, topic_id, partition

    def _leads(self, place: _Place, node: int, epoch: int, at_us: int) -> None:
        first = self._leaders.setdefault((place, epoch), node)
        if first != node:
            text = f"nodes {first} and {node} both led {place[0]}-{place[2]} in epoch {epoch}"
            self._add(Kind.TWO_LEADERS, place, text, at_us)

    def _announced(self, place: _Place, event: Event) -> None:
        """An event contains leader and ISR of one state, so it is judged alone: other events may be missing.

        A controller with a full disk writes no events, and one that resigned writes no event about later commits.
        """
        leader, isr = event.fields["leader"], event.fields["isr"]
        if leader < 0:
            return
        self._leads(place, leader, event.fields["leader_epoch"], event.at_us)
        if leader not in isr:
            self._without(place, leader, isr, event.at_us)

    def _without(self, place: _Place, leader: int, isr: Sequence[int], at_us: int) -> None:
        text = f"node {leader} leads {place[0]}-{place[2]}, and the ISR is {sorted(isr)}"
        self._add(Kind.ISR_WITHOUT_LEADER, place, text, at_us)

    def _high_watermarks(self, samples: Sequence[LeaderSample]) -> None:
        highest: dict[tuple[str, str, int, int, int], int] = {}
        for sample in samples:
            key = (sample.topic, sample.topic_id, sample.partition, sample.leader_epoch, sample.node)
            before = highest.get(key, -1)
            if sample.high_watermark < before:
                text = (
                    f"the high watermark of {sample.topic}-{sample.partition} went back from {before} to "
                    f"{sample.high_watermark} on its leader, node {sample.node}, within epoch {sample.leader_epoch}"
                )
                place = (sample.topic, sample.topic_id, sample.partition)
                self._add(Kind.HIGH_WATERMARK_BACK, place, text, sample.at_us, offset=sample.high_watermark)
            highest[key] = max(before, sample.high_watermark)

    def _controllers(self, events: Sequence[Event]) -> None:
        controllers: dict[int, int] = {}
        for event in events:
            if event.event != "controller_changed":
                continue
            epoch, node = event.fields["epoch"], event.fields["controller"]
            first = controllers.setdefault(epoch, node)
            if first != node:
                text = f"nodes {first} and {node} were both the active controller in epoch {epoch}"
                self._findings.add(Kind.TWO_CONTROLLERS, text, at_us=event.at_us)

    def _quorum_leaders(self, events: Sequence[Event]) -> None:
        """Raft's election safety: at most one leader in a term."""
        leaders: dict[int, int] = {}
        for event in events:
            if event.event != "quorum_leadership" or event.fields["leader"] < 0:
                continue
            term, node = event.fields["term"], event.fields["leader"]
            first = leaders.setdefault(term, node)
            if first != node:
                text = f"nodes {first} and {node} both led the quorum in term {term}"
                self._findings.add(Kind.TWO_CONTROLLERS, text, at_us=event.at_us)

    def _add(self, kind: Kind, place: _Place, text: str, at_us: int, *, offset: int | None = None) -> None:
        self._findings.add(kind, text, topic=place[0], partition=place[2], offset=offset, at_us=at_us)
