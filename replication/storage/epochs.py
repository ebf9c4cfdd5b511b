"""The leader epoch cache: where each epoch of a log begins, on disk as `leader-epoch-checkpoint` (KIP-101).

Invariant: epochs and start offsets both ascend, strictly and not strictly. Cut together with the log (R8). A change is
written with the next flush of the log, before anything of it counts as flushed, and by that only: a node begins
thousands of epochs at once when another dies or when it starts, and a file for each would keep its loop from its
heartbeats. Who dies before loses epochs of which no record was flushed, and learns them anew: what batches carry is
read from them, and an epoch without records ends where it began, whether it is known or not.
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
"""Start of the latest epoch of a log that knows none: no offset is that high."""


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
        """An epoch that is not newer than the latest changes nothing, unless it starts before it."""
        if self._entries and epoch <= self.latest_epoch and start_offset >= self._entries[-1][1]:
            return
        kept = [(e, s) for e, s in self._entries if e < epoch and s < start_offset]
        self._change([*kept, (epoch, start_offset)])

    def restore(self, entries: Iterable[tuple[int, int]]) -> None:
        """As they were before an append that failed, or as another log of the same records has them."""
        self._change(list(entries))

    def learn(self, epoch: int, base_offset: int) -> None:
        """A batch found in the log is right: entries that say otherwise outlived a change that was not written. An
        epoch that begins where another one's batch lies has no records."""
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

    def learn_anew(self, batches: Iterable[tuple[int, int]]) -> None:
        """From (epoch, base offset) of all batches of the log, in order: nothing else is believed."""
        entries: list[tuple[int, int]] = []
        for epoch, base_offset in batches:
            if not entries or entries[-1][0] < epoch:
                entries.append((epoch, base_offset))
        self._change(entries)

    def end_offset_for(self, epoch: int, *, log_end_offset: int) -> EpochEnd | None:
        """R3. None when the epoch is newer than all that are known, or none is."""
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
        """Forget epochs that begin at or after the new end of the log."""
        kept = [entry for entry in self._entries if entry[1] < end_offset]
        if len(kept) != len(self._entries):
            self._change(kept)

    def truncate_from_start(self, start_offset: int) -> None:
        """Forget epochs that end before the new start; the one that spans it begins there now."""
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
        """Is there something that `sync` has to make durable? The caller promises to call it."""
        unsynced, self.is_synced = not self.is_synced, True
        return unsynced

    def sync(self) -> None:
        """Write them, unless the file has them, and fsync it. Blocking; may run beside changes of the cache, but not
        beside itself."""
        changes = self._changes  # before the entries: a change in between is written once more, not lost
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
