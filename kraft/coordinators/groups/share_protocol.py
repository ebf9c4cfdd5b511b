"""The share group protocol (KIP-932): (group, event, now) -> (group, records, reply, states to initialise). Pure.

A heartbeat states what the member wants, the answer what it has now. Between the two: the member is created or changed,
which raises the epoch of the group; a newer epoch gets a target assignment; the member takes all of its target. The
partitions of its topics that have no state yet are initialised, and become targets with a later heartbeat.
Source: org.apache.kafka.coordinator.group.GroupMetadataManager.shareGroupHeartbeat and what it calls, Kafka 4.4.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from types import MappingProxyType
from uuid import UUID

from kraft.coordinators.groups.classic_draft import Decision
from kraft.coordinators.groups.classic_group import ClassicGroup
from kraft.coordinators.groups.consumer_records import Partitions
from kraft.coordinators.groups.modern_draft import ModernDraft
from kraft.coordinators.groups.modern_group import JOIN_EPOCH, LEAVE_EPOCH, NEVER_MS, Timer
from kraft.coordinators.groups.server_assignors import Subscriber
from kraft.coordinators.groups.share_group import (
    ShareGroup,
    ShareMember,
    partitions_of,
    with_partitions,
    without_partitions,
)
from kraft.coordinators.groups.share_records import (
    ShareCurrentKey,
    ShareEpochKey,
    ShareMemberKey,
    ShareStatesKey,
    ShareTargetEpochKey,
    ShareTargetKey,
    StoredShareEpoch,
    StoredShareStates,
    StoredShareTarget,
    StoredShareTargetEpoch,
    TopicStatesById,
)
from kraft.coordinators.groups.share_requests import (
    InitializeStates,
    ResetStates,
    ShareHeartbeat,
    ShareHeartbeatAnswer,
    ShareTopicsDeleted,
    StatesDeleted,
    StatesInitialized,
)
from kraft.coordinators.groups.simple_assignor import assign_simple
from kraft.coordinators.groups.target_assignment import ASSIGNED_AT_ONCE_MAX
from kraft.protocol.errors import FencedMemberEpoch, GroupMaxSizeReached, InvalidRequest, NonEmptyGroup, UnknownMemberId
from metadata.image import MetadataImage, TopicIdPartition

ASSIGNOR = "simple"
BY_RESET_POLICY = -1
"""The leader of the partition decides where the group begins, by share.auto.offset.reset, when it is first read."""
FROM_THE_FIRST_RECORD = 0
"""For a partition that is added to a topic of the group: records that are written to it before its state exists would
be lost to the group with `latest` (KAFKA-20742)."""

INITIALIZING_HEARTBEAT_MS = 500
"""The heartbeat interval of a member without an assignment, while states of its topics are being initialised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareRules:
    """The settings that a decision needs."""

    session_timeout_ms: int
    heartbeat_interval_ms: int
    assignment_interval_ms: int
    """Between two assignments of a large group."""
    members_max: int
    initialize_retry_ms: int
    """A partition that has been in initialisation for so long is asked for again."""


def check_share_heartbeat(event: ShareHeartbeat) -> None:
    """What the request itself has to state. Raises InvalidRequest 42."""
    if not event.member_id.strip():
        raise InvalidRequest("MemberId can't be empty.")
    if event.rack_id is not None and not event.rack_id.strip():
        raise InvalidRequest("RackId can't be empty.")
    if event.member_epoch == JOIN_EPOCH:
        if not event.topics:
            raise InvalidRequest("SubscribedTopicNames must be set in first request.")
    elif event.member_epoch < LEAVE_EPOCH:
        raise InvalidRequest(f"MemberEpoch is invalid: {event.member_epoch}.")


