"""The newest snapshot of this voter: written whole or not at all, and verified before its use.

Owns the file `snapshot`: a document (see `durable`) whose payload is a JSON header, then the body, which is the encoded
image. The header has the last two Raft entries covered, the image's end offset and controller epoch, and the body's
size and CRC. It replaces the library's serializer, hence the method names: no fork (SO-S2), no pickle (SO-S16), always
able to stream (SO-L7), never an ignored failure (SO-S11).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from metadata.decode_errors import DECODE_ERRORS
from metadata.environment import Files
from metadata.image_codec import NEWEST_VERSION, version_of
from metadata.quorum.durable import (
    RESTORE_ADVICE,
    DamagedFile,
    WrittenByNewerVersion,
    decode_document,
    encode_document,
    read_file,
    replace_file,
)
from metadata.quorum.journal_format import Entry
from metadata.quorum.library import SNAPSHOT_FAILED, SNAPSHOT_IDLE, SNAPSHOT_TAKEN, Voter

FILE_NAME = "snapshot"
CHUNK_BYTES = 256 * 1024
SNAPSHOT_BYTES_MAX = 256 * 1024 * 1024
"""Limit of a received snapshot; a larger transfer is dropped."""
SNAPSHOT_MAGIC = b"KRSNAP1\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotHeader:
    previous: Entry
    last: Entry
    end_offset: int
    controller_epoch: int
    size: int
    crc: int


class ImageSource(Protocol):
    """The state machine, as the snapshots need it."""

    def snapshot(self) -> tuple[int, int, bytes]:
        """(end offset, controller epoch, encoded image) of the applied state."""
        ...

    def install(self, body: bytes, *, index: int) -> None:
        """Replace the image by the one of a snapshot that covers entry `index`, unless it is older."""
        ...


class SnapshotStore:
    def __init__(
        self,
        files: Files,
        directory: str,
        *,
        images: ImageSource,
        on_taken: Callable[[int, int, bytes], None],
        on_failed: Callable[[str], None],
    ) -> None:
        """Raises DamagedFile. `on_taken` gets (end offset, controller epoch, body) of each new snapshot."""
        self._files = files
        self._path = f"{directory}/{FILE_NAME}"
        self._images = images
        self._on_taken = on_taken
        self._on_failed = on_failed
        self._finished: tuple[int, int | None] = (SNAPSHOT_IDLE, None)
        self.is_idle = True
        """The library knows of every snapshot that was taken or has failed."""
        self._sending: dict[Voter, tuple[bytes, int]] = {}
        self._receiving: bytearray | None = None
        self.last_applied: Callable[[], tuple[Entry, Entry]]
        """The last two applied entries; set by the voter."""
        self.header: SnapshotHeader | None = None
        if files.exists(self._path):
            self.header, _ = self._read()

    def load(self) -> tuple[SnapshotHeader, bytes]:
        """Read the file. Raises DamagedFile."""
        return self._read()

    # --- what the library calls ---------------------------------------------------------------------------------

    def checkSerializing(self) -> tuple[int, int | None]:  # noqa: N802
        finished, self._finished = self._finished, (SNAPSHOT_IDLE, None)
        self.is_idle = True
        return finished

    def serialize(self, data: tuple[Any, Entry, Entry, Any], identifier: int) -> None:
        _, last, previous, _ = data
        end_offset, controller_epoch, body = self._images.snapshot()
        header = SnapshotHeader(
            previous=previous,
            last=last,
            end_offset=end_offset,
            controller_epoch=controller_epoch,
            size=len(body),
            crc=zlib.crc32(body),
        )
        try:
            replace_file(self._files, self._path, [encode_document(SNAPSHOT_MAGIC, msgspec.json.encode(header)), body])
        except OSError as error:  # the journal only stays longer
            self._finish(SNAPSHOT_FAILED, None)
            self._on_failed(f"{self._path}: {error}")
            return
        self.header = header
        self._sending.clear()
        self._finish(SNAPSHOT_TAKEN, identifier)
        self._on_taken(end_offset, controller_epoch, body)

    def deserialize(self) -> tuple[None, Entry, Entry, tuple[()]]:
        """Load the snapshot into the state machine. The library ignores exceptions of this method; `raft` checks after
        it."""
        header, body = self._read()
        self.header = header
        self._images.install(body, index=header.last[1])
        self._on_taken(header.end_offset, header.controller_epoch, body)
        return (None, header.last, header.previous, ())

    def getTransmissionData(self, node: Voter) -> tuple[bytes, bool, bool]:  # noqa: N802
        """The next piece for that voter: (bytes, is first, is last)."""
        data, position = self._sending.get(node) or (self._whole(), 0)
        piece = data[position : position + CHUNK_BYTES]
        end = position + len(piece)
        is_last = end == len(data)
        if is_last:
            self._sending.pop(node, None)
        else:
            self._sending[node] = (data, end)
        return piece, position == 0, is_last

    def setTransmissionData(self, piece: tuple[bytes, bool, bool]) -> bool:  # noqa: N802
        """True after a whole snapshot was received, verified and made durable."""
        data, is_first, is_last = piece
        if is_first:
            self._receiving = bytearray()
        if self._receiving is None:
            return False
        self._receiving += data
        if len(self._receiving) > SNAPSHOT_BYTES_MAX:
            self._receiving = None
        if self._receiving is None or not is_last:
            return False
        received, self._receiving = bytes(self._receiving), None
        return self._accept(received)

    def cancelTransmisstion(self, node: Voter) -> None:  # noqa: N802
        """(The library's spelling.) The voter is not connected: the next transfer begins at the start."""
        self._sending.pop(node, None)

    # --- inside -------------------------------------------------------------------------------------------------

    def _finish(self, outcome: int, identifier: int | None) -> None:
        self._finished, self.is_idle = (outcome, identifier), False

    def _whole(self) -> bytes:
        """The whole snapshot, to be sent. A damaged one is taken again; raises DamagedFile when that fails, too."""
        data = read_file(self._files, self._path)
        try:
            decode_snapshot(data, path=self._path)
        except DamagedFile as error:
            self._on_failed(str(error))
            previous, last = self.last_applied()
            self.serialize((None, last, previous, None), previous[1])
            data = read_file(self._files, self._path)
            decode_snapshot(data, path=self._path)
        return data

    def _accept(self, received: bytes) -> bool:
        try:
            decode_snapshot(received, path="received snapshot")
        except DamagedFile as error:
            self._on_failed(str(error))
            return False
        replace_file(self._files, self._path, [received])
        return True

    def _read(self) -> tuple[SnapshotHeader, bytes]:
        return decode_snapshot(read_file(self._files, self._path), path=self._path)


def decode_snapshot(data: bytes, *, path: str) -> tuple[SnapshotHeader, bytes]:
    """Header and body of a snapshot. Raises DamagedFile, WrittenByNewerVersion."""
    payload, position = decode_document(data, magic=SNAPSHOT_MAGIC, path=path)
    try:
        header = msgspec.json.decode(payload, type=SnapshotHeader)
    except DECODE_ERRORS as error:
        raise DamagedFile(path=path, offset=0, problem=f"bad header ({error})", advice=RESTORE_ADVICE) from error
    body = data[position:]
    if len(body) != header.size or zlib.crc32(body) != header.crc:
        raise DamagedFile(path=path, offset=position, problem="the checksum is wrong", advice=RESTORE_ADVICE)
    if (version := version_of(body)) > NEWEST_VERSION:
        raise WrittenByNewerVersion(
            path=path, found=f"an image of version {version}", known=f"version {NEWEST_VERSION}"
        )
    return header, body
