"""A group of the consumer protocol while one event is decided: records are applied to a copy as they are written.

So each step sees what the steps before it have changed, and a refusal leaves nothing behind. Never outlives a decision.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import blake2b

from kraft.coordinators.groups.classic_draft import ClassicRules, Decision
from kraft.coordinators.groups.classic_group import ClassicGroup
from kraft.coordinators.groups.classic_requests import Answer, Reply
from kraft.coordinators.groups.consumer_group import NEVER_MS, ConsumerGroup, ConsumerMember, PatternRound, Timer
from kraft.coordinators.groups.consumer_records import (
    ConsumerKey,
    ConsumerValue,
    CurrentKey,
    EpochKey,
    MemberKey,
    PartitionMetadataKey,
    Partitions,
    PatternKey,
    StoredEpoch,
    StoredTarget,
    StoredTargetEpoch,
    TargetEpochKey,
    TargetKey,
)
from kraft.coordinators.groups.consumer_requests import TargetsComputed
from kraft.coordinators.groups.records import GroupRecord
from kraft.coordinators.groups.target_assignment import changed_targets, is_assigned_at_once
from metadata.image import MetadataImage
from metadata.persistent_map import MapDraft


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerRules:
    """The settings that a decision needs, those of the classic protocol for its members among them."""

    session_timeout_ms: int
    heartbeat_interval_ms: int
    assignment_interval_ms: int
    """Between two assignments of a large group."""
    members_max: int
    assignors: tuple[str, ...]
    """The first is that of groups whose members name none."""
    can_upgrade: bool
    can_downgrade: bool
    classic: ClassicRules


class ConsumerDraft:
    def __init__(
        self, group: ConsumerGroup, rules: ConsumerRules, image: MetadataImage, *, now_ms: int, wall_ms: int
    ) -> None:
        self.group = group
        self.rules = rules
        self.image = image
        self.now_ms = now_ms
        self.wall_ms = wall_ms
        self.records: list[GroupRecord] = []
        self.downgraded: ClassicGroup | None = None
        """What the group becomes, when it changes to the classic protocol."""
        self._replies: list[Reply] = []
        self._owns_facts = False
        self._owns_deadlines = False

    def decision(self) -> Decision:
        if self.downgraded is not None:
            return Decision(group=self.downgraded, records=tuple(self.records), replies=tuple(self._replies))
        return Decision(
            group=ClassicGroup(group_id=self.group.group_id),
            consumer=self.group,
            records=tuple(self.records),
            replies=tuple(self._replies),
        )

    def reply(self, ticket: int | None, answer: Answer) -> None:
        if ticket is not None:
            self._replies.append(Reply(ticket, answer))

    # --- changes ----------------------------------------------------------------------------------------------------

    def write(self, key: ConsumerKey, value: ConsumerValue | None) -> None:
        if not self._owns_facts:
            self.group = self.group.copy()
            self._owns_facts = self._owns_deadlines = True
        self.group.apply(key, value)
        self.records.append(GroupRecord(key, value))

    def set_timer(self, timer: Timer, member_id: str, after_ms: int) -> None:
        at_ms = self.now_ms + after_ms
        self._deadlines()[timer, member_id] = at_ms
        self.group.due_ms = min(self.group.due_ms, at_ms)

    def start_timer(self, timer: Timer, member_id: str, after_ms: int) -> None:
        """Unless it runs already."""
        if (timer, member_id) not in self.group.deadlines:
            self.set_timer(timer, member_id, after_ms)

    def clear_timer(self, timer: Timer, member_id: str) -> None:
        if (timer, member_id) in self.group.deadlines:
            del self._deadlines()[timer, member_id]

    def look_at_all_deadlines(self) -> None:
        """After what was due: sessions have become longer since they were looked at."""
        self._deadlines()
        self.group.due_ms = min(self.group.deadlines.values(), default=NEVER_MS)

    def _deadlines(self) -> MapDraft[tuple[Timer, str], int]:
        if not self._owns_deadlines:
            self.group = replace(self.group, deadlines=self.group.deadlines.copy())
            self._owns_deadlines = True
        return self.group.deadlines

    def mark_metadata_checked(self) -> None:
        if not self.group.is_metadata_checked:
            self.group = replace(self.group, is_metadata_checked=True)

    # --- records ----------------------------------------------------------------------------------------------------

    def describe(self, member: ConsumerMember) -> None:
        self.write(MemberKey(self.group.group_id, member.member_id), member.described())

    def set_current(self, member: ConsumerMember) -> None:
        for partition in (*member.assigned, *member.revoking):
            owner = self.group.owners.get(partition, member.member_id)
            assert owner == member.member_id, (self.group.group_id, partition, owner, member)
        self.write(CurrentKey(self.group.group_id, member.member_id), member.current())

    def set_target(self, member_id: str, partitions: Partitions) -> None:
        self.write(TargetKey(self.group.group_id, member_id), StoredTarget(partitions=partitions))

    def remove(self, member_id: str) -> None:
        """What it has first, and the member itself last: as Kafka's reader wants it."""
        group_id = self.group.group_id
        self.write(CurrentKey(group_id, member_id), None)
        self.write(TargetKey(group_id, member_id), None)
        self.write(MemberKey(group_id, member_id), None)

    def forget_unused_patterns(self, patterns: Iterable[str]) -> None:
        """Those of the given ones that no member has any more."""
        for pattern in patterns:
            if pattern in self.group.patterns and pattern not in self.group.subscribed_patterns:
                self.write(PatternKey(self.group.group_id, pattern), None)

    def look_at_patterns(self, looked: PatternRound) -> None:
        self.group = replace(self.group, round=looked)

    def bury(self) -> None:
        for key in self.group.tombstones():
            self.write(key, None)

    # --- epochs -----------------------------------------------------------------------------------------------------

    def raise_epoch(self, *, is_due: bool) -> None:
        """A new epoch if one is due, or if the topics have changed since the last."""
        metadata_hash = self.metadata_hash()
        if is_due or metadata_hash != self.group.metadata_hash:
            stored = StoredEpoch(epoch=self.group.epoch + 1, metadata_hash=metadata_hash)
            self.write(EpochKey(self.group.group_id), stored)
        if self.group.has_topics_record:
            self.write(PartitionMetadataKey(self.group.group_id), None)
        self.mark_metadata_checked()

    def metadata_hash(self) -> int:
        """Of the subscribed topics that exist: their names, ids and numbers of partitions; 0 if there are none. Only
        whoever wrote one compares it; Kafka's is made otherwise, and so makes a new epoch at its first heartbeat."""
        found = [topic for topic in map(self.image.topic, sorted(self.group.subscribed_topics)) if topic is not None]
        if not found:
            return 0
        digest = blake2b(digest_size=8)
        for topic in found:
            digest.update(f"{topic.name}\0{topic.topic_id.hex}\0{len(topic.partitions)}\0".encode())
        return int.from_bytes(digest.digest(), "big", signed=True)

    def update_targets(self) -> None:
        """Assign a small group anew if its epoch is newer than its target assignment."""
        group = self.group
        if group.assignment_epoch < group.epoch and is_assigned_at_once(group):
            changes = changed_targets(group, self.image, self.rules.assignors)
            self.take_targets(TargetsComputed(epoch=group.epoch, changes=changes, is_last=True))

    def take_targets(self, computed: TargetsComputed) -> None:
        """A newer assignment may have overtaken it, and the members of a group may be others."""
        if not self.group.assignment_epoch < computed.epoch <= self.group.epoch:
            return
        for member_id, partitions in computed.changes:
            if member_id in self.group.members:
                self.set_target(member_id, partitions)
        if computed.is_last:
            self.write(TargetEpochKey(self.group.group_id), StoredTargetEpoch(epoch=computed.epoch))
        self.group = replace(self.group, assigned_ms=self.now_ms)
