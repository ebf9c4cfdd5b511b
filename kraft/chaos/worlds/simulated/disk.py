"""One machine's disk in memory, with a page cache that a power loss tears.

Writes are visible at once and durable after `sync` (data) or `sync_directory` (names). Each file and each directory
keeps the operations since its last sync; in `lose_power` the generator decides which of them survive: none, all, or a
part with a torn last write. A killed process loses only its locks.
"""

from __future__ import annotations

import errno
import functools
import os
import posixpath
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from kraft.chaos.worlds.simulated.loop import PROCESS, Process
from kraft.protocol.primitives import Buffer
from metadata.environment import DiskSpace

LOCK_NAME = ".lock"
PATHS_REMEMBERED = 10_000
SECTOR_BYTES = 512
"""A torn write keeps whole sectors, as disks do."""
SIMULATED_DISK_BYTES = 1 << 40
"""The reported size; the switch `is_full` makes it full."""


@dataclass(slots=True)
class Inode:
    """The visible bytes of a file, its durable bytes, and the writes between the two."""

    data: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    unsynced: list[tuple[int, bytes | None]] = field(default_factory=list)
    """(offset, bytes) of a write, or (size, None) of a truncation."""

    def apply(self, offset: int, data: bytes | None) -> None:
        _apply(self.data, offset, data)
        self.unsynced.append((offset, data))

    def sync(self) -> None:
        for offset, data in self.unsynced:
            _apply(self.durable, offset, data)
        self.unsynced.clear()

    def lose_power(self, rng: random.Random, *, tears_sectors: bool) -> None:
        survivors = _sectors if tears_sectors and rng.random() < 0.5 else _survivors
        for offset, data in survivors(self.unsynced, rng):
            _apply(self.durable, offset, data)
        self.unsynced.clear()
        self.data = bytearray(self.durable)


@dataclass(slots=True)
class Directory:
    names: dict[str, Node] = field(default_factory=dict)
    durable: dict[str, Node] = field(default_factory=dict)
    unsynced: list[dict[str, Node | None]] = field(default_factory=list)
    """The changes since the last sync; each is atomic: names set to a node, or removed."""

    def apply(self, change: dict[str, Node | None]) -> None:
        _rename(self.names, change)
        self.unsynced.append(change)

    def sync(self) -> None:
        for change in self.unsynced:
            _rename(self.durable, change)
        self.unsynced.clear()

    def lose_power(self, rng: random.Random, *, tears_sectors: bool) -> None:
        # A journalling file system keeps the order of changes in one directory.
        for change in self.unsynced[: rng.randint(0, len(self.unsynced))]:
            _rename(self.durable, change)
        self.unsynced.clear()
        self.names = dict(self.durable)
        for node in self.names.values():
            node.lose_power(rng, tears_sectors=tears_sectors)


Node: TypeAlias = Inode | Directory


