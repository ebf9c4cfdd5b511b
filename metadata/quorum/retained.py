"""The data that observers can still read from this voter: committed records, and the snapshots before them.

Kept in memory. When a snapshot is taken, the records before the previous one are dropped; the previous snapshot stays
for observers that are still reading it. So the size is bounded by two snapshots and the part of the journal between
them. The records of one append are kept as the same bytes that the journal has: a small object for each would outlive
all objects that are decoded around it, and so prevent their memory from being returned.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from kraft.protocol.errors import PositionOutOfRange, SnapshotNotFound
from metadata.quorum.command import encoded_records
from metadata.quorum.log import MetadataSlice, SnapshotNeeded

SNAPSHOTS_KEPT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Snapshot:
    end_offset: int
    controller_epoch: int
    body: bytes


class RetainedRecords:
    def __init__(self) -> None:
        self._base_offsets: list[int] = []
        self._commands: list[memoryview] = []
        """Commands, each with the records from the base offset of the same index to the next one."""
        self._snapshots: list[_Snapshot] = []
        self._start_offset = 0
        self._end_offset = 0
        self._controller_epoch = 0

    @property
    def end_offset(self) -> int:
        return self._end_offset

    def append(self, base_offset: int, command: memoryview, *, end_offset: int, controller_epoch: int) -> None:
        """Keep the records of a committed command (see `command`); the last has offset `end_offset` - 1."""
        assert base_offset == self._end_offset, (base_offset, self._end_offset)
        self._base_offsets.append(base_offset)
        self._commands.append(command)
        self._end_offset = end_offset
        self._controller_epoch = controller_epoch

    def add_snapshot(self, *, end_offset: int, controller_epoch: int, body: bytes) -> None:
        if self._snapshots and self._snapshots[-1].end_offset >= end_offset:
            return
        snapshot = _Snapshot(end_offset=end_offset, controller_epoch=controller_epoch, body=body)
        self._snapshots = [*self._snapshots, snapshot][-SNAPSHOTS_KEPT:]
        if end_offset > self._end_offset:
            self._base_offsets, self._commands = [], []
            self._start_offset = self._end_offset = end_offset
            self._controller_epoch = controller_epoch
        else:
            self._forget_before(self._snapshots[0].end_offset)

    def read(self, from_offset: int, *, bytes_max: int) -> MetadataSlice | SnapshotNeeded:
        if from_offset < self._start_offset:
            newest = self._snapshots[-1]
            return SnapshotNeeded(end_offset=newest.end_offset, epoch=newest.controller_epoch)
        return MetadataSlice(
            base_offset=from_offset,
            records=self._slice(from_offset, bytes_max),
            controller_epoch=self._controller_epoch,
            end_offset=self._end_offset,
        )

    def read_snapshot(self, end_offset: int, *, position: int, bytes_max: int) -> tuple[bytes, int]:
        """A piece of a snapshot and its whole size. Raises SnapshotNotFound, PositionOutOfRange."""
        for snapshot in self._snapshots:
            if snapshot.end_offset == end_offset:
                if not 0 <= position <= len(snapshot.body):
                    raise PositionOutOfRange(f"position {position} of a snapshot of {len(snapshot.body)} bytes")
                return snapshot.body[position : position + bytes_max], len(snapshot.body)
        kept = [snapshot.end_offset for snapshot in self._snapshots]
        raise SnapshotNotFound(f"no snapshot ends at offset {end_offset}; there are {kept}")

    def _slice(self, from_offset: int, bytes_max: int) -> tuple[bytes, ...]:
        """Records from `from_offset` on, at least one if there is one, and no more than `bytes_max` beyond it."""
        records: list[bytes] = []
        size = 0
        for position in range(max(0, bisect_right(self._base_offsets, from_offset) - 1), len(self._commands)):
            skip = max(0, from_offset - self._base_offsets[position])
            for record in encoded_records(self._commands[position])[skip:]:
                size += len(record)
                if records and size > bytes_max:
                    return tuple(records)
                records.append(record)
        return tuple(records)

    def _forget_before(self, offset: int) -> None:
        self._start_offset = max(self._start_offset, offset)
        keep = max(0, bisect_right(self._base_offsets, self._start_offset) - 1)
        del self._base_offsets[:keep], self._commands[:keep]
