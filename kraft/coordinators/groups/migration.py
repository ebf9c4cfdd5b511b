"""A group with members that changes its protocol: upgrade at the first heartbeat of the consumer protocol, downgrade
when the last member that speaks it goes (KIP-848, G13, `group.consumer.migration.policy`). Pure.

An upgrade takes the generation as epoch, and the members' assignments as what they own; a member that waits for an
answer joins again. A downgrade is the other way round, and then a rebalance: what the members have is not balanced.
Source: GroupMetadataManager.convertToConsumerGroup and convertToClassicGroup, ConsumerGroup.fromClassicGroup,
ClassicGroup.fromConsumerGroup.
"""

from __future__ import annotations

from collections.abc import Collection

from kraft.coordinators.groups.classic_draft import ClassicDraft
from kraft.coordinators.groups.classic_group import ClassicGroup, Member, Phase, group_record
from kraft.coordinators.groups.consumer_draft import ConsumerDraft
from kraft.coordinators.groups.consumer_group import ConsumerMember
from kraft.coordinators.groups.consumer_records import (
    ClassicSupport,
    EpochKey,
    StoredEpoch,
    StoredTargetEpoch,
    TargetEpochKey,
)
from kraft.coordinators.groups.modern_group import NEVER_MS, Timer
from kraft.coordinators.groups.records import GroupKey, GroupRecord
from kraft.coordinators.groups.subscriptions import (
    Subscription,
    assignment_user_data,
    decode_assignment,
    decode_subscription,
    encode_assignment,
)
from kraft.protocol.errors import GroupIdNotFound, RebalanceInProgress
from metadata.image import MetadataImage, TopicIdPartition

CONSUMER = "consumer"


# --- upgrade --------------------------------------------------------------------------------------------------------


def upgrade(draft: ConsumerDraft, group: ClassicGroup) -> None:
    """The records that make a consumer group of a classic one. Raises GroupIdNotFound 69, as Kafka does, where that
    must not be or cannot be."""
    _check_upgrade(draft, group)
    members = [_upgraded(group, member, draft.image) for member in group.members.values()]
    for member in group.members.values():
        for ticket in (member.joining, member.syncing):
            draft.reply(ticket, RebalanceInProgress("the group changes to the consumer protocol: join again"))
    draft.records.append(GroupRecord(GroupKey(group.group_id), None))
    for described in members:
        draft.describe(described)
    draft.write(EpochKey(group.group_id), StoredEpoch(epoch=group.generation, metadata_hash=draft.metadata_hash()))
    for described in members:
        draft.set_target(described.member_id, frozenset(described.assigned))
    draft.write(TargetEpochKey(group.group_id), StoredTargetEpoch(epoch=group.generation))
    for described in members:
        draft.set_current(described)
        assert described.classic is not None, described
        draft.set_timer(Timer.SESSION, described.member_id, described.classic.session_timeout_ms)


def _check_upgrade(draft: ConsumerDraft, group: ClassicGroup) -> None:
    reason = None
    if not draft.rules.can_upgrade:
        reason = "online upgrade is disabled"
    elif group.protocol_type != CONSUMER:
        reason = "the group does not use the consumer embedded protocol"
    elif len(group.members) > draft.rules.members_max:
        reason = "the group size exceeds the consumer group maximum size"
    if reason is not None:
        raise GroupIdNotFound(f"Cannot upgrade classic group {group.group_id} to consumer group because {reason}.")


def _upgraded(group: ClassicGroup, member: Member, image: MetadataImage) -> ConsumerMember:
    try:
        subscription = _subscription(group, member)
        assigned = decode_assignment(member.assignment)
        user_data = assignment_user_data(member.assignment)
    except ValueError as error:
        raise GroupIdNotFound(
            f"Cannot upgrade classic group {group.group_id} to consumer group because the embedded consumer protocol "
            f"is malformed: {error}."
        ) from error
    if user_data:
        raise GroupIdNotFound(
            f"Cannot upgrade classic group {group.group_id} to consumer group because an unsupported custom assignor "
            "is in use. Please refer to the documentation or switch to a default assignor before re-attempting the "
            "upgrade."
        )
    ids = image.topic_ids
    return ConsumerMember(
        member_id=member.member_id,
        member_epoch=group.generation,
        previous_epoch=group.generation,
        instance_id=member.instance_id,
        rebalance_timeout_ms=member.rebalance_timeout_ms,
        client_id=member.client_id,
        client_host=member.client_host,
        topics=frozenset(subscription.topics),
        classic=ClassicSupport(session_timeout_ms=member.session_timeout_ms, protocols=member.protocols),
        assigned={
            TopicIdPartition(ids[topic], partition): group.generation for topic, partition in assigned if topic in ids
        },
    )


def _subscription(group: ClassicGroup, member: Member) -> Subscription:
    """The subscription for the protocol that the group chose; before that, for the member's first."""
    return decode_subscription(member.metadata(group.protocol) or member.protocols[0][1])


# --- downgrade ------------------------------------------------------------------------------------------------------


def can_downgrade_with(draft: ConsumerDraft, *, leaving: Collection[str], joining: int = 0) -> bool:
    """Without these members, at least one of whom speaks the consumer protocol, all speak the classic one."""
    members = draft.group.members
    left = [member for member in members.values() if member.member_id not in leaving]
    has_last = any(members[member_id].classic is None for member_id in leaving if member_id in members)
    all_classic = has_last and all(member.classic is not None for member in left)
    size = len(left) + joining
    return all_classic and 0 < size <= draft.rules.classic.members_max and draft.rules.can_downgrade


def downgrade(draft: ConsumerDraft, *, is_rebalance_due: bool) -> None:
    """The records that make a classic group of a consumer group, all of whose members speak the classic protocol."""
    source = draft.group
    members = {member_id: _downgraded(draft, member) for member_id, member in source.members.items() if member.classic}
    assert len(members) == len(source.members), source
    draft.bury()
    group = ClassicGroup(
        group_id=source.group_id,
        phase=Phase.STABLE,
        generation=source.epoch,
        protocol_type=CONSUMER,
        members=members,
        state_timestamp=draft.wall_ms,
    )
    made = ClassicDraft(group, draft.rules.classic, now_ms=draft.now_ms, wall_ms=draft.wall_ms)
    made.change(protocol=made.voted())
    draft.records.append(group_record(made.group))
    if is_rebalance_due:
        made.prepare_rebalance()
    draft.downgraded = made.group


def _downgraded(draft: ConsumerDraft, member: ConsumerMember) -> Member:
    assert member.classic is not None, member
    topics = draft.image.topics
    target = draft.group.targets.get(member.member_id, frozenset())
    return Member(
        member_id=member.member_id,
        instance_id=member.instance_id,
        client_id=member.client_id,
        client_host=member.client_host,
        session_timeout_ms=member.classic.session_timeout_ms,
        rebalance_timeout_ms=member.rebalance_timeout_ms,
        protocols=member.classic.protocols,
        assignment=encode_assignment(
            (topics[each.topic_id].name, each.partition) for each in target if each.topic_id in topics
        ),
        deadline_ms=min(draft.now_ms + member.classic.session_timeout_ms, NEVER_MS),
    )
