"""The protocol of a group, and the function that decides about an event: of the classic or the consumer protocol. Pure.

A group without members takes the protocol of the first member. A heartbeat of the consumer protocol upgrades a
classic group with members, where the migration policy lets it; members of the classic protocol may join a consumer
group, and when the last that speaks the consumer protocol has gone, the group is downgraded.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from kraft.coordinators.groups import classic_members, consumer_protocol, share_protocol
from kraft.coordinators.groups.classic_draft import Decision
from kraft.coordinators.groups.classic_group import ClassicGroup, Phase
from kraft.coordinators.groups.classic_rebalance import decide
from kraft.coordinators.groups.classic_requests import GroupEvent, Heartbeat, Join, Leave, Reply, Sync, Tick, Untold
from kraft.coordinators.groups.consumer_draft import ConsumerDraft, ConsumerRules
from kraft.coordinators.groups.consumer_group import ConsumerGroup, MemberState
from kraft.coordinators.groups.consumer_requests import ConsumerHeartbeat, TargetsComputed
from kraft.coordinators.groups.migration import can_downgrade_with, downgrade, upgrade
from kraft.coordinators.groups.modern_group import JOIN_EPOCH, NEVER_MS, Timer
from kraft.coordinators.groups.records import GroupKey, GroupRecord
from kraft.coordinators.groups.share_group import ShareGroup
from kraft.coordinators.groups.share_protocol import ShareDraft, ShareRules
from kraft.coordinators.groups.share_requests import (
    ResetStates,
    ShareEvent,
    ShareHeartbeat,
    ShareTopicsDeleted,
    StatesDeleted,
    StatesInitialized,
)
from kraft.protocol.errors import GroupIdNotFound, InconsistentGroupProtocol, KafkaError, UnknownMemberId
from metadata.image import MetadataImage


def decide_group(
    group: ClassicGroup,
    consumer: ConsumerGroup | None,
    event: GroupEvent,
    *,
    rules: ConsumerRules,
    image: MetadataImage,
    now_ms: int,
    wall_ms: int,
) -> Decision:
    """`consumer` is None for a classic group, and for one that does not exist."""
    if consumer is not None and not consumer.members and isinstance(event, Join):
        return _emptied(consumer, event, rules=rules, image=image, now_ms=now_ms, wall_ms=wall_ms)
    assert not isinstance(event, ShareEvent), event
    if consumer is None and not isinstance(event, ConsumerHeartbeat | TargetsComputed):
        return decide(group, event, rules=rules.classic, now_ms=now_ms, wall_ms=wall_ms)
    found = ConsumerGroup(group_id=group.group_id) if consumer is None else consumer
    draft = ConsumerDraft(found, rules, image, now_ms=now_ms, wall_ms=wall_ms)
    draft.may_describe = event.may_describe if isinstance(event, ConsumerHeartbeat) else None
    try:
        if consumer is None:
            _become_consumer(draft, group, event)
        _decide(draft, event)
    except KafkaError as refusal:
        refused = ConsumerDraft(found, rules, image, now_ms=now_ms, wall_ms=wall_ms)
        refused.reply(None if isinstance(event, Untold) else event.ticket, refusal.with_traceback(None))
        return replace(refused.decision(), group=group, consumer=consumer)
    return draft.decision()


def decide_share_group(
    group: ClassicGroup,
    consumer: ConsumerGroup | None,
    share: ShareGroup | None,
    event: GroupEvent,
    *,
    exists: bool,
    rules: ShareRules,
    image: MetadataImage,
    now_ms: int,
    wall_ms: int,
) -> Decision:
    """An event for a share group, or what makes one: a member, a reset. `exists`: there is a group of any type."""
    found = ShareGroup(group_id=group.group_id) if share is None else share
    draft = ShareDraft(found, rules, image, now_ms=now_ms, wall_ms=wall_ms)
    try:
        if share is None and exists:
            raise GroupIdNotFound(f"Group {group.group_id} is not a share group.")
        is_first = isinstance(event, ResetStates) or (
            isinstance(event, ShareHeartbeat) and event.member_epoch == JOIN_EPOCH
        )
        if share is None and not is_first:
            raise GroupIdNotFound(f"Share group {group.group_id} not found.")
        _decide_share(draft, event)
    except KafkaError as refusal:
        ticket = None if isinstance(event, Untold) else event.ticket
        replies = () if ticket is None else (Reply(ticket, refusal.with_traceback(None)),)
        return Decision(group=group, consumer=consumer, share=share, replies=replies)
    return draft.decision()


def _decide_share(draft: ShareDraft, event: GroupEvent) -> None:
    """Refuses a member of another protocol as Kafka does."""
    match event:
        case ShareHeartbeat() if event.member_epoch >= JOIN_EPOCH:
            share_protocol.heartbeat(draft, event)
        case ShareHeartbeat():
            share_protocol.leave(draft, event)
        case StatesInitialized():
            share_protocol.take_states(draft, event)
        case ShareTopicsDeleted():
            share_protocol.forget_topics(draft, event)
        case StatesDeleted():
            share_protocol.forget_states(draft, event)
        case ResetStates():
            share_protocol.reset(draft, event)
        case Tick():
            share_protocol.remove_members(draft, draft.due_members())
            draft.look_at_all_deadlines()
        case Join():
            raise InconsistentGroupProtocol(f"Group {draft.group.group_id} is a share group.")
        case ConsumerHeartbeat():
            raise GroupIdNotFound(f"Group {draft.group.group_id} is not a consumer group.")
        case Sync() | Heartbeat() | Leave():
            raise UnknownMemberId(f"Group {draft.group.group_id} is a share group.")


def loaded(consumer: ConsumerGroup, *, rules: ConsumerRules, now_ms: int) -> None:
    """A group that was read from the log: each member has a whole session to be heard of."""
    for member_id, member in consumer.members.items():
        classic = member.classic
        session_ms = rules.session_timeout_ms if classic is None else classic.session_timeout_ms
        consumer.deadlines[Timer.SESSION, member_id] = now_ms + session_ms
        if member.state is MemberState.UNREVOKED_PARTITIONS:
            timer = Timer.REBALANCE if classic is None else Timer.JOIN
            consumer.deadlines[timer, member_id] = now_ms + member.rebalance_timeout_ms
    consumer.due_ms = min(consumer.deadlines.values(), default=NEVER_MS)


def _emptied(
    consumer: ConsumerGroup, event: Join, *, rules: ConsumerRules, image: MetadataImage, now_ms: int, wall_ms: int
) -> Decision:
    """The first member of an empty consumer group speaks the classic protocol."""
    buried = ConsumerDraft(consumer, rules, image, now_ms=now_ms, wall_ms=wall_ms)
    buried.bury()
    decision = decide(
        ClassicGroup(group_id=consumer.group_id), event, rules=rules.classic, now_ms=now_ms, wall_ms=wall_ms
    )
    if not decision.group.members and not decision.group.pending:
        return replace(decision, group=ClassicGroup(group_id=consumer.group_id), consumer=consumer)
    return replace(decision, records=(*buried.records, *decision.records))


def _become_consumer(draft: ConsumerDraft, group: ClassicGroup, event: GroupEvent) -> None:
    if not isinstance(event, ConsumerHeartbeat) or event.member_epoch != JOIN_EPOCH:
        raise GroupIdNotFound(f"Group {group.group_id} is not a consumer group.")
    if group.phase is not Phase.EMPTY:
        upgrade(draft, group)
    elif group.protocol_type is not None:
        draft.records.append(GroupRecord(GroupKey(group.group_id), None))


def _decide(draft: ConsumerDraft, event: GroupEvent) -> None:
    match event:
        case ConsumerHeartbeat() if event.member_epoch >= JOIN_EPOCH:
            consumer_protocol.heartbeat(draft, event)
        case ConsumerHeartbeat():
            leaver = consumer_protocol.leaving(draft, event)
            if leaver is not None:
                _fence(draft, [leaver.member_id])
        case Join():
            classic_members.join(draft, event)
        case Sync():
            classic_members.sync(draft, event)
        case Heartbeat():
            classic_members.heartbeat(draft, event)
        case Leave():
            _fence(draft, [classic_members.leaving(draft, event).member_id])
        case TargetsComputed():
            draft.take_targets(event)
        case Tick():
            _fence(draft, draft.due_members())
            draft.look_at_all_deadlines()


def _fence(draft: ConsumerDraft, member_ids: Collection[str]) -> None:
    """Members go, and nobody waits for them any more."""
    if not member_ids:
        return
    if can_downgrade_with(draft, leaving=member_ids):
        for member_id in member_ids:
            draft.remove(member_id)
        downgrade(draft, is_rebalance_due=True)
    else:
        consumer_protocol.remove_members(draft, member_ids)
