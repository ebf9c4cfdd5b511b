"""One replica of a partition on this broker: its log and its state. The only mutable object of this folder.

The replica manager owns all replicas; `state` is replaced (`enter`), never changed. An idler (a follower's session that
has everything and continues to ask) is called for each event of the leader's replica, so that no loop has to look at
thousands.
"""

from __future__ import annotations

from typing import Protocol

from metadata.image import TopicIdPartition
from metadata.settings import TopicSettings
from replication.partition.log import ReplicaLog
from replication.partition.states import FollowerState, LeaderState


class Idler(Protocol):
    def on_state(self) -> None:
        """The replica has a new state."""
        ...

    def stir(self) -> None:
        """An event of the replica: it does not idle any more."""
        ...


class Replica:
    __slots__ = ("idlers", "key", "log", "settings", "state", "topic")

    def __init__(
        self,
        *,
        key: TopicIdPartition,
        topic: str,
        log: ReplicaLog,
        settings: TopicSettings,
        state: LeaderState | FollowerState,
    ) -> None:
        self.key = key
        self.topic = topic
        self.log = log
        self.settings = settings
        self.state = state
        """Read many times for each request; only `enter` changes it."""
        log.high_watermark = state.high_watermark
        self.idlers: dict[Idler, None] = {}
        """Idlers in the order of their arrival."""

    def enter(self, state: LeaderState | FollowerState) -> None:
        """Set the next state, and call the idlers."""
        self.state = state
        self.log.high_watermark = state.high_watermark
        if self.idlers:
            for idler in tuple(self.idlers):
                idler.on_state()

    def moved(self, log: ReplicaLog) -> None:
        """Another log with the same records replaces the current one."""
        self.log = log
        log.high_watermark = self.state.high_watermark

    def stir(self) -> None:
        """Call the idlers after a change of the log."""
        if self.idlers:
            for idler in tuple(self.idlers):
                idler.stir()

    @property
    def name(self) -> str:
        return f"{self.topic}-{self.key.partition}"

    @property
    def counted_end_offset(self) -> int:
        """The part of its own log that the leader may count: with flush.messages=1 only fsynced records."""
        if self.settings.flush_messages == 1:
            return min(self.log.flushed_offset, self.log.log_end_offset)
        return self.log.log_end_offset
