"""Any number of files with few descriptors: the same bytes, nothing closed unsynced, and no error for want of one."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kraft.runtime.descriptors import LIMIT_MIN, RESERVE, TooFewDescriptors, share_out
from kraft.runtime.files import DiskFile, DiskFiles
from kraft.runtime.open_files import IDLE_TURNS, CachedFile, CachedFiles
from kraft.runtime.reserved_files import ReservedFiles


class WatchedFile(DiskFile):
    """Remembers what a close would leave to a write-back that nobody hears of."""

    __slots__ = ("_disk", "_unsynced")

    def __init__(self, path: str, descriptor: int, disk: WatchedDisk) -> None:
        super().__init__(path, descriptor)
        self._disk, self._unsynced = disk, False

    def append(self, parts: object) -> int:
        self._unsynced = True
        return super().append(parts)  # type: ignore[arg-type]

    def truncate(self, size: int) -> None:
        self._unsynced = True
        super().truncate(size)

    def sync(self) -> None:
        self._disk.syncs += 1
        on_sync, self._disk.on_sync = self._disk.on_sync, lambda: None
        on_sync()
        if self._disk.sync_error:
            raise OSError(self._disk.sync_error, "injected", self.path)
        super().sync()
        self._unsynced = False

    def close(self) -> None:
        if self._unsynced:
            self._disk.closed_unsynced.append(self.path)
        super().close()


class WatchedDisk(DiskFiles):
    def __init__(self) -> None:
        self.syncs = self.open_errors = self.sync_error = 0
        self.closed_unsynced: list[str] = []
        self.on_sync: Callable[[], object] = lambda: None
        """What happens during the next sync."""
        self.on_open_error: Callable[[], object] = lambda: None

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> DiskFile:
        if self.open_errors:
            self.open_errors -= 1
            self.on_open_error()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)
        return WatchedFile(path, os.open(path, os.O_RDWR | (os.O_CREAT if create else 0)), self)


@pytest.fixture
def disk() -> WatchedDisk:
    return WatchedDisk()


def made(cache: CachedFiles, folder: Path, names: str) -> list[CachedFile]:
    found = []
    for name in names:
        file = cache.open(str(folder / name), create=True)
        file.append([name.encode()])
        file.sync()
        found.append(file)
    return found


def test_cold_files_are_closed_and_opened_again_when_they_are_used(disk: WatchedDisk, tmp_path: Path) -> None:
    cache = CachedFiles(disk, open_max=2)
    files = made(cache, tmp_path, "abcdef")
    assert cache.status().open == 2
    assert [file.pread(0, 9) for file in files] == [b"a", b"b", b"c", b"d", b"e", b"f"]
    assert [file.size for file in files] == [1] * 6
    assert (cache.status().open, cache.status().limit) == (2, 2)
    assert disk.syncs == 6, "what is synced is not synced again to be closed"
    for file in files:
        file.close()
    assert cache.status().open == 0


def test_what_was_written_is_synced_before_it_is_closed(disk: WatchedDisk, tmp_path: Path) -> None:
    cache = CachedFiles(disk, open_max=2)
    files = made(cache, tmp_path, "abcd")
    for file in files:
        file.append([b"x"])
    assert cache.status().open == 2
    assert not disk.closed_unsynced
    assert cache.status().synced_to_close >= 2
    before = disk.syncs
    files[0].sync()
    assert disk.syncs == before, "it is durable already"
    cache.tend()
    assert all(file.pread(0, 9).endswith(b"x") for file in files)


def test_a_failed_sync_is_reported_to_the_owner_by_every_later_call(disk: WatchedDisk, tmp_path: Path) -> None:
    cache = CachedFiles(disk, open_max=1)
    (victim,) = made(cache, tmp_path, "a")
    victim.append([b"x"])
    disk.sync_error = errno.EIO
    other = cache.open(str(tmp_path / "b"), create=True)
    disk.sync_error = 0
    assert other.append([b"fine"]) == 4
    for call in (lambda: victim.append([b"y"]), lambda: victim.pread(0, 1), victim.sync, lambda: victim.truncate(0)):
        with pytest.raises(OSError, match="an earlier sync failed") as caught:
            call()
        assert caught.value.errno == errno.EIO
    victim.close()


def test_files_are_found_again_under_their_new_names_and_in_renamed_folders(disk: WatchedDisk, tmp_path: Path) -> None:
    cache = CachedFiles(disk, open_max=1)
    folder = tmp_path / "t-0"
    folder.mkdir()
    a, b = made(cache, folder, "ab")
    cache.rename(a.path, a.path + ".deleted")
    again = cache.open(str(folder / "a"), create=True)
    again.append([b"another"])
    again.sync()
    cache.rename(str(folder), str(tmp_path / "t-0-delete"))
    folder.mkdir()
    (stranger,) = made(cache, folder, "b")
    stranger.append([b"!"])
    assert [each.pread(0, 9) for each in (a, b, again, stranger)] == [b"a", b"b", b"another", b"b!"]
    assert a.path == str(tmp_path / "t-0-delete" / "a.deleted")
    for each in (a, b, again, stranger):
        each.close()
    assert not cache._folders, "nothing is remembered of what is closed"


@pytest.mark.parametrize("how", ["replaced", "removed"])
def test_a_file_that_lost_its_name_stays_open_for_its_owner(how: str, disk: WatchedDisk, tmp_path: Path) -> None:
    cache = CachedFiles(disk, open_max=1)
    a, b = made(cache, tmp_path, "ab")
    if how == "replaced":
        cache.rename(b.path, a.path)
    else:
        cache.remove(a.path)
    made(cache, tmp_path, "cdef")
    assert a.pread(0, 9) == b"a"
    a.append([b"x"])
    a.sync()
    assert b.pread(0, 9) == b"b"
    a.close()


def test_want_of_descriptors_closes_cold_files_and_costs_nothing(disk: WatchedDisk, tmp_path: Path) -> None:
    cache = CachedFiles(disk, open_max=100)
    files = made(cache, tmp_path, "abcdefgh")
    disk.open_errors = 1
    made(cache, tmp_path, "i")
    assert cache.status().open <= 2
    assert cache.status().refused == 0
    assert ReservedFiles(cache, disk).open(str(tmp_path / "a"), read_only=True).pread(0, 1) == b"a"
    for file in files:
        file.close()
    cache.close_cold(99)
    disk.open_errors = 99
    with pytest.raises(OSError, match="Too many open files"):
        cache.open(str(tmp_path / "j"), create=True)
    assert cache.status().refused == 1


def test_a_cold_file_that_is_used_again_just_now_is_not_the_last_one(disk: WatchedDisk, tmp_path: Path) -> None:
    cache = CachedFiles(disk, open_max=8)
    used_again, cold = made(cache, tmp_path, "ab")
    for file in (used_again, cold):
        file.append([b"x"])
    disk.on_sync = lambda: used_again.append([b"y"])
    disk.open_errors = 1
    cache.open(str(tmp_path / "c"), create=True)
    assert (cache.status().refused, cold.inner) == (0, None)
    assert used_again.pread(0, 9) == b"axy"


def test_what_another_thread_gave_back_meanwhile_is_worth_another_try(disk: WatchedDisk, tmp_path: Path) -> None:
    cache = CachedFiles(disk, open_max=8)
    made(cache, tmp_path, "ab")
    disk.on_open_error = lambda: cache.close_cold(8)
    disk.open_errors = 1
    cache.open(str(tmp_path / "c"), create=True)
    assert (cache.status().refused, cache.status().open) == (0, 1)


def test_the_kernels_limit_is_never_met_by_files() -> None:
    """In a process that may have 40 descriptors: 300 files, all written and read."""
    program = """
