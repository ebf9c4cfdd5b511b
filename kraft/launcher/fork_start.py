"""Start of the fork server before its owner loads its own modules: both load at the same time."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from typing import Final

from kraft.launcher.python import PYTHON, environment

CAN_WATCH_FORKS: Final = hasattr(os, "pidfd_open")
"""True on Linux. The forks are not our children, so that only a descriptor reports whether a node runs."""
FORK_SERVER: Final = "kraft.launcher.fork_process"
"""Not imported here: a process that starts nodes needs no module of a node."""
ROOM_FOR_NAMES: Final = "." * 160
"""An argument of the fork server: its forks write their command lines over it."""
NEW_CLUSTERS: Final = "new-clusters"
"""An argument of a fork server that will get a cluster, usually a new one."""

_begun: dict[int, subprocess.Popen[bytes]] = {}
"""Process id of the starting process -> the fork server."""


def begin() -> None:
    """Start a fork server, which `begun` returns later. If that fails, `begun` raises the error."""
    if CAN_WATCH_FORKS:
        with suppress(OSError):
            _begun[os.getpid()] = _start()


def begun() -> subprocess.Popen[bytes]:
    """The fork server that was started before, or a new one; its standard input and output are pipes."""
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
