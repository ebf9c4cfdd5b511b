"""Requests about offsets (ListOffsets, epochs, log ends) and DeleteRecords."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from kraft.protocol.batches.batch_lookup import Looking, NeedsWorker
from kraft.protocol.errors import (
    InvalidTopicException,
    KafkaError,
    OffsetNotAvailable,
    OffsetOutOfRange,
    PolicyViolation,
    RequestTimedOut,
)
from metadata.controller.requests import ReplicaLogEnd
from metadata.image import TopicIdPartition
from metadata.internal_topics import INTERNAL_TOPICS, internal_refusal
from replication.manager.registry import ANY_EPOCH, WAITING_DELETE_MAX, Registry
from replication.partition.leader import low_watermark
from replication.partition.log import EpochEnd
from replication.partition.replica import Replica
from replication.partition.states import LeaderState
from replication.record_workers import RecordWorkers
from replication.requests import EARLIEST_TIMESTAMP, LATEST_TIMESTAMP, MAX_TIMESTAMP, OffsetAnswer

TO_HIGH_WATERMARK = -1
"""DeleteRecords offset that means: all committed records."""


class Offsets:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._record_workers = RecordWorkers(registry.environment.workers)

    async def list_offset(
        self,
        key: TopicIdPartition,
        timestamp: int,
        *,
        is_consumer: bool = True,
        is_read_committed: bool = False,
        leader_epoch: int = ANY_EPOCH,
    ) -> OffsetAnswer:
        """L10: a consumer that asks for the end waits until the high watermark has reached this leader's epoch, and so
        does one that asks for a time for which no record is found below it. For read_committed consumers the log ends
        at the last stable offset (T8)."""
        looking = Looking()
        while True:
            try:
                return self._list_offset(
                    key,
                    timestamp,
                    is_consumer=is_consumer,
                    is_read_committed=is_read_committed,
                    leader_epoch=leader_epoch,
                    looking=looking,
                )
            except NeedsWorker as large:
                looking.known[large.base_offset] = await self._record_workers.run(large.work)

    def _list_offset(
        self,
        key: TopicIdPartition,
        timestamp: int,
        *,
        is_consumer: bool,
        is_read_committed: bool,
        leader_epoch: int,
        looking: Looking,
    ) -> OffsetAnswer:
        replica, state = self._registry.leader_or_raise(key, leader_epoch=leader_epoch)
        log = replica.log
        if timestamp == EARLIEST_TIMESTAMP:
            start = log.log_start_offset
            return OffsetAnswer(offset=start, leader_epoch=log.epoch_of(start))
        if is_consumer:
            bound = log.last_stable_offset if is_read_committed else state.high_watermark
        else:
            bound = log.log_end_offset
        is_behind = is_consumer and state.high_watermark < state.epoch_start_offset
        if timestamp == LATEST_TIMESTAMP:
            if is_behind:
                raise _not_available(replica, state)
            return OffsetAnswer(offset=bound, leader_epoch=state.leader_epoch)
        if timestamp == MAX_TIMESTAMP:
            found = log.max_timestamp(upper_bound=bound, looking=looking)
        else:
            found = log.offset_for_timestamp(timestamp, upper_bound=bound, looking=looking)
        if found is None and is_behind:
            raise _not_available(replica, state)
        if found is None:
            return OffsetAnswer(offset=-1)
        return OffsetAnswer(offset=found.offset, timestamp=found.timestamp, leader_epoch=found.leader_epoch)

    def log_start_offset(self, key: TopicIdPartition) -> int:
        """The first offset of a log that this broker leads. Raises the refusals of a partition without a leader
        here."""
        return self._registry.leader_or_raise(key)[0].log.log_start_offset

    def offset_for_leader_epoch(
        self, key: TopicIdPartition, epoch: int, *, current_leader_epoch: int = ANY_EPOCH
    ) -> EpochEnd | None:
        """R3: the end offset of a leader epoch; None for one that is newer than all known here."""
        replica, _state = self._registry.leader_or_raise(key, leader_epoch=current_leader_epoch)
        return replica.log.end_offset_for_epoch(epoch)

    def log_ends(self, partitions: Sequence[TopicIdPartition]) -> Sequence[ReplicaLogEnd]:
        """This broker's answer to the controller before an unclean election (L8)."""
        return [self._log_end(key) for key in partitions]

    def _log_end(self, key: TopicIdPartition) -> ReplicaLogEnd:
        try:
            replica = self._registry.replica_or_raise(key)
        except KafkaError as error:
            return ReplicaLogEnd(
                topic_id=key.topic_id,
                partition=key.partition,
                last_epoch=-1,
                log_end_offset=-1,
                high_watermark=-1,
                error_code=error.code,
            )
        return ReplicaLogEnd(
            topic_id=key.topic_id,
            partition=key.partition,
            last_epoch=replica.log.latest_epoch,
            log_end_offset=replica.log.log_end_offset,
            high_watermark=replica.state.high_watermark,
        )

    async def delete_records(
        self, key: TopicIdPartition, *, offset: int, timeout_ms: int, is_from_coordinator: bool = False
    ) -> int:
        """S4: move the log start, wait until all live replicas have followed; return the low watermark."""
        replica, state = self._registry.leader_or_raise(key)
        if replica.topic in INTERNAL_TOPICS and not is_from_coordinator:
            raise InvalidTopicException(internal_refusal(replica.topic, "delete its records"))
        target = state.high_watermark if offset == TO_HIGH_WATERMARK else offset
        if "delete" not in replica.settings.cleanup_policy:
            raise PolicyViolation(f"{replica.topic!r} is only compacted; its cleanup.policy has no 'delete'")
        if not 0 <= target <= state.high_watermark:
            raise OffsetOutOfRange(
                f"cannot delete {replica.name} up to {target}: between 0 and its high watermark {state.high_watermark}"
            )
        if replica.log.maybe_increment_log_start(target):
            self._emit_deleted(replica, target)
            replica.stir()
        operation = DelayedDelete(self._registry, target)
        if operation.try_complete(replica):
            return await operation.done
        if not self._registry.deletes.watch(operation, (replica,), wait_ms=timeout_ms):
            raise RequestTimedOut(f"{WAITING_DELETE_MAX} DeleteRecords wait already; the records are deleted here")
        self._registry.fetches.check(replica)
        try:
            return await operation.done
        finally:
            self._registry.deletes.forget(operation)

    def _emit_deleted(self, replica: Replica, log_start_offset: int) -> None:
        """S4: operators see which client removed acknowledged records."""
        self._registry.events.emit(
            "records_deleted", topic=replica.topic, partition=replica.key.partition, log_start_offset=log_start_offset
        )


class DelayedDelete:
    """Waits until the log start of every live replica has reached the target."""

    def __init__(self, registry: Registry, target: int) -> None:
        self._registry = registry
        self._target = target
        self.done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def try_complete(self, replica: Replica, /) -> bool:
        if self.done.done():
            return True
        try:
            _replica, state = self._registry.leader_or_raise(replica.key)
        except KafkaError as error:
            self.done.set_exception(error)
            return True
        low = self._low_watermark(replica, state)
        if low < self._target:
            return False
        self.done.set_result(low)
        return True

    def _low_watermark(self, replica: Replica, state: LeaderState) -> int:
        return low_watermark(
            state, own_log_start_offset=replica.log.log_start_offset, brokers=self._registry.image.brokers
        )

    def expire(self) -> None:
        if not self.done.done():
            self.done.set_exception(
                RequestTimedOut(f"not all replicas have deleted up to {self._target} yet; the leader has")
            )


def _not_available(replica: Replica, state: LeaderState) -> KafkaError:
    return OffsetNotAvailable(
        f"high watermark {state.high_watermark} of {replica.name} has not reached the start {state.epoch_start_offset} "
        f"of leader epoch {state.leader_epoch} yet; ask again"
    )