def _apply(target: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del target[offset:]
        target.extend(bytes(offset - len(target)))
        return
    if offset == len(target):
        target += data
        return
    target.extend(bytes(max(0, offset - len(target))))
    target[offset : offset + len(data)] = data


def _rename(names: dict[str, Node], change: dict[str, Node | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _survivors(writes: list[tuple[int, bytes | None]], rng: random.Random) -> list[tuple[int, bytes | None]]:
    """The surviving writes: none, all, the first n with the next one torn, or any of them (pages reach the disk in any
    order)."""
    fate = rng.randrange(4)
    if fate < 2 or not writes:
        return writes if fate else []
    if fate == 2:
        return [write for write in writes if rng.random() < 0.5]
    count = rng.randrange(len(writes))
    offset, data = writes[count]
    torn = [] if data is None else [(offset, data[: rng.randint(0, len(data) // SECTOR_BYTES) * SECTOR_BYTES])]
    return [*writes[:count], *torn]


def _sectors(writes: list[tuple[int, bytes | None]], rng: random.Random) -> list[tuple[int, bytes | None]]:
    """Each sector of each write survives or not; the file may have its new size in any case."""
    share, survivors = rng.choice((0.5, 0.9)), list[tuple[int, bytes | None]]()
    for offset, data in writes:
        if data is None:
            survivors.append((offset, None))
            continue
        end = offset + len(data)
        for start in range(offset // SECTOR_BYTES * SECTOR_BYTES, end, SECTOR_BYTES):
            first, last = max(start, offset), min(start + SECTOR_BYTES, end)
            if rng.random() < share:
                survivors.append((first, data[first - offset : last - offset]))
            elif last == end and rng.random() < 0.5:
                survivors.append((end - 1, b"\0"))
    return survivors


class Disk:
    """The switches a test turns: `is_full`, `fails`, `sync_us`, `flip_bit`, `lose_power`."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._root = Directory()
        self._locks: dict[str, Process | None] = {}
        self.is_full = False
        """Writes that make a file longer fail with ENOSPC."""
        self.fails: Callable[[str], bool] = lambda path: False
        """Paths on which every read, write and sync fails with EIO."""
        self.sync_us: tuple[int, int] = (100, 2_000)
        """The time of work that waits for the device: a slow disk has a larger one."""
        self.tears_sectors = False
        """True: a power loss keeps any sectors of unsynced writes, with zeros between them."""
        self.syncs = 0

    def lose_power(self) -> None:
        self._locks.clear()
        self._root.lose_power(self._rng, tears_sectors=self.tears_sectors)

    def flip_bit(self, path: str, *, offset: int, bit: int = 0) -> None:
        """Bit rot: changes the durable bytes too, without a write."""
        inode = self.file(path)
        for copy in (inode.data, inode.durable):
            if offset < len(copy):
                copy[offset] ^= 1 << bit

    def release_locks(self, process: Process) -> None:
        self._locks = {path: owner for path, owner in self._locks.items() if owner is not process}

    def lock(self, path: str) -> None:
        owner = self._locks.get(path)
        if path in self._locks and (owner is None or owner.is_alive):
            raise BlockingIOError(f"{path} is locked by another process; stop it first")
        self._locks[path] = PROCESS.get()

    def unlock(self, path: str) -> None:
        self._locks.pop(path, None)

    # Lookup

    def find(self, path: str) -> Node | None:
        node: Node | None = self._root
        for name in parts(path):
            node = node.names.get(name) if isinstance(node, Directory) else None
        return node

    def node(self, path: str) -> Node:
        node = self.find(path)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return node

    def file(self, path: str) -> Inode:
        node = self.node(path)
        if isinstance(node, Directory):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return node

    def directory(self, path: str) -> Directory:
        node = self.node(path)
        if isinstance(node, Inode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return node

    def parent(self, path: str) -> tuple[Directory, str]:
        names = parts(path)
        above, name = names[:-1], names[-1]
        node: Node | None = self._root
        for each in above:
            node = node.names.get(each) if isinstance(node, Directory) else None
        return (node if isinstance(node, Directory) else self.directory("/".join(above))), name

    def check(self, path: str) -> None:
        if self.fails(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    def check_space(self, path: str) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


@functools.lru_cache(maxsize=PATHS_REMEMBERED)
def parts(path: str) -> tuple[str, ...]:
    normal = posixpath.normpath(path)
    return tuple(name for name in normal.split("/") if name and name != ".")


class SimulatedFile:
    def __init__(self, disk: Disk, path: str, inode: Inode, *, read_only: bool) -> None:
        self._disk = disk
        self._path = path
        self._inode = inode
        self._is_read_only = read_only
        self._is_open = True

    @property
    def path(self) -> str:
        return self._path

    @property
    def size(self) -> int:
        return len(self._inode.data)

    def append(self, parts: Sequence[Buffer]) -> int:
        self._write(len(self._inode.data), b"".join(parts))
        return len(self._inode.data)

    def pwrite(self, offset: int, data: Buffer) -> None:
        self._write(offset, bytes(data))

    def _write(self, offset: int, data: bytes) -> None:
        self._check(writing=True)
        if self._disk.is_full and offset + len(data) > self.size:
            self._disk.check_space(self._path)
        self._inode.apply(offset, data)

    def pread(self, offset: int, size: int) -> bytes:
        self._check()
        return bytes(memoryview(self._inode.data)[offset : offset + size])

    def truncate(self, size: int) -> None:
        self._check(writing=True)
        self._inode.apply(size, None)

    def sync(self) -> None:
        self._check()
        self._disk.syncs += 1
        self._inode.sync()

    def close(self) -> None:
        self._is_open = False

    def _check(self, *, writing: bool = False) -> None:
        if not self._is_open or (writing and self._is_read_only):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self._path)
        if self._disk.fails(self._path):
            self._disk.check(self._path)


class SimulatedLock:
    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path

    def release(self) -> None:
        self._disk.unlock(self._path)


class SimulatedFiles:
    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> SimulatedFile:
        self._disk.check(path)
        directory, name = self._disk.parent(path)
        if create and name not in directory.names:
            self._disk.check_space(path)
            directory.apply({name: Inode()})
        return SimulatedFile(self._disk, path, self._disk.file(path), read_only=read_only)

    def exists(self, path: str) -> bool:
        return self._disk.find(path) is not None

    def is_directory(self, path: str) -> bool:
        return isinstance(self._disk.find(path), Directory)

    def size(self, path: str) -> int:
        return len(self._disk.file(path).data)

    def permissions(self, path: str) -> int:
        return 0o600 if isinstance(self._disk.node(path), Inode) else 0o700

    def list_directory(self, path: str) -> list[str]:
        return sorted(self._disk.directory(path).names)

    def make_directories(self, path: str) -> None:
        above = ""
        for name in parts(path):
            directory = self._disk.directory(above)
            if name not in directory.names:
                self._disk.check_space(path)
                directory.apply({name: Directory()})
            above = f"{above}/{name}"
        self._disk.directory(path)

    def rename(self, old: str, new: str) -> None:
        self._disk.check(new)
        source, old_name = self._disk.parent(old)
        target, new_name = self._disk.parent(new)
        node, replaced = self._disk.node(old), self._disk.find(new)
        if isinstance(replaced, Directory) and (replaced.names or isinstance(node, Inode)):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), new)
        if source is target:
            target.apply({old_name: None, new_name: node} if old_name != new_name else {})
            return
        # Between two directories the simulated disk is kinder than a real one: durable at once, and atomic.
        target.apply({new_name: node})
        source.apply({old_name: None})
        target.sync()
        source.sync()

    def remove(self, path: str) -> None:
        self._disk.file(path)
        directory, name = self._disk.parent(path)
        directory.apply({name: None})

    def remove_tree(self, path: str) -> None:
        self._disk.directory(path)
        directory, name = self._disk.parent(path)
        directory.apply({name: None})

    def sync_directory(self, path: str) -> None:
        self._disk.check(path)
        self._disk.syncs += 1
        self._disk.directory(path).sync()

    def space(self, path: str) -> DiskSpace:
        self._disk.check(path)
        self._disk.directory(path)
        return DiskSpace(SIMULATED_DISK_BYTES, 0 if self._disk.is_full else SIMULATED_DISK_BYTES)

    def lock_directory(self, path: str) -> SimulatedLock:
        key = "/".join(parts(path))
        self._disk.directory(path)
        self._disk.lock(key)
        self.open(posixpath.join(path, LOCK_NAME), create=True).close()
        return SimulatedLock(self._disk, key)
