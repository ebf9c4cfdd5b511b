"""Members of the classic protocol in a group of the consumer protocol: each request is translated (KIP-848). Pure.

The member's epoch is its generation. A join has what it owns and gets the next step of its reconciliation; a sync
returns its assignment; a heartbeat answers REBALANCE_IN_PROGRESS when there is a step to take. No member leads: the
coordinator assigns, and no member waits for another.
Source: org.apache.kafka.coordinator.group.GroupMetadataManager.classicGroupJoinToConsumerGroup and its siblings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kraft.coordinators.groups.classic_requests import Done, Heartbeat, Join, Joined, Leave, Sync, Synced
from kraft.coordinators.groups.consumer_draft import ConsumerDraft
from kraft.coordinators.groups.consumer_group import ConsumerGroup, ConsumerMember, MemberState
from kraft.coordinators.groups.consumer_protocol import (
    check_room,
    describe,
    known_static,
    reconcile,
    static_joining,
)
from kraft.coordinators.groups.consumer_records import ClassicSupport, Partitions
from kraft.coordinators.groups.migration import can_downgrade_with, downgrade
from kraft.coordinators.groups.modern_group import Timer
from kraft.coordinators.groups.subscriptions import Subscription, decode_subscription, encode_assignment, version_of
from kraft.protocol.errors import (
    ClassicMembersNotTaken,
    IllegalGeneration,
    InconsistentGroupProtocol,
    InvalidSessionTimeout,
    MemberIdRequired,
    RebalanceInProgress,
    UnknownMemberId,
)
from kraft.protocol.primitives import TopicPartition
from metadata.image import MetadataImage, TopicIdPartition

CONSUMER = "consumer"
"""The protocol type of consumers: that of Connect's workers, say, has no place in such a group."""


def join(draft: ConsumerDraft, event: Join) -> None:
    member_id = event.member_id or event.new_member_id
    _check(draft, event, member_id)
    if not event.member_id and event.instance_id is None and event.is_known_required:
        raise MemberIdRequired(member_id)
    name, metadata = event.protocols[0]
    subscription = _subscription(name, metadata)
    holder = draft.group.static_member(event.instance_id)
    downgrades = holder is not None and can_downgrade_with(draft, leaving=[holder.member_id], joining=1)
    before = _joining(draft, event, member_id)
    updated = replace(
        before,
        instance_id=event.instance_id or before.instance_id,
        rebalance_timeout_ms=event.rebalance_timeout_ms,
        topics=frozenset(subscription.topics),
        pattern="",
        client_id=event.client_id,
        client_host=event.client_host,
        classic=ClassicSupport(session_timeout_ms=event.session_timeout_ms, protocols=event.protocols),
    )
    has_changed = describe(draft, before, updated)
    is_rebalance_due = draft.group.assignment_epoch < draft.group.epoch
    if not downgrades:
        draft.update_targets()
    after = draft.group.members[member_id]
    if not (downgrades and is_rebalance_due):
        owned = partitions_of(subscription.owned, draft.image)
        after = reconcile(draft, member_id, owned=owned, is_subscription_changed=has_changed)
    draft.clear_timer(Timer.JOIN, member_id)
    draft.set_timer(Timer.SESSION, member_id, event.session_timeout_ms)
    draft.set_timer(Timer.SYNC, member_id, event.rebalance_timeout_ms)
    draft.reply(
        event.ticket,
        Joined(generation=after.member_epoch, protocol_type=CONSUMER, protocol=name, leader="", member_id=member_id),
    )
    if downgrades:
        downgrade(draft, is_rebalance_due=is_rebalance_due)


def _check(draft: ConsumerDraft, event: Join, member_id: str) -> None:
    if not draft.rules.can_upgrade:
        raise ClassicMembersNotTaken(
            f"group {draft.group.group_id!r} uses the consumer protocol, and group.consumer.migration.policy takes no "
            "members of the classic protocol into it"
        )
    limits = draft.rules.classic
    if not limits.session_ms_min <= event.session_timeout_ms <= limits.session_ms_max:
        raise InvalidSessionTimeout(
            f"a session timeout of {event.session_timeout_ms} ms is not between {limits.session_ms_min} "
            f"(group.min.session.timeout.ms) and {limits.session_ms_max} (group.max.session.timeout.ms)"
        )
    check_room(draft, member_id)
    common = draft.group.common_classic_protocols
    offered = {name for name, _ in event.protocols}
    is_supported = bool(offered & common) if draft.group.classic_members else bool(offered)
    if event.protocol_type != CONSUMER or not is_supported:
        raise InconsistentGroupProtocol(
            f"group {draft.group.group_id!r} takes members of type {CONSUMER!r} that can do one of {sorted(common)}; "
            f"this one is {event.protocol_type!r} and can do {sorted(offered)}"
        )


