"""A node of an attached `kraft up` ends with it, even when that is killed with -9.

A daemon thread waits for the end of the parent's process and then sends this process SIGTERM, the same as an
ordered stop. It waits on a pidfd where the system has one, otherwise it looks twice a second.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from typing import Final

LOOK_EVERY_MS: Final = 500


def end_with(parent_pid: int) -> None:
    threading.Thread(target=_watch, args=(parent_pid,), name="lifeline", daemon=True).start()


def _watch(parent_pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it is gone already
        _wait_for_end(parent_pid)
    os.kill(os.getpid(), signal.SIGTERM)


def _wait_for_end(pid: int) -> None:
    if hasattr(os, "pidfd_open"):
        descriptor = os.pidfd_open(pid)
        select.select([descriptor], [], [])
        os.close(descriptor)
        return
    while True:
        os.kill(pid, 0)
        time.sleep(LOOK_EVERY_MS / 1000)
