"""S5: what a crash, a flipped bit or a lost file leaves, and what recovery makes of it."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from kraft.protocol.batches.header import whole_batches
from kraft.runtime.files import DiskFiles
from metadata.environment import Environment
from metadata.settings import TopicSettings
from replication.storage.leader_epochs import LeaderEpochCache
from replication.storage.partition_log import PartitionLog
from tests.unit.storage.world import NOW_MS, batch, idle_environment, load, run

SETTINGS = TopicSettings(segment_bytes=600, index_interval_bytes=100)


def _fill(log: PartitionLog, batches: int) -> None:
    for turn in range(batches):
        log.append_as_leader(batch(1 + turn % 3, value=b"v" * 20), leader_epoch=turn // 5, now_ms=NOW_MS)


async def _one_segment(environment: Environment, folder: str) -> None:
    log, _ = load(environment, folder)
    _fill(log, 8)
    await log.close()


def test_every_length_of_a_torn_tail_is_cut_to_whole_batches(tmp_path: Path) -> None:
    run(lambda environment: _one_segment(environment, str(tmp_path / "whole-0")))
    data = (tmp_path / "whole-0" / f"{0:020d}.log").read_bytes()
    ends = [0] + [position + header.size for position, header in whole_batches(data)]
    offsets = [0] + [header.next_offset for _, header in whole_batches(data)]
    with idle_environment() as environment:
        for length in range(0, len(data), 7):
            folder = tmp_path / f"cut{length}-0"
            folder.mkdir()
            (folder / f"{0:020d}.log").write_bytes(data[:length])
            log, loaded = load(environment, str(folder))
            whole = sum(end <= length for end in ends) - 1
            assert (log.size_bytes, log.log_end_offset) == (ends[whole], offsets[whole])
            assert [r.event for r in loaded.repairs] == (["segment_repaired"] if ends[whole] != length else [])
            log.retire("done")
            shutil.rmtree(folder)


@pytest.mark.parametrize("bit", [0, 8, 24, 38, 62])
def test_base_offset_beyond_segment_is_rejected(tmp_path: Path, bit: int) -> None:
    """Found by simulated clusters (rot 11006): the index could not hold the offset, and the node did not start."""
    run(lambda environment: _one_segment(environment, str(tmp_path / "whole-0")))
    path = tmp_path / "whole-0" / f"{0:020d}.log"
    data = bytearray(path.read_bytes())
    last = list(whole_batches(bytes(data)))[-1][0]
    data[last + 7 - bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    with idle_environment() as environment:
        log, loaded = load(
            environment, str(tmp_path / "whole-0"), settings=SETTINGS.model_copy(update={"index_interval_bytes": 0})
        )
        if bit >= 31:
            assert [repair.event for repair in loaded.repairs] == ["segment_repaired"]
        assert log.log_end_offset < 2**31
        log.retire("done")


def test_repair_cuts_at_the_batch_with_wrong_base_offset(tmp_path: Path) -> None:
    """Found by simulated clusters (rot 87): a follower kept the batch, and its leader's never fitted behind it."""
    run(lambda environment: _one_segment(environment, str(tmp_path / "whole-0")))
    data = (tmp_path / "whole-0" / f"{0:020d}.log").read_bytes()
    batches = list(whole_batches(data))
    with idle_environment() as environment:
        for position, header in batches[:-1]:
            for bit in range(8):
                moved = bytearray(data)
                moved[position + 7] ^= 1 << bit
                folder = tmp_path / f"moved{position}to{bit}-0"
                folder.mkdir()
                (folder / f"{0:020d}.log").write_bytes(moved)
                log, _ = load(environment, str(folder))
                assert (log.log_end_offset, log.size_bytes) == (header.base_offset, position), (position, bit)
                shutil.rmtree(folder)


def test_a_flipped_byte_cuts_at_its_batch(tmp_path: Path) -> None:
    run(lambda environment: _one_segment(environment, str(tmp_path / "whole-0")))
    data = (tmp_path / "whole-0" / f"{0:020d}.log").read_bytes()
    batches = list(whole_batches(data))
    rng = random.Random(4)
    with idle_environment() as environment:
        for at in range(21, len(data), 5):
            position, header = next((p, h) for p, h in batches if p <= at < p + h.size)
            if at - position < 21:
                continue
            broken = bytearray(data)
            broken[at] ^= 1 << rng.randrange(8)
            folder = tmp_path / f"flip{at}-0"
            folder.mkdir()
            (folder / f"{0:020d}.log").write_bytes(broken)
            log, loaded = load(environment, str(folder))
            assert (log.log_end_offset, log.size_bytes) == (header.base_offset, position)
            assert loaded.repairs[0].fields["first_offset_dropped"] == header.base_offset
            shutil.rmtree(folder)