import resource, tempfile, threading
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
from kraft.runtime.files import DiskFiles
from kraft.runtime.open_files import CachedFiles
with tempfile.TemporaryDirectory() as folder:
    cache = CachedFiles(DiskFiles(), open_max=1_000)
    files = [cache.open(f"{folder}/{n}", create=True) for n in range(300)]
    def work(share):
        for turn in range(3):
            for file in share:
                file.append([file.name.encode()])
        for file in share:
            assert file.pread(0, 99) == file.name.encode() * 3
    threads = [threading.Thread(target=work, args=(files[n::4],)) for n in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    cache.sync_directory(folder)
    assert cache.status().refused == 0
    print("whole", sum(file.size for file in files))
    for file in files: file.close()  # the folder is removed by who knows nothing of the limit
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, f"whole {3 * (10 + 180 + 600)}\n"), done.stderr


def test_tending_gives_back_what_is_idle_and_syncs_ahead_of_need(disk: WatchedDisk, tmp_path: Path) -> None:
    cache = CachedFiles(disk, open_max=8)
    files = made(cache, tmp_path, "abcdefgh")
    for file in files:
        file.append([b"x"])
    for _ in range(2):
        cache.tend()
    assert cache.status().open == 4, "half of the limit is kept free of what nobody uses"
    hot = next(file for file in files if file.inner is not None)
    for _ in range(IDLE_TURNS + 1):
        cache.tend()
        hot.pread(0, 1)
    assert cache.status().open == 1
    assert not disk.closed_unsynced
    assert hot.inner is not None


