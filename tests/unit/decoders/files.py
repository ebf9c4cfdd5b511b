"""A file system that holds one file, whatever its name."""

from __future__ import annotations

from collections.abc import Sequence

from kraft.protocol.primitives import Buffer
from metadata.environment import DirectoryLock, DiskSpace, File


class _File:
    def __init__(self, data: bytes) -> None:
        self.path, self._data = "file", data

    @property
    def size(self) -> int:
        return len(self._data)

    def pread(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]

    def append(self, parts: Sequence[Buffer]) -> int:
        raise AssertionError("a decoder writes")

    def pwrite(self, offset: int, data: Buffer) -> None:
        raise AssertionError("a decoder writes")

    def truncate(self, size: int) -> None:
        raise AssertionError("a decoder writes")

    def sync(self) -> None: ...
    def close(self) -> None: ...


class Holding:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def file(self) -> File:
        return _File(self._data)

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> File:
        return _File(self._data)

    def exists(self, path: str) -> bool:
        return True

    def is_directory(self, path: str) -> bool:
        return False

    def size(self, path: str) -> int:
        return len(self._data)

    def permissions(self, path: str) -> int:
        return 0o600

    def list_directory(self, path: str) -> list[str]:
        return []

    def make_directories(self, path: str) -> None: ...
    def rename(self, old: str, new: str) -> None: ...
    def remove(self, path: str) -> None: ...
    def remove_tree(self, path: str) -> None: ...
    def sync_directory(self, path: str) -> None: ...
    def space(self, path: str) -> DiskSpace:
        return DiskSpace(0, 0)

    def lock_directory(self, path: str) -> DirectoryLock:
        raise BlockingIOError
