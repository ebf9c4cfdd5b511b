"""JoinGroup of the classic protocol: new members, known ones, and static ones that come back. Pure.

Source: G1, G2, G6; KIP-345 (static members), KIP-394 (a member id before the join).
"""

from __future__ import annotations

from kraft.coordinators.groups.classic_draft import ClassicDraft
from kraft.coordinators.groups.classic_group import Member, Phase, with_protocols
from kraft.coordinators.groups.classic_requests import Join
from kraft.protocol.errors import (
    FencedInstanceId,
    GroupMaxSizeReached,
    InconsistentGroupProtocol,
    InvalidGroupId,
    InvalidSessionTimeout,
    MemberIdRequired,
    UnknownMemberId,
)

NEW_MEMBER_JOIN_MS = 300_000
"""A first join waits no longer: its member cannot tell that it is alive."""


def join(draft: ClassicDraft, event: Join) -> None:
    _check(draft, event)
    if event.member_id:
        _join_known(draft, event)
    elif event.instance_id is not None:
        _join_static(draft, event)
    elif event.is_known_required:
        _check_size(draft)
        due_ms = draft.now_ms + event.session_timeout_ms
        draft.expect(event.new_member_id, due_ms)
        raise MemberIdRequired(event.new_member_id)
    else:
        _add(draft, event, event.new_member_id)


def _check(draft: ClassicDraft, event: Join) -> None:
    group, rules = draft.group, draft.rules
    if not group.group_id:
        raise InvalidGroupId("a group has a name")
    if not rules.session_ms_min <= event.session_timeout_ms <= rules.session_ms_max:
        raise InvalidSessionTimeout(
            f"a session timeout of {event.session_timeout_ms} ms is not between {rules.session_ms_min} "
            f"(group.min.session.timeout.ms) and {rules.session_ms_max} (group.max.session.timeout.ms)"
        )
    if not event.protocol_type or not event.protocols:
        raise InconsistentGroupProtocol("a member names a protocol type and at least one protocol")
    if group.members:
        # As in Kafka, all members: one that is alone, or comes back, goes on with a protocol that it could do before.
        common = draft.common_protocols
        if event.protocol_type != group.protocol_type or not common & {name for name, _ in event.protocols}:
            raise InconsistentGroupProtocol(
                f"group {group.group_id!r} uses {group.protocol_type!r} with {sorted(common)}; this member cannot"
            )


def _check_size(draft: ClassicDraft) -> None:
    """Ids that were given out count, so that they take no more memory than members."""
    group = draft.group
    if len(group.members) + len(group.pending) >= draft.rules.members_max:
        raise GroupMaxSizeReached(
            f"group {group.group_id!r} has {len(group.members)} members, and {len(group.pending)} are about to join: "
            "group.max.size"
        )


def _check_room(draft: ClassicDraft, member: Member) -> None:
    """When group.max.size became smaller, the last to join again are out."""
    joined = draft.joined_members
    if joined >= draft.rules.members_max:
        draft.drop(member)
        draft.maybe_complete_join()
        raise GroupMaxSizeReached(f"group {draft.group.group_id!r} takes {joined} members now: group.max.size")


def _add(draft: ClassicDraft, event: Join, member_id: str) -> None:
    group = draft.group
    _check_size(draft)
    if not group.members:
        draft.change(protocol_type=event.protocol_type, leader=member_id)
    draft.put(
        Member(
            member_id=member_id,
            instance_id=event.instance_id,
            client_id=event.client_id,
            client_host=event.client_host,
            session_timeout_ms=event.session_timeout_ms,
            rebalance_timeout_ms=event.rebalance_timeout_ms,
            protocols=event.protocols,
            joining=event.ticket,
            is_new=True,
            deadline_ms=draft.now_ms + NEW_MEMBER_JOIN_MS,
        )
    )
    draft.prepare_rebalance()
    if draft.group.is_opening:
        limit_ms = draft.group.opened_ms + draft.longest_rebalance_ms()
        draft.change(deadline_ms=min(draft.now_ms + draft.rules.initial_delay_ms, limit_ms))
    draft.maybe_complete_join()


def _rejoin(draft: ClassicDraft, event: Join, member: Member) -> None:
    draft.reply(member.joining, UnknownMemberId("a newer join of this member came"))
    updated = with_protocols(
        member,
        protocols=event.protocols,
        session_timeout_ms=event.session_timeout_ms,
        rebalance_timeout_ms=event.rebalance_timeout_ms,
    )
    draft.put(updated._replace(joining=event.ticket))
    draft.prepare_rebalance()
    draft.maybe_complete_join()


def _join_known(draft: ClassicDraft, event: Join) -> None:
    group = draft.group
    if event.member_id in group.pending and event.instance_id is None:
        draft.forget_pending(event.member_id)
        _add(draft, event, event.member_id)
        return
    if event.instance_id is not None:
        static = group.static_member(event.instance_id)
        if static is not None and static.member_id != event.member_id:
            raise FencedInstanceId(f"instance {event.instance_id!r} is held by another member of {group.group_id!r}")
    member = group.members.get(event.member_id)
    if member is None:
        raise UnknownMemberId(f"group {group.group_id!r} has no member {event.member_id!r}; join without an id")
    if group.phase is Phase.PREPARING and member.joining is None:
        _check_room(draft, member)
    is_leader, is_unchanged = event.member_id == group.leader, event.protocols == member.protocols
    if (group.phase is Phase.COMPLETING and is_unchanged) or (
        group.phase is Phase.STABLE and is_unchanged and not is_leader
    ):
        draft.heard_of(member)
        draft.reply(event.ticket, draft.joined(member.member_id))
        return
    _rejoin(draft, event, member)


def _join_static(draft: ClassicDraft, event: Join) -> None:
    """KIP-345: the same instance comes back under a new id; the older holder of its name is fenced."""
    group = draft.group
    assert event.instance_id is not None
    old = group.static_member(event.instance_id)
    if old is None:
        _add(draft, event, event.new_member_id)
        return
    is_leader = group.leader == old.member_id
    draft.drop(old, FencedInstanceId(f"instance {event.instance_id!r} was taken over by a newer member"))
    new = with_protocols(
        old._replace(member_id=event.new_member_id, joining=None, syncing=None),
        protocols=event.protocols,
        session_timeout_ms=event.session_timeout_ms,
        rebalance_timeout_ms=event.rebalance_timeout_ms,
    )
    draft.heard_of(new)
    if is_leader:
        draft.change(leader=new.member_id)
    if group.phase is Phase.STABLE and draft.voted() == group.protocol:
        # Whatever it wants now is looked at in the next rebalance: its coming back is no reason for one.
        draft.record()
        joined = draft.joined(new.member_id)
        if event.can_skip_assignment:
            joined = joined._replace(skips_assignment=is_leader)
        elif is_leader:
            # Named as a follower of the one that it was before, it assigns nothing either.
            joined = joined._replace(leader=old.member_id, members=())
        draft.reply(event.ticket, joined)
        return
    draft.put(draft.group.members[new.member_id]._replace(joining=event.ticket))
    draft.prepare_rebalance()
    draft.maybe_complete_join()
