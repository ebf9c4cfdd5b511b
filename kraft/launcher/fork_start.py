"""Starts the process that forks nodes before its owner loads what it needs itself: both load at the same time."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from typing import Final

from kraft.launcher.python import PYTHON, environment

CAN_WATCH_FORKS: Final = hasattr(os, "pidfd_open")
"""Linux. The process that forks is not ours to wait for, so that only a descriptor tells whether a node runs."""
FORK_SERVER: Final = "kraft.launcher.fork_process"
"""Not imported here: who starts nodes needs nothing of what a node needs."""
ROOM_FOR_NAMES: Final = "." * 160
"""An argument that the fork server is given: its forks write there what they are called."""
NEW_CLUSTERS: Final = "new-clusters"
"""An argument of a fork server that will be asked for a cluster, as a rule for a new one."""

_begun: dict[int, subprocess.Popen[bytes]] = {}
"""By the process that has started it."""


def begin() -> None:
    """Start one now that `begun` gives later. Where none can be started that says so."""
    if CAN_WATCH_FORKS:
        with suppress(OSError):
            _begun[os.getpid()] = _start()


def begun() -> subprocess.Popen[bytes]:
    """The one that was started before, or one that is started now; its standard input and output are pipes."""
    return _begun.pop(os.getpid(), None) or _start()


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*PYTHON, "-m", FORK_SERVER, "node", ROOM_FOR_NAMES, NEW_CLUSTERS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
        bufsize=0,
        env=environment(),
    )