def test_random_uses_by_several_threads_see_what_was_written(disk: WatchedDisk, tmp_path: Path) -> None:
    cache = CachedFiles(disk, open_max=3)
    failures: list[BaseException] = []
    folders = [tmp_path / f"p-{n}" for n in range(4)]
    for folder in folders:
        folder.mkdir()

    def own(folder: Path, seed: int) -> None:
        """One owner per file, which may rename it; somebody else syncs and tends."""
        rng = random.Random(seed)
        files: dict[int, tuple[CachedFile, bytes]] = {}
        path = str(folder)
        for turn in range(400):
            n = rng.randrange(6)
            file, data = files.get(n) or (cache.open(f"{path}/{n}", create=True), b"")
            action = rng.randrange(8)
            if action < 3:
                data += b"%d " % turn
                assert file.append([b"%d " % turn]) == len(data)
            elif action == 3:
                data = data[: rng.randrange(len(data) + 1)]
                file.truncate(len(data))
            elif action == 4:
                file.sync()
            elif action == 5:
                cache.rename(file.path, f"{path}/{n}.{turn}")
            elif action == 6 and rng.random() < 0.3:
                renamed = f"{folder}.{turn}"
                cache.rename(path, renamed)
                path = renamed
            assert file.pread(0, 10_000) == data
            assert file.size == len(data)
            files[n] = file, data
        for file, data in files.values():
            assert file.pread(0, 10_000) == data
            file.sync()
            file.close()

    def guarded(folder: Path, seed: int) -> None:
        try:
            own(folder, seed)
        except BaseException as error:  # noqa: BLE001 - raised by the test itself
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(folder, n)) for n, folder in enumerate(folders)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        cache.tend()
        cache.close_cold(2)
    assert not failures, failures
    assert not disk.closed_unsynced
    assert cache.status().open == 0
    assert not cache._folders


def test_each_part_gets_what_the_limit_leaves_it() -> None:
    for limit in (LIMIT_MIN, 1_024, 4_096, 65_536):
        shares = share_out(limit)
        assert shares.files + shares.clients + shares.nodes + RESERVE == limit
        assert min(shares.files, shares.clients, shares.nodes) >= 30
    with pytest.raises(TooFewDescriptors, match=r"RLIMIT_NOFILE.*LimitNOFILE"):
        share_out(LIMIT_MIN - 1)
