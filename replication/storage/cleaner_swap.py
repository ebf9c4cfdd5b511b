"""End or reversal of a swap of compacted segments that a crash interrupted. Blocking, at load only.

A `.cleaned` file is unfinished and is removed. A `.swap` log is finished and synced: the segments whose base offsets
lie in its range are the old ones; they are removed, and it gets its name. It ends where a segment of the log begins;
one that does not has been damaged since, and the old segments stay, or get their names back from `.deleted`.
Source: org.apache.kafka.storage.internals.log.LogLoader.
"""

from __future__ import annotations

from collections.abc import Iterable

from kraft.protocol.batches.header import BatchHeader
from metadata.environment import Files
from replication.storage.header_scan import DamagedLog, headers_from
from replication.storage.names import (
    CLEANED_SUFFIX,
    DELETED_SUFFIX,
    LOG_SUFFIX,
    SEGMENT_SUFFIXES,
    SWAP_SUFFIX,
    base_offset_of,
    segment_file,
)


def is_compaction_left(names: Iterable[str]) -> bool:
    """Whether the folder has files of an interrupted compaction."""
    return any(name.endswith((CLEANED_SUFFIX, SWAP_SUFFIX)) for name in names)


def finish_swaps(files: Files, folder: str) -> list[str]:
    """Return the problems of compacted segments that were dropped for the old ones. Raises DamagedLog when neither a
    compacted segment nor its old segments exist."""
    for name in files.list_directory(folder):
        if name.endswith(CLEANED_SUFFIX):
            files.remove(f"{folder}/{name}")
    swapped = _bases(files, folder, LOG_SUFFIX + SWAP_SUFFIX)
    problems: list[str] = []
    for base_offset in swapped:
        try:
            end_offset = _end_of_swap(files, folder, base_offset)
        except DamagedLog as error:
            _undo(files, folder, base_offset, reason=str(error))
            problems.append(str(error))
        else:
            _finish(files, folder, base_offset, end_offset)
    for name in files.list_directory(folder):
        if name.endswith(SWAP_SUFFIX):
            files.remove(f"{folder}/{name}")
    if swapped:
        files.sync_directory(folder)
    return problems


def _bases(files: Files, folder: str, suffix: str) -> list[int]:
    """Base offsets of the log files with this suffix, ascending."""
    state = suffix.removeprefix(LOG_SUFFIX)
    names = [name.removesuffix(state) for name in files.list_directory(folder) if name.endswith(suffix)]
    return [base for base in map(base_offset_of, names) if base is not None]


def _end_of_swap(files: Files, folder: str, base_offset: int) -> int:
    """The offset at which a swap ends. Raises DamagedLog."""
    path = segment_file(folder, base_offset, LOG_SUFFIX) + SWAP_SUFFIX
    end_offset = _end_of(files, path, base_offset)
    begun = {*_bases(files, folder, LOG_SUFFIX), *_bases(files, folder, LOG_SUFFIX + SWAP_SUFFIX)}
    if end_offset == base_offset or end_offset not in begun:
        raise DamagedLog(f"{path}: it ends at offset {end_offset}, where no segment begins")
    return end_offset


def _finish(files: Files, folder: str, base_offset: int, end_offset: int) -> None:
    for name in files.list_directory(folder):
        base = base_offset_of(name)
        if base is not None and base_offset <= base < end_offset:
            files.remove(f"{folder}/{name}")
    for suffix in reversed(SEGMENT_SUFFIXES):
        path = segment_file(folder, base_offset, suffix)
        if files.exists(path + SWAP_SUFFIX):
            files.rename(path + SWAP_SUFFIX, path)


def _undo(files: Files, folder: str, base_offset: int, *, reason: str) -> None:
    """Restore the old segments, the first one first: if that has its name, all have. Raises DamagedLog."""
    if files.exists(segment_file(folder, base_offset, LOG_SUFFIX)):
        return
    later = [base for base in _bases(files, folder, LOG_SUFFIX) if base > base_offset]
    old, expected = [], base_offset
    for base in _bases(files, folder, LOG_SUFFIX + DELETED_SUFFIX):
        if base == expected:  # an overlapping one was replaced in an earlier pass
            old.append(base)
            expected = _end_of(files, segment_file(folder, base, LOG_SUFFIX) + DELETED_SUFFIX, base)
    if not old or expected not in later:
        raise DamagedLog(f"{reason}; and the segments that it was made of are gone")
    for base in reversed(old):
        for suffix in reversed(SEGMENT_SUFFIXES):
            path = segment_file(folder, base, suffix)
            if files.exists(path + DELETED_SUFFIX):
                files.rename(path + DELETED_SUFFIX, path)


def _end_of(files: Files, path: str, base_offset: int) -> int:
    """The end offset of a log file. Raises DamagedLog."""
    file = files.open(path, read_only=True)
    try:
        last: BatchHeader | None = None
        for _, header in headers_from(file, 0):
            last = header
        return base_offset if last is None else last.next_offset
    finally:
        file.close()
