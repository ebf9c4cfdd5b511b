"""Starts the console of a launcher: a process beside the cluster of a data folder."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import Final

from kraft.launcher.python import PYTHON, environment

PROGRAM: Final = "kraft.testing.console.server"
PORT: Final = 8088
"""The port of the console, where it is free."""
PID_FILE: Final = "console.pid"
END_S: Final = 5.0
LOOK_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class ConsoleProcess:
    """A console that runs, or begins to."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        """The address of its page."""
        return f"http://127.0.0.1:{self.port}/console"

    def end(self) -> None:
        """Ends it; returns when it is gone."""
        self.process.terminate()
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def end_console(data: str) -> None:
    """Ends the console of a data folder, also that of another process; returns when it is gone. Does nothing without
    one."""
    path = os.path.join(data, PID_FILE)
    try:
        with open(path, encoding="ascii") as file:
            pid = int(file.read())
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            is_ours = PROGRAM.encode() in file.read()
    except (OSError, ValueError):
        return
    with contextlib.suppress(OSError):
        os.unlink(path)
    deadline = time.monotonic() + END_S
    with contextlib.suppress(ProcessLookupError):
        while is_ours:
            os.kill(pid, signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            time.sleep(LOOK_S)


def start_console(data: str, *, detach: bool = False) -> ConsoleProcess:
    """Its page answers within a second. It ends with the cluster; without `detach` also with this process."""
    port = _free_port()
    log = os.open(os.path.join(data, "console.log"), os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    try:
        process = subprocess.Popen(
            [*PYTHON, "-m", PROGRAM, data, str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=detach,
            env=environment(),
        )
    finally:
        os.close(log)
    with open(os.path.join(data, PID_FILE), "w", encoding="ascii") as file:
        file.write(str(process.pid))
    return ConsoleProcess(process, port)


def _free_port() -> int:
    for wanted in (PORT, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", wanted))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no port is free on 127.0.0.1")
