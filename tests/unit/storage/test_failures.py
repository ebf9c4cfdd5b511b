"""A full or dying disk: nothing half-written, the log goes on or goes offline, never the node."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kraft.protocol.errors import CorruptMessage, KafkaStorageError
from kraft.protocol.primitives import Buffer
from kraft.runtime.files import DiskFiles
from metadata.environment import Environment
from metadata.settings import TopicSettings
from tests.unit.storage.world import NOW_MS, batch, load, run


class FailingFile:
    """A file whose appends and reads fail while its disk says so."""

    def __init__(self, file: Any, disk: FailingDisk) -> None:
        self._file = file
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def append(self, parts: Sequence[Buffer]) -> int:
        self._disk.check("append", self._file.path)
        size: int = self._file.append(parts)
        return size

    def pread(self, offset: int, size: int) -> bytes:
        self._disk.check("pread", self._file.path)
        data: bytes = self._file.pread(offset, size)
        return data

    def sync(self) -> None:
        self._disk.syncs += self._file.path.endswith(".log")
        self._file.sync()


class FailingDisk(DiskFiles):
    def __init__(self) -> None:
        self.failures: dict[tuple[str, str], int] = {}
        self.syncs = 0

    def open(self, path: str, *, create: bool = False, read_only: bool = False) -> Any:
        if create:
            self.check("create", path)
        return FailingFile(super().open(path, create=create, read_only=read_only), self)

    def check(self, call: str, path: str) -> None:
        for (failing, suffix), code in self.failures.items():
            if failing == call and path.endswith(suffix):
                raise OSError(code, "injected", path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
@pytest.mark.parametrize("suffix", [".log", ".index", ".timeindex"])
@pytest.mark.parametrize("call", ["append", "create"])
def test_a_full_disk_leaves_nothing_half_written(call: str, suffix: str, number: int, tmp_path: Path) -> None:
    disk = FailingDisk()
    settings = TopicSettings(index_interval_bytes=0, segment_bytes=400)

    async def play(environment: Environment) -> None:
        folder = str(tmp_path / "t-0")
        log, _ = load(environment, folder, settings=settings)
        for turn in range(4):
            log.append_as_leader(batch(1, timestamp_ms=NOW_MS + turn), leader_epoch=0, now_ms=NOW_MS)
        disk.failures[call, suffix] = number
        refused = 0
        for turn in range(8):
            before = log.log_end_offset, log.size_bytes, log.epoch_entries
            try:
                log.append_as_leader(batch(1, timestamp_ms=NOW_MS + 10 + turn), leader_epoch=1 + turn, now_ms=NOW_MS)
            except KafkaStorageError:
                refused += 1
                assert (log.log_end_offset, log.size_bytes, log.epoch_entries) == before
        assert refused
        assert not log.is_offline
        disk.failures.clear()
        for turn in range(8):
            log.append_as_leader(batch(1, timestamp_ms=NOW_MS + 20 + turn), leader_epoch=9, now_ms=NOW_MS)
        end = log.log_end_offset
        await log.close()
        again, loaded = load(environment, folder, settings=settings)
        assert not loaded.repairs
        assert again.log_end_offset == end
        await again.close()

    run(play, files=disk)


def test_a_dying_disk_takes_the_log_offline(tmp_path: Path) -> None:
    disk = FailingDisk()

    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path / "t-0"))
        log.append_as_leader(batch(1), leader_epoch=0, now_ms=NOW_MS)
        disk.failures["pread", ".log"] = errno.EIO
        with pytest.raises(KafkaStorageError, match="reading failed"):
            log.read(0, bytes_max=1, upper_bound=1)
        disk.failures.clear()
        assert log.is_offline
        with pytest.raises(KafkaStorageError, match="is offline"):
            log.append_as_leader(batch(1), leader_epoch=0, now_ms=NOW_MS)
        await log.close()

    run(play, files=disk)


@pytest.mark.parametrize(("at", "reported"), [(8, "the batch at position 0"), (0, "the log ends, or continues, at")])
def test_damage_met_while_reading_is_reported_and_the_log_goes_on(tmp_path: Path, at: int, reported: str) -> None:
    """A length, or a base offset, that cannot be: an error, never an empty answer that the reader would repeat."""

    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path / "t-0"))
        for _ in range(3):
            log.append_as_leader(batch(2), leader_epoch=0, now_ms=NOW_MS)
        _overwrite(tmp_path / "t-0" / f"{0:020d}.log", at=at, data=b"\x7f\xff\xff\xff")
        with pytest.raises(CorruptMessage, match=reported):
            log.read(1, bytes_max=1000, upper_bound=6)
        assert not log.is_offline
        assert log.append_as_leader(batch(2), leader_epoch=0, now_ms=NOW_MS).base_offset == 6
        await log.close()

    run(play)


def _overwrite(path: Path, *, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def test_callers_share_one_fsync(tmp_path: Path) -> None:
    disk = FailingDisk()

    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path / "t-0"))
        log.append_as_leader(batch(2), leader_epoch=0, now_ms=NOW_MS)
        assert await asyncio.gather(*(log.flush() for _ in range(50))) == [2] * 50
        assert disk.syncs == 1
        await log.close()

    run(play, files=disk)


def test_a_follower_refuses_what_does_not_continue_its_log(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        log, _ = load(environment, str(tmp_path / "t-0"))
        broken = bytearray(batch(2, leader_epoch=1))
        broken[-1] ^= 1
        for data in (bytes(broken), batch(2) + batch(2, base_offset=1), batch(2, base_offset=5) + batch(2)):
            with pytest.raises(CorruptMessage):
                log.append_as_follower(data, now_ms=NOW_MS)
        assert log.append_as_follower(batch(2)[:-1], now_ms=NOW_MS) is None
        assert (log.log_end_offset, log.size_bytes, log.latest_epoch) == (0, 0, -1)
        await log.close()

    run(play)
