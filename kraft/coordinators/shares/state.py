"""What the share coordinator knows of one share partition, and how records change it. Pure."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeAlias
from uuid import UUID

from replication.shares.states import NO_COUNT, NO_OFFSET, StateBatch, combined

NO_EPOCH: Final = -1


class ShareKey(NamedTuple):
    """A share partition."""

    group: str
    topic_id: UUID
    partition: int

    @property
    def coordinator_key(self) -> str:
        """The text whose hash names its partition of `__share_group_state`, and the key of FindCoordinator."""
        topic = str(urlsafe_b64encode(self.topic_id.bytes), "ascii").rstrip("=")
        return f"{self.group}:{topic}:{self.partition}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A record with all that is known of a share partition."""

    snapshot_epoch: int
    state_epoch: int
    leader_epoch: int
    start_offset: int
    delivery_complete_count: int
    created_ms: int
    written_ms: int
    batches: Sequence[StateBatch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A record with what has changed since the snapshot of the same epoch."""

    snapshot_epoch: int
    leader_epoch: int
    start_offset: int
    """NO_OFFSET: as before."""
    delivery_complete_count: int
    batches: Sequence[StateBatch]


Change: TypeAlias = Snapshot | Update | None
"""None: the share partition is deleted."""
ShareRecord: TypeAlias = tuple[ShareKey, Change]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareState:
    """A share partition as its records make it."""

    snapshot: Snapshot
    """With all updates of its epoch in it."""
    updates: int = 0
    """Records since the snapshot was written."""


def changed(state: ShareState | None, change: Change) -> ShareState | None:
    """The only place where records become state. An update of a snapshot that is not known changes nothing."""
    match change:
        case None:
            return None
        case Snapshot():
            return ShareState(snapshot=change)
    if state is None or state.snapshot.snapshot_epoch != change.snapshot_epoch:
        return state
    known = state.snapshot
    start_offset = max(known.start_offset, change.start_offset)
    merged = replace(
        known,
        leader_epoch=change.leader_epoch,
        start_offset=start_offset,
        delivery_complete_count=_complete(known, change),
        batches=combined(known.batches, change.batches, start_offset),
    )
    return ShareState(snapshot=merged, updates=state.updates + 1)


def _complete(known: Snapshot, change: Update) -> int:
    """A count belongs to its start offset: one of an older start offset means nothing any more (KIP-1226)."""
    if change.start_offset > known.start_offset:
        return change.delivery_complete_count
    if change.start_offset < known.start_offset or change.delivery_complete_count == NO_COUNT:
        return known.delivery_complete_count
    return max(known.delivery_complete_count, change.delivery_complete_count)


UNKNOWN: Final = Snapshot(
    snapshot_epoch=NO_EPOCH,
    state_epoch=0,
    leader_epoch=0,
    start_offset=NO_OFFSET,
    delivery_complete_count=NO_COUNT,
    created_ms=0,
    written_ms=0,
    batches=(),
)
"""What a summary returns for a share partition that does not exist, as Kafka's does."""
