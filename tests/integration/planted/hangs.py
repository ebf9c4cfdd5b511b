"""Real nodes whose main loop hangs when a test says so, and for as long as it says.

SIGUSR1 makes the main thread of a node compute, SIGUSR2 makes it wait, until the file `<folder>/<pid>` is gone.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from unittest.mock import patch

VARIABLE: Final = "KRAFT_TEST_HANGS"
FOLDER: Final = Path(__file__).parent
ROOT: Final = FOLDER.parents[2]
WAIT_S: Final = 0.02


def plant(folder: str) -> None:
    def until() -> Path:
        """Asked for when it hangs: a node may be a fork of the process in which this is planted."""
        return Path(folder) / str(os.getpid())

    def compute_without_end(_number: int, _frame: object) -> None:
        file = until()
        while file.exists():
            pass

    def wait_without_end(_number: int, _frame: object) -> None:
        file = until()
        while file.exists():
            time.sleep(WAIT_S)

    signal.signal(signal.SIGUSR1, compute_without_end)
    signal.signal(signal.SIGUSR2, wait_without_end)


@contextmanager
def nodes_that_can_hang(folder: Path) -> Iterator[None]:
    """Every node that starts meanwhile, and every fork of a process that does: they keep its handlers of signals."""
    path = os.pathsep.join(filter(None, (str(FOLDER), str(ROOT), os.environ.get("PYTHONPATH"))))
    with patch.dict(os.environ, {VARIABLE: str(folder), "PYTHONPATH": path}):
        yield


def hang(pid: int, folder: Path, *, computes: bool) -> None:
    (folder / str(pid)).touch()
    os.kill(pid, signal.SIGUSR1 if computes else signal.SIGUSR2)


def release(pid: int, folder: Path) -> None:
    (folder / str(pid)).unlink(missing_ok=True)
