"""Up to where the checkpoints of a log directory hold for one partition: `checkpoint-ceiling` in its folder.

Recovery points, log starts and high watermarks are saved for all partitions of a directory together, by topic name and
at intervals. What is cut off a log, or a topic that is made again under its old name, makes them wrong until the next
save. So the lowest offset to which the log was cut stands in this file, durable before anything is written in place of
what was cut, and nothing that the checkpoints say is believed beyond it. It goes once both kinds were saved again.

Bytes: the offset in decimal digits and a newline. A file that does not read means 0: believe nothing.
"""

from __future__ import annotations

from enum import Enum, auto

from metadata.environment import Files
from replication.storage.names import CHECKPOINT_CEILING_FILE
from replication.storage.text_files import read_text, replace_text

UNLIMITED = 2**63 - 1


class Checkpoint(Enum):
    """What is saved apart from each other."""

    RECOVERY = auto()
    """Recovery points and log starts."""
    HIGH_WATERMARKS = auto()


class CheckpointCeiling:
    """Owned by the event loop, but for `save`, which blocks."""

    def __init__(self, files: Files, folder: str, *, is_there: bool = True) -> None:
        """`is_there`: false for a folder that is known to have none."""
        self._files = files
        self._path = _path(folder)
        self.offset = self._saved = read_ceiling(files, folder) if is_there else UNLIMITED
        self.cuts = int(self.offset < UNLIMITED)
        self._covered = dict.fromkeys(Checkpoint, 0)

    def folder_renamed(self, folder: str) -> None:
        self._path = _path(folder)

    def lower(self, offset: int) -> None:
        """The log was cut here: what any earlier checkpoint says above it is of other records."""
        self.offset = min(self.offset, offset)
        self.cuts += 1

    def save(self) -> None:
        """Blocking, and durable when it returns."""
        offset = self.offset
        if offset < self._saved:
            replace_text(self._files, self._path, f"{offset}\n")
            self._saved = offset

    def covered(self, kind: Checkpoint, cuts: int) -> None:
        """A checkpoint has been saved that was taken when there were so many `cuts`. Raises OSError."""
        self._covered[kind] = cuts
        if self.offset == UNLIMITED or self.offset != self._saved or min(self._covered.values()) < self.cuts:
            return
        self._files.remove(self._path)
        self.offset = self._saved = UNLIMITED


def begin_ceiling(files: Files, folder: str) -> None:
    """The folder is new, and its name may be an old one. Durable with the first sync of the folder: an empty file says
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
