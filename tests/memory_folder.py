"""Where the default test run keeps its files: in memory, where there is enough of it.

Three nodes sync their logs for every record, and some hundred clusters do so on one disk: the run waited for the disk
more than it computed, and longer when others used it. What is written and synced stays what it is, by the same calls of
the same system; whether a device keeps it is no question of these tests. Whoever sets TMPDIR, and the slow tests, use a
disk.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

MEMORY = Path("/dev/shm")
"""A file system in memory that programs can be started from, on nearly every Linux; other systems have none."""
FREE_BYTES_MIN = 6 * 1024**3
"""Of the file system and of memory. A whole run keeps less than one GiB at any time."""
_NAME = re.compile(r"kraft-tests-(\d+)-\w+")


def begin(memory: Path = MEMORY) -> Path | None:
    """The folder that this process and all that it starts use for temporary files; None where a disk is used. Removes
    what runs that were killed, or failed, have left."""
    if "TMPDIR" in os.environ or not memory.is_dir():
        return None
    for left in _left_behind(memory):
        shutil.rmtree(left, ignore_errors=True)
    if not has_room(memory):
        return None
    folder = Path(tempfile.mkdtemp(prefix=f"kraft-tests-{os.getpid()}-", dir=memory))
    os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
    return folder


def end(folder: Path) -> None:
    os.environ.pop("TMPDIR", None)
    tempfile.tempdir = None
    shutil.rmtree(folder, ignore_errors=True)


def has_room(memory: Path) -> bool:
    there = os.statvfs(memory)
    is_usable = os.access(memory, os.W_OK | os.X_OK) and not there.f_flag & os.ST_NOEXEC
    return is_usable and min(there.f_bavail * there.f_frsize, _available_bytes()) >= FREE_BYTES_MIN


def _available_bytes() -> int:
    with contextlib.suppress(OSError), open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def _left_behind(memory: Path) -> Iterator[Path]:
    for path in memory.iterdir():
        name = _NAME.fullmatch(path.name)
        if name and not _is_alive(int(name[1])):
            yield path


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
