"""A limited number of open files for any number of files: opened when used, and the least used closed again.

A caller has a `CachedFile`; it knows its path and size, and has a descriptor only while it needs one. Paths follow
renames of the file and of its folder, so the same file is opened again; a file whose name is removed, or used for
another file, stays open until its owner closes it.

Invariant: while its owner has it, no file is closed with written bytes in it that are not synced. Linux reports a
failed write-back once to each open file; a file that was closed before might never get the error, and a later fsync
would succeed. An error of such a sync is raised by every later call on that file.

A lack of descriptors (EMFILE, ENFILE) closes cold files and tries again, here and in all other calls that open one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from kraft.protocol.primitives import Buffer
from metadata.environment import DirectoryLock, DiskSpace, File, Files

P = ParamSpec("P")
T = TypeVar("T")

OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
CLOSED_AT_ONCE = 16
"""Cold files that are closed when the system reports that no descriptor is left."""
LOOKS_MAX = 100
"""Files that are checked for one to close, before one is chosen that has to be synced."""
TRIES = 8
"""Tries of a call that needs a descriptor."""
SYNCED_AHEAD_SHARE = 0.5
"""Above this share of the limit `tend` syncs and closes cold files in advance, so that no call waits for an fsync."""
SYNCED_AT_ONCE = 64
"""Files that one `tend` syncs, which limits its time on a worker thread."""
IDLE_TURNS = 10
"""`tend` closes a file that was not used during so many of its calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFilesStatus:
    open: int
    limit: int
    opened: int
    """Files opened since the start, for the first time or again."""
    synced_to_close: int
    """Files that were synced only to be closed."""
    refused: int
    """Calls that found no descriptor, although others were closed for them."""


