"""Iteration over the batch headers of a log file without reading the records, for offsets and timestamps.

Headers are read in pieces of the file, so that neighbouring small batches cost one read together.
"""

from __future__ import annotations

from collections.abc import Iterator

from kraft.protocol.batches.header import HEADER_BYTES, LOG_OVERHEAD, MAGIC, BatchHeader, computed_crc, header_at
from metadata.environment import File

SCAN_BYTES = 16 * 1024


class DamagedLog(Exception):
    """Bytes at the place of a batch are not a batch; the message has file and position."""


def headers_from(file: File, position: int, *, end: int | None = None) -> Iterator[tuple[int, BatchHeader]]:
    """Position and header of every batch from `position` to the end. Raises DamagedLog."""
    end = file.size if end is None else end
    piece, start = b"", position
    while position < end:
        at = position - start
        if at + HEADER_BYTES > len(piece):
            piece, start, at = file.pread(position, min(SCAN_BYTES, end - position)), position, 0
        if len(piece) < HEADER_BYTES:
            raise DamagedLog(f"{file.path}: {len(piece)} bytes at position {position} are no batch")
        header = header_at(piece, at)
        after = position + LOG_OVERHEAD + header.length
        if header.length < HEADER_BYTES - LOG_OVERHEAD or after > end:
            raise DamagedLog(f"{file.path}: the batch at position {position} has {header.length} bytes by its header")
        yield position, header
        position = after


def whole_batch(file: File, position: int, header: BatchHeader) -> bytes:
    """The bytes of the batch, with its CRC checked. Raises DamagedLog."""
    batch = file.pread(position, header.size)
    if header.magic != MAGIC or computed_crc(batch, 0, len(batch)) != header.crc:
        raise DamagedLog(f"{file.path}: the batch at position {position} does not have the CRC of its header")
    return batch
