"""The producers of one partition's log: their state in memory, kept with the log's end, and its snapshots on disk.

The state and its changes by batches are pure, in `replication.producers.state`.

A roll takes a copy of the state; the next flush writes it on a worker thread. If a crash prevents that, the next start
only replays more of the log. At most one copy waits: a newer one replaces it.
Owned by the event loop, like the log.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import Callable, Sequence

from kraft.protocol.batches.header import CONTROL, TRANSACTIONAL, BatchHeader, header_at
from kraft.protocol.batches.markers import marker_of
from kraft.protocol.errors import InvalidRecord, KafkaError, OutOfOrderSequenceNumber
from kraft.protocol.primitives import Buffer
from metadata.environment import Environment
from metadata.producer_ids import is_reserved
from replication.partition.log import Appended, ReplicaLog
from replication.producers.comparison import holds_same_records
from replication.producers.origin import Origin
from replication.producers.state import Producer, ProducerBatch, ProducerLimits, ProducerStates
from replication.storage.header_scan import DamagedLog
from replication.storage.indexes import CorruptIndex
from replication.storage.producer_files import (
    TEMPORARY_SUFFIX,
    aborted,
    rebuild,
    remove_snapshots,
    snapshot_file,
    snapshot_offsets,
    unneeded,
    write_synced,
)
from replication.storage.producer_snapshot import encode_snapshot
from replication.storage.segments import Segments

Copy = tuple[int, list[tuple[int, Producer]]]


class ProducerStateManager:
    def __init__(
        self,
        environment: Environment,
        folder: str,
        segments: Segments,
        states: ProducerStates,
        limits: Callable[[], ProducerLimits],
    ) -> None:
        self._environment = environment
        self._folder = folder
        self._segments = segments
        self._states = states
        self._limits = limits
        self._pending: Copy | None = None
        self._writes = 0
        self._writing: asyncio.Task[bool] | None = None
        self._on_disk: list[int] | None = None
        """Offsets of the snapshots, ascending; None until the first use. From then on only this object changes them."""

    def __len__(self) -> int:
        return len(self._states)

    @property
    def states(self) -> ProducerStates:
        return self._states

    # --- appending ------------------------------------------------------------------------------------------------

    def duplicate_of(
        self, log: ReplicaLog, header: BatchHeader, batch: Buffer, *, batches: int, origin: Origin
    ) -> Appended | None:
        """Check a batch of a producer (D1 to D5); return the answer if it is in the log already.

        Raises InvalidRecord 87, OutOfOrderSequenceNumber 45, InvalidProducerEpoch 47, InvalidTxnState 48,
        TransactionCoordinatorFenced 52, ThrottlingQuotaExceeded 89, PolicyViolation 44.
        """
        if batches > 1:
            raise InvalidRecord(f"{batches} batches with a producer id in one record set; send one at a time")
        if header.attributes & CONTROL:
            marker = marker_of(batch, header)
            if marker is None:
                raise InvalidRecord("a control batch of a producer is a marker that commits or aborts")
            self._states.check_marker(header, marker, transaction_version=origin.marker_version)
            return None
        duplicate = self._states.check(header.producer_id, header, origin)
        if duplicate is None:
            if header.attributes & TRANSACTIONAL and not self._states.has_open_transaction(header.producer_id):
                # A coordinator cannot handle a refusal, and its log is compacted: aborted ones do not stay.
                aborted = None if origin.is_coordinator else self._segments.aborted_transactions()
                self._states.check_room(self._limits(), aborted=aborted)
            return None
        is_keyed = is_reserved(header.producer_id)
        if is_keyed or origin.compares_records:
            original = _batch_of(log, duplicate)
            if original is not None and not holds_same_records(original, batch):
                raise OutOfOrderSequenceNumber(
                    f"offset {duplicate.first_offset} was written with this Idempotency-Key and other records; "
                    "use a new key for new records"
                    if is_keyed
                    else f"offset {duplicate.first_offset} was written with sequence {header.base_sequence} and other "
                    "records"
                )
        return _as_appended(duplicate, size=header.size)

    def appended(self, header: BatchHeader, *, now_ms: int) -> None:
        self._states.update(header, self._limits(), seen_ms=now_ms)

    def marked(self, header: BatchHeader, batch: Buffer, *, now_ms: int, high_watermark: int) -> bool:
        """Apply a control batch that is in the log. True when the index of aborted transactions is a new file.

        Raises OSError, DamagedLog."""
        try:
            marker = marker_of(batch, header)
            if marker is None:
                return False
            ended = self._states.end_transaction(
                header, marker, self._limits(), high_watermark=high_watermark, seen_ms=now_ms
            )
            return ended is not None and ended.is_aborted and self._segments.active.transactions.append(aborted(ended))
        except (KafkaError, CorruptIndex) as error:
            raise DamagedLog(str(error)) from error

    def remove_expired(self, *, now_ms: int) -> int:
        return self._states.remove_expired(self._limits(), now_ms=now_ms)

    # --- the log changes ------------------------------------------------------------------------------------------

    def rolled(self, end_offset: int) -> None:
        self._pending = end_offset, self._states.items()

    def truncated(self, end_offset: int) -> None:
        """Truncate. A replay is necessary only if a producer has written beyond the new end. Raises OSError."""
        if self._pending is not None and self._pending[0] > end_offset:
            self._pending = None
        if self._states.last_offset < end_offset:
            self._remove_snapshots(lambda offset: offset > end_offset)
            return
        before, files = self._states, self._environment.files
        self._on_disk = None
        self._states, _ = rebuild(
            files,
            self._folder,
            list(self._segments),
            snapshots=snapshot_offsets(files, self._folder),
            end_offset=end_offset,
            limits=self._limits(),
        )
        self._states.remember_seen(before)

    def started_over(self) -> None:
        self._states.clear()
        self._pending = None
        self._remove_snapshots(lambda offset: True)

    def take_over(self, other: ProducerStateManager, *, folder: str) -> None:
        """The folder has a new name, and the other log the same end: it also knows producers whose records are gone."""
        self._folder = folder
        self._states = other._states

    def segments_dropped(self) -> None:
        """Remove the snapshots of removed segments."""
        self._remove(unneeded(self._snapshots(), self._segments.base_offsets))

    def _snapshots(self) -> list[int]:
        if self._on_disk is None:
            self._on_disk = snapshot_offsets(self._environment.files, self._folder)
        return self._on_disk

    def _remove_snapshots(self, is_gone: Callable[[int], bool]) -> None:
        self._remove([offset for offset in self._snapshots() if is_gone(offset)])

    def _remove(self, gone: Sequence[int]) -> None:
        if gone:
            kept, self._on_disk = [offset for offset in self._snapshots() if offset not in gone], None
            remove_snapshots(self._environment.files, self._folder, gone)
            self._on_disk = kept

    # --- snapshots ------------------------------------------------------------------------------------------------

    async def write_pending(self) -> bool:
        """Make the copy of the last roll durable, except for its name; False when there was none. Raises OSError.

        The write continues when the caller is cancelled: `wait_idle` returns when it has ended."""
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_pending())
        return await asyncio.shield(self._writing)

    async def wait_idle(self) -> None:
        """Wait until no snapshot is being written, whatever the result: the folder may then be loaded again or
        removed."""
        if self._writing is not None and not self._writing.done():
            await asyncio.wait([self._writing])

    async def _write_pending(self) -> bool:
        has_written = False
        while (copy := self._pending) is not None:
            self._writes += 1
            path = snapshot_file(self._folder, copy[0])
            temporary = f"{path}.{self._writes}{TEMPORARY_SUFFIX}"
            await self._environment.workers.run(_write, self._environment, temporary, copy[1])
            if self._pending is not copy:  # the log was truncated meanwhile, or rolled again
                self._environment.files.remove(temporary)
                continue
            self._environment.files.rename(temporary, path)
            if self._on_disk is not None and copy[0] not in self._on_disk:
                insort(self._on_disk, copy[0])
            self._pending = None
            self.segments_dropped()
            has_written = True
        return has_written

    async def close(self, end_offset: int) -> None:
        """Write a last snapshot: after a clean shutdown nothing has to be replayed. Raises OSError."""
        await self.write_pending()
        self._on_disk = None  # nothing is replayed after this: check that the snapshot exists
        if end_offset == 0 or end_offset in self._snapshots():
            return
        self.rolled(end_offset)
        if await self.write_pending():
            await self._environment.workers.run(self._environment.files.sync_directory, self._folder)


def _batch_of(log: ReplicaLog, batch: ProducerBatch) -> Buffer | None:
    """The bytes of a batch; None when retention or a compaction has removed it."""
    if batch.first_offset < log.log_start_offset:
        return None
    found = log.read(batch.first_offset, bytes_max=1, upper_bound=batch.last_offset + 1).data
    is_there = len(found) and header_at(found).base_offset == batch.first_offset
    return found if is_there else None


def _as_appended(original: ProducerBatch, *, size: int) -> Appended:
    """D2: the original's offsets and timestamp, whichever side stamped it, as Kafka answers."""
    return Appended(
        base_offset=original.first_offset,
        last_offset=original.last_offset,
        max_timestamp=original.timestamp,
        size_bytes=size,
        log_append_time_ms=original.timestamp,
        is_duplicate=True,
    )


def _write(environment: Environment, path: str, producers: Sequence[tuple[int, Producer]]) -> None:
    write_synced(environment.files, path, encode_snapshot(producers))
