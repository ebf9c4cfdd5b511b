"""One member on its way from what it has to its target assignment (KIP-848, G9). Pure.

What it has and should not have, it gives up first; it stays in its epoch until it no longer names any of that among
the partitions that it owns. Then it is in the epoch of the target, and gets of the rest what nobody else has. What
another member has, it gets at a later heartbeat.
Source: org.apache.kafka.coordinator.group.modern.consumer.CurrentAssignmentBuilder, Kafka 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from kraft.coordinators.groups.consumer_group import NOTHING, ConsumerMember, MemberState
from kraft.coordinators.groups.consumer_records import AssignmentEpochs, Partitions
from kraft.protocol.errors import FencedMemberEpoch
from metadata.image import TopicIdPartition


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    epoch: int
    partitions: Partitions


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a step of a member depends on."""

    target: Target
    topics: frozenset[int]
    """Topics that the member wants. It keeps and gets no others, even if the target, which may be older, has them."""
    owner_of: Callable[[TopicIdPartition], str | None]
    owned: Partitions | None
    """Partitions that the member said it owns; None when it said nothing."""
    has_subscription_changed: bool = False


def reconciled(member: ConsumerMember, situation: Situation) -> ConsumerMember:
    """The member after the next step; itself when there is none to take. Raises FencedMemberEpoch 110."""
    match member.state:
        case MemberState.STABLE:
            if member.member_epoch != situation.target.epoch:
                return _next(member, situation)
            return _without_unwanted(member, situation) if situation.has_subscription_changed else member
        case MemberState.UNREVOKED_PARTITIONS:
            if not _still_owns(member.revoking, situation.owned):
                return _next(member, situation)
            return _without_unwanted(member, situation) if situation.has_subscription_changed else member
        case MemberState.UNRELEASED_PARTITIONS:
            return _next(member, situation)
        case MemberState.UNKNOWN:
            if situation.owned is None or situation.owned:
                raise FencedMemberEpoch("the member is in a state that is not known here: it gives up all and rejoins")
            return _next(replace(member, member_epoch=situation.target.epoch), situation)


def _still_owns(partitions: Iterable[TopicIdPartition], owned: Partitions | None) -> bool:
    """Whether the member still owns some of them; one that did not report has given up none."""
    return owned is None or not owned.isdisjoint(partitions)


def _next(member: ConsumerMember, situation: Situation) -> ConsumerMember:
    target = frozenset(each for each in situation.target.partitions if each.topic_number in situation.topics)
    kept = {each: epoch for each, epoch in member.assigned.items() if each in target}
    given_up = {each: epoch for each, epoch in member.assigned.items() if each not in target}
    if given_up and _still_owns(given_up, situation.owned):
        return _moved(member, MemberState.UNREVOKED_PARTITIONS, member.member_epoch, kept, given_up)
    missing = target - kept.keys()
    free = {each for each in missing if situation.owner_of(each) in (None, member.member_id)}
    state = MemberState.STABLE if len(free) == len(missing) else MemberState.UNRELEASED_PARTITIONS
    epoch = situation.target.epoch
    return _moved(member, state, epoch, kept | dict.fromkeys(free, epoch), NOTHING)


def _without_unwanted(member: ConsumerMember, situation: Situation) -> ConsumerMember:
    """The member takes its subscription to a topic back: it loses these partitions before there is a new target."""
    kept = {each: epoch for each, epoch in member.assigned.items() if each.topic_number in situation.topics}
    if len(kept) == len(member.assigned):
        return member
    given_up = {each: epoch for each, epoch in member.assigned.items() if each not in kept} | dict(member.revoking)
    if _still_owns(given_up, situation.owned):
        return _moved(member, MemberState.UNREVOKED_PARTITIONS, member.member_epoch, kept, given_up)
    return _moved(member, member.state, member.member_epoch, kept, member.revoking)


def _moved(
    member: ConsumerMember, state: MemberState, epoch: int, assigned: AssignmentEpochs, revoking: AssignmentEpochs
) -> ConsumerMember:
    return replace(
        member,
        state=state,
        previous_epoch=member.member_epoch,
        member_epoch=epoch,
        assigned=assigned,
        revoking=revoking,
    )
