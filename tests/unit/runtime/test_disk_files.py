"""What only a real disk does: a write that stops half-way, and a lock that dies with its process."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kraft.runtime.files import DiskFiles


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """The kernel writes up to the limit, then refuses: just like a disk that becomes full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("parts", [[bytes(9_000)], [b"a" * 3_000] * 3, [b"ab"] * 4_000])
def test_an_append_that_does_not_fit_leaves_the_file_as_it_was(tmp_path: Path, parts: list[bytes]) -> None:
    path = tmp_path / "log"
    file = DiskFiles().open(str(path), create=True)
    file.append([b"before"])
    with file_size_limit(5_000), pytest.raises(OSError, match="too large"):
        file.append(parts)
    assert (file.size, path.read_bytes()) == (6, b"before")
    assert file.append(parts) == 6 + sum(map(len, parts))
    assert path.read_bytes() == b"before" + b"".join(parts)
    file.close()


def test_a_closed_file_refuses_everything(tmp_path: Path) -> None:
    file = DiskFiles().open(str(tmp_path / "log"), create=True)
    file.close()
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.append([b"x"])


def test_a_lock_is_seen_by_other_processes_and_dies_with_its_own(tmp_path: Path) -> None:
    code = f"from kraft.runtime.files import DiskFiles; DiskFiles().lock_directory({str(tmp_path)!r})"
    lock = DiskFiles().lock_directory(str(tmp_path))
    refused = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "BlockingIOError" in refused.stderr
    lock.release()
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
    DiskFiles().lock_directory(str(tmp_path)).release()