def test_damage_in_the_middle_drops_what_comes_after(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        folder = tmp_path / "t-0"
        log, _ = load(environment, str(folder), settings=SETTINGS)
        _fill(log, 30)
        await log.close()
        _flip(sorted(folder.glob("*.log"))[2], at=130)
        repaired, loaded = load(environment, str(folder), settings=SETTINGS)
        events = [repair.event for repair in loaded.repairs]
        assert events[0] == "segment_repaired"
        assert set(events[1:]) == {"segment_dropped"}
        end = repaired.log_end_offset
        assert repaired.segment_count == 3
        assert all(start < end for _, start in repaired.epoch_entries)
        _fill(repaired, 3)
        assert repaired.read(end, bytes_max=10_000, upper_bound=end + 6).next_offset == end + 6
        await repaired.close()

    run(play)


def _flip(path: Path, *, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["missing", "odd", "beyond"])
def test_bad_indexes_are_rebuilt_as_they_were(damage: str, tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        folder = tmp_path / "t-0"
        log, _ = load(environment, str(folder), settings=SETTINGS)
        _fill(log, 30)
        await log.close()
        before = _contents(folder)
        victim = sorted(folder.glob("*.index"))[1]
        _damage(victim, damage)
        again, loaded = load(environment, str(folder), settings=SETTINGS, is_clean=True)
        assert [repair.event for repair in loaded.repairs] == ["index_rebuilt"]
        await again.close()
        assert _contents(folder) == before

    run(play)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _damage(index: Path, damage: str) -> None:
    if damage == "missing":
        index.unlink()
    elif damage == "odd":
        index.write_bytes(index.read_bytes() + b"odd")
    else:
        index.write_bytes(b"\0\0\0\5\x7f\0\0\0")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0\n7\nnonsense\n", "announces 7"),
        ("0\n1\n2147483648 0\n", "leader epoch 2147483648 is not between 0 and 2147483647"),
        ("0\n1\n0 9223372036854775808\n", "offset 9223372036854775808 is not between"),
        ("0\n1\n-1 0\n", "leader epoch -1"),
    ],
)
def test_garbage_epochs_are_learnt_again_from_the_log(text: str, said: str, tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        folder = tmp_path / "t-0"
        log, _ = load(environment, str(folder), settings=SETTINGS)
        _fill(log, 30)
        entries = log.epoch_entries
        await log.close()
        (folder / "leader-epoch-checkpoint").write_text(text)
        again, loaded = load(environment, str(folder), settings=SETTINGS)
        assert again.epoch_entries == entries
        (repair,) = loaded.repairs
        assert repair.event == "epoch_checkpoint_dropped"
        assert said in str(repair.fields["reason"])
        await again.close()

    run(play)


def test_a_segment_that_lost_whole_batches_at_its_end_cuts_the_log_there(tmp_path: Path) -> None:
    """A power loss may keep a later segment and take the end of the one before it: offsets must have no hole."""

    async def play(environment: Environment) -> None:
        folder = tmp_path / "t-0"
        log, _ = load(environment, str(folder), settings=SETTINGS)
        _fill(log, 30)
        await log.close()
        victim = sorted(folder.glob("*.log"))[1]
        data = victim.read_bytes()
        *_, (position, last) = whole_batches(data)
        victim.write_bytes(data[:position])
        again, loaded = load(environment, str(folder), settings=SETTINGS)
        assert again.log_end_offset == last.base_offset
        assert loaded.repairs[0].event == "segment_repaired"
        await again.close()

    run(play)


def test_lost_epochs_are_learnt_from_flushed_segments_too(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        folder = tmp_path / "t-0"
        log, _ = load(environment, str(folder), settings=SETTINGS)
        _fill(log, 30)
        entries, end = log.epoch_entries, log.log_end_offset
        await log.close()
        (folder / "leader-epoch-checkpoint").write_text("")
        again, _ = load(environment, str(folder), settings=SETTINGS, recovery_point=end)
        assert again.epoch_entries == entries
        await again.close()

    run(play)


def test_an_epoch_that_outlived_its_truncation_does_not_outlive_recovery(tmp_path: Path) -> None:
    """The file that said that epoch 9 was cut away was lost with the power; the batches that replaced it were not."""

    async def play(environment: Environment) -> None:
        folder = tmp_path / "t-0"
        log, _ = load(environment, str(folder), settings=SETTINGS)
        _fill(log, 30)
        entries, end = log.epoch_entries, log.log_end_offset
        await log.close()
        (epoch, start), *_ = entries[1:]
        stale = f"0\n3\n0 0\n{epoch} {start}\n9 {start + 3}\n"
        (folder / "leader-epoch-checkpoint").write_text(stale)
        again, _ = load(environment, str(folder), settings=SETTINGS)
        assert (again.log_end_offset, again.epoch_entries) == (end, entries)
        await again.close()

    run(play)


class CountedFiles(DiskFiles):
    def __init__(self) -> None:
        self.listed: list[str] = []
        self.renamed: list[str] = []

    def list_directory(self, path: str) -> list[str]:
        self.listed.append(path)
        return super().list_directory(path)

    def rename(self, old: str, new: str) -> None:
        self.renamed.append(new)
        super().rename(old, new)


def test_a_log_where_nothing_happened_is_listed_once_and_written_to_by_nobody(tmp_path: Path) -> None:
    """A node that starts has thousands: epochs without records come and go in memory."""
    files = CountedFiles()

    async def play(environment: Environment) -> None:
        folder = str(tmp_path / "t-0")
        log, _ = load(environment, folder, settings=SETTINGS)
        log.assign_epoch_start(3, 0)
        log.append_as_leader(batch(2), leader_epoch=3, now_ms=NOW_MS)
        await log.close()
        for epoch in (4, 5, 6):
            files.listed.clear()
            files.renamed.clear()
            log, _ = load(environment, folder, settings=SETTINGS, is_clean=True, recovery_point=2)
            log.assign_epoch_start(epoch, 2)
            assert log.epoch_entries == ((3, 0), (epoch, 2))
            assert files.listed == [folder]
            await log.close()
            assert files.renamed == []

    run(play, files=files)


def test_epochs_of_records_that_no_flush_wrote_down_survive_a_kill(tmp_path: Path) -> None:
    async def play(environment: Environment) -> None:
        folder = tmp_path / "t-0"
        log, _ = load(environment, str(folder), settings=SETTINGS)
        log.assign_epoch_start(3, 0)
        log.append_as_leader(batch(2), leader_epoch=3, now_ms=NOW_MS)
        log.assign_epoch_start(4, 2)
        await log.flush()  # writes epoch 4, which gets no record
        log.assign_epoch_start(6, 2)
        log.append_as_leader(batch(2), leader_epoch=6, now_ms=NOW_MS)
        log.assign_epoch_start(7, 4)
        assert (folder / "leader-epoch-checkpoint").read_text() == "0\n2\n3 0\n4 2\n"
        await log.abandon()
        again, _ = load(environment, str(folder), settings=SETTINGS, recovery_point=2)
        assert again.epoch_entries == ((3, 0), (6, 2))
        await again.close()
        clean, loaded = load(environment, str(folder), settings=SETTINGS, is_clean=True, recovery_point=4)
        assert (clean.epoch_entries, loaded.repairs) == (((3, 0), (6, 2)), [])
        await clean.close()

    run(play)


def test_epoch_during_flush_is_written_by_next_flush(tmp_path: Path) -> None:
    class Busy(DiskFiles):
        def rename(self, old: str, new: str) -> None:
            super().rename(old, new)
            if self.is_busy:
                self.is_busy = False
                epochs.assign(6, 4)

        is_busy = True

    path = str(tmp_path / "leader-epoch-checkpoint")
    epochs = LeaderEpochCache(Busy(), path)
    epochs.assign(3, 0)
    assert epochs.take_unsynced()
    epochs.sync()
    assert epochs.take_unsynced()
    epochs.sync()
    assert LeaderEpochCache(DiskFiles(), path).entries == ((3, 0), (6, 4))
    assert not epochs.take_unsynced()