class ShareDraft(ModernDraft[ShareGroup]):
    def __init__(
        self, group: ShareGroup, rules: ShareRules, image: MetadataImage, *, now_ms: int, wall_ms: int
    ) -> None:
        super().__init__(group, image, now_ms=now_ms, wall_ms=wall_ms)
        self.rules = rules
        self.to_initialize: InitializeStates | None = None

    def decision(self) -> Decision:
        return Decision(
            group=ClassicGroup(group_id=self.group.group_id),
            share=self.group,
            records=tuple(self.records),
            replies=tuple(self.replies),
            to_initialize=self.to_initialize,
        )

    def raise_epoch(self, *, is_due: bool) -> None:
        """A new epoch if one is due, or if the topics have changed since the last."""
        metadata_hash = self.metadata_hash()
        if is_due or metadata_hash != self.group.metadata_hash:
            stored = StoredShareEpoch(epoch=self.group.epoch + 1, metadata_hash=metadata_hash)
            self.write(ShareEpochKey(self.group.group_id), stored)
        self.mark_metadata_checked()

    def update_targets(self) -> None:
        """Assign again if the epoch of the group is newer than its target assignment; a large group once in an
        interval."""
        group = self.group
        is_early = self.now_ms < group.assigned_ms + self.rules.assignment_interval_ms
        if group.assignment_epoch >= group.epoch or (is_early and len(group.members) > ASSIGNED_AT_ONCE_MAX):
            return
        ids = self.image.topic_ids
        members = {
            member_id: Subscriber(
                topics=frozenset(ids[name] for name in member.topics if name in ids),
                target=group.targets.get(member_id, frozenset()),
            )
            for member_id, member in group.members.items()
        }
        partitions = {topic_id: sorted(each.partitions) for topic_id, each in group.states.initialized.items()}
        for member_id, target in assign_simple(members, partitions).items():
            if group.targets.get(member_id) != target:
                self.write(ShareTargetKey(group.group_id, member_id), StoredShareTarget(partitions=target))
        stored = StoredShareTargetEpoch(epoch=group.epoch, timestamp=self.wall_ms)
        self.write(ShareTargetEpochKey(group.group_id), stored)
        self.group = replace(self.group, assigned_ms=self.now_ms, is_target_checked=True)

    def has_unassigned(self) -> bool:
        """A partition was initialised and is nobody's target yet, although a member wants its topic."""
        group = self.group
        if group.is_target_checked:
            return False
        self.group = replace(group, is_target_checked=True)
        wanted = group.initialized & _partitions_of_topics(self.image, group.subscribed_topics)
        return not wanted <= frozenset[TopicIdPartition]().union(*group.targets.values())


# --- heartbeats -----------------------------------------------------------------------------------------------------


def heartbeat(draft: ShareDraft, event: ShareHeartbeat) -> None:
    """Raises KafkaError."""
    members, member_id = draft.group.members, event.member_id
    if len(members) >= draft.rules.members_max and member_id not in members:
        raise GroupMaxSizeReached(f"The share group has reached its maximum capacity of {len(members)} members.")
    before = _member(draft, event)
    updated = replace(
        before,
        rack_id=before.rack_id if event.rack_id is None else event.rack_id,
        topics=before.topics if event.topics is None else event.topics,
        client_id=event.client_id,
        client_host=event.client_host,
    )
    if member_id not in members or updated.described() != before.described():
        draft.write(ShareMemberKey(draft.group.group_id, member_id), updated.described())
    has_new_topics = updated.topics != before.topics
    is_due = has_new_topics or draft.has_unassigned()
    is_metadata_new = not draft.group.is_metadata_checked
    if is_due or is_metadata_new:
        draft.raise_epoch(is_due=is_due)
    draft.update_targets()
    after = _reconciled(draft, member_id)
    draft.set_timer(Timer.SESSION, member_id, draft.rules.session_timeout_ms)
    if has_new_topics or is_metadata_new or draft.now_ms >= _retry_due_ms(draft):
        _initialize(draft)
    is_informed = event.member_epoch == JOIN_EPOCH or event.topics is not None or after.assigned != before.assigned
    draft.reply(
        event.ticket,
        ShareHeartbeatAnswer(
            member_id=member_id,
            member_epoch=after.member_epoch,
            heartbeat_interval_ms=_next_heartbeat_ms(draft, event, after),
            assignment=after.assigned if is_informed else None,
        ),
    )


def _next_heartbeat_ms(draft: ShareDraft, event: ShareHeartbeat, member: ShareMember) -> int:
    """A member has its first assignment with its second heartbeat, as in Kafka, if the states are initialised by then;
    else soon after they are, and not a whole interval later."""
    interval_ms = draft.rules.heartbeat_interval_ms
    if event.member_epoch == JOIN_EPOCH or member.assigned:
        return interval_ms
    is_waiting = any(topic.name in member.topics for topic in draft.group.states.initializing.values())
    return min(interval_ms, INITIALIZING_HEARTBEAT_MS) if is_waiting else interval_ms


