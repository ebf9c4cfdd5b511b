"""Ends what a test process leaves behind when it is killed and cannot do so itself.

A process of its own. Its standard input is a pipe whose other end only the guarded process has. When that ends, however
it ends, every process with the mark in its environment is killed: nodes are in sessions of their own, so that no signal
to a group reaches them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

PASSES_MAX = 20
"""One that starts another while it is looked for is found by the next pass."""


def start(name: str, value: str) -> subprocess.Popen[bytes]:
    """Guard this process: whatever inherits `name=value` ends with it. The guard ends when its input is closed."""
    return subprocess.Popen(
        [sys.executable, "-E", __file__, name, value],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={each: text for each, text in os.environ.items() if each != name},
        start_new_session=True,
    )


def marked(name: str, value: str) -> list[int]:
    """Living processes, other than this one, that have inherited the mark (where there is a /proc)."""
    mark = os.fsencode(f"{name}={value}")
    found = []
    for pid in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if not pid.isdigit() or int(pid) == os.getpid():
            continue
        try:
            with open(f"/proc/{pid}/environ", "rb") as environment:
                if mark in environment.read().split(b"\0"):
                    found.append(int(pid))
        except OSError:  # it has gone, or is somebody else's
            continue
    return sorted(found)


def kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def main(name: str, value: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    for _ in range(PASSES_MAX):
        left = marked(name, value)
        if not left:
            return
        kill(left)


if __name__ == "__main__":
    main(*sys.argv[1:])
