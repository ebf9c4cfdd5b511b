"""Plain files beside the limited ones, for the quorum, which must always get one. They count in a reserve and only
their owner closes them; without a descriptor, cold files of the others make room."""

from __future__ import annotations

from kraft.runtime.open_files import CachedFiles
from metadata.environment import DirectoryLock, DiskSpace, File, Files


class ReservedFiles:
    """Implements `Files`."""

    def __init__(self, cache: CachedFiles, files: Files) -> None:
        self._cache = cache
        self._files = files

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> File:
        return self._cache.retrying(self._files.open, path, create=create, read_only=read_only)

    def exists(self, path: str) -> bool:
        return self._files.exists(path)

    def is_directory(self, path: str) -> bool:
        return self._files.is_directory(path)

    def size(self, path: str) -> int:
        return self._files.size(path)

    def permissions(self, path: str) -> int:
        return self._files.permissions(path)

    def list_directory(self, path: str) -> list[str]:
        return self._cache.list_directory(path)

    def make_directories(self, path: str) -> None:
        self._files.make_directories(path)

    def rename(self, old: str, new: str) -> None:
        self._files.rename(old, new)

    def remove(self, path: str) -> None:
        self._files.remove(path)

    def remove_tree(self, path: str) -> None:
        self._cache.remove_tree(path)

    def sync_directory(self, path: str) -> None:
        self._cache.sync_directory(path)

    def space(self, path: str) -> DiskSpace:
        return self._files.space(path)

    def lock_directory(self, path: str) -> DirectoryLock:
        return self._cache.lock_directory(path)
