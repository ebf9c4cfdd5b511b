"""The replica manager's interface of the logs on disk. `replication.storage` implements it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol
from uuid import UUID

from metadata.image import TopicIdPartition
from metadata.settings import TopicSettings
from replication.partition.log import ReplicaLog


class Logs(Protocol):
    def get_or_create(self, *, topic: str, topic_id: UUID, partition: int, settings: TopicSettings) -> ReplicaLog:
        """The log of a partition. Raises KafkaStorageError 56 when its folder is not usable, InconsistentTopicId 103
        when the folder holds a log of another topic id."""
        ...

    def watch_failures(
        self,
        on_failure: Callable[[TopicIdPartition, str, bool], None],
        can_do_without: Callable[[TopicIdPartition], bool],
    ) -> None:
        """Call `on_failure(partition, reason, is_readable)` for each log that fails; readable: only its disk is full.
        `can_do_without(partition)` is called for a damaged log: if other replicas are in sync it goes offline for
        repair."""
        ...

    def watch_moves(self, on_moved: Callable[[TopicIdPartition, ReplicaLog], None]) -> None:
        """Call `on_moved(partition, log)` when another log directory has a log with the same records, which replaces
        the current one. The current one must not be used any more (KIP-113)."""
        ...

    async def reopen(self, partition: TopicIdPartition, *, topic: str, is_last: bool) -> None:
        """Load a log again that went offline or could not be loaded; its end may lie before the old one. No effect on a
        log that works, or when there is none. Raises KafkaStorageError 56 or OSError: it still fails. `is_last`: no
        other replica is in sync, so nothing is cut because of damage before it."""
        ...

    async def check_room(self, partition: TopicIdPartition) -> None:
        """Raises OSError while the disk of this log accepts nothing."""
        ...

    def delete(self, partition: TopicIdPartition) -> None:
        """Take the log out of use at once; its files are removed later. No effect when there is none."""
        ...

    def update_settings(self, topic_id: UUID, settings: TopicSettings) -> None: ...

    def all_partitions(self) -> Mapping[TopicIdPartition, str]:
        """Every log found on disk with its topic's name, also of topics deleted while this broker was down."""
        ...

    def holder(self, topic: str, partition: int) -> TopicIdPartition | None:
        """The partition whose log lies in the folder of this name; None when there is none."""
        ...

    def high_watermark(self, partition: TopicIdPartition) -> int:
        """High watermark from `replication-offset-checkpoint`; 0 when there is none (R7)."""
        ...

    async def checkpoint_high_watermarks(self, high_watermarks: Mapping[TopicIdPartition, int]) -> None:
        """Write `replication-offset-checkpoint`. It also limits retention (S1) and compaction."""
        ...
