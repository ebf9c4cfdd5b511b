"""The index of aborted transactions against a list: what a question finds, and what it reads for that."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from kraft.protocol.primitives import Buffer
from kraft.runtime.files import DiskFiles
from metadata.environment import File
from replication.partition.log import AbortedTransaction
from replication.storage.indexes import CorruptIndex
from replication.storage.transaction_index import ENTRIES_AT_ONCE, TRANSACTION_ENTRY_BYTES, TransactionIndex


class CountedFile:
    """Of the disk; knows how much was read of it."""

    def __init__(self, file: File) -> None:
        self._file = file
        self.bytes_read = 0

    @property
    def path(self) -> str:
        return self._file.path

    @property
    def size(self) -> int:
        return self._file.size

    def append(self, parts: Sequence[Buffer]) -> int:
        return self._file.append(parts)

    def pwrite(self, offset: int, data: Buffer) -> None:
        self._file.pwrite(offset, data)

    def pread(self, offset: int, size: int) -> bytes:
        data = self._file.pread(offset, size)
        self.bytes_read += len(data)
        return data

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def sync(self) -> None:
        self._file.sync()

    def close(self) -> None:
        self._file.close()


class CountedFiles(DiskFiles):
    def __init__(self) -> None:
        super().__init__()
        self.opened: list[CountedFile] = []

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> File:
        self.opened.append(CountedFile(super().open(path, create=create, read_only=read_only)))
        return self.opened[-1]


def history(rng: random.Random, count: int) -> list[AbortedTransaction]:
    """Of producers whose transactions overlap as they like; some are committed and not in it."""
    opened: dict[int, int] = {}
    found: list[AbortedTransaction] = []
    offset = 0
    while len(found) < count:
        producer_id = rng.randrange(12)
        if producer_id not in opened:
            opened[producer_id] = offset
        else:
            first_offset = opened.pop(producer_id)
            if rng.random() < 0.7:
                stable = min(opened.values(), default=offset + 1)
                found.append(AbortedTransaction(producer_id, first_offset, offset, stable))
        offset += rng.randint(1, 5)
    return found


def index_of(files: DiskFiles, folder: Path, entries: Sequence[AbortedTransaction]) -> TransactionIndex:
    index = TransactionIndex(
        files, str(folder / f"{0:020}.txnindex"), base_offset=0, bytes_max=2**31, is_there=not entries
    )
    for entry in entries:
        index.append(entry)
    return index


@pytest.mark.parametrize("seed", range(20))
def test_a_question_finds_what_a_list_has(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    count = rng.choice((1, 5, ENTRIES_AT_ONCE, ENTRIES_AT_ONCE + 1, 700))
    there = history(rng, count + 10)
    entries, later = there[:count], there[count:]
    written = index_of(DiskFiles(), tmp_path, entries)
    opened_again = index_of(DiskFiles(), tmp_path, [])
    end_offset = entries[-1].last_offset + 3
    for _ in range(200):
        start = rng.randrange(end_offset)
        stop = start + rng.choice((1, 3, 50, end_offset))
        wanted = [each for each in entries if each.last_offset >= start and each.first_offset < stop]
        for index in (written, opened_again):
            found = index.overlapping(start, stop)
            assert found.aborted == wanted, (start, stop)
            assert not (found.is_complete and any(each.first_offset < stop for each in later))
        assert written.has_entries_since(start) == any(each.last_offset >= start for each in entries)
    cut = rng.randrange(end_offset)
    written.truncate_from(cut)
    kept = [each for each in entries if each.last_offset < cut]
    assert written.overlapping(0, end_offset).aborted == kept
    assert (tmp_path / f"{0:020}.txnindex").stat().st_size == len(kept) * TRANSACTION_ENTRY_BYTES
    for index in (written, opened_again):
        index.close()


def test_a_question_reads_little_of_a_large_index(tmp_path: Path) -> None:
    """One that is at the end, as most who read are, reads nothing."""
    entries = [AbortedTransaction(number, 10 * number, 10 * number + 5, 10 * number) for number in range(20_000)]
    index_of(DiskFiles(), tmp_path, entries).close()
    files = CountedFiles()
    index = index_of(files, tmp_path, [])
    index.load()
    (file,) = files.opened
    assert file.bytes_read == len(entries) * TRANSACTION_ENTRY_BYTES, "what is loaded is checked, once"
    for start in (0, 7, 99_990, 199_980):
        file.bytes_read = 0
        found = index.overlapping(start, start + 20)
        assert found.aborted == [
            each for each in entries if each.last_offset >= start and each.first_offset < start + 20
        ]
        assert file.bytes_read <= 2 * ENTRIES_AT_ONCE * TRANSACTION_ENTRY_BYTES
    file.bytes_read = 0
    assert index.overlapping(200_000, 200_100).aborted == []
    assert not index.has_entries_since(200_000)
    assert file.bytes_read == 0
    index.close()


def test_what_was_changed_after_it_was_loaded_is_not_reported(tmp_path: Path) -> None:
    entries = [AbortedTransaction(number, 10 * number, 10 * number + 5, 10 * number) for number in range(10)]
    index = index_of(DiskFiles(), tmp_path, entries)
    path = tmp_path / f"{0:020}.txnindex"
    data = path.read_bytes()
    for bad in (data[34:68] + data[:34] + data[68:], b"\0\7" + data[2:], data[:100]):
        path.write_bytes(bad)
        with pytest.raises(CorruptIndex):
            index.overlapping(0, 100)
    index.close()
