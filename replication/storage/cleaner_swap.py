"""Finishing or undoing a swap of compacted segments that a crash interrupted. Blocking, at load only.

A `.cleaned` file is unfinished and goes. A `.swap` log is finished and synced: the segments whose base offsets lie in
its range are the old ones; they go, and it takes its name. Source: org.apache.kafka.storage.internals.log.LogLoader.
"""

from __future__ import annotations

from metadata.environment import Files
from replication.batches.header import BatchHeader
from replication.storage.names import (
    CLEANED_SUFFIX,
    LOG_SUFFIX,
    SEGMENT_SUFFIXES,
    SWAP_SUFFIX,
    base_offset_of,
    segment_file,
)
from replication.storage.scanning import headers_from


def finish_swaps(files: Files, folder: str) -> list[int]:
    """Base offsets of the segments that took the place of others."""
    names = files.list_directory(folder)
    for name in names:
        if name.endswith(CLEANED_SUFFIX):
            files.remove(f"{folder}/{name}")
    swapped = [
        int(name[:20])
        for name in names
        if name.endswith(LOG_SUFFIX + SWAP_SUFFIX) and base_offset_of(name.removesuffix(SWAP_SUFFIX)) is not None
    ]
    for base_offset in swapped:
        _finish(files, folder, base_offset)
    for name in files.list_directory(folder):
        if name.endswith(SWAP_SUFFIX):
            files.remove(f"{folder}/{name}")
    if swapped:
        files.sync_directory(folder)
    return swapped


def _finish(files: Files, folder: str, base_offset: int) -> None:
    end_offset = _end_of(files, segment_file(folder, base_offset, LOG_SUFFIX) + SWAP_SUFFIX, base_offset)
    for name in files.list_directory(folder):
        base = base_offset_of(name)
        if base is not None and base_offset <= base < max(end_offset, base_offset + 1):
            files.remove(f"{folder}/{name}")
    for suffix in reversed(SEGMENT_SUFFIXES):
        path = segment_file(folder, base_offset, suffix)
        if files.exists(path + SWAP_SUFFIX):
            files.rename(path + SWAP_SUFFIX, path)


def _end_of(files: Files, path: str, base_offset: int) -> int:
    file = files.open(path, read_only=True)
    try:
        last: BatchHeader | None = None
        for _, header in headers_from(file, 0):
            last = header
        return base_offset if last is None else last.next_offset
    finally:
        file.close()
