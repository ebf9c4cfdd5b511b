"""Transitions of a leader: each takes the state and an event and returns the next state. Pure.

Invariants: the high watermark never goes down within a leadership (R5); it never passes the end offset of a member
of the maximal ISR (P4, I7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from kraft.values import new
from metadata.image import BrokerImage, PartitionImage
from replication.partition.high_watermark import advance_high_watermark
from replication.partition.isr import is_eligible
from replication.partition.states import CommittedIsr, FollowerProgress, Idling, LeaderState, is_recovering


def become_leader(
    image: PartitionImage, *, end_offset: int, epoch_start_offset: int, high_watermark: int, min_isr: int, now_ms: int
) -> LeaderState:
    """A new leadership. Members of the ISR count as caught up from now on; nobody has fetched yet."""
    followers = {
        replica: FollowerProgress(caught_up_ms=now_ms) if replica in image.isr else FollowerProgress()
        for replica in image.replicas
        if replica != image.leader
    }
    return LeaderState(
        image=image,
        isr=CommittedIsr(members=image.isr),
        partition_epoch=image.partition_epoch,
        is_recovering=is_recovering(image),
        epoch_start_offset=epoch_start_offset,
        end_offset=end_offset,
        high_watermark=high_watermark,
        followers=followers,
        min_isr=effective_min_isr(image, min_isr),
    )


def continue_leadership(
    state: LeaderState, image: PartitionImage, *, epoch_start_offset: int, min_isr: int, now_ms: int
) -> LeaderState:
    """New facts about a partition that this broker already leads. Any newer partition epoch settles a pending change
    (I8). In a leader epoch that this broker skipped another one may have led, and followers may have truncated: what
    they had fetched before it counts no longer (P4)."""
    if image.partition_epoch < state.partition_epoch:
        return state
    is_new_epoch = image.leader_epoch > state.leader_epoch
    is_newer = image.partition_epoch > state.partition_epoch
    return replace(
        state,
        image=image,
        isr=CommittedIsr(members=image.isr) if is_newer else state.isr,
        partition_epoch=image.partition_epoch,
        is_recovering=is_recovering(image) if is_newer else state.is_recovering,
        epoch_start_offset=epoch_start_offset if is_new_epoch else state.epoch_start_offset,
        followers=_kept_followers(state, image, is_new_epoch=is_new_epoch, now_ms=now_ms),
        min_isr=effective_min_isr(image, min_isr),
    )


def _kept_followers(
    state: LeaderState, image: PartitionImage, *, is_new_epoch: bool, now_ms: int
) -> Mapping[int, FollowerProgress]:
    has_skipped_epoch = image.leader_epoch > state.leader_epoch + 1
    followers: dict[int, FollowerProgress] = {}
    for replica in image.replicas:
        if replica == image.leader:
            continue
        known = FollowerProgress() if has_skipped_epoch else state.followers.get(replica, FollowerProgress())
        if is_new_epoch and replica in image.isr:
            known = replace(known, caught_up_ms=now_ms)
        followers[replica] = known
    return followers


def effective_min_isr(image: PartitionImage, min_isr: int) -> int:
    return min(min_isr, len(image.replicas))


def with_end_offset(state: LeaderState, end_offset: int) -> LeaderState:
    """The own log has grown (or more of it has been fsynced)."""
    if end_offset == state.end_offset:
        return state
    return _changed(state, end_offset, state.high_watermark, state.followers)


def with_fetch(
    state: LeaderState,
    follower: int,
    *,
    fetch_offset: int,
    log_start_offset: int,
    broker_epoch: int,
    log_end_offset: int,
    now_ms: int,
) -> LeaderState:
    """I2: a follower's fetch shows that it has everything below `fetch_offset`."""
    old = state.followers[follower]
    if fetch_offset >= log_end_offset:
        caught_up_ms = now_ms
    elif fetch_offset >= old.leader_end_offset_at_fetch >= 0:
        caught_up_ms = max(old.last_caught_up_ms, old.last_fetched_ms)
    else:
        caught_up_ms = old.last_caught_up_ms
    followers = dict(state.followers)
    progress = new(FollowerProgress)
    FollowerProgress.__init__(
        progress,
        end_offset=fetch_offset,
        log_start_offset=log_start_offset,
        fetched_ms=now_ms,
        leader_end_offset_at_fetch=log_end_offset,
        caught_up_ms=caught_up_ms,
        broker_epoch=broker_epoch,
    )
    followers[follower] = progress
    return _changed(state, state.end_offset, state.high_watermark, followers)


def with_idling(state: LeaderState, follower: int, idling: Idling) -> LeaderState:
    """The follower has everything, and needs no answer: from now on each round of its session counts as its fetch."""
    followers = {**state.followers, follower: replace(state.followers[follower], idling=idling)}
    return _changed(state, state.end_offset, state.high_watermark, followers)


def with_high_watermark(
    state: LeaderState, *, brokers: Mapping[int, BrokerImage], lag_ms_max: int, now_ms: int
) -> LeaderState:
    """P3, P4: move the high watermark as far as it may go."""
    if state.high_watermark >= state.end_offset or _is_held_back(state):
        return state
    high_watermark = advance_high_watermark(
        current=state.high_watermark,
        leader_end_offset=state.end_offset,
        counted_end_offsets=_counted(state, brokers=brokers, lag_ms_max=lag_ms_max, now_ms=now_ms),
        isr_size=len(state.isr.members),
        min_isr=state.min_isr,
    )
    if high_watermark == state.high_watermark:
        return state
    return _changed(state, state.end_offset, high_watermark, state.followers)


def _is_held_back(state: LeaderState) -> bool:
    """A member of the maximal ISR is at the high watermark, as after nearly each append: no other has to be checked."""
    for member in state.isr.maximal:
        progress = state.followers.get(member)
        if progress is not None and progress.end_offset <= state.high_watermark:
            return True
    return False


def _counted(state: LeaderState, *, brokers: Mapping[int, BrokerImage], lag_ms_max: int, now_ms: int) -> list[int]:
    maximal = state.isr.maximal
    return [
        progress.end_offset
        for replica, progress in state.followers.items()
        if replica in maximal
        or (
            progress.is_caught_up(leader_end_offset=state.end_offset, now_ms=now_ms, lag_ms_max=lag_ms_max)
            and is_eligible(replica, progress, brokers)
        )
    ]


def _changed(
    state: LeaderState, end_offset: int, high_watermark: int, followers: Mapping[int, FollowerProgress]
) -> LeaderState:
    """`dataclasses.replace` without its cost: this runs for each partition of each fetch."""
    made = new(LeaderState)
    LeaderState.__init__(
        made,
        image=state.image,
        isr=state.isr,
        partition_epoch=state.partition_epoch,
        is_recovering=state.is_recovering,
        epoch_start_offset=state.epoch_start_offset,
        end_offset=end_offset,
        high_watermark=high_watermark,
        followers=followers,
        min_isr=state.min_isr,
    )
    return made


def low_watermark(state: LeaderState, *, own_log_start_offset: int, brokers: Mapping[int, BrokerImage]) -> int:
    """S4: the lowest log start offset of the live replicas."""
    lowest = own_log_start_offset
    for replica, progress in state.followers.items():
        broker = brokers.get(replica)
        if broker is not None and broker.is_active and progress.log_start_offset < lowest:
            lowest = progress.log_start_offset
    return lowest
