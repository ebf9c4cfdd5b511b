"""The real file system: positioned reads and writes, whole appends, directory syncs and locks.

Invariant: `DiskFile.size` is the length of the file on disk. An append that fails half-way is cut back before the
error is raised, so a reader never meets a torn write of a living process.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Sequence

from kraft.protocol.primitives import Buffer
from metadata.environment import DiskSpace

IOV_MAX = 1024
"""Parts in one writev (POSIX requires 16, Linux and macOS allow 1024)."""

LOCK_NAME = ".lock"
PRIVATE = 0o600
"""Only the user that runs the node may read records, and nobody else on the machine."""


class DiskFile:
    """An open file with one owner: nobody else changes its length while it is open."""

    __slots__ = ("_descriptor", "_path", "_size")

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size

    @property
    def path(self) -> str:
        return self._path

    @property
    def size(self) -> int:
        return self._size

    def append(self, parts: Sequence[Buffer]) -> int:
        start = self._size
        try:
            end = _write_all(self._descriptor, parts, start)
        except OSError:
            self._cut_back(start)
            raise
        self._size = end
        return end

    def _cut_back(self, size: int) -> None:
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, size)

    def pwrite(self, offset: int, data: Buffer) -> None:
        end = _write_all(self._descriptor, (data,), offset)
        self._size = max(self._size, end)

    def pread(self, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, offset)
        wanted = min(size, max(self._size - offset, 0))
        if len(data) >= wanted:
            return data
        return self._pread_rest(data, offset, wanted)

    def _pread_rest(self, data: bytes, offset: int, wanted: int) -> bytes:
        """Read the rest: a signal or the kernel's 2 GiB limit may end a read too early."""
        pieces, have = [data], len(data)
        while have < wanted:
            piece = os.pread(self._descriptor, wanted - have, offset + have)
            if not piece:
                break
            pieces.append(piece)
            have += len(piece)
        return b"".join(pieces)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)
        self._size = size

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Closing twice is harmless; any other call on a closed file raises OSError (EBADF)."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


def _write_all(descriptor: int, parts: Sequence[Buffer], offset: int) -> int:
    """Write every byte of the parts at `offset`; return the offset after them."""
    if len(parts) == 1 and (written := os.pwrite(descriptor, parts[0], offset)) == len(parts[0]):
        return offset + written
    pending = [part for part in parts if len(part)]
    while pending:
        written = os.pwritev(descriptor, pending[:IOV_MAX], offset)
        offset += written
        _skip(pending, written)
    return offset


def _skip(pending: list[Buffer], written: int) -> None:
    """Remove `written` bytes from the front of the parts."""
    done = 0
    while done < len(pending) and written >= len(pending[done]):
        written -= len(pending[done])
        done += 1
    del pending[:done]
    if written:
        pending[0] = memoryview(pending[0])[written:]


class HeldLock:
    """An flock: the kernel releases it when the process dies, for any reason."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


class DiskFiles:
    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> DiskFile:
        flags = (os.O_RDONLY if read_only else os.O_RDWR) | (os.O_CREAT if create else 0)
        return DiskFile(path, os.open(path, flags, PRIVATE))

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(path)

    def size(self, path: str) -> int:
        return os.stat(path).st_size

    def permissions(self, path: str) -> int:
        return stat.S_IMODE(os.stat(path).st_mode)

    def list_directory(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def make_directories(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)

    def rename(self, old: str, new: str) -> None:
        os.replace(old, new)

    def remove(self, path: str) -> None:
        os.remove(path)

    def remove_tree(self, path: str) -> None:
        shutil.rmtree(path)

    def sync_directory(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def space(self, path: str) -> DiskSpace:
        volume = os.statvfs(path)
        return DiskSpace(volume.f_blocks * volume.f_frsize, volume.f_bavail * volume.f_frsize)

    def lock_directory(self, path: str) -> HeldLock:
        descriptor = os.open(os.path.join(path, LOCK_NAME), os.O_RDWR | os.O_CREAT, PRIVATE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise BlockingIOError(f"{path} is locked by another process; stop it first") from None
        except OSError:
            os.close(descriptor)
            raise
        return HeldLock(descriptor)
