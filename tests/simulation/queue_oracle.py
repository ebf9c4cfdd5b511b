"""The promises to members of share groups, judged by the answers to them and by what leaders of partitions hand out.

A record is handed out to one member at a time while its lock holds. What was accepted is accepted once, and after its
acceptance (or rejection, or its last delivery) was answered it is handed out no more. A release that was answered
counts, at later leaders too. A session that its member keeps to is known as long as its connection and its leader live.
In the end each record of the log was accepted or rejected, or handed out as often as the limit allows.

A share partition is excused when its log, its state or its group may lose what acks=all acknowledged, or a disk rots.
Below the log's start nothing is promised.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kraft.coordinators.java import abs_hash
from kraft.coordinators.shares.leader import ShareLeader
from kraft.coordinators.shares.state import ShareKey
from metadata.image import TopicIdPartition
from metadata.internal_topics import OFFSETS_TOPIC, SHARE_STATE_TOPIC
from replication.shares.acknowledgements import Part
from replication.shares.partition import Acquired
from replication.shares.states import AcknowledgeType
from tests.simulation.dead_letter_oracle import DeadLetterOracle
from tests.simulation.queue_plan import QueuePlan

if TYPE_CHECKING:
    from tests.simulation.oracle import Oracle

SLACK = 0.95
"""The fastest clock of a node is 3 % ahead."""
FINAL = (AcknowledgeType.ACCEPT, AcknowledgeType.REJECT)


@dataclass(frozen=True, slots=True)
class Lock:
    leader: ShareLeader
    member: str
    until_us: float


@dataclass(slots=True)
class Record:
    """All that is known of one offset of a share partition."""

    deliveries: int = 0
    accepted_by: str | None = None
    """The member whose acceptance is durable."""
    rejected: bool = False
    """Its rejection is durable."""
    ending_begun: bool = False
    """Somebody has accepted or rejected it, whatever became of that."""
    over_us: int | None = None
    """When a member had the answer after which nobody gets it any more."""
    floor: int = 0
    """Every later delivery has a higher count than this, since `floor_us`."""
    floor_us: int = 0
    lock: Lock | None = None


@dataclass(slots=True)
class _Known:
    records: dict[int, Record] = field(default_factory=dict)
    is_uncertain: bool = False
    start_offset: int = 0
    """The durable start offset when somebody looked last."""

    def record(self, offset: int) -> Record:
        return self.records.setdefault(offset, Record())


class QueueOracle:
    """Nothing happens to it in a run without share groups."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self.plan: QueuePlan | None = None
        self.is_work_long = False
        """Members work on what they get for a good part of its lock."""
        self.dead_letters = DeadLetterOracle(oracle)
        self._known: dict[ShareKey, _Known] = {}

    # --- excuses ------------------------------------------------------------------------------------------------

    def is_certain(self, key: ShareKey) -> bool:
        known = self._known.setdefault(key, _Known())
        promise = self.oracle.promise
        homes = [TopicIdPartition(key.topic_id, key.partition), *self._homes(key)]
        if promise.rotten or any(promise.may_lose(each) for each in homes):
            if not known.is_uncertain:
                self.oracle.count("share partition excused")
            known.is_uncertain = True
        return not known.is_uncertain

    def _homes(self, key: ShareKey) -> Iterable[TopicIdPartition]:
        """Where coordinators keep what the share partition needs."""
        for name, text in ((OFFSETS_TOPIC, key.group), (SHARE_STATE_TOPIC, key.coordinator_key)):
            topic = self.oracle.image.topic(name)
            if topic is not None:
                yield TopicIdPartition(topic.topic_id, abs_hash(text) % len(topic.partitions))

    def _fail(self, key: ShareKey, what: str) -> None:
        if self.is_certain(key):
            name = self.oracle.name(TopicIdPartition(key.topic_id, key.partition))
            self.oracle.fail(f"queue {key.group} of {name}: {what}")

    # --- at the leaders -----------------------------------------------------------------------------------------

    def acquired(self, leader: ShareLeader, member: str, ranges: Sequence[Acquired]) -> None:
        known, now_us = self._known.setdefault(leader.key, _Known()), self.oracle.cluster.world.loop.now_us
        assert self.plan is not None
        until_us = now_us + leader.partition.limits.lock_duration_ms * 1_000 * SLACK
        for first, last, count in ranges:
            if count > self.plan.limit:
                self._fail(leader.key, f"delivery {count} of {first} to {last} is beyond the limit {self.plan.limit}")
            for offset in range(first, last + 1):
                record = known.record(offset)
                lock = record.lock
                if lock is not None and lock.leader is leader and now_us < lock.until_us:
                    self._fail(leader.key, f"offset {offset} goes to {member} while {lock.member} holds it")
                record.deliveries += 1
                record.lock = Lock(leader, member, until_us)
                if record.deliveries > 1:
                    self.oracle.count("queue: record redelivered")

    def begun(self, leader: ShareLeader, member: str, parts: Iterable[Part]) -> None:
        """An acknowledgement has passed the leader's checks; a failed write locks the records again, or not."""
        known = self._known.setdefault(leader.key, _Known())
        for part in parts:
            for offset in range(part.first, part.last + 1):
                record = known.record(offset)
                record.lock = None
                record.ending_begun |= part.type in FINAL

    def renewed(self, leader: ShareLeader, part: Part) -> None:
        known, now_us = self._known.setdefault(leader.key, _Known()), self.oracle.cluster.world.loop.now_us
        until_us = now_us + leader.partition.limits.lock_duration_ms * 1_000 * SLACK
        for offset in range(part.first, part.last + 1):
            record = known.record(offset)
            if record.lock is not None:
                record.lock = Lock(leader, record.lock.member, until_us)

    def durable(self, leader: ShareLeader, member: str, parts: Iterable[Part]) -> None:
        """The leader answers the acknowledgement with success."""
        known = self._known.setdefault(leader.key, _Known())
        for part in parts:
            if part.type not in FINAL:
                continue
            for offset in range(part.first, part.last + 1):
                record = known.record(offset)
                if part.type is AcknowledgeType.REJECT:
                    record.rejected = True
                    continue
                if record.accepted_by is not None:
                    self._fail(leader.key, f"offset {offset} is accepted by {record.accepted_by} and by {member}")
                record.accepted_by = member
                self.oracle.count("queue: record accepted")

    def released(self, leader: ShareLeader, member: str) -> None:
        """The member's session is over."""
        for record in self._known.setdefault(leader.key, _Known()).records.values():
            if record.lock is not None and record.lock.leader is leader and record.lock.member == member:
                record.lock = None

    # --- at the members -----------------------------------------------------------------------------------------

    def handed(self, key: ShareKey, member: str, ranges: Iterable[Acquired], *, asked_us: int) -> None:
        """A fetch that was sent then has brought these."""
        known = self._known.setdefault(key, _Known())
        for first, last, count in ranges:
            for offset in range(first, last + 1):
                record = known.record(offset)
                if record.over_us is not None and record.over_us < asked_us:
                    self._fail(key, f"offset {offset} is handed out to {member} after its end was answered")
                if record.floor_us < asked_us and count <= record.floor:
                    self._fail(
                        key, f"delivery {count} of offset {offset} follows number {record.floor}, that was released"
                    )

    def answered(self, key: ShareKey, first: int, last: int, kind: int, count: int) -> None:
        """A member has got success for its acknowledgement of what it was handed out with this count."""
        known, now_us = self._known.setdefault(key, _Known()), self.oracle.cluster.world.loop.now_us
        assert self.plan is not None
        self.oracle.count(f"queue: {AcknowledgeType(kind).name} answered")
        is_over = kind in FINAL or (kind == AcknowledgeType.RELEASE and count >= self.plan.limit)
        for offset in range(first, last + 1):
            record = known.record(offset)
            if is_over and record.over_us is None:
                record.over_us = now_us
            elif kind == AcknowledgeType.RELEASE and count > record.floor:
                record.floor, record.floor_us = count, now_us

    def group_gone(self, group: str, assigned: Iterable[TopicIdPartition]) -> None:
        """The coordinator does not know the group of a member any more."""
        for where in assigned:
            self._fail(ShareKey(group, where.topic_id, where.partition), "its group is gone")

    def done_with(self, key: ShareKey, start_offset: int) -> None:
        """The share coordinator has this start offset: nothing below it is handed out any more."""
        self._known.setdefault(key, _Known()).start_offset = start_offset

    # --- the end ------------------------------------------------------------------------------------------------

    def judge(self, keys: Iterable[ShareKey], logs: Mapping[TopicIdPartition, Mapping[int, bytes]]) -> None:
        """Each record below the start offset has found its end."""
        assert self.plan is not None
        for key in keys:
            if not self.is_certain(key):
                continue
            known = self._known.setdefault(key, _Known())
            letters = self.dead_letters.of(key) if self.plan.has_dead_letters else None
            for offset, value in logs.get(TopicIdPartition(key.topic_id, key.partition), {}).items():
                record = known.records.get(offset, Record())
                if offset >= known.start_offset or self.oracle.delayed.may_expire(value):
                    continue
                if not record.ending_begun and record.deliveries < self.plan.limit:
                    self._fail(key, f"offset {offset} is lost: handed out {record.deliveries} times, and never ended")
                if not record.ending_begun:
                    self.oracle.count("queue: record archived at the limit")
                is_given_up = record.rejected or not record.ending_begun
                if letters is not None and is_given_up and offset not in letters:
                    self._fail(key, f"offset {offset} was given up without a dead letter")
