"""A disk that keeps a witness of durable data, and that can be full. For scenarios only; see `kraft.chaos`.

`<folder>/witness.jsonl` gets a line after each operation that decides what a power loss would leave:

    {"sync": path, "size": n}        these first bytes are durable: written after the fsync has returned
    {"cut": path, "size": n}         the file was truncated
    {"rename": old, "new": path, "undo": kept}   durable when the parent is synced; `kept`: link to what it replaced
    {"directory": path}              renames in it are durable
    {"removed": path}                a file or a folder

While `<folder>/full` exists, every call that would grow a file raises ENOSPC, except for events: they are evidence.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from typing import Final

from kraft.layout import WITNESS_VARIABLE
from kraft.protocol.primitives import Buffer
from kraft.runtime.files import PRIVATE, DiskFile, DiskFiles

WITNESS_FILE: Final = "witness.jsonl"
FULL_FILE: Final = "full"
UNDO_FOLDER: Final = "undo"
NEVER_FULL: Final = "events.jsonl"


def files_of(variables: Mapping[str, str]) -> DiskFiles:
    """The file system of a node: the plain one, unless a scenario asks for a witness."""
    folder = variables.get(WITNESS_VARIABLE)
    return WitnessFiles(folder) if folder else DiskFiles()


class Witness:
    """Lines are written whole, from any thread: each is one write to a file opened for appending."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._full = f"{folder}/{FULL_FILE}"
        os.makedirs(f"{folder}/{UNDO_FOLDER}", exist_ok=True)
        self._descriptor = os.open(f"{folder}/{WITNESS_FILE}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, PRIVATE)
        self._numbers = itertools.count()
        self._kept: dict[str, list[str]] = {}
        """Folder -> links to files that were replaced in it since it was last synced."""

    def record(self, **fact: object) -> None:
        os.write(self._descriptor, json.dumps(fact).encode() + b"\n")

    def keep(self, path: str) -> str | None:
        """A link to the file that will be replaced."""
        kept = f"{self._folder}/{UNDO_FOLDER}/{os.getpid()}-{next(self._numbers)}"
        try:
            os.link(path, kept)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EISDIR):
                return None  # a folder
            raise
        self._kept.setdefault(os.path.dirname(path), []).append(kept)
        return kept

    def synced(self, directory: str) -> None:
        self.record(directory=directory)
        for kept in self._kept.pop(directory, ()):
            os.remove(kept)

    def check_space(self, path: str) -> None:
        """Raises OSError (ENOSPC) while the disk is full."""
        if os.path.exists(self._full) and not os.path.basename(path).startswith(NEVER_FULL):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


class WitnessedFile(DiskFile):
    __slots__ = ("_shortest", "_witness")

    def __init__(self, path: str, descriptor: int, witness: Witness) -> None:
        super().__init__(path, descriptor)
        self._witness = witness
        self._shortest = self.size

    def append(self, parts: Sequence[Buffer]) -> int:
        self._witness.check_space(self.path)
        return super().append(parts)

    def pwrite(self, offset: int, data: Buffer) -> None:
        if offset + len(data) > self.size:
            self._witness.check_space(self.path)
        super().pwrite(offset, data)

    def truncate(self, size: int) -> None:
        super().truncate(size)
        self._shortest = min(self._shortest, size)
        self._witness.record(cut=self.path, size=size)

    def sync(self) -> None:
        # Bytes that are appended meanwhile, or again after a truncation, are not known to be durable.
        self._shortest = self.size
        super().sync()
        self._witness.record(sync=self.path, size=self._shortest)


class WitnessFiles(DiskFiles):
    def __init__(self, folder: str) -> None:
        self._witness = Witness(folder)

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> DiskFile:
        if read_only:
            return super().open(path, read_only=True)
        if create and not os.path.exists(path):
            self._witness.check_space(path)
        descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), PRIVATE)
        return WitnessedFile(path, descriptor, self._witness)

    def make_directories(self, path: str) -> None:
        if not os.path.isdir(path):
            self._witness.check_space(path)
        super().make_directories(path)

    def rename(self, old: str, new: str) -> None:
        kept = self._witness.keep(new)
        super().rename(old, new)
        self._witness.record(rename=old, new=new, undo=kept)

    def remove(self, path: str) -> None:
        super().remove(path)
        self._witness.record(removed=path)

    def remove_tree(self, path: str) -> None:
        super().remove_tree(path)
        self._witness.record(removed=path)

    def sync_directory(self, path: str) -> None:
        super().sync_directory(path)
        self._witness.synced(path)
