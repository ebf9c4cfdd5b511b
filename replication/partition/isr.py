"""Changes of the ISR that a leader proposes, and the effect of the controller's answer (KIP-497). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum, auto

from metadata.controller.requests import IsrMember, PartitionAlteration
from metadata.image import BrokerImage, PartitionImage
from metadata.records import LeaderRecovery
from replication.partition.states import CommittedIsr, FollowerProgress, LeaderState, PendingIsr

REVERTING_CODES = frozenset({107, 55})
"""I8: INELIGIBLE_REPLICA, OPERATION_NOT_ATTEMPTED: the controller keeps the committed ISR."""

SUPERSEDED_CODES = frozenset({3, 42, 74, 95, 100, 108})
"""I8, I9: the controller has newer state, which will arrive as metadata. The change stays pending until then."""


class Answered(Enum):
    """The next step after an answer to an alteration (I8)."""

    SETTLED = auto()
    WAIT_FOR_METADATA = auto()
    RETRY = auto()


def is_eligible(replica: int, progress: FollowerProgress, brokers: Mapping[int, BrokerImage]) -> bool:
    """I4, KIP-903: registered, not fenced, not shutting down, and fetching as the broker that is registered."""
    broker = brokers.get(replica)
    return (
        broker is not None
        and not broker.fenced
        and not broker.in_controlled_shutdown
        and progress.broker_epoch in (-1, broker.broker_epoch)
    )


def may_join(state: LeaderState, follower: int, brokers: Mapping[int, BrokerImage]) -> bool:
    """I4. While the leader recovers from an unclean election its ISR cannot grow (L3)."""
    if isinstance(state.isr, PendingIsr) or follower in state.isr.members or state.is_recovering:
        return False
    progress = state.followers[follower]
    return (
        progress.end_offset >= state.high_watermark
        and progress.end_offset >= state.epoch_start_offset
        and is_eligible(follower, progress, brokers)
    )


def out_of_sync(state: LeaderState, *, log_end_offset: int, lag_ms_max: int, now_ms: int) -> tuple[int, ...]:
    """I1, I3: members of the ISR that are behind and have not been caught up for longer than the lag."""
    return tuple(
        member
        for member in state.isr.members
        if (progress := state.followers.get(member)) is not None
        and not progress.is_caught_up(leader_end_offset=log_end_offset, now_ms=now_ms, lag_ms_max=lag_ms_max)
    )


def propose_join(state: LeaderState, follower: int) -> LeaderState:
    """I7: a member that joins counts at once."""
    grown = (*state.isr.members, follower)
    return replace(state, isr=PendingIsr(members=state.isr.members, proposed=grown, maximal=grown))


def propose_shrink(state: LeaderState, leaving: tuple[int, ...]) -> LeaderState:
    """I7: a member that leaves counts until the change is committed."""
    kept = tuple(m for m in state.isr.members if m not in leaving)
    assert state.image.leader in kept, (state.image, leaving)
    return replace(state, isr=PendingIsr(members=state.isr.members, proposed=kept, maximal=state.isr.members))


def propose_recovered(state: LeaderState) -> LeaderState:
    """L3: report to the controller that this leader, elected uncleanly, has recovered."""
    members = state.isr.members
    return replace(state, isr=PendingIsr(members=members, proposed=members, maximal=members))


def alteration_of(
    state: LeaderState, *, own_broker_epoch: int, brokers: Mapping[int, BrokerImage]
) -> PartitionAlteration:
    """The request for a pending change, with the broker epoch under which each member fetched (KIP-903)."""
    assert isinstance(state.isr, PendingIsr), state
    members = []
    for member in state.isr.proposed:
        progress = state.followers.get(member)
        epoch = own_broker_epoch if progress is None else progress.broker_epoch
        if progress is not None and epoch == -1 and member in brokers:
            epoch = brokers[member].broker_epoch
        members.append(IsrMember(broker_id=member, broker_epoch=epoch))
    return PartitionAlteration(
        topic_id=state.image.topic_id,
        partition=state.image.partition,
        leader_epoch=state.leader_epoch,
        partition_epoch=state.partition_epoch,
        new_isr=tuple(members),
        recovered=True,
    )


def with_refusal(state: LeaderState, code: int) -> tuple[LeaderState, Answered]:
    """I8: what becomes of a change of the ISR that the controller has refused with `code`."""
    if code in REVERTING_CODES:
        return replace(state, isr=CommittedIsr(members=state.isr.members)), Answered.SETTLED
    if code in SUPERSEDED_CODES:
        return state, Answered.WAIT_FOR_METADATA
    return state, Answered.RETRY


def with_committed(state: LeaderState, image: PartitionImage) -> tuple[LeaderState, Answered]:
    """The controller committed our change; metadata with the same facts follows or has overtaken it."""
    if image.leader_epoch != state.leader_epoch or image.partition_epoch < state.partition_epoch:
        return state, Answered.WAIT_FOR_METADATA
    settled = replace(
        state,
        isr=CommittedIsr(members=image.isr),
        partition_epoch=image.partition_epoch,
        is_recovering=image.leader_recovery is LeaderRecovery.RECOVERING,
    )
    return settled, Answered.SETTLED
