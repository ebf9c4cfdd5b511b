"""The owner's side of the fork server, and its access by other commands: all of it blocks, for moments.

It imports no module of a node or of its configuration: it also runs in the process of other people's tests, whose own
modules may be called `metadata`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from kraft.launcher.fork_messages import (
    LINE_BYTES_MAX,
    SOCKET_FILE,
    Command,
    Inherited,
    Launch,
    Prepare,
    Reply,
    StartNode,
)
from kraft.launcher.fork_start import CAN_WATCH_FORKS, begun
from kraft.launcher.processes import LaunchError, start_program

END_LIMIT_S: Final = 10.0
ANSWER_LIMIT_S: Final = 10.0
"""Limit of a command over the socket of a data folder. It does not wait for nodes: a fork takes milliseconds."""
READ_BYTES: Final = 65_536


class ForkServerGone(Exception):
    """The fork server has ended, or cannot be reached: programs can be started instead."""


class ForkServer:
    """The fork server of this process. It loads after its start: the first answer takes as long. Used by any thread."""

    def __init__(self) -> None:
        self._process = begun()
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._received = b""
        self._is_open = True

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._is_open and self._process.poll() is None

    def prepare(self, asked: Prepare) -> dict[str, Any]:
        """Prepare a cluster; return its plan. Raises LaunchError and ForkServerGone."""
        return self._ask(prepare=asked).document

    def launch(self, asked: Launch) -> dict[str, Any]:
        """Launch a cluster; return its run. Raises LaunchError and ForkServerGone."""
        return self._ask(launch=asked).document

    def keep(self, data: str) -> None:
        """Do not remove the folder of a temporary cluster at its end. Raises ForkServerGone."""
        self._ask(keep=data)

    def end(self, data: str) -> None:
        """End a cluster; none of its processes runs when this returns. Raises ForkServerGone."""
        self._ask(end=data)

    def _ask(self, **what: Any) -> Reply:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            if not self._is_open:
                raise ForkServerGone("the fork server was closed")
            command = Command(id=next(self._ids), **what)
            try:
                self._process.stdin.write(msgspec.json.encode(command) + b"\n")
                reply = self._read(self._process.stdout.fileno())
                while reply.id < command.id:  # the caller of that command was interrupted
                    reply = self._read(self._process.stdout.fileno())
            except OSError as error:
                raise ForkServerGone(f"the fork server has ended: {error}") from error
        assert reply.id == command.id, (command, reply)
        if reply.error:
            raise LaunchError(reply.error)
        return reply

    def _read(self, descriptor: int) -> Reply:
        while b"\n" not in self._received:
            data = os.read(descriptor, READ_BYTES)
            if not data:
                raise ForkServerGone("the fork server has ended")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return msgspec.json.decode(line, type=Reply)

    def leave(self) -> None:
        """Disconnect; the fork server stays as long as one of its clusters."""
        self._close()
        self._process.returncode = 0  # nobody waits for it: the object must not warn when it is deleted

    def close(self) -> None:
        """End it. It ends with the last of its clusters: those without an owner have to be ended first."""
        self._close()
        try:
            self._process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _close(self) -> None:
        self._is_open = False
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


_lock = threading.Lock()
_servers: dict[int, ForkServer] = {}
"""Process id -> its fork server: a fork of this process starts its own."""


def fork_server() -> ForkServer:
    """The fork server of this process, started now if there is none: it begins to load at once."""
    with _lock:
        server = _servers.get(os.getpid())
        if server is None or not server.is_running:
            server = _servers[os.getpid()] = ForkServer()
        return server


def close_fork_server() -> None:
    """End it before this process ends. Its clusters must be ended first."""
    with _lock:
        server = _servers.pop(os.getpid(), None)
    if server is not None:
        server.close()


# --- over the socket of a data folder ---------------------------------------------------------------------------------


def start_fork_or_program(
    *, config: str, node_id: int, data: str, log: str, parent_pid: int | None, variables: Mapping[str, str]
) -> int:
    """Implements `StartProcess`: a fork of the fork server that runs the cluster of `data` if that can make one, else a
    program. Raises OSError."""
    start = StartNode(
        config=config,
        node_id=node_id,
        data=data,
        log=log,
        parent_pid=parent_pid,
        variables=dict(variables),
        inherited=Inherited.own(),
    )
    try:
        reply = _ask_at(data, Command(id=1, start=start))
    except (ForkServerGone, UnicodeEncodeError):  # a variable that is no text cannot be sent
        reply = Reply(id=1, is_refused=True)
    if reply.is_refused:
        return start_program(
            config=config, node_id=node_id, data=data, log=log, parent_pid=parent_pid, variables=variables
        )
    if reply.error:
        raise OSError(reply.error)
    return reply.pid


def end_fork_server(data: str) -> None:
    """End the fork server of a cluster whose nodes have stopped."""
    with contextlib.suppress(ForkServerGone):
        _ask_at(data, Command(id=1, end=data))


def _ask_at(data: str, command: Command) -> Reply:
    """Send a command to the socket of a data folder. Raises ForkServerGone."""
    if not CAN_WATCH_FORKS:
        raise ForkServerGone("this system has no forks that can be watched")
    try:
        folder = os.open(data, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise ForkServerGone(str(error)) from error
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_LIMIT_S)
            # through a descriptor: the path may be longer than the address of a socket
            connection.connect(f"/proc/self/fd/{folder}/{SOCKET_FILE}")
            connection.sendall(msgspec.json.encode(command) + b"\n")
            return _receive(connection)
    except (OSError, msgspec.DecodeError) as error:
        raise ForkServerGone(str(error)) from error
    finally:
        os.close(folder)


def _receive(connection: socket.socket) -> Reply:
    received = b""
    while b"\n" not in received:
        data = connection.recv(READ_BYTES)
        if not data or len(received) > LINE_BYTES_MAX:
            raise ForkServerGone("the fork server did not answer")
        received += data
    return msgspec.json.decode(received, type=Reply)
