"""The last offset of each key in the dirty part of a log: the whole memory of a compaction pass.

Keys are held as 16-byte digests, as in Kafka's SkimpyOffsetMap; there are at most `entries_max` of them, but one batch
is always added whole.
"""

from __future__ import annotations

import hashlib

ENTRY_BYTES = 160
"""Memory of one entry: a digest, an offset, and their place in a table of the interpreter."""


class OffsetMap:
    def __init__(self, *, bytes_max: int) -> None:
        self._entries_max = bytes_max // ENTRY_BYTES
        self._offsets: dict[bytes, int] = {}
        self.end_offset = -1
        """Keys are known up to here; every record from here on stays."""

    def __len__(self) -> int:
        return len(self._offsets)

    def has_room_for(self, count: int) -> bool:
        return not self._offsets or len(self._offsets) + count <= self._entries_max

    def put(self, key: bytes, offset: int) -> None:
        self._offsets[_digest(key)] = offset

    def is_latest(self, key: bytes, offset: int) -> bool:
        return offset >= self._offsets.get(_digest(key), -1)


def _digest(key: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=16).digest()
