"""What a power loss leaves: exactly what a witness saw become durable."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest

from kraft.chaos.worlds.processes.power import lose_power
from kraft.layout import WITNESS_VARIABLE
from kraft.runtime.files import DiskFiles
from kraft.runtime.witness import FULL_FILE, WitnessFiles, files_of
from replication.storage.text_files import replace_text


class Disk:
    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.witness = folder / "witness"
        self.data.mkdir()
        self.files = WitnessFiles(str(self.witness))

    def path(self, name: str) -> str:
        return str(self.data / name)

    def write(self, name: str, data: bytes, *, sync: bool) -> None:
        file = self.files.open(self.path(name), create=True)
        file.append([data])
        if sync:
            file.sync()
        file.close()

    def after_power_loss(self) -> dict[str, bytes]:
        lose_power(self.data, self.witness)
        return {path.name: path.read_bytes() for path in self.data.rglob("*") if path.is_file()}


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_without_the_variable_the_disk_is_the_plain_one() -> None:
    assert type(files_of({})) is DiskFiles
    assert type(files_of({"HOME": "/"})) is DiskFiles


def test_with_the_variable_it_has_a_witness(tmp_path: Path) -> None:
    assert type(files_of({WITNESS_VARIABLE: str(tmp_path / "w")})) is WitnessFiles


def test_a_file_is_cut_back_to_what_was_synced(disk: Disk) -> None:
    disk.write("a", b"durable", sync=True)
    disk.write("a", b" and not", sync=False)
    disk.write("b", b"never synced", sync=False)
    assert disk.after_power_loss() == {"a": b"durable"}


def test_what_was_cut_and_written_again_is_not_durable(disk: Disk) -> None:
    disk.write("a", b"0123456789", sync=True)
    file = disk.files.open(disk.path("a"))
    file.truncate(4)
    file.append([b"abcdef"])
    assert disk.after_power_loss() == {"a": b"0123"}


def test_a_replacement_is_undone_until_its_folder_is_synced(disk: Disk) -> None:
    replace_text(disk.files, disk.path("c"), "old")
    replace_text(disk.files, disk.path("c"), "newer", sync=False)
    replace_text(disk.files, disk.path("c"), "newest", sync=False)
    assert disk.after_power_loss() == {"c": b"old"}


def test_a_durable_replacement_stays(disk: Disk) -> None:
    replace_text(disk.files, disk.path("c"), "old")
    replace_text(disk.files, disk.path("c"), "new")
    assert disk.after_power_loss() == {"c": b"new"}
    assert list((disk.witness / "undo").glob("*")) == [], "nothing is kept for nothing"


def test_a_renamed_folder_takes_what_is_durable_with_it(disk: Disk) -> None:
    disk.files.make_directories(disk.path("t-0"))
    disk.write("t-0/log", b"abc", sync=True)
    disk.write("t-0/log", b"def", sync=False)
    disk.files.rename(disk.path("t-0"), disk.path("t-0.1-delete"))
    assert disk.after_power_loss() == {"log": b"abc"}


def test_a_removed_file_that_is_made_again_is_not_durable(disk: Disk) -> None:
    disk.write("a", b"abc", sync=True)
    disk.files.remove(disk.path("a"))
    disk.write("a", b"xyz", sync=False)
    assert disk.after_power_loss() == {}


def test_events_stay(disk: Disk) -> None:
    disk.write("events.jsonl", b"{}\n", sync=False)
    disk.write("node.log", b"words", sync=False)
    assert disk.after_power_loss() == {"events.jsonl": b"{}\n", "node.log": b"words"}


def test_a_second_loss_knows_what_the_first_left(disk: Disk) -> None:
    disk.write("a", b"durable", sync=True)
    disk.write("a", b"lost", sync=False)
    assert disk.after_power_loss() == {"a": b"durable"}
    disk.files = WitnessFiles(str(disk.witness))
    disk.write("a", b"+", sync=False)
    assert disk.after_power_loss() == {"a": b"durable"}


def test_random_operations_match_simple_model(tmp_path: Path) -> None:
    """Appends, syncs and truncations at random, against lengths counted by hand."""
    for seed in range(100):
        rng = random.Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        disk, kept = Disk(folder), b""
        file = disk.files.open(disk.path("a"), create=True)
        file.sync()
        text = b""
        for number in range(rng.randrange(1, 15)):
            match rng.randrange(3):
                case 0:
                    text += bytes([65 + number]) * rng.randrange(1, 5)
                    file.append([text[file.size :]])
                case 1:
                    file.sync()
                    kept = text
                case _:
                    text = text[: rng.randrange(len(text) + 1)]
                    file.truncate(len(text))
                    kept = kept[: len(text)]
        file.close()
        assert disk.after_power_loss() == {"a": kept}, seed


def test_a_full_disk_refuses_what_grows_and_nothing_else(disk: Disk) -> None:
    disk.write("a", b"abc", sync=True)
    (disk.witness / FULL_FILE).touch()
    file = disk.files.open(disk.path("a"))
    for grow in (lambda: file.append([b"x"]), lambda: file.pwrite(2, b"xy"), lambda: disk.write("b", b"", sync=True)):
        with pytest.raises(OSError, match="No space left") as caught:
            grow()
        assert caught.value.errno == errno.ENOSPC
    file.pwrite(0, b"z")
    file.truncate(2)
    disk.write("events.jsonl", b"{}", sync=False)
    (disk.witness / FULL_FILE).unlink()
    assert file.append([b"more"]) == 6
