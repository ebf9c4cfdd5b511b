"""The leader epoch cache: where each epoch of a log begins, on disk as `leader-epoch-checkpoint` (KIP-101).

Invariant: epochs and start offsets both ascend, strictly and not strictly. Cut together with the log (R8). A change is
durable with the next flush of the log, before anything of it counts as flushed, and waits for no disk itself: a node
begins thousands of epochs at once when another dies, and an fsync for each would keep its loop from its heartbeats. A
loss of power takes epochs of which no record was flushed: what batches carry is read from them again, and an epoch
without records ends where it began, whether it is known or not.
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
        self.is_synced = self._is_saved = True

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
        before = self._entries
        self._take([*kept, (epoch, start_offset)])
        try:
            self._save()
        except OSError:  # a full disk: the epoch has not begun
            self._take(before)
            raise

    def restore(self, entries: Iterable[tuple[int, int]]) -> None:
        """As they were before an append that failed; saved with the next change, or the next `sync`."""
        self._take(list(entries))
        self.is_synced = self._is_saved = False

    def learn(self, epoch: int, base_offset: int) -> None:
        """A batch found in the log is right: entries that say otherwise outlived a truncation whose save was lost."""
        before = [entry for entry in self._entries if entry[1] <= base_offset and entry[0] <= epoch]
        after = [entry for entry in self._entries if entry[1] > base_offset and entry[0] > epoch]
        if not before or before[-1][0] < epoch:
            before.append((epoch, base_offset))
        if before + after != self._entries:
            self._take(before + after)
            self._save()

    def learn_anew(self, batches: Iterable[tuple[int, int]]) -> None:
        """From (epoch, base offset) of all batches of the log, in order: nothing else is believed."""
        entries: list[tuple[int, int]] = []
        for epoch, base_offset in batches:
            if not entries or entries[-1][0] < epoch:
                entries.append((epoch, base_offset))
        self._take(entries)
        self._save()

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
        """Forget epochs that begin at or after the new end of the log. Durable with the next `sync`."""
        kept = [entry for entry in self._entries if entry[1] < end_offset]
        if len(kept) != len(self._entries):
            self._take(kept)
            self._save()

    def truncate_from_start(self, start_offset: int) -> None:
        """Forget epochs that end before the new start; the one that spans it begins there now."""
        at = bisect_right(self._starts, start_offset)
        if at == 0 or (at == 1 and self._entries[0][1] == start_offset):
            return
        self._take([(self._entries[at - 1][0], start_offset), *self._entries[at:]])
        self._save()

    def clear(self) -> None:
        if self._entries:
            self._take([])
            self._save()

    def take_unsynced(self) -> bool:
        """Is there something that `sync` has to make durable? The caller promises to call it."""
        unsynced, self.is_synced = not self.is_synced, True
        return unsynced

    def sync(self) -> None:
        """fsync of whatever the file holds now. Blocking; may run beside changes of the cache."""
        if not self._is_saved or not self._files.exists(self._path):
            write_epochs(self._files, self._path, tuple(self._entries), sync=True)
            self._is_saved = True
            return
        file = self._files.open(self._path)
        try:
            file.sync()
        finally:
            file.close()
        self._files.sync_directory(self._path.rpartition("/")[0])

    def _save(self) -> None:
        self.is_synced = self._is_saved = False
        write_epochs(self._files, self._path, self._entries, sync=False)
        self._is_saved = True
