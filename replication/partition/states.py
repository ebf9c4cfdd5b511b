"""The states of a replica: leader, follower or offline, each a frozen type. Pure.

Everything in `image` is a fact of the metadata log; all other fields are soft state of this leadership.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from kraft.values import value
from metadata.image import PartitionImage
from metadata.records import LeaderRecovery

UNKNOWN_OFFSET = -1
NEVER_MS = -(2**62)
"""A time before any other."""


@dataclass(slots=True, eq=False)
class Rounds:
    """The requests of one fetch session of a follower."""

    latest_ms: int = NEVER_MS
    """Time of the latest request that was served for all its partitions."""


@dataclass(slots=True, eq=False)
class Idling:
    """A follower asks at the end of a log, round after round, and nothing happens there.

    Each round counts as a fetch of that partition, without writing its progress: a leader of thousands of partitions
    has nothing to do for the idle ones. Any event of the partition ends it, with the next round.
    """

    rounds: Rounds
    ended_ms: int = NEVER_MS

    @property
    def fetched_ms(self) -> int:
        return self.rounds.latest_ms if self.ended_ms == NEVER_MS else self.ended_ms

    def end(self) -> None:
        self.ended_ms = self.fetched_ms


@value(kw_only=True)
class FollowerProgress:
    """A leader's state of one follower, from its fetches. While it is idle the times advance by themselves."""

    end_offset: int = UNKNOWN_OFFSET
    log_start_offset: int = UNKNOWN_OFFSET
    fetched_ms: int = NEVER_MS
    leader_end_offset_at_fetch: int = UNKNOWN_OFFSET
    caught_up_ms: int = NEVER_MS
    """I2: when the follower had all that the leader had at that time."""
    broker_epoch: int = -1
    idling: Idling | None = None

    @property
    def last_caught_up_ms(self) -> int:
        return self.caught_up_ms if self.idling is None else max(self.caught_up_ms, self.idling.fetched_ms)

    @property
    def last_fetched_ms(self) -> int:
        return self.fetched_ms if self.idling is None else max(self.fetched_ms, self.idling.fetched_ms)

    def is_caught_up(self, *, leader_end_offset: int, now_ms: int, lag_ms_max: int) -> bool:
        """The opposite of I1's out of sync."""
        return self.end_offset == leader_end_offset or now_ms - self.last_caught_up_ms <= lag_ms_max


@dataclass(frozen=True, slots=True, kw_only=True)
class CommittedIsr:
    members: tuple[int, ...]

    @property
    def maximal(self) -> tuple[int, ...]:
        return self.members


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingIsr:
    """An AlterPartition is in flight. `maximal` counts for high watermark and acks (I7)."""

    members: tuple[int, ...]
    """The committed ISR."""
    proposed: tuple[int, ...]
    maximal: tuple[int, ...]


Isr: TypeAlias = CommittedIsr | PendingIsr


@value(kw_only=True)
class LeaderState:
    image: PartitionImage
    isr: Isr
    partition_epoch: int
    is_recovering: bool
    epoch_start_offset: int
    end_offset: int
    """The own log end that counts: with flush.messages=1 only fsynced records."""
    high_watermark: int
    followers: Mapping[int, FollowerProgress]
    min_isr: int
    """P2: min(min.insync.replicas, replication factor)."""

    @property
    def leader_epoch(self) -> int:
        return self.image.leader_epoch

    @property
    def is_under_min_isr(self) -> bool:
        return len(self.isr.members) < self.min_isr


@value(kw_only=True)
class FollowerState:
    image: PartitionImage
    high_watermark: int

    @property
    def leader_epoch(self) -> int:
        return self.image.leader_epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineState:
    """The log of this replica is not usable because of a storage error."""

    image: PartitionImage
    reason: str
    high_watermark: int = UNKNOWN_OFFSET

    @property
    def leader_epoch(self) -> int:
        return self.image.leader_epoch


ReplicaState: TypeAlias = LeaderState | FollowerState | OfflineState


def is_recovering(image: PartitionImage) -> bool:
    return image.leader_recovery is LeaderRecovery.RECOVERING
