"""The limit up to which a log directory's checkpoints are valid for one partition: `checkpoint-ceiling` in its folder.

Recovery points, log starts and high watermarks are saved for all partitions of a directory together, by topic name and
at intervals. A truncation of a log, or a topic that is created again under its old name, makes them wrong until the
next save. So this file has the lowest offset to which the log was truncated, durable before anything is written in
place of the removed records, and no checkpoint above it is used. It is removed after both kinds were saved again.

Bytes: the offset in decimal digits and a newline. An unreadable file means 0: use no checkpoint.
"""

from __future__ import annotations

from enum import Enum, auto

from metadata.environment import Files
from replication.storage.names import CHECKPOINT_CEILING_FILE
from replication.storage.text_files import read_text, replace_text

UNLIMITED = 2**63 - 1


class Checkpoint(Enum):
    """The kinds of checkpoints that are saved separately."""

    RECOVERY = auto()
    """Recovery points and log starts."""
    HIGH_WATERMARKS = auto()


class CheckpointCeiling:
    """Owned by the event loop, except for `save`, which blocks."""

    def __init__(self, files: Files, folder: str, *, is_there: bool = True) -> None:
        """`is_there`: False for a folder that is known to have none."""
        self._files = files
        self._path = _path(folder)
        self.offset = self._saved = read_ceiling(files, folder) if is_there else UNLIMITED
        self.cuts = int(self.offset < UNLIMITED)
        self._covered = dict.fromkeys(Checkpoint, 0)

    def folder_renamed(self, folder: str) -> None:
        self._path = _path(folder)

    def lower(self, offset: int) -> None:
        """The log was truncated here: every earlier checkpoint above it is about other records."""
        self.offset = min(self.offset, offset)
        self.cuts += 1

    def save(self) -> None:
        """Write the file. Blocking, and durable when it returns."""
        offset = self.offset
        if offset < self._saved:
            replace_text(self._files, self._path, f"{offset}\n")
            self._saved = offset

    def covered(self, kind: Checkpoint, cuts: int) -> None:
        """A checkpoint was saved that was taken after so many `cuts`. Raises OSError."""
        self._covered[kind] = cuts
        if self.offset == UNLIMITED or self.offset != self._saved or min(self._covered.values()) < self.cuts:
            return
        self._files.remove(self._path)
        self.offset = self._saved = UNLIMITED


def begin_ceiling(files: Files, folder: str) -> None:
    """Mark a new folder, whose name may be an old one. Durable with the first sync of the folder: an empty file is
    enough."""
    files.open(_path(folder), create=True).close()


def read_ceiling(files: Files, folder: str) -> int:
    text = read_text(files, _path(folder))
    if text is None:
        return UNLIMITED
    is_number = (
        text.endswith("\n") and text[:-1].isdecimal() and text.isascii() and len(text) <= len(str(UNLIMITED)) + 1
    )
    return int(text) if is_number else 0


def _path(folder: str) -> str:
    return f"{folder}/{CHECKPOINT_CEILING_FILE}"
