"""The folder in memory of the default run: used by whoever makes temporary files, and gone with its run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests import memory_folder


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(memory_folder, "has_room", lambda _: True)
    return tmp_path


def dead_pid() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_temporary_files_go_there_until_the_end(memory: Path) -> None:
    folder = memory_folder.begin(memory)
    assert folder is not None
    made = Path(tempfile.mkdtemp())
    assert made.parent == folder
    assert os.environ["TMPDIR"] == str(folder)
    memory_folder.end(folder)
    assert not folder.exists()
    assert "TMPDIR" not in os.environ
    assert Path(tempfile.gettempdir()) != folder


def test_what_a_killed_run_has_left_is_removed_and_others_are_left_alone(memory: Path) -> None:
    left, alive, foreign = (memory / name for name in (f"kraft-tests-{dead_pid()}-a", "kraft-tests-1-a", "pulse-shm"))
    for path in (left, alive, foreign):
        path.mkdir()
        (path / "file").write_text("x")
    assert memory_folder.begin(memory) is not None
    assert not left.exists()
    assert (alive / "file").exists()
    assert (foreign / "file").exists()


def test_a_folder_that_somebody_has_chosen_is_used(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/somewhere")
    assert memory_folder.begin(memory) is None
    assert os.environ["TMPDIR"] == "/somewhere"


def test_without_room_a_disk_is_used(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_folder, "has_room", lambda _: False)
    assert memory_folder.begin(memory) is None
    assert "TMPDIR" not in os.environ
    assert memory_folder.begin(memory / "nothing") is None
