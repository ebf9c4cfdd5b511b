"""A group of the consumer protocol while one event is decided."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from kraft.coordinators.groups.classic_draft import ClassicRules, Decision
from kraft.coordinators.groups.classic_group import ClassicGroup
from kraft.coordinators.groups.consumer_group import ConsumerGroup, ConsumerMember, PatternRound
from kraft.coordinators.groups.consumer_records import (
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
from kraft.coordinators.groups.modern_draft import ModernDraft
from kraft.coordinators.groups.target_assignment import changed_targets, is_assigned_at_once
from metadata.image import MetadataImage


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


class ConsumerDraft(ModernDraft[ConsumerGroup]):
    def __init__(
        self, group: ConsumerGroup, rules: ConsumerRules, image: MetadataImage, *, now_ms: int, wall_ms: int
    ) -> None:
        super().__init__(group, image, now_ms=now_ms, wall_ms=wall_ms)
        self.rules = rules
        self.may_describe: Callable[[str], bool] | None = None
        """What the client of this heartbeat may know of: patterns match no more. None: they are not looked at."""
        self.downgraded: ClassicGroup | None = None
        """What the group becomes, when it changes to the classic protocol."""

    def decision(self) -> Decision:
        if self.downgraded is not None:
            return Decision(group=self.downgraded, records=tuple(self.records), replies=tuple(self.replies))
        return Decision(
            group=ClassicGroup(group_id=self.group.group_id),
            consumer=self.group,
            records=tuple(self.records),
            replies=tuple(self.replies),
        )

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

    def update_targets(self) -> None:
        """Assign a small group again if its epoch is newer than its target assignment."""
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
