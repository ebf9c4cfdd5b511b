"""The rebalance of the classic protocol: (group, event, now) -> (group, records, replies). Pure (G1 to G3, G6).

Sync, heartbeat, leave and the passing of time; JoinGroup is `classic_join`. Which protocol a group speaks is decided
before (`group_protocols`), and `consumer_protocol` is the same for the consumer protocol.
Source: org.apache.kafka.coordinator.group.GroupMetadataManager, the classic half.
"""

from __future__ import annotations

from kraft.coordinators.groups.classic_draft import ClassicDraft, ClassicRules, Decision
from kraft.coordinators.groups.classic_group import NEVER_MS, ClassicGroup, Member, Phase
from kraft.coordinators.groups.classic_join import join
from kraft.coordinators.groups.classic_requests import Done, Event, Heartbeat, Join, Leave, Sync, Tick
from kraft.protocol.errors import (
    FencedInstanceId,
    IllegalGeneration,
    InconsistentGroupProtocol,
    KafkaError,
    RebalanceInProgress,
    UnknownMemberId,
)


def decide(group: ClassicGroup, event: Event, *, rules: ClassicRules, now_ms: int, wall_ms: int) -> Decision:
    """`now_ms` is for durations, `wall_ms` for what is written down."""
    draft = ClassicDraft(group, rules, now_ms=now_ms, wall_ms=wall_ms)
    try:
        match event:
            case Join():
                join(draft, event)
            case Sync():
                _sync(draft, event)
            case Heartbeat():
                _heartbeat(draft, event)
            case Leave():
                _leave(draft, event)
            case Tick():
                _tick(draft)
    except KafkaError as refusal:
        # Without its frames, which have the draft that has the reply.
        draft.reply(None if isinstance(event, Tick) else event.ticket, refusal.with_traceback(None))
    return draft.decision()


def member_or_raise(group: ClassicGroup, member_id: str, instance_id: str | None) -> Member:
    """G3, G6. Raises FencedInstanceId 82, UnknownMemberId 25."""
    if instance_id is not None:
        static = group.static_member(instance_id)
        if static is not None and static.member_id != member_id:
            raise FencedInstanceId(f"instance {instance_id!r} is held by another member of {group.group_id!r} now")
    member = group.members.get(member_id)
    if member is None or (instance_id is not None and member.instance_id != instance_id):
        raise UnknownMemberId(f"group {group.group_id!r} has no member {member_id!r}; join it")
    return member


def check_generation(group: ClassicGroup, generation: int) -> None:
    """Raises IllegalGeneration 22."""
    if generation != group.generation:
        raise IllegalGeneration(f"generation {generation} of {group.group_id!r}; it is {group.generation} now")


def _sync(draft: ClassicDraft, event: Sync) -> None:
    group = draft.group
    member = member_or_raise(group, event.member_id, event.instance_id)
    check_generation(group, event.generation)
    if event.protocol_type not in (None, group.protocol_type) or event.protocol not in (None, group.protocol):
        raise InconsistentGroupProtocol(
            f"{event.protocol_type}/{event.protocol} is not {group.protocol_type}/{group.protocol}, which was chosen"
        )
    match group.phase:
        case Phase.COMPLETING:
            draft.reply(member.syncing, RebalanceInProgress("a newer sync of this member came"))
            draft.heard_of(member, syncing=event.ticket, is_sync_due=False)
            if member.member_id == group.leader:
                _assign(draft, dict(event.assignments))
        case Phase.STABLE:
            draft.heard_of(member, is_sync_due=False)
            draft.reply(event.ticket, draft.synced(member.assignment))
            _end_wait_for_syncs(draft)
        case Phase.PREPARING:
            raise RebalanceInProgress(f"group {group.group_id!r} is rebalancing: join again")
        case _:
            raise UnknownMemberId(f"group {group.group_id!r} is {group.phase}")


def _assign(draft: ClassicDraft, assignments: dict[str, bytes]) -> None:
    draft.change(phase=Phase.STABLE)
    now_ms = draft.now_ms
    waiting: list[tuple[int, bytes]] = []

    def assigned(member: Member) -> Member:
        assignment = assignments.get(member.member_id, b"")
        if member.syncing is None:
            return member._replace(assignment=assignment)
        waiting.append((member.syncing, assignment))
        deadline_ms = now_ms + member.session_timeout_ms
        return member.followed(
            assignment=assignment, deadline_ms=deadline_ms, is_new=member.is_new, is_sync_due=member.is_sync_due
        )

    draft.change_each(assigned)
    draft.reply_to_each(waiting, draft.synced(b"").of)
    _end_wait_for_syncs(draft)
    draft.record()


def _end_wait_for_syncs(draft: ClassicDraft) -> None:
    if not draft.syncs_due:
        draft.change(deadline_ms=NEVER_MS)


def _heartbeat(draft: ClassicDraft, event: Heartbeat) -> None:
    group = draft.group
    member = member_or_raise(group, event.member_id, event.instance_id)
    check_generation(group, event.generation)
    draft.heard_of(member)
    if group.phase is Phase.PREPARING:
        raise RebalanceInProgress(f"group {group.group_id!r} is rebalancing: join again")
    draft.reply(event.ticket, Done())


def _leave(draft: ClassicDraft, event: Leave) -> None:
    group = draft.group
    if event.member_id in group.pending:
        draft.forget_pending(event.member_id)
        draft.maybe_complete_join()
    else:
        member_id = event.member_id
        if event.instance_id is not None and not member_id:
            static = group.static_member(event.instance_id)
            member_id = "" if static is None else static.member_id
        _remove(draft, member_or_raise(group, member_id, event.instance_id))
    draft.reply(event.ticket, Done())


def _remove(draft: ClassicDraft, member: Member) -> None:
    draft.drop(member)
    if draft.group.phase in (Phase.STABLE, Phase.COMPLETING):
        draft.prepare_rebalance()
    if not draft.group.members and not draft.group.pending:
        draft.change(opened_ms=NEVER_MS)
    draft.maybe_complete_join()


def _tick(draft: ClassicDraft) -> None:
    for member_id, due_ms in list(draft.group.pending.items()):
        if due_ms <= draft.now_ms:
            draft.forget_pending(member_id)
    for member in list(draft.group.members.values()):
        if member.can_expire and member.deadline_ms <= draft.now_ms:
            _remove(draft, member)
    draft.maybe_complete_join()
    if draft.group.deadline_ms <= draft.now_ms:
        _rebalance_is_over(draft)
    draft.look_at_all_deadlines()


def _rebalance_is_over(draft: ClassicDraft) -> None:
    group = draft.group
    match group.phase:
        case Phase.PREPARING if group.is_opening:
            _end_initial_delay(draft)
        case Phase.PREPARING:
            draft.complete_join()
        case Phase.COMPLETING | Phase.STABLE:
            for member in [each for each in group.members.values() if each.is_sync_due]:
                draft.drop(member)
            draft.change(deadline_ms=NEVER_MS)
            draft.prepare_rebalance()
            draft.maybe_complete_join()
        case _:
            draft.change(deadline_ms=NEVER_MS)


def _end_initial_delay(draft: ClassicDraft) -> None:
    """G1: members that came during the wait prolong it, up to the longest rebalance timeout."""
    group = draft.group
    limit_ms = group.opened_ms + draft.longest_rebalance_ms()
    if group.pending and draft.now_ms < limit_ms:
        draft.change(deadline_ms=min(draft.now_ms + draft.rules.initial_delay_ms, limit_ms))
        return
    draft.change(opened_ms=NEVER_MS)
    draft.complete_join()
