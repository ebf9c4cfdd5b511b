"""The bytes of the Raft journal, as pure functions.

A journal is `magic (8)` and frames. A frame holds the entries that one fsync made durable: `marker (4) | payload length
(u32) | CRC-32 of length and payload (u32) | payload`; the payload is a sequence of entries `index (u64) | term (u64) |
command length (u32) | command`, all big-endian. The file is only appended to: an entry whose index is already there
replaces it and all later ones.

Because a frame is written only after the one before it was synced, a crash can tear the last frame and no other. A bad
frame before a good one is therefore damage (SO-S7), and the journal is refused. The same holds for a last frame that is
bad and not torn: a torn one ends early, or lacks whole sectors, which then read as zeros.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

Entry: TypeAlias = tuple[bytes, int, int]
"""(command, index, term), in the library's order."""

MAGIC = b"KRJRNL1\n"
_MARKER = b"KRFR"
_FRAME = struct.Struct(">4sII")
_ENTRY = struct.Struct(">QQI")
SECTOR_BYTES = 512
"""Size that a disk writes wholly or not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedJournal:
    entries: list[Entry]
    end: int
    """End of the last good frame; a torn write may follow."""
    damage: str | None
    """Reason why the journal must be refused; None for a good one, with or without a torn tail."""


def encode_frame(entries: Iterable[Entry]) -> bytes:
    payload = b"".join(_ENTRY.pack(index, term, len(command)) + command for command, index, term in entries)
    length = len(payload)
    return _FRAME.pack(_MARKER, length, zlib.crc32(payload, length)) + payload


def parse_journal(data: bytes) -> ParsedJournal:
    entries: list[Entry] = []
    if data[: len(MAGIC)] != MAGIC:
        return ParsedJournal(entries=entries, end=0, damage="the journal does not begin with its magic")
    position = len(MAGIC)
    while position < len(data):
        payload = _frame_at(data, position)
        if payload is None:
            return ParsedJournal(entries=entries, end=position, damage=_damage_at(data, position))
        damage = _replay(payload, entries)
        if damage is not None:
            return ParsedJournal(entries=entries, end=position, damage=damage)
        position += _FRAME.size + len(payload)
    return ParsedJournal(entries=entries, end=position, damage=None)


def _frame_at(data: bytes, position: int) -> bytes | None:
    if position + _FRAME.size > len(data):
        return None
    marker, length, crc = _FRAME.unpack_from(data, position)
    start = position + _FRAME.size
    if marker != _MARKER or start + length > len(data):
        return None
    payload = data[start : start + length]
    return payload if zlib.crc32(payload, length) == crc else None


def _damage_at(data: bytes, position: int) -> str | None:
    """The proof that the missing frame at `position` is damage and not a torn write; None without one."""
    if _has_frame_after(data, position):
        return "a damaged frame has a good one behind it"
    return None if _is_torn(data, position) else "the last frame is damaged, and it was written whole"


def _is_torn(data: bytes, position: int) -> bool:
    """The last frame may have been acknowledged: it counts as torn only with the marks of a crash in an unsynced
    write."""
    start = position + _FRAME.size
    if start > len(data) or _lacks_sector(data, position):
        return True
    marker, length, crc = _FRAME.unpack_from(data, position)
    rest = data[start:]
    if zlib.crc32(rest, len(rest)) == crc:
        return False  # the frame is complete: its marker or its length has changed
    return bool(marker == _MARKER and length > len(rest))


def _lacks_sector(data: bytes, position: int) -> bool:
    """A part of the frame in one sector has only zeros."""
    first = position // SECTOR_BYTES * SECTOR_BYTES
    return any(
        not any(data[max(start, position) : start + SECTOR_BYTES]) for start in range(first, len(data), SECTOR_BYTES)
    )


def _has_frame_after(data: bytes, position: int) -> bool:
    found = data.find(_MARKER, position + 1)
    while found != -1:
        if _frame_at(data, found) is not None:
            return True
        found = data.find(_MARKER, found + 1)
    return False


def _replay(payload: bytes, entries: list[Entry]) -> str | None:
    position = 0
    while position < len(payload):
        if position + _ENTRY.size > len(payload):
            return f"a frame ends {len(payload) - position} bytes into the head of an entry"
        index, term, size = _ENTRY.unpack_from(payload, position)
        position += _ENTRY.size
        if position + size > len(payload):
            return f"entry {index} of {size} bytes does not fit into its frame"
        command = payload[position : position + size]
        position += size
        if entries:
            first, last = entries[0][1], entries[-1][1]
            if not first <= index <= last + 1:
                return f"entry {index} follows entry {last} of a journal that begins at {first}"
            del entries[index - first :]
        entries.append((command, index, term))
    return None