def _subscription(name: str, metadata: bytes) -> Subscription:
    """What the member owns by its protocol: user data of assignors counts for nothing, as they do not assign here."""
    try:
        return decode_subscription(metadata)
    except ValueError as error:
        raise InconsistentGroupProtocol(f"the metadata of protocol {name!r} is no subscription: {error}") from error


def _joining(draft: ConsumerDraft, event: Join, member_id: str) -> ConsumerMember:
    if event.instance_id is None:
        return draft.group.members.get(member_id, ConsumerMember(member_id=member_id))
    if event.member_id:
        return known_static(draft, event.instance_id, member_id)
    return static_joining(draft, event.instance_id, member_id, is_classic=True)


def sync(draft: ConsumerDraft, event: Sync) -> None:
    member, classic = _classic(draft, event.member_id, event.instance_id)
    _check_generation(member, event.generation)
    chosen = classic.protocols[0][0] if classic.protocols else ""
    if event.protocol_type not in (None, CONSUMER) or event.protocol not in (None, chosen):
        raise InconsistentGroupProtocol(f"{event.protocol_type}/{event.protocol} is not {CONSUMER}/{chosen}")
    if member.member_epoch < draft.group.epoch and member.state is not MemberState.UNREVOKED_PARTITIONS:
        _tell_to_rejoin(draft, member, event.ticket)
        return
    draft.clear_timer(Timer.SYNC, member.member_id)
    draft.set_timer(Timer.SESSION, member.member_id, classic.session_timeout_ms)
    version = version_of(classic.protocols[0][1]) if classic.protocols else 0
    assignment = encode_assignment(names_of(member.assigned, draft.image), version=version)
    draft.reply(event.ticket, Synced(protocol_type=CONSUMER, protocol=chosen, assignment=assignment))


def heartbeat(draft: ConsumerDraft, event: Heartbeat) -> None:
    member, classic = _classic(draft, event.member_id, event.instance_id)
    _check_generation(member, event.generation)
    draft.set_timer(Timer.SESSION, member.member_id, classic.session_timeout_ms)
    if has_step_to_take(draft.group, member):
        _tell_to_rejoin(draft, member, event.ticket)
    else:
        draft.reply(event.ticket, Done())


def has_step_to_take(group: ConsumerGroup, member: ConsumerMember) -> bool:
    """The member joins again to take it."""
    return (
        member.member_epoch < group.epoch
        or member.state is MemberState.UNREVOKED_PARTITIONS
        or (member.state is MemberState.UNRELEASED_PARTITIONS and not group.waits_for_others(member))
    )


def leaving(draft: ConsumerDraft, event: Leave) -> ConsumerMember:
    draft.reply(event.ticket, Done())
    if event.instance_id is None:
        return _dynamic(draft, event.member_id)
    static = draft.group.static_member(event.instance_id)
    return known_static(draft, event.instance_id, event.member_id or (static.member_id if static else ""))


def _tell_to_rejoin(draft: ConsumerDraft, member: ConsumerMember, ticket: int) -> None:
    draft.start_timer(Timer.JOIN, member.member_id, member.rebalance_timeout_ms)
    draft.reply(ticket, RebalanceInProgress(f"group {draft.group.group_id!r} is rebalancing: join again"))


def _classic(draft: ConsumerDraft, member_id: str, instance_id: str | None) -> tuple[ConsumerMember, ClassicSupport]:
    member = _dynamic(draft, member_id) if instance_id is None else known_static(draft, instance_id, member_id)
    if member.classic is None:
        raise UnknownMemberId(f"member {member_id!r} does not use the classic protocol")
    return member, member.classic


def _dynamic(draft: ConsumerDraft, member_id: str) -> ConsumerMember:
    member = draft.group.members.get(member_id)
    if member is None:
        raise UnknownMemberId(f"group {draft.group.group_id!r} has no member {member_id!r}; join it")
    return member


def _check_generation(member: ConsumerMember, generation: int) -> None:
    if generation != member.member_epoch:
        raise IllegalGeneration(f"generation {generation} of member {member.member_id!r}; it is {member.member_epoch}")


# --- names and ids --------------------------------------------------------------------------------------------------


def partitions_of(names: Iterable[TopicPartition], image: MetadataImage) -> Partitions:
    """The partitions of the topics that exist."""
    ids = image.topic_ids
    return frozenset(TopicIdPartition(ids[topic], partition) for topic, partition in names if topic in ids)


def names_of(partitions: Iterable[TopicIdPartition], image: MetadataImage) -> list[TopicPartition]:
    """Name and number of the partitions of the topics that exist, sorted."""
    topics = image.topics
    return sorted((topics[each.topic_id].name, each.partition) for each in partitions if each.topic_id in topics)
