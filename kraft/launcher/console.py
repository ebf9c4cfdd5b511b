"""Starts the console of a launcher: a process beside the cluster of a data folder."""

from __future__ import annotations

import contextlib
import ipaddress
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
READ_ONLY: Final = "--read-only"
NO_CONTENTS: Final = "--no-contents"
TOKEN_VARIABLE: Final = "KRAFT_CONSOLE_TOKEN"
"""In the environment, because all users of a machine see the arguments of a process."""
TOKEN_BYTES: Final = 24
BACKLOG: Final = 128
PID_FILE: Final = "console.pid"
END_S: Final = 5.0
LOOK_S: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleOptions:
    """Where a console listens, and what it allows."""

    host: str = "127.0.0.1"
    """An address of this machine; one that is no loopback needs the token of the printed link."""
    reads_only: bool = False
    """Nothing is broken, started or written from the page."""
    hides_contents: bool = False
    """Keys, values and headers of records are not shown."""

    @property
    def is_loopback(self) -> bool:
        """Raises ValueError for what is no address."""
        return ipaddress.ip_address(self.host).is_loopback

    def check(self) -> None:
        """Raises ValueError for what is no address."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError as error:
            raise ValueError(
                f"--console-host {self.host!r:.60} should be an address of this machine, such as 127.0.0.1 or 0.0.0.0"
            ) from error


DEFAULT: Final = ConsoleOptions()


@dataclass(frozen=True, slots=True)
class ConsoleProcess:
    """A console that runs, or begins to."""

    process: subprocess.Popen[bytes]
    host: str
    port: int
    token: str = ""

    @property
    def url(self) -> str:
        """The address of its page, with its token if it has one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/console" + (f"?token={self.token}" if self.token else "")

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
    except (OSError, ValueError):
        return
    with contextlib.suppress(OSError):
        os.unlink(path)
    deadline = time.monotonic() + END_S
    with contextlib.suppress(ProcessLookupError):
        while _is_console(pid):
            os.kill(pid, signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            time.sleep(LOOK_S)


def _is_console(pid: int) -> bool:
    """Whether a console runs under this number. One that has ended has no arguments, even if its launcher has not
    waited for it."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return PROGRAM.encode() in file.read()
    except OSError:
        return False


def start_console(
    data: str, *, detach: bool = False, options: ConsoleOptions = DEFAULT, is_secure: bool = False
) -> ConsoleProcess:
    """Its page answers within a second. It ends with the cluster; without `detach` also with this process. Raises
    OSError when nobody may listen there, ValueError for options that cannot be.

    It acts for the operator of the cluster. So it has a token where others could reach it, and beside a secure cluster
    also on loopback, which all users of a machine share."""
    options.check()
    listening = _listening(options.host)
    port = int(listening.getsockname()[1])
    token = os.urandom(TOKEN_BYTES).hex() if is_secure or not options.is_loopback else ""
    flags = [flag for flag, is_on in ((READ_ONLY, options.reads_only), (NO_CONTENTS, options.hides_contents)) if is_on]
    log = os.open(os.path.join(data, "console.log"), os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    try:
        # It gets a socket that listens: of a port alone, another console could be the first to take it.
        process = subprocess.Popen(
            [*PYTHON, "-m", PROGRAM, data, str(listening.fileno()), *flags],
            pass_fds=[listening.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=detach,
            env=environment() | ({TOKEN_VARIABLE: token} if token else {}),
        )
    finally:
        os.close(log)
        listening.close()
    with open(os.path.join(data, PID_FILE), "w", encoding="ascii") as file:
        file.write(str(process.pid))
    return ConsoleProcess(process, options.host, port, token)


def _listening(host: str) -> socket.socket:
    """A socket that listens at `PORT`, or at another one."""
    for wanted in (PORT, 0):
        listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, wanted))
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
        else:
            return listening
    raise OSError(f"no port is free on {host}")
