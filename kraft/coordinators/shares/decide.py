"""What the share coordinator decides about one share partition: (state, request) -> records. Pure (U6).

A leader of the partition reads before it writes, and its read fences those before it: each request names its leader
epoch, and one below the known one is FENCED_LEADER_EPOCH 74. A group that starts over (reset, delete, create) gets a
higher state epoch; a write under an older one is FENCED_STATE_EPOCH 124. An epoch of -1 is not compared, and never
stored in place of a known one (KAFKA-20743, KAFKA-20694, KAFKA-19456). Source: ShareCoordinatorShard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kraft.coordinators.shares.state import NO_EPOCH, Change, ShareState, Snapshot, Update, changed
from kraft.protocol.errors import FencedLeaderEpoch, FencedStateEpoch, InvalidRequest
from replication.shares.states import NO_COUNT, NO_OFFSET, TERMINAL, StateBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """What a leader has to write of one share partition."""

    state_epoch: int
    leader_epoch: int
    start_offset: int
    delivery_complete_count: int
    batches: Sequence[StateBatch]


def initialize(
    state: ShareState | None, *, state_epoch: int, start_offset: int, leader_epoch: int, now_ms: int
) -> Snapshot:
    """Whatever the group knew of the partition is forgotten. The new start offset is one of the log as it is in
    `leader_epoch`, the partition's epoch now (U11). Raises FencedStateEpoch 124."""
    known = None if state is None else state.snapshot
    if known is not None:
        _check_state_epoch(known, state_epoch)
    return Snapshot(
        snapshot_epoch=0 if known is None else known.snapshot_epoch + 1,
        state_epoch=state_epoch,
        leader_epoch=NO_EPOCH if known is None else max(known.leader_epoch, leader_epoch),
        start_offset=start_offset,
        delivery_complete_count=NO_COUNT if start_offset == NO_OFFSET else 0,
        created_ms=now_ms,
        written_ms=now_ms,
        batches=(),
    )


def read(state: ShareState | None, *, leader_epoch: int) -> Change:
    """The record that fences earlier leaders; None when this one is known. Raises InvalidRequest 42 for a share
    partition that was not initialized, FencedLeaderEpoch 74.
    """
    known = _known(state, "read")
    _check_leader_epoch(known, leader_epoch)
    if leader_epoch in (NO_EPOCH, known.leader_epoch):
        return None
    return Update(
        snapshot_epoch=known.snapshot_epoch,
        leader_epoch=leader_epoch,
        start_offset=known.start_offset,
        delivery_complete_count=known.delivery_complete_count,
        batches=(),
    )


def write(state: ShareState | None, request: Write, *, updates_max: int, now_ms: int) -> Snapshot | Update:
    """After `updates_max` updates a snapshot comes next (U13). Raises InvalidRequest 42, FencedLeaderEpoch 74,
    FencedStateEpoch 124.
    """
    known = _known(state, "write")
    _check_leader_epoch(known, request.leader_epoch)
    _check_state_epoch(known, request.state_epoch)
    update = Update(
        snapshot_epoch=known.snapshot_epoch,
        leader_epoch=known.leader_epoch if request.leader_epoch == NO_EPOCH else request.leader_epoch,
        start_offset=request.start_offset,
        delivery_complete_count=request.delivery_complete_count,
        batches=request.batches,
    )
    assert state is not None
    if state.updates < updates_max:
        return update
    written = changed(state, update)
    assert written is not None
    return snapshot(written, now_ms=now_ms)


def snapshot(state: ShareState, *, now_ms: int) -> Snapshot:
    """The same state as a record of its own, with the next snapshot epoch."""
    known = state.snapshot
    return Snapshot(
        snapshot_epoch=known.snapshot_epoch + 1,
        state_epoch=known.state_epoch,
        leader_epoch=known.leader_epoch,
        start_offset=known.start_offset,
        delivery_complete_count=known.delivery_complete_count,
        created_ms=known.created_ms,
        written_ms=now_ms,
        batches=known.batches,
    )


def within_log(state: Snapshot, end_offset: int) -> Snapshot:
    """The same state without the offsets from `end_offset` on. The log has lost their records, and other records will
    have these offsets: nobody has acknowledged those (U11)."""
    batches = [
        batch._replace(last_offset=min(batch.last_offset, end_offset - 1))
        for batch in state.batches
        if batch.first_offset < end_offset
    ]
    complete = sum(last - first + 1 for first, last, number, *_ in batches if number in TERMINAL)
    return replace(
        state, start_offset=min(state.start_offset, end_offset), delivery_complete_count=complete, batches=batches
    )


def _known(state: ShareState | None, verb: str) -> Snapshot:
    if state is None:
        raise InvalidRequest(f"this share partition was not initialized: nothing is there to {verb}")
    return state.snapshot


def _check_leader_epoch(known: Snapshot, leader_epoch: int) -> None:
    if NO_EPOCH < leader_epoch < known.leader_epoch:
        raise FencedLeaderEpoch(f"leader epoch {leader_epoch} is over: {known.leader_epoch} has begun")


def _check_state_epoch(known: Snapshot, state_epoch: int) -> None:
    if NO_EPOCH < state_epoch < known.state_epoch:
        raise FencedStateEpoch(f"state epoch {state_epoch} is over: {known.state_epoch} has begun")
