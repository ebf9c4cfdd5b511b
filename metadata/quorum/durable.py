"""Small files that are either whole or refused: written to a temporary file, synced, renamed, and checked by CRC when
read.

A document is `magic (8) | payload length (u32) | CRC-32 of the payload (u32) | payload`, big-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from kraft.protocol.primitives import Buffer
from metadata.environment import Files

_HEADER = struct.Struct(">8sII")


class QuorumStorageError(Exception):
    """The files of the quorum cannot be trusted: the node refuses to start, and the message has the remedy."""


class DamagedFile(QuorumStorageError):
    def __init__(self, *, path: str, offset: int, problem: str, advice: str) -> None:
        super().__init__(f"{path}: {problem} at byte {offset}. {advice}")
        self.path = path
        self.offset = offset


class WrittenByNewerVersion(QuorumStorageError):
    """Files of a format that is newer than this version. Nothing was changed; the newer version can start on them."""

    def __init__(self, *, path: str, found: str, known: str) -> None:
        super().__init__(
            f"{path}: its format is {found}, and this version knows {known}: a newer version wrote it. Start that "
            "version or a later one on this folder; nothing was changed, and an older one must not run on it"
        )


RESTORE_ADVICE = (
    "This voter must not start with damaged files, because it could forget what it promised to the others. Once the "
    "other voters are a majority without it and know a leader, empty this node's __cluster_metadata folder: it copies "
    "the log again, and votes only after that. Never put back an older copy of these files."
)


def replace_file(files: Files, path: str, parts: Sequence[Buffer], *, sync: bool = True) -> None:
    """Atomically replace `path`. With `sync` it survives a power loss once this returns (SO-S6)."""
    temporary = f"{path}.tmp"
    file = files.open(temporary, create=True)
    try:
        file.truncate(0)
        file.append(parts)
        if sync:
            file.sync()
    finally:
        file.close()
    files.rename(temporary, path)
    if sync:
        files.sync_directory(path.rpartition("/")[0])


def read_file(files: Files, path: str) -> bytes:
    file = files.open(path, read_only=True)
    try:
        return file.pread(0, file.size)
    finally:
        file.close()


def probe_disk(files: Files, path: str, *, size: int) -> None:
    """Try the disk. Raises OSError when a file of that size cannot be written and synced."""
    file = files.open(path, create=True)
    try:
        file.append([bytes(size)])
        file.sync()
    finally:
        file.close()
        files.remove(path)


def refuse_newer(found: bytes, *, magic: bytes, path: str) -> None:
    """Compare a magic that ends with a digit, the number of the format, and a line feed. Raises
    WrittenByNewerVersion."""
    stem, number = magic[:-2], magic[-2:-1]
    if found[: len(stem)] == stem and found[-1:] == b"\n" and found[-2:-1].isdigit() and found[-2:-1] > number:
        raise WrittenByNewerVersion(path=path, found=found.decode().strip(), known=magic.decode().strip())


def encode_document(magic: bytes, payload: bytes) -> bytes:
    return _HEADER.pack(magic, len(payload), zlib.crc32(payload)) + payload


def decode_document(data: bytes, *, magic: bytes, path: str) -> tuple[bytes, int]:
    """The payload and its end. Raises DamagedFile, WrittenByNewerVersion."""
    if len(data) < _HEADER.size:
        raise DamagedFile(path=path, offset=len(data), problem="the file is cut short", advice=RESTORE_ADVICE)
    found, length, crc = _HEADER.unpack_from(data)
    if found != magic:
        refuse_newer(found, magic=magic, path=path)
        problem = f"found {found!r} where {magic!r} belongs"
        raise DamagedFile(path=path, offset=0, problem=problem, advice=RESTORE_ADVICE)
    payload = data[_HEADER.size : _HEADER.size + length]
    if len(payload) != length or zlib.crc32(payload) != crc:
        raise DamagedFile(path=path, offset=_HEADER.size, problem="the checksum is wrong", advice=RESTORE_ADVICE)
    return payload, _HEADER.size + length
