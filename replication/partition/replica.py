"""One replica of a partition on this broker: its log and its state. The only mutable thing of this folder.

The replica manager owns all replicas; `state` is replaced, never changed.
"""

from __future__ import annotations

from metadata.image import TopicIdPartition
from metadata.settings import TopicSettings
from replication.partition.log import ReplicaLog
from replication.partition.states import FollowerState, LeaderState


class Replica:
    __slots__ = ("key", "log", "settings", "state", "topic")

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

    @property
    def name(self) -> str:
        return f"{self.topic}-{self.key.partition}"

    @property
    def counted_end_offset(self) -> int:
        """What the leader may count of its own log: with flush.messages=1 only what has been fsynced."""
        if self.settings.flush_messages == 1:
            return min(self.log.flushed_offset, self.log.log_end_offset)
        return self.log.log_end_offset
