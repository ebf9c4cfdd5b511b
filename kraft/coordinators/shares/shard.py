"""The shard of one partition of `__share_group_state`: it owns the share partitions whose keys hash to it.

The topic is not compacted. Each share partition needs its latest snapshot and what follows; all before the lowest of
these is deleted now and then (U13). A share partition that nobody writes to holds up the others, so its snapshot is
written again. Where a snapshot of an earlier coordinator stands is not known: the start of the log is taken for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from kraft.coordinators.shard import CoordinatorContext, CoordinatorShard, ShardNames
from kraft.coordinators.shares import decide
from kraft.coordinators.shares.records import decode_record, encode_batch, new_record
from kraft.coordinators.shares.state import (
    NO_EPOCH,
    UNKNOWN,
    Change,
    ShareKey,
    ShareRecord,
    ShareState,
    Snapshot,
    changed,
)
from kraft.protocol.batches.header import HEADER_BYTES
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.encoding import ZERO_UUID
from kraft.protocol.errors import CoordinatorNotAvailable, KafkaError
from metadata.image import TopicIdPartition
from metadata.internal_topics import SHARE_STATE_TOPIC

NOTHING: Final[ShareRecord] = (ShareKey("", ZERO_UUID, 0), None)
"""Deletes what never was: no group has an empty id."""
COLD_AT_ONCE: Final = 500
"""Snapshots that one look writes again."""
DELETE_WAIT_MS: Final = 30_000
RECORD_BYTES: Final = 32
"""At most what a record has beside its key and its value."""


@dataclass(slots=True, eq=False)
class _Together:
    """Records that go into one batch, until its append begins."""

    records: list[NewRecord] = field(default_factory=list)
    size: int = HEADER_BYTES
    task: asyncio.Task[None] | None = None


class ShareStateShard(CoordinatorShard[ShareRecord]):
    """One partition of `__share_group_state` on its leader."""

    names = ShardNames(SHARE_STATE_TOPIC, "share partitions", "share_state_loaded", "share_state_record_skipped")
    nothing = NOTHING
    decode_record = staticmethod(decode_record)

    def __init__(
        self,
        partition: TopicIdPartition,
        leader_epoch: int,
        context: CoordinatorContext,
        *,
        on_failed: Callable[[CoordinatorShard[Any]], None],
    ) -> None:
        super().__init__(partition, leader_epoch, context, on_failed=on_failed)
        self.states: dict[ShareKey, ShareState] = {}
        self._needed_from: dict[ShareKey, int] = {}
        """No record of the share partition below this offset is needed."""
        self._pruned_to = 0
        self._together: _Together | None = None

    # --- life ---------------------------------------------------------------------------------------------------

    def apply(self, record: ShareRecord, *, is_replay: bool) -> None:
        """Takes one record into the state of its share partition."""
        key, change = record
        state = changed(self.states.get(key), change)
        if state is None:
            self.states.pop(key, None)
            self._needed_from.pop(key, None)
            return
        self.states[key] = state
        if is_replay:
            self._needed_from.setdefault(key, 0)
        elif isinstance(change, Snapshot):
            self._needed_from[key] = self._log_end

    @property
    def _log_end(self) -> int:
        """No record that is appended from now on stands below it."""
        end = self.context.replicas.offsets.offset_for_leader_epoch(self.partition, self.leader_epoch)
        return 0 if end is None else end.end_offset

    def after_load(self) -> None:
        """Nothing is left undone: leaders of partitions ask again."""

    def encode(self, records: Sequence[ShareRecord]) -> bytes:
        """One batch of the records. Raises KafkaError for more batches of state than the log takes in one record."""
        batch = encode_batch(records, timestamp_ms=self.wall_ms)
        if len(batch) > self.batch_bytes_max:
            raise _too_large(records[0], len(batch))
        return batch

    @property
    def append_timeout_ms(self) -> int:
        """How long an append may take until it counts as failed."""
        return self.context.settings().share_coordinator_write_timeout_ms

    # --- requests -----------------------------------------------------------------------------------------------

    async def initialize(self, key: ShareKey, *, state_epoch: int, start_offset: int) -> None:
        """Raises FencedStateEpoch 124, or the KafkaError of the append."""
        partition = self.context.image().partition(key.topic_id, key.partition)
        beginning = decide.initialize(
            self.states.get(key),
            state_epoch=state_epoch,
            start_offset=start_offset,
            leader_epoch=NO_EPOCH if partition is None else partition.leader_epoch,
            now_ms=self.wall_ms,
        )
        await self._write(key, beginning)

    async def read(self, key: ShareKey, *, leader_epoch: int) -> Snapshot:
        """What is known, once earlier leaders are fenced durably. Raises InvalidRequest 42, FencedLeaderEpoch 74."""
        change = decide.read(self.states.get(key), leader_epoch=leader_epoch)
        if change is None:
            await self.settle()
        else:
            await self._write(key, change)
        return self.states[key].snapshot

    async def write(self, key: ShareKey, request: decide.Write) -> None:
        """Raises InvalidRequest 42, FencedLeaderEpoch 74, FencedStateEpoch 124, or the KafkaError of the append."""
        updates_max = self.context.settings().share_coordinator_snapshot_update_records_per_snapshot
        state = self.states.get(key)
        await self._write(key, decide.write(state, request, updates_max=updates_max, now_ms=self.wall_ms))

    async def delete(self, key: ShareKey) -> None:
        """Nothing, for a share partition that is not there."""
        if key in self.states:
            await self._write(key, None)
        else:
            await self.settle()

    async def summary(self, key: ShareKey) -> Snapshot:
        """What is known, without its batches being of interest."""
        await self.settle()
        state = self.states.get(key)
        return UNKNOWN if state is None else state.snapshot

    async def _write(self, key: ShareKey, change: Change) -> None:
        await asyncio.shield(self._append_together((key, change)))
        self.check()

    # --- batches ------------------------------------------------------------------------------------------------

    def _append_together(self, record: ShareRecord) -> asyncio.Task[None]:
        """Appends in one batch with what else is written in this turn of the event loop: the busier the
        coordinator, the larger its batches. Raises, with nothing applied, CoordinatorNotAvailable 15 while too few
        replicas are in sync, and KafkaError for a record that the log does not take."""
        new = new_record(record, timestamp_ms=self.wall_ms)
        size = len(new.key or b"") + len(new.value or b"") + RECORD_BYTES
        if size + HEADER_BYTES > self.batch_bytes_max:
            raise _too_large(record, size)
        self.check_replicas()
        self.apply(record, is_replay=False)
        together = self._together
        if (
            together is None
            or together.task is not self.unreplicated_append
            or together.size + size > self.batch_bytes_max
        ):
            together = self._together = _Together()
            together.task = self.begin_append(self._write_together(together))
        assert together.task is not None
        together.records.append(new)
        together.size += size
        return together.task

    async def _write_together(self, together: _Together) -> None:
        if self._together is together:
            self._together = None
        await self.write_batch(build_batch(together.records))

    # --- upkeep -------------------------------------------------------------------------------------------------

    def forget_topics(self, topic_ids: Collection[UUID]) -> None:
        """The topics are deleted, and with them what share groups knew of them; nothing while too few replicas are in
        sync, and it is not tried again, as in Kafka."""
        with suppress(CoordinatorNotAvailable):
            for key in [key for key in self.states if key.topic_id in topic_ids]:
                self.append([(key, None)])

    def write_cold_snapshots(self) -> int:
        """Writes snapshots again that stand where nothing else is needed. Returns how many: none while too few replicas
        are in sync."""
        older_than_ms = self.context.settings().share_coordinator_cold_partition_snapshot_interval_ms
        written_before_ms = self.wall_ms - older_than_ms
        cold = [
            key
            for key, state in self.states.items()
            if state.snapshot.written_ms <= written_before_ms and self._needed_from[key] <= self._pruned_to
        ][:COLD_AT_ONCE]
        written = 0
        with suppress(CoordinatorNotAvailable):
            for key in cold:
                self.append([(key, decide.snapshot(self.states[key], now_ms=self.wall_ms))])
                written += 1
        return written

    async def prune(self) -> None:
        """Deletes the records that no share partition needs. Only what is replicated counts (KAFKA-19695)."""
        needed_from = min(self._needed_from.values(), default=self._log_end)
        await self.settle()
        if needed_from > self._pruned_to:
            await self.context.replicas.offsets.delete_records(
                self.partition, offset=needed_from, timeout_ms=DELETE_WAIT_MS, is_from_coordinator=True
            )
            self._pruned_to = needed_from


def _too_large(record: ShareRecord, size: int) -> KafkaError:
    return KafkaError(
        f"the state of {record[0].coordinator_key} takes {size} bytes, which is more than one record of "
        f"{SHARE_STATE_TOPIC} may have"
    )