class _Folder:
    """The path that its files share; a rename changes it in one place."""

    __slots__ = ("files", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.files: list[CachedFile] = []


class CachedFile:
    """A file with one owner, as any `File`; its methods may be called from different threads."""

    __slots__ = (
        "_cache",
        "error",
        "folder",
        "idle_turns",
        "inner",
        "is_closed",
        "is_dirty",
        "is_hot",
        "is_kept",
        "is_read_only",
        "is_synced",
        "name",
        "pins",
        "size",
        "writes",
    )

    def __init__(self, cache: CachedFiles, folder: _Folder, name: str, size: int, *, is_read_only: bool) -> None:
        self._cache = cache
        self.folder, self.name = folder, name
        self.size = size
        self.is_read_only = is_read_only
        self.inner: File | None = None
        self.pins = 0
        """Calls that use `inner` now."""
        self.idle_turns = 0
        self.is_hot = False
        self.is_kept = self.is_closed = False
        self.is_dirty = self.is_synced = False
        """Both False as long as nothing was written or synced here: an earlier process may have left it unsynced."""
        self.writes = 0
        self.error: OSError | None = None

    @property
    def path(self) -> str:
        return f"{self.folder.path}/{self.name}" if self.folder.path else self.name

    def append(self, parts: Sequence[Buffer]) -> int:
        inner = self._cache.pin(self, writes=True)
        try:
            self.size = size = inner.append(parts)
            return size
        finally:
            self._cache.unpin(self)

    def pwrite(self, offset: int, data: Buffer) -> None:
        inner = self._cache.pin(self, writes=True)
        try:
            inner.pwrite(offset, data)
            self.size = inner.size
        finally:
            self._cache.unpin(self)

    def truncate(self, size: int) -> None:
        inner = self._cache.pin(self, writes=True)
        try:
            inner.truncate(size)
            self.size = size
        finally:
            self._cache.unpin(self)

    def pread(self, offset: int, size: int) -> bytes:
        inner = self._cache.pin(self)
        try:
            return inner.pread(offset, size)
        finally:
            self._cache.unpin(self)

    def sync(self) -> None:
        if self.is_synced and self.error is None:
            return  # nothing was written since
        inner = self._cache.pin(self)
        try:
            self._cache.sync(self, inner)
        finally:
            self._cache.unpin(self)

    def close(self) -> None:
        """Closing twice is harmless; any other call on a closed file raises OSError (EBADF)."""
        self._cache.close(self)


class CachedFiles:
    """Implements `Files`. Safe to use from any thread: a lock guards the list of open files and their users, and is
    never held during a system call that may wait."""

    def __init__(self, files: Files, *, open_max: int) -> None:
        assert open_max > 0, open_max
        self._files = files
        self._open_max = open_max
        self._lock = threading.Lock()
        self._renames = threading.Lock()
        """Held until a new name is known here; taken before the other lock."""
        self._open: OrderedDict[CachedFile, None] = OrderedDict()
        """Files with a descriptor, in the order in which they were last checked for closing."""
        self._folders: dict[str, _Folder] = {}
        self._opened = self._synced_to_close = self._refused = 0
        self._given_back = 0
        """Descriptors that were closed: each allows one more try to a caller that found none."""

    def status(self) -> OpenFilesStatus:
        return OpenFilesStatus(
            open=len(self._open),
            limit=self._open_max,
            opened=self._opened,
            synced_to_close=self._synced_to_close,
            refused=self._refused,
        )

    # --- Files

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> CachedFile:
        """Opens nothing yet, except for a file that has to be created."""
        made: File | None = None
        try:
            size = self._files.size(path)
        except FileNotFoundError:
            if not create:
                raise
            self._make_room()
            made, size = self._retrying(self._files.open, path, create=True), 0
        folder_path, _, name = path.rpartition("/")
        with self._lock:
            file = CachedFile(self, self._folder(folder_path), sys.intern(name), size, is_read_only=read_only)
            file.folder.files.append(file)
            if made is not None:
                file.is_synced = True  # there is nothing in it
                self._took(file, made)
        return file

    def exists(self, path: str) -> bool:
        return self._files.exists(path)

    def is_directory(self, path: str) -> bool:
        return self._files.is_directory(path)

    def size(self, path: str) -> int:
        return self._files.size(path)

    def permissions(self, path: str) -> int:
        return self._files.permissions(path)

    def list_directory(self, path: str) -> list[str]:
        return self._retrying(self._files.list_directory, path)

    def make_directories(self, path: str) -> None:
        self._files.make_directories(path)

    def rename(self, old: str, new: str) -> None:
        self._keep_open(new)
        with self._renames:
            self._files.rename(old, new)
            with self._lock:
                self._renamed(old, new)

    def remove(self, path: str) -> None:
        self._keep_open(path)
        self._files.remove(path)

    def remove_tree(self, path: str) -> None:
        self._retrying(self._files.remove_tree, path)

    def sync_directory(self, path: str) -> None:
        self._retrying(self._files.sync_directory, path)

    def space(self, path: str) -> DiskSpace:
        return self._files.space(path)

    def lock_directory(self, path: str) -> DirectoryLock:
        return self._retrying(self._files.lock_directory, path)

    # --- closing descriptors

    def tend(self) -> None:
        """Close files that were not used for a while, and, when descriptors are scarce, cold ones that have to be
        synced first. Blocking; for a worker thread, at intervals."""
        with self._lock:
            for file in self._open:
                file.idle_turns += 1
            coldest = sorted((each for each in self._open if each.idle_turns > 1), key=_idle_turns, reverse=True)
            scarce = max(len(self._open) - int(self._open_max * SYNCED_AHEAD_SHARE), 0)
        idle = [each for each in coldest if each.idle_turns > IDLE_TURNS]
        synced = 0
        for file in coldest[: max(len(idle), scarce)]:
            synced += file.is_dirty
            if synced > SYNCED_AT_ONCE:
                return
            self._give_back(file)

    def close_cold(self, count: int) -> int:
        """Close so many files that are not in use; return their number."""
        closed = 0
        for _ in range(2 * count):  # a file that is used again just now may not be the last one
            if closed == count or (file := self._coldest()) is None:
                break
            closed += self._give_back(file)
        return closed

    def retrying(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call that needs a descriptor for itself; without one, cold files are closed and it is tried again."""
        return self._retrying(call, *args, **kwargs)

    def _retrying(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(TRIES):
            given_back = self._given_back
            try:
                return call(*args, **kwargs)
            except OSError as error:
                if error.errno not in OUT_OF_DESCRIPTORS:
                    raise
                if not self.close_cold(CLOSED_AT_ONCE) and self._given_back == given_back:
                    self._refused += 1
                    raise
        return call(*args, **kwargs)

    def _make_room(self) -> None:
        """Make room before one more is opened. While all are in use the limit is exceeded: a reserve is left beside
        it."""
        while len(self._open) >= self._open_max:
            file = self._coldest()
            if file is None or not self._give_back(file):
                return

    def _coldest(self) -> CachedFile | None:
        """A file that was not used since its last check (second chance), and needs no sync, if there is one."""
        with self._lock:
            dirty: CachedFile | None = None
            for _ in range(min(2 * len(self._open), LOOKS_MAX)):
                file = next(iter(self._open))
                self._open.move_to_end(file)
                if file.pins or file.is_kept:
                    continue
                if file.is_hot:
                    file.is_hot = False
                elif not file.is_dirty:
                    return file
                elif dirty is None:
                    dirty = file
            return dirty

    def _give_back(self, file: CachedFile) -> bool:
        """Close its descriptor if it is not in use. Blocking when it has to be synced before."""
        with self._lock:
            inner = file.inner
            if inner is None or file.pins or file.is_kept:
                return False
            has_to_sync = file.is_dirty and file.error is None
            if has_to_sync:
                file.pins = 1
                self._synced_to_close += 1
            else:
                self._dropped(file)
        if not has_to_sync:
            inner.close()
            return True
        with contextlib.suppress(OSError):  # noted: the next call of its owner raises it
            self.sync(file, inner)
        with self._lock:
            file.pins -= 1
            is_given_back = not (file.pins or file.is_kept or file.is_closed or (file.is_dirty and file.error is None))
            was_last = file.is_closed and not file.pins
            if is_given_back:
                self._dropped(file)
        if is_given_back:
            inner.close()
        elif was_last:
            self._close(file)
        return is_given_back

    # --- for its files

    def pin(self, file: CachedFile, *, writes: bool = False) -> File:
        """Its open file, which stays open until it is unpinned. Raises OSError."""
        while True:
            with self._lock:
                inner = file.inner
                if inner is not None and file.error is None and not file.is_closed:
                    file.pins += 1
                    file.is_hot, file.idle_turns = True, 0
                    if writes:
                        file.writes += 1
                        file.is_dirty, file.is_synced = True, False
                    return inner
            self._open_again(file)

    def unpin(self, file: CachedFile) -> None:
        with self._lock:
            file.pins -= 1
            was_last = file.is_closed and not file.pins
        if was_last:
            self._close(file)

    def sync(self, file: CachedFile, inner: File) -> None:
        """Sync a pinned file. Bytes that are written meanwhile still have to be synced."""
        writes = file.writes
        try:
            inner.sync()
        except OSError as error:
            file.error = error
            raise
        with self._lock:
            if file.writes == writes:
                file.is_dirty, file.is_synced = False, True

    def _open_again(self, file: CachedFile) -> None:
        if file.error is not None:
            raise OSError(file.error.errno, f"an earlier sync failed: {file.error.strerror}", file.path)
        if file.is_closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), file.path)
        self._make_room()
        path = file.path
        try:
            inner = self._retrying(self._files.open, path, read_only=file.is_read_only)
        except FileNotFoundError:
            with self._renames:
                was_renamed = file.path != path
            if was_renamed:
                return  # by another thread, meanwhile: try that name
            raise
        with self._lock:
            if file.inner is None and not file.is_closed and file.path == path:
                self._took(file, inner)
                return
        inner.close()  # another thread was faster

    def close(self, file: CachedFile) -> None:
        with self._lock:
            was_open, file.is_closed = not file.is_closed, True
            is_used = file.pins > 0
        if was_open and not is_used:
            self._close(file)

    def _close(self, file: CachedFile) -> None:
        with self._lock:
            inner = file.inner
            if inner is not None:
                self._dropped(file)
            self._untrack(file)
        if inner is not None:
            inner.close()

    # --- bookkeeping, under the lock

    def _folder(self, path: str) -> _Folder:
        folder = self._folders.get(path)
        if folder is None:
            folder = self._folders[path] = _Folder(path)
        return folder

    def _renamed(self, old: str, new: str) -> None:
        folder = self._folders.pop(old, None)
        if folder is not None:
            folder.path = new
            self._folders[new] = folder
        folder_path, _, name = new.rpartition("/")
        for file in self._with_path(old):
            self._untrack(file)
            file.folder, file.name = self._folder(folder_path), sys.intern(name)
            file.folder.files.append(file)

    def _took(self, file: CachedFile, inner: File) -> None:
        file.inner = inner
        file.is_hot, file.idle_turns = True, 0
        self._open[file] = None
        self._opened += 1

    def _dropped(self, file: CachedFile) -> None:
        file.inner = None
        self._given_back += 1
        del self._open[file]

    def _with_path(self, path: str) -> list[CachedFile]:
        folder_path, _, name = path.rpartition("/")
        folder = self._folders.get(folder_path)
        return [] if folder is None else [each for each in folder.files if each.name == name]

    def _untrack(self, file: CachedFile) -> None:
        folder = file.folder
        if file in folder.files:
            folder.files.remove(file)
        if not folder.files and self._folders.get(folder.path) is folder:
            del self._folders[folder.path]

    def _keep_open(self, path: str) -> None:
        """Keep the file open: its name will be used for another file, or removed, and its owner may still read and sync
        it."""
        with self._lock:
            losing = self._with_path(path)
        for file in losing:
            try:
                self.pin(file)
            except OSError:
                continue  # it does not exist, or is closed: nothing is lost
            file.is_kept = True
            self.unpin(file)
            with self._lock:
                self._untrack(file)


def _idle_turns(file: CachedFile) -> int:
    return file.idle_turns
