"""The leader epoch cache: the start offset of each epoch of a log, on disk as `leader-epoch-checkpoint` (KIP-101).

Invariant: epochs ascend strictly, start offsets ascend. Truncated together with the log (R8). A change is written only
with the next flush of the log, before anything of it counts as flushed: a node begins thousands of epochs at once when
another dies or when it starts, and writing a file for each would block its loop and its heartbeats. A node that dies
before that loses epochs of which no record was flushed, and learns them again: epochs with records are read from the
batches, and an epoch without records ends where it began, whether it is known or not.
Source: org.apache.kafka.storage.internals.epoch.LeaderEpochFileCache.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from metadata.environment import Files
from replication.partition.log import EpochEnd
from replication.storage.text_files import read_epochs, write_epochs

NO_EPOCH = -1
_NEVER = 2**63
"""Start of the latest epoch of a log without epochs: no offset is that high."""


class LeaderEpochCache:
    def __init__(self, files: Files, path: str) -> None:
        self._files = files
        self._path = path
        self._take(sorted(read_epochs(files, path)))
        self.is_synced = True
        self._changes = self._changes_written = 0

    def _take(self, entries: list[tuple[int, int]]) -> None:
        self._entries = entries
        self._starts = [start for _, start in entries]
        self.latest_epoch, self._latest_start = entries[-1] if entries else (NO_EPOCH, _NEVER)

    @property
    def entries(self) -> tuple[tuple[int, int], ...]:
        """(epoch, start offset), ascending."""
        return tuple(self._entries)

    def assign(self, epoch: int, start_offset: int) -> None:
        """Add an epoch. One that is not newer than the latest changes nothing, unless it starts before it."""
        if self._entries and epoch <= self.latest_epoch and start_offset >= self._entries[-1][1]:
            return
        kept = [(e, s) for e, s in self._entries if e < epoch and s < start_offset]
        self._change([*kept, (epoch, start_offset)])

    def restore(self, entries: Iterable[tuple[int, int]]) -> None:
        """Set the entries: those before a failed append, or those of another log with the same records."""
        self._change(list(entries))

    def learn(self, epoch: int, base_offset: int) -> None:
        """Correct the entries with a batch of the log: an entry that disagrees is older than a change that was not
        written. An epoch that begins at another epoch's batch has no records."""
        before = [
            (known, start)
            for known, start in self._entries
            if known <= epoch and (start < base_offset or (known, start) == (epoch, base_offset))
        ]
        after = [entry for entry in self._entries if entry[1] > base_offset and entry[0] > epoch]
        if not before or before[-1][0] < epoch:
            before.append((epoch, base_offset))
        if before + after != self._entries:
            self._change(before + after)

    def relearn(self, batches: Iterable[tuple[int, int]]) -> None:
        """Replace the entries by those from (epoch, base offset) of all batches of the log, in order."""
        entries: list[tuple[int, int]] = []
        for epoch, base_offset in batches:
            if not entries or entries[-1][0] < epoch:
                entries.append((epoch, base_offset))
        self._change(entries)

    def end_offset_for(self, epoch: int, *, log_end_offset: int) -> EpochEnd | None:
        """R3. None when the epoch is newer than all known ones, or none is known."""
        if not self._entries or epoch < 0 or epoch > self.latest_epoch:
            return None
        if epoch == self.latest_epoch:
            return EpochEnd(epoch=epoch, end_offset=log_end_offset)
        at = self._after(epoch)
        known = self._entries[at - 1][0] if at else epoch
        return EpochEnd(epoch=known, end_offset=self._entries[at][1])

    def epoch_of(self, offset: int) -> int:
        """Epoch of the record at the offset; -1 when it lies before the first entry."""
        if offset >= self._latest_start:
            return self.latest_epoch
        at = bisect_right(self._starts, offset)
        return self._entries[at - 1][0] if at else NO_EPOCH

    def _after(self, epoch: int) -> int:
        return bisect_right(self._entries, epoch, key=lambda entry: entry[0])

    def truncate_from_end(self, end_offset: int) -> None:
        """Remove epochs that begin at or after the new end of the log."""
        kept = [entry for entry in self._entries if entry[1] < end_offset]
        if len(kept) != len(self._entries):
            self._change(kept)

    def truncate_from_start(self, start_offset: int) -> None:
        """Remove epochs that end before the new start; the one that spans it begins there now."""
        at = bisect_right(self._starts, start_offset)
        if at == 0 or (at == 1 and self._entries[0][1] == start_offset):
            return
        self._change([(self._entries[at - 1][0], start_offset), *self._entries[at:]])

    def clear(self) -> None:
        if self._entries:
            self._change([])

    def file_renamed(self, path: str) -> None:
        self._path = path

    def take_unsynced(self) -> bool:
        """Whether `sync` has to make something durable. The caller promises to call it."""
        unsynced, self.is_synced = not self.is_synced, True
        return unsynced

    def sync(self) -> None:
        """Write the entries, unless the file has them, and fsync it. Blocking; may run beside changes of the cache, but
        not beside itself."""
        changes = self._changes  # before the entries: a change in between is written twice, not lost
        if changes != self._changes_written or not self._files.exists(self._path):
            write_epochs(self._files, self._path, tuple(self._entries), sync=True)
            self._changes_written = changes
            return
        file = self._files.open(self._path)
        try:
            file.sync()
        finally:
            file.close()
        self._files.sync_directory(self._path.rpartition("/")[0])

    def _change(self, entries: list[tuple[int, int]]) -> None:
        self._take(entries)
        self._changes += 1
        self.is_synced = False
