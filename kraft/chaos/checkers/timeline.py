"""The events of each partition: its leader epochs with their start offsets, truncations and deletions.

A topic that is deleted and created again has the same name and another id: its partitions begin again with epoch 0, and
are separate incarnations. Unknown facts are None, never guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kraft.chaos.evidence import Event, Fault, LeaderSample, ReplicaLog

UNCLEAN: Final = "unclean leader election"
DEATHS: Final = frozenset({"kill", "power_loss", "stop", "wipe", "crash"})
"""Faults that end the process of a node."""
SLACK_US: Final = 250_000
"""The largest difference between the time of an event and the time at which clients see its effect."""


@dataclass(slots=True, kw_only=True)
class Leadership:
    """One leader epoch of a partition: its leader, its start and its end."""

    epoch: int
    leader: int = -1
    start_offset: int | None = None
    elected_us: int | None = None
    """The time of the controller's event."""
    began_us: int | None = None
    """The time of the leader's event."""
    ended_us: int | None = None
    """The time at which the leader learned that it no longer leads, or died."""
    reason: str = ""
    unclean: Mapping[str, Any] | None = None

    @property
    def is_unclean(self) -> bool:
        return self.unclean is not None or self.reason == UNCLEAN

    @property
    def since_us(self) -> int:
        times = [at for at in (self.elected_us, self.began_us) if at is not None]
        return min(times, default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A replica truncated [from_offset, to_offset), because the leader of `leader_epoch` does not have it."""

    node: int
    at_us: int
    from_offset: int
    to_offset: int
    epoch: int
    leader_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LogStart:
    """The log start offset rose to `offset`."""

    at_us: int
    node: int
    offset: int
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """Recovery truncated the log at `offset`."""

    at_us: int
    node: int
    offset: int
    reason: str


@dataclass(slots=True, kw_only=True)
class PartitionTimeline:
    """One incarnation of one partition."""

    topic: str
    partition: int
    topic_id: str = ""
    since_us: int | None = None
    deleted_us: int | None = None
    leaderships: dict[int, Leadership] = field(default_factory=dict)
    cuts: list[Cut] = field(default_factory=list)
    log_starts: list[LogStart] = field(default_factory=list)
    repairs: list[Repair] = field(default_factory=list)
    high_watermarks: dict[int, int] = field(default_factory=dict)
    """Leader epoch -> the highest high watermark seen at its leader."""

    def leadership(self, epoch: int) -> Leadership:
        return self.leaderships.setdefault(epoch, Leadership(epoch=epoch))

    def in_order(self) -> list[Leadership]:
        return [self.leaderships[epoch] for epoch in sorted(self.leaderships)]

    def committed_below(self, epoch: int) -> int:
        """The highest high watermark of all earlier epochs."""
        return max((mark for before, mark in self.high_watermarks.items() if before < epoch), default=0)


class Timeline:
    def __init__(self, *, events: Sequence[Event], faults: Sequence[Fault]) -> None:
        self.faults = faults
        self._incarnations: dict[tuple[str, int], list[PartitionTimeline]] = {}
        self._deleted: dict[str, list[tuple[int, str]]] = {}
        for event in events:
            if event.event == "topic_deleted":
                self._deleted.setdefault(event.fields["topic"], []).append((event.at_us, event.fields["topic_id"]))
        self._events = sorted(events, key=lambda event: event.at_us)
        self._stopped: dict[int, list[int]] = {}
        for event in self._events:
            if event.event == "node_stopped":
                self._stopped.setdefault(event.node, []).append(event.at_us)
        for event in self._events:
            take = _TAKERS.get(event.event)
            if take is not None and {"topic", "partition"} <= event.fields.keys():
                take(self._of_event(event), event)
        self._end_leaderships_of_the_dead()

    def partition(self, topic: str, partition: int, *, at_us: int) -> PartitionTimeline:
        """The incarnation at that time; otherwise the one before, or the first."""
        incarnations = self._incarnations.get((topic, partition))
        if not incarnations:
            return self._create(topic, partition, "")
        born = [each for each in incarnations if each.since_us is None or each.since_us <= at_us + SLACK_US]
        return born[-1] if born else incarnations[0]

    def all(self) -> Iterator[PartitionTimeline]:
        for incarnations in self._incarnations.values():
            yield from incarnations

    def deletion_after(self, topic: str, at_us: int) -> int | None:
        """The time of the first deletion of the topic after that moment."""
        return min((at for at, _ in self._deleted.get(topic, ()) if at >= at_us - SLACK_US), default=None)

    def deletions(self, topic: str) -> list[int]:
        return sorted(at for at, _ in self._deleted.get(topic, ()))

    def faults_on(
        self, nodes: Sequence[int], kinds: frozenset[str], *, from_us: int, until_us: int | None = None
    ) -> list[Fault]:
        return [
            fault
            for fault in self.faults
            if fault.fault in kinds
            and set(fault.nodes) & set(nodes)
            and fault.at_us >= from_us - SLACK_US
            and (until_us is None or fault.at_us <= until_us)
        ]

    def died(self, node: int, from_us: int) -> int | None:
        return min((self._gone_us(node, f) for f in self.faults_on([node], DEATHS, from_us=from_us)), default=None)

    def _gone_us(self, node: int, fault: Fault) -> int:
        """The time from which the node no longer answers: a controlled stop ends with an event of the node."""
        if fault.fault != "stop":
            return fault.at_us
        return next((at_us for at_us in self._stopped.get(node, ()) if at_us >= fault.at_us), fault.at_us)

    def learn_samples(self, samples: Sequence[LeaderSample]) -> None:
        for sample in samples:
            marks = self._find(sample.topic, sample.partition, sample.topic_id, sample.at_us).high_watermarks
            marks[sample.leader_epoch] = max(marks.get(sample.leader_epoch, 0), sample.high_watermark)

    def learn_epochs(self, replicas: Sequence[ReplicaLog]) -> None:
        """Leader-epoch checkpoints contain the starts of epochs, also if the events of the leader are lost."""
        for replica in replicas:
            last = self._incarnations.get((replica.topic, replica.partition), [])[-1:]
            timeline = last[0] if last else self._create(replica.topic, replica.partition, "")
            for epoch, start in replica.epochs:
                leadership = timeline.leadership(epoch)
                if leadership.start_offset is None:
                    leadership.start_offset = start

    def _of_event(self, event: Event) -> PartitionTimeline:
        fields = event.fields
        timeline = self._find(fields["topic"], fields["partition"], fields.get("topic_id", ""), event.at_us)
        if timeline.since_us is None:
            timeline.since_us = event.at_us
        return timeline

    def _find(self, topic: str, partition: int, topic_id: str, at_us: int) -> PartitionTimeline:
        incarnations = self._incarnations.setdefault((topic, partition), [])
        if not topic_id:
            return self.partition(topic, partition, at_us=at_us)
        for each in incarnations:
            if each.topic_id in ("", topic_id):
                each.topic_id = topic_id
                each.deleted_us = each.deleted_us or self._deletion_of(topic, topic_id)
                return each
        return self._create(topic, partition, topic_id)

    def _create(self, topic: str, partition: int, topic_id: str) -> PartitionTimeline:
        deleted_us = self._deletion_of(topic, topic_id)
        created = PartitionTimeline(topic=topic, partition=partition, topic_id=topic_id, deleted_us=deleted_us)
        self._incarnations.setdefault((topic, partition), []).append(created)
        return created

    def _deletion_of(self, topic: str, topic_id: str) -> int | None:
        return next((at for at, deleted in self._deleted.get(topic, ()) if topic_id and deleted == topic_id), None)

    def _end_leaderships_of_the_dead(self) -> None:
        for timeline in self.all():
            for leadership in timeline.leaderships.values():
                if leadership.began_us is None:
                    continue
                death = self.died(leadership.leader, leadership.began_us)
                if death is not None and (leadership.ended_us is None or death < leadership.ended_us):
                    leadership.ended_us = death


def _became_leader(timeline: PartitionTimeline, event: Event) -> None:
    leadership = timeline.leadership(event.fields["leader_epoch"])
    leadership.leader = event.node
    if leadership.began_us is None:
        leadership.began_us = event.at_us
        leadership.start_offset = event.fields["epoch_start_offset"]
    _end_leaderships(timeline, node=event.node, before_epoch=leadership.epoch, at_us=event.at_us)


def _became_follower(timeline: PartitionTimeline, event: Event) -> None:
    _end_leaderships(timeline, node=event.node, before_epoch=event.fields["leader_epoch"] + 1, at_us=event.at_us)


def _end_leaderships(timeline: PartitionTimeline, *, node: int, before_epoch: int, at_us: int) -> None:
    for leadership in timeline.leaderships.values():
        if leadership.leader == node and leadership.epoch < before_epoch and leadership.began_us is not None:
            leadership.ended_us = leadership.ended_us or at_us


def _elected(timeline: PartitionTimeline, event: Event) -> None:
    leadership = timeline.leadership(event.fields["leader_epoch"])
    if leadership.elected_us is None:
        leadership.elected_us = event.at_us
        leadership.reason = event.fields.get("reason", "")
    if leadership.leader < 0:
        leadership.leader = event.fields["leader"]


def _unclean(timeline: PartitionTimeline, event: Event) -> None:
    timeline.leadership(event.fields["leader_epoch"]).unclean = event.fields


def _truncated(timeline: PartitionTimeline, event: Event) -> None:
    fields = event.fields
    timeline.cuts.append(
        Cut(
            node=event.node,
            at_us=event.at_us,
            from_offset=fields["from_offset"],
            to_offset=fields["to_offset"],
            epoch=fields.get("epoch", -1),
            leader_epoch=fields.get("leader_epoch", -1),
        )
    )


def _records_deleted(timeline: PartitionTimeline, event: Event) -> None:
    _log_start(timeline, event, "DeleteRecords")


def _segments_deleted(timeline: PartitionTimeline, event: Event) -> None:
    _log_start(timeline, event, f"retention ({event.fields.get('because', 'unknown reason')})")


def _log_start(timeline: PartitionTimeline, event: Event, how: str) -> None:
    offset = event.fields["log_start_offset"]
    timeline.log_starts.append(LogStart(at_us=event.at_us, node=event.node, offset=offset, how=how))


def _repaired(timeline: PartitionTimeline, event: Event) -> None:
    reason = str(event.fields.get("reason", ""))
    offset = event.fields["first_offset_dropped"]
    timeline.repairs.append(Repair(at_us=event.at_us, node=event.node, offset=offset, reason=reason))


_TAKERS: Final[Mapping[str, Callable[[PartitionTimeline, Event], None]]] = {
    "became_leader": _became_leader,
    "became_follower": _became_follower,
    "leader_elected": _elected,
    "unclean_election": _unclean,
    "truncated": _truncated,
    "records_deleted": _records_deleted,
    "segments_deleted": _segments_deleted,
    "segment_repaired": _repaired,
}