def _member(draft: ShareDraft, event: ShareHeartbeat) -> ShareMember:
    """The known or a new member. With epoch 0 a known member begins again with the same id (KAFKA-19233), and
    the epoch before the current one is valid: the answer with the new one may have been lost."""
    member = draft.group.members.get(event.member_id)
    if member is None:
        if event.member_epoch != JOIN_EPOCH:
            raise UnknownMemberId(f"Member {event.member_id} is not a member of group {draft.group.group_id}.")
        return ShareMember(member_id=event.member_id)
    received, known = event.member_epoch, member.member_epoch
    if received > known or (received < known and received not in (JOIN_EPOCH, member.previous_epoch)):
        raise FencedMemberEpoch(
            f"The share group member has a {'greater' if received > known else 'smaller'} member epoch ({received}) "
            f"than the one known by the group coordinator ({known}). The member must abandon all its partitions and "
            "rejoin."
        )
    return member


def _reconciled(draft: ShareDraft, member_id: str) -> ShareMember:
    """The member has its whole target at once, of the topics that it wants now (KAFKA-19431)."""
    group = draft.group
    member = group.members[member_id]
    ids = draft.image.topic_ids
    topics = {ids[name] for name in member.topics if name in ids}
    target = group.targets.get(member_id, frozenset())
    assigned = frozenset(each for each in target if each.topic_id in topics)
    if (member.member_epoch, member.assigned) == (group.assignment_epoch, assigned):
        return member
    previous = member.previous_epoch if member.member_epoch == group.assignment_epoch else member.member_epoch
    after = replace(member, member_epoch=group.assignment_epoch, previous_epoch=previous, assigned=assigned)
    draft.write(ShareCurrentKey(group.group_id, member_id), after.current())
    return after


def leave(draft: ShareDraft, event: ShareHeartbeat) -> None:
    """Raises UnknownMemberId 25."""
    if event.member_id not in draft.group.members:
        raise UnknownMemberId(f"Member {event.member_id} is not a member of group {draft.group.group_id}.")
    remove_members(draft, [event.member_id])
    draft.reply(event.ticket, ShareHeartbeatAnswer(member_id=event.member_id, member_epoch=LEAVE_EPOCH))


def remove_members(draft: ShareDraft, member_ids: Collection[str]) -> None:
    """The last member leaves a target assignment of the last epoch behind, which is empty (KAFKA-20442)."""
    if not member_ids:
        return
    group_id = draft.group.group_id
    for member_id in member_ids:
        draft.write(ShareCurrentKey(group_id, member_id), None)
        draft.write(ShareTargetKey(group_id, member_id), None)
        draft.write(ShareMemberKey(group_id, member_id), None)
    draft.raise_epoch(is_due=True)
    if not draft.group.members:
        draft.update_targets()


# --- states of share partitions -------------------------------------------------------------------------------------


def _retry_due_ms(draft: ShareDraft) -> int:
    return draft.group.initialize_due_ms(retry_ms=draft.rules.initialize_retry_ms)


def _partitions_of_topics(image: MetadataImage, names: Collection[str]) -> Partitions:
    found = [topic for topic in map(image.topic, names) if topic is not None]
    return frozenset(TopicIdPartition(topic.topic_id, number) for topic in found for number in topic.partitions)


def _initialize(draft: ShareDraft) -> None:
    """Ask for the states of all partitions of subscribed topics that have none, unless that was just done."""
    group, retry_ms = draft.group, draft.rules.initialize_retry_ms
    asked = {
        each: at_ms
        for each, at_ms in group.asked_ms.items()
        if each in group.initializing and draft.now_ms < at_ms + retry_ms
    }
    wanted = _partitions_of_topics(draft.image, group.subscribed_topics) - group.initialized - asked.keys()
    if not wanted:
        return
    _note_initializing(draft, wanted)
    asked.update(dict.fromkeys(wanted, draft.now_ms))
    draft.group = replace(draft.group, asked_ms=MappingProxyType(asked))
    known = group.states.initialized
    draft.to_initialize = InitializeStates(
        group_id=group.group_id,
        state_epoch=draft.group.epoch,
        start_offsets={
            each: FROM_THE_FIRST_RECORD if each.topic_id in known else BY_RESET_POLICY for each in sorted(wanted)
        },
    )


