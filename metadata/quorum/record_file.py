"""An observer's copy of the committed metadata records: one append-only file, a torn tail is cut when it is opened.

Format: `magic (8) | base offset (u64) | CRC-32 of it (u32)`, then frames `marker (4) | payload length (u32) | CRC-32 of
length and payload (u32) | payload`; a payload is `controller epoch (i32) | record JSON`. The record at position i has
offset `base + i`.
Committed records can be fetched again, so damage is repaired by cutting the file at it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from metadata.environment import File, Files
from metadata.quorum.durable import read_file, replace_file

FILE_NAME = "records"
_MAGIC = b"KRRECS2\n"
"""Version 1 had no CRC: a file of that version is fetched again."""
_MARKER = b"KRRC"
_BASE = struct.Struct(">8sQI")
_FRAME = struct.Struct(">4sIIi")
_EPOCH_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    offset: int
    controller_epoch: int
    encoded: bytes
    end: int
    """End of the record in the file."""


def parse_records(data: bytes) -> Iterator[StoredRecord]:
    """The records up to the first that is not whole."""
    if len(data) < _BASE.size:
        return
    _, offset, _ = _BASE.unpack_from(data)
    if data[: _BASE.size] != _base(offset):
        return
    position = _BASE.size
    while position + _FRAME.size <= len(data):
        marker, length, crc, controller_epoch = _FRAME.unpack_from(data, position)
        payload_start = position + _FRAME.size - _EPOCH_BYTES
        position = payload_start + length
        payload = data[payload_start:position]
        # Zeros after a marker are no frame, though the CRC of nothing is zero: a power loss destroys whole sectors.
        if marker != _MARKER or length <= _EPOCH_BYTES:
            return
        if len(payload) != length or zlib.crc32(payload, length) != crc:
            return
        yield StoredRecord(
            offset=offset, controller_epoch=controller_epoch, encoded=payload[_EPOCH_BYTES:], end=position
        )
        offset += 1


def _base(offset: int) -> bytes:
    return _BASE.pack(_MAGIC, offset, zlib.crc32(offset.to_bytes(8, "big")))


class RecordFile:
    def __init__(self, files: Files, directory: str) -> None:
        self._files = files
        self._path = f"{directory}/{FILE_NAME}"
        if not files.exists(self._path):
            replace_file(files, self._path, [_base(0)])
        self._file: File = files.open(self._path)

    @property
    def size_bytes(self) -> int:
        return self._file.size

    def load(self) -> list[StoredRecord]:
        """Load all whole records; cut off the rest."""
        records = list(parse_records(read_file(self._files, self._path)))
        end = records[-1].end if records else _BASE.size
        if self._file.size > end:
            self._file.truncate(end)
        return records

    def append(self, records: Sequence[bytes], *, controller_epochs: Sequence[int]) -> None:
        """Append without a sync: records lost in a power loss are fetched again. Raises OSError."""
        parts: list[bytes] = []
        for encoded, epoch in zip(records, controller_epochs, strict=True):
            payload = struct.pack(">i", epoch) + encoded
            parts += (_FRAME.pack(_MARKER, len(payload), zlib.crc32(payload, len(payload)), epoch), encoded)
        self._file.append(parts)

    def restart(self, base_offset: int) -> None:
        """Begin a new file after a snapshot that ends at `base_offset`."""
        replace_file(self._files, self._path, [_base(base_offset)], sync=False)
        self._file.close()
        self._file = self._files.open(self._path)

    def close(self) -> None:
        self._file.close()
