"""The consumer protocol (KIP-848): (group, heartbeat, now) -> (group, records, reply). Pure.

A heartbeat has the member's subscription and what it owns; the reply has its assignment. Between the two: the member is
created or changed, which raises the group's epoch; a newer epoch gets a target assignment; the member takes its next
step towards it (`reconciliation`).
Source: org.apache.kafka.coordinator.group.GroupMetadataManager.consumerGroupHeartbeat and what it calls, Kafka 4.3.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from kraft.coordinators.groups.consumer_draft import ConsumerDraft
from kraft.coordinators.groups.consumer_group import (
    LEAVE_STATIC_EPOCH,
    NOTHING,
    ConsumerMember,
    MemberState,
    PatternRound,
)
from kraft.coordinators.groups.consumer_records import Partitions, PatternKey, StoredPattern
from kraft.coordinators.groups.consumer_requests import ConsumerHeartbeat, ConsumerHeartbeatAnswer
from kraft.coordinators.groups.modern_group import JOIN_EPOCH, LEAVE_EPOCH, Timer
from kraft.coordinators.groups.patterns import topic_pattern, topics_of_pattern
from kraft.coordinators.groups.reconciliation import Situation, Target, reconciled
from kraft.protocol.errors import (
    FencedInstanceId,
    FencedMemberEpoch,
    GroupMaxSizeReached,
    InvalidRegularExpression,
    InvalidRequest,
    UnknownMemberId,
    UnreleasedInstanceId,
    UnsupportedAssignor,
)

PATTERN_REFRESH_MS = 10_000
"""Shortest time between two looks at new topics for patterns: not each of many new topics makes the group assign
again."""
PATTERNS_AT_ONCE = 4
"""Patterns of other members that a heartbeat looks at: each pattern has a member, so that all have been looked at once
each member has beaten."""


def check_heartbeat(event: ConsumerHeartbeat, *, assignors: Collection[str], version: int) -> None:
    """What the request itself must say. Raises InvalidRequest 42, UnsupportedAssignor 112."""
    if (version >= 1 or event.member_epoch > 0 or event.member_epoch == LEAVE_EPOCH) and not event.member_id.strip():
        raise InvalidRequest("MemberId can't be empty.")
    for name, text in (("InstanceId", event.instance_id), ("RackId", event.rack_id)):
        if text is not None and not text.strip():
            raise InvalidRequest(f"{name} can't be empty.")
    if event.member_epoch == JOIN_EPOCH:
        _check_first(event)
    elif event.member_epoch == LEAVE_STATIC_EPOCH:
        if event.instance_id is None:
            raise InvalidRequest("InstanceId can't be null.")
    elif event.member_epoch < LEAVE_STATIC_EPOCH:
        raise InvalidRequest("MemberEpoch is invalid.")
    if event.assignor is not None and event.assignor not in assignors:
        raise UnsupportedAssignor(
            f"ServerAssignor {event.assignor} is not supported. Supported assignors: {', '.join(assignors)}."
        )


def _check_first(event: ConsumerHeartbeat) -> None:
    if event.rebalance_timeout_ms == -1:
        raise InvalidRequest("RebalanceTimeoutMs must be provided in first request.")
    if event.owned is None or event.owned:
        raise InvalidRequest("TopicPartitions must be empty when (re-)joining.")
    if event.topics is None and event.pattern is None:
        raise InvalidRequest("Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.")


def heartbeat(draft: ConsumerDraft, event: ConsumerHeartbeat) -> None:
    """Raises KafkaError."""
    member_id = event.member_id or event.new_member_id
    check_room(draft, member_id)
    before = _member(draft, event, member_id)
    updated = replace(
        before,
        instance_id=_either(event.instance_id, before.instance_id),
        rack_id=_either(event.rack_id, before.rack_id),
        rebalance_timeout_ms=before.rebalance_timeout_ms
        if event.rebalance_timeout_ms == -1
        else event.rebalance_timeout_ms,
        assignor=_either(event.assignor, before.assignor),
        topics=before.topics if event.topics is None else event.topics,
        pattern=before.pattern if event.pattern is None else event.pattern,
        client_id=event.client_id,
        client_host=event.client_host,
        classic=None,
    )
    after = advance(draft, before, updated, owned=event.owned)
    draft.set_timer(Timer.SESSION, member_id, draft.rules.session_timeout_ms)
    for timer in (Timer.JOIN, Timer.SYNC):  # of a member that spoke the classic protocol before
        draft.clear_timer(timer, member_id)
    is_informed = event.member_epoch == JOIN_EPOCH or event.is_full or after.assigned.keys() != before.assigned.keys()
    draft.reply(
        event.ticket,
        ConsumerHeartbeatAnswer(
            member_id=member_id,
            member_epoch=after.member_epoch,
            heartbeat_interval_ms=draft.rules.heartbeat_interval_ms,
            assignment=frozenset(after.assigned) if is_informed else None,
        ),
    )


def _either(new: str | None, old: str | None) -> str | None:
    return old if new is None else new


# --- the member -----------------------------------------------------------------------------------------------------


def check_room(draft: ConsumerDraft, member_id: str) -> None:
    members = draft.group.members
    if len(members) >= draft.rules.members_max and member_id not in members:
        raise GroupMaxSizeReached(f"The consumer group has reached its maximum capacity of {len(members)} members.")


def _member(draft: ConsumerDraft, event: ConsumerHeartbeat, member_id: str) -> ConsumerMember:
    """The member as it was, or as it begins."""
    is_joining = event.member_epoch == JOIN_EPOCH
    if event.instance_id is None:
        member = draft.group.members.get(member_id)
        if member is None:
            if not is_joining:
                raise UnknownMemberId(f"Member {member_id} is not a member of group {draft.group.group_id}.")
            return ConsumerMember(member_id=member_id)
        _check_epoch(member, event)
        return member
    if is_joining:
        return static_joining(draft, event.instance_id, member_id, is_classic=False)
    member = known_static(draft, event.instance_id, member_id)
    _check_epoch(member, event)
    return member


def _check_epoch(member: ConsumerMember, event: ConsumerHeartbeat) -> None:
    """G10: the epoch before the current one is accepted of a member that owns no more than its assignment: the answer
    with the new epoch may have been lost. With epoch 0 the member begins again."""
    received, known = event.member_epoch, member.member_epoch
    if received in (JOIN_EPOCH, known):
        return
    is_lost_answer = received == member.previous_epoch and received < known
    if is_lost_answer and event.owned is not None and event.owned <= member.assigned.keys():
        return
    raise FencedMemberEpoch(
        f"The consumer group member has a {'greater' if received > known else 'smaller'} member epoch ({received}) "
        f"than the one known by the group coordinator ({known}). The member must abandon all its partitions and rejoin."
    )


def known_static(draft: ConsumerDraft, instance_id: str, member_id: str) -> ConsumerMember:
    """Raises UnknownMemberId 25, FencedInstanceId 82."""
    member = draft.group.static_member(instance_id)
    if member is None:
        raise UnknownMemberId(f"Instance id {instance_id} is unknown.")
    if member.member_id != member_id:
        raise FencedInstanceId(
            f"Static member {member_id} with instance id {instance_id} was fenced by member {member.member_id}."
        )
    return member


def static_joining(draft: ConsumerDraft, instance_id: str, member_id: str, *, is_classic: bool) -> ConsumerMember:
    """G11: a member that joins with an instance id takes the place of its holder, if that left for a while (-2), or if
    one of the two speaks the classic protocol, where the newer one always wins (KIP-345). Raises
    UnreleasedInstanceId 111."""
    holder = draft.group.static_member(instance_id)
    if holder is None:
        return draft.group.members.get(member_id, ConsumerMember(member_id=member_id))
    if not is_classic and holder.classic is None and holder.member_epoch != LEAVE_STATIC_EPOCH:
        raise UnreleasedInstanceId(
            f"Static member {member_id} with instance id {instance_id} cannot join the group because the instance id "
            f"is owned by {holder.member_id} member."
        )
    target = draft.group.targets.get(holder.member_id, frozenset())
    draft.remove(holder.member_id)
    replacement = replace(holder, member_id=member_id, member_epoch=0, previous_epoch=0)
    draft.describe(replacement)
    draft.set_target(member_id, target)
    draft.set_current(replacement)
    return replacement


# --- a step forward -------------------------------------------------------------------------------------------------


def advance(
    draft: ConsumerDraft, before: ConsumerMember, updated: ConsumerMember, *, owned: Partitions | None
) -> ConsumerMember:
    """Write what has changed of a member, assign again if that is due, and let the member take its next step."""
    is_subscription_changed = describe(draft, before, updated)
    draft.update_targets()
    return reconcile(draft, updated.member_id, owned=owned, is_subscription_changed=is_subscription_changed)


def describe(draft: ConsumerDraft, before: ConsumerMember, updated: ConsumerMember) -> bool:
    """Whether the member wants other topics than before; then, or if topics have changed, the epoch rises."""
    if updated.pattern and updated.pattern != before.pattern:
        _check_pattern(updated.pattern)
    if updated.member_id not in draft.group.members or updated.described() != before.described():
        draft.describe(updated)
    is_due = updated.topics != before.topics
    has_new_pattern = updated.pattern != before.pattern
    if has_new_pattern:
        draft.forget_unused_patterns([before.pattern])
        is_due = is_due or bool(before.pattern) or updated.pattern in draft.group.patterns
    is_due = _look_at_patterns(draft, updated.pattern) or is_due
    looked = draft.group.round
    if is_due or not (draft.group.is_metadata_checked or (looked is not None and not looked.is_over)):
        draft.raise_epoch(is_due=is_due)
    return has_new_pattern or updated.topics != before.topics


def _check_pattern(pattern: str) -> None:
    try:
        topic_pattern(pattern)
    except ValueError as error:
        raise InvalidRegularExpression(
            f"SubscribedTopicRegex `{pattern}` is not a valid regular expression: {error}."
        ) from error


def _look_at_patterns(draft: ConsumerDraft, new: str) -> bool:
    """Whether the group is to assign again: a new pattern matches topics, or, at the end of a look at all patterns, one
    was found to match others than it did."""
    if draft.may_describe is None:
        return False
    has_changed = bool(new) and new not in draft.group.patterns and _resolve(draft, new)
    group = draft.group
    looked, names, acls = group.round, draft.image.topic_ids, draft.image.acls
    due_ms = group.patterns_ms + PATTERN_REFRESH_MS
    is_old = looked is not None and (looked.names is not names or looked.acls is not acls)
    if looked is None or (looked.is_over and is_old and draft.wall_ms >= due_ms):
        looked = PatternRound(names=names, acls=acls, patterns=tuple(group.subscribed_patterns))
    elif looked.is_over:
        return has_changed
    end = looked.done + PATTERNS_AT_ONCE
    found = [_resolve(draft, each) for each in looked.patterns[looked.done : end] if each in group.subscribed_patterns]
    looked = replace(looked, done=end, has_changed=looked.has_changed or any(found))
    draft.look_at_patterns(looked)
    return has_changed or (looked.is_over and looked.has_changed)


def _resolve(draft: ConsumerDraft, pattern: str) -> bool:
    """Whether the pattern matches other topics than it did."""
    assert draft.may_describe is not None, "patterns are looked at for a client"
    topics = frozenset(filter(draft.may_describe, topics_of_pattern(pattern, draft.image.topic_ids)))
    before = draft.group.patterns.get(pattern)
    if before is not None and before.topics == topics:
        return False
    found = StoredPattern(topics=topics, version=draft.image.offset, timestamp=draft.wall_ms)
    draft.write(PatternKey(draft.group.group_id, pattern), found)
    return topics != (frozenset() if before is None else before.topics)


def reconcile(
    draft: ConsumerDraft, member_id: str, *, owned: Partitions | None, is_subscription_changed: bool
) -> ConsumerMember:
    group = draft.group
    member = group.members[member_id]
    if member.is_reconciled_to(group.assignment_epoch) and not is_subscription_changed:
        return member
    wanted = group.subscription_of(member)
    situation = Situation(
        target=Target(epoch=group.assignment_epoch, partitions=group.targets.get(member_id, frozenset())),
        topics=frozenset(draft.image.topic_ids[name].int for name in wanted if name in draft.image.topic_ids),
        owner_of=group.owners.get,
        owned=owned,
        has_subscription_changed=is_subscription_changed,
    )
    after = reconciled(member, situation)
    if after != member:
        draft.set_current(after)
        if after.classic is None and after.state is MemberState.UNREVOKED_PARTITIONS:
            draft.set_timer(Timer.REBALANCE, member_id, after.rebalance_timeout_ms)
        else:
            draft.clear_timer(Timer.REBALANCE, member_id)
    return after


# --- leaving --------------------------------------------------------------------------------------------------------


def leaving(draft: ConsumerDraft, event: ConsumerHeartbeat) -> ConsumerMember | None:
    """The member that leaves for good; None for a static member that will come back.

    Raises UnknownMemberId 25, FencedInstanceId 82."""
    group = draft.group
    draft.reply(event.ticket, ConsumerHeartbeatAnswer(member_id=event.member_id, member_epoch=event.member_epoch))
    if event.instance_id is None:
        member = group.members.get(event.member_id)
        if member is None:
            raise UnknownMemberId(f"Member {event.member_id} is not a member of group {group.group_id}.")
        return member
    member = known_static(draft, event.instance_id, event.member_id)
    if event.member_epoch == LEAVE_EPOCH:
        return member
    draft.set_current(replace(member, member_epoch=LEAVE_STATIC_EPOCH, revoking=NOTHING))
    draft.clear_timer(Timer.REBALANCE, member.member_id)
    return None


def remove_members(draft: ConsumerDraft, member_ids: Collection[str]) -> None:
    members = draft.group.members
    patterns = [members[member_id].pattern for member_id in member_ids if member_id in members]
    for member_id in member_ids:
        draft.remove(member_id)
    draft.forget_unused_patterns(patterns)
    draft.raise_epoch(is_due=True)