def _note_initializing(draft: ShareDraft, wanted: Partitions) -> None:
    """The log has it before the share coordinator does, so that no state is forgotten when the group is deleted."""
    group = draft.group
    if wanted <= group.initializing:
        return
    names = {each.topic_id: draft.image.topics[each.topic_id].name for each in wanted}
    initializing = with_partitions(group.states.initializing, wanted, names)
    deleting = {topic_id: name for topic_id, name in group.states.deleting.items() if topic_id not in names}
    states = replace(group.states, initializing=initializing, deleting=MappingProxyType(deleting))
    draft.write(ShareStatesKey(group.group_id), states)


def reset(draft: ShareDraft, event: ResetStates) -> None:
    """A higher epoch, which fences the leaders that know the offsets of before. Partitions that have a state keep it
    until it is replaced. Raises NonEmptyGroup 68."""
    members = draft.group.members
    if members:
        raise NonEmptyGroup(f"Group {draft.group.group_id} has {len(members)} members: they leave first.")
    draft.raise_epoch(is_due=True)
    draft.update_targets()
    group, partitions = draft.group, frozenset(event.start_offsets)
    _note_initializing(draft, partitions - group.initialized)
    asked = dict.fromkeys(partitions - group.initialized, draft.now_ms)
    draft.group = replace(draft.group, asked_ms=MappingProxyType({**group.asked_ms, **asked}))
    request = InitializeStates(
        group_id=group.group_id, state_epoch=group.epoch, start_offsets=dict(sorted(event.start_offsets.items()))
    )
    draft.reply(event.ticket, request)


def take_states(draft: ShareDraft, event: StatesInitialized) -> None:
    """What has a state may be assigned with the next heartbeat. What failed is asked for again with the next one whose
    member wants it, or after the retry interval. An answer may come after the topic is gone."""
    group = draft.group
    initialized = event.initialized & group.initializing
    gone = initialized | (event.failed & group.initializing)
    if not gone:
        return
    names = {topic_id: topic.name for topic_id, topic in group.states.initializing.items()}
    states = replace(
        group.states,
        initializing=without_partitions(group.states.initializing, gone),
        initialized=with_partitions(group.states.initialized, initialized, names),
    )
    draft.write(ShareStatesKey(group.group_id), states)
    left = {each: at_ms for each, at_ms in group.asked_ms.items() if each not in gone}
    draft.group = replace(
        draft.group,
        asked_ms=MappingProxyType(left),
        is_metadata_checked=draft.group.is_metadata_checked and not event.failed,
    )


def forget_topics(draft: ShareDraft, event: ShareTopicsDeleted) -> None:
    states = draft.group.states
    gone = frozenset(each for each in partitions_of(states.initializing) if each.topic_id in event.topic_ids)
    gone |= frozenset(each for each in partitions_of(states.initialized) if each.topic_id in event.topic_ids)
    left = StoredShareStates(
        initializing=without_partitions(states.initializing, gone),
        initialized=without_partitions(states.initialized, gone),
        deleting={topic_id: name for topic_id, name in states.deleting.items() if topic_id not in event.topic_ids},
    )
    if left != states:
        draft.write(ShareStatesKey(draft.group.group_id), left)


def forget_states(draft: ShareDraft, event: StatesDeleted) -> None:
    """The group begins again with each topic: when a member joins meanwhile, the states are initialised again."""
    states = draft.group.states
    topics = {
        topic_id: topic.name
        for topic_id, topic in (*states.initializing.items(), *states.initialized.items())
        if event.topic_ids is None or topic_id in event.topic_ids
    }
    if topics:
        left = StoredShareStates(
            initializing=_without_topics(states.initializing, topics),
            initialized=_without_topics(states.initialized, topics),
            deleting=MappingProxyType({**states.deleting, **topics}),
        )
        draft.write(ShareStatesKey(draft.group.group_id), left)
        draft.group = replace(draft.group, asked_ms=MappingProxyType({}), is_metadata_checked=False)


def _without_topics(topics: TopicStatesById, gone: Collection[UUID]) -> TopicStatesById:
    return MappingProxyType({topic_id: topic for topic_id, topic in topics.items() if topic_id not in gone})


def loaded_share(group: ShareGroup, *, rules: ShareRules, now_ms: int) -> None:
    """A group that was read from the log: each member has a whole session to be heard of."""
    for member_id in group.members:
        group.deadlines[Timer.SESSION, member_id] = now_ms + rules.session_timeout_ms
    group.due_ms = min(group.deadlines.values(), default=NEVER_MS)
