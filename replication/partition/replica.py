"""One replica of a partition on this broker: its log and its state. The only mutable thing of this folder.

The replica manager owns all replicas; `state` is replaced (`enter`), never changed. Who idles at a leader's replica (a
follower that has all, and asks on) is told of whatever happens to it, so that nobody has to look at thousands.
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
        """Something has happened to the replica; it does not idle any more."""
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
        """Read many times for each request; it changes by `enter` alone."""
        log.high_watermark = state.high_watermark
        self.idlers: dict[Idler, None] = {}
        """In the order in which they came."""

    def enter(self, state: LeaderState | FollowerState) -> None:
        """The next state; who idles is told."""
        self.state = state
        self.log.high_watermark = state.high_watermark
        if self.idlers:
            for idler in tuple(self.idlers):
                idler.on_state()

    def moved(self, log: ReplicaLog) -> None:
        """Another log takes the place, with the same records."""
        self.log = log
        log.high_watermark = self.state.high_watermark

    def stir(self) -> None:
        """Its log has changed."""
        if self.idlers:
            for idler in tuple(self.idlers):
                idler.stir()

    @property
    def name(self) -> str:
        return f"{self.topic}-{self.key.partition}"

    @property
    def counted_end_offset(self) -> int:
        """What the leader may count of its own log: with flush.messages=1 only what has been fsynced."""
        if self.settings.flush_messages == 1:
            return min(self.log.flushed_offset, self.log.log_end_offset)
        return self.log.log_end_offset
