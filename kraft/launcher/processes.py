"""Node processes: start, state, signals. A node is a program, `python -P -m kraft node --config FILE --id N`, or a fork
of a process that has loaded the same modules (`kraft/launcher/fork_server.py`), with the same name.

Every node is in a session of its own, so that Ctrl-C reaches only `kraft up`, which stops the nodes cleanly.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from kraft.launcher.python import PYTHON, environment
from kraft.launcher.runfile import NodeRun

NODE_COMMAND: tuple[str, ...] = (*PYTHON, "-m", "kraft", "node")
STOP_LIMIT_MS: Final = 15_000
"""Time in which a node must stop after SIGTERM before it is killed, and again as long as it is busy: one with 20,000
partitions hands them over and closes as many logs. A node that hangs ends itself (`kraft/node/process.py`)."""
BUSY_SHARE: Final = 0.1
"""Share of a core above which a node is busy. A node that only waits for its timers takes a few hundredths."""
STOP_LIMIT_MS_MAX: Final = 300_000
"""Limit even for a busy node."""
POLL_MS: Final = 20
LOG_TAIL_LINES: Final = 20
_STATE, _USER_TIME, _SYSTEM_TIME, _THREADS = 0, 11, 12, 17
"""Fields of /proc/PID/stat (proc(5)), counted from the one after the name."""
LOG_TAIL_BYTES: Final = 64 * 1024
ROUNDS_MAX: Final = 20
"""Rounds of a search for processes that others have started before they were killed."""
ROUND_S: Final = 0.01


def start_node(
    *,
    config: str,
    node_id: int,
    data: str,
    log: str,
    parent_pid: int | None,
    variables: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a node. `parent_pid`: the node stops by itself when that process ends, for any reason. `variables`: added
    to our own environment."""
    command = [*NODE_COMMAND, "--config", config, "--id", str(node_id), "--data", data]
    if parent_pid is not None:
        command += ["--parent", str(parent_pid)]
    os.makedirs(os.path.dirname(log), mode=0o700, exist_ok=True)
    with open(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**environment(), **(variables or {})},
        )


class LaunchError(Exception):
    """The cluster was not started, or did not become ready and was stopped again."""


class StartProcess(Protocol):
    """The start of a node of a cluster that lives longer than its launcher."""

    def __call__(
        self,
        *,
        config: str,
        node_id: int,
        data: str,
        log: str,
        parent_pid: int | None,
        variables: Mapping[str, str],
    ) -> int:
        """Start a node; return its process id. The arguments are those of `start_node`. Raises OSError."""
        ...


def start_program(
    *, config: str, node_id: int, data: str, log: str, parent_pid: int | None, variables: Mapping[str, str]
) -> int:
    """Implements `StartProcess`: the node is a program of its own."""
    process = start_node(config=config, node_id=node_id, data=data, log=log, parent_pid=parent_pid, variables=variables)
    process.returncode = 0  # reaped by its pid: the object must not warn when it is deleted
    return process.pid


def is_alive(pid: int) -> bool:
    """Whether the process runs and is a node of ours: not a zombie, and not another program with the same id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False
    return _is_node(pid)


def _is_node(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat, open(f"/proc/{pid}/cmdline", "rb") as command_line:
            fields = stat.read().rpartition(b")")[2].split()
            arguments = command_line.read().split(b"\0")
    except FileNotFoundError:
        return not os.path.isdir("/proc/self")
    except ProcessLookupError:
        return False
    # A zombie with other threads is still ending: its ports are free after the end of the last thread.
    has_ended = fields[_STATE] in (b"Z", b"X") and int(fields[_THREADS]) <= 1
    title = arguments[0].split(b" ")  # a forked node has a title instead of arguments
    return not has_ended and (b"node" in arguments or b"node" in title or arguments == [b""])


def is_stopped(pid: int) -> bool:
    """Whether SIGSTOP has stopped the process; False where it is not known."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[_STATE] == b"T"
    except OSError:
        return False


def send_signal(node: NodeRun, number: signal.Signals) -> bool:
    """Send a signal. False when the node does not run."""
    if not is_alive(node.pid):
        return False
    try:
        os.kill(node.pid, number)
    except ProcessLookupError:
        return False
    return True


def stop_nodes(nodes: Iterable[NodeRun], *, say: Callable[[str], None], limit_ms: int = STOP_LIMIT_MS) -> None:
    """Stop with SIGTERM: brokers first, the quorum last, because brokers need it; after the limit, SIGKILL with a
    message."""
    waves: dict[int, list[NodeRun]] = {0: [], 1: [], 2: []}
    for node in nodes:
        waves[0 if "controller" not in node.roles else 1 if node.is_broker else 2].append(node)
    for wave in waves.values():
        _stop_wave(wave, say=say, limit_ms=limit_ms)


def _stop_wave(nodes: Sequence[NodeRun], *, say: Callable[[str], None], limit_ms: int) -> None:
    signalled = [node for node in nodes if send_signal(node, signal.SIGTERM)]
    for node in signalled:
        send_signal(node, signal.SIGCONT)
    for node in _wait_while_busy(signalled, limit_ms=limit_ms):
        say(f"node {node.id} (pid {node.pid}) did not stop within {limit_ms / 1000:g} s: killed")
        send_signal(node, signal.SIGKILL)
        wait_for_end([node], limit_ms=limit_ms)


def _wait_while_busy(nodes: Sequence[NodeRun], *, limit_ms: int) -> list[NodeRun]:
    """Wait until none runs; return those that still run when none of them was busy for so long, or at
    STOP_LIMIT_MS_MAX."""
    deadline = time.monotonic() + max(limit_ms, STOP_LIMIT_MS_MAX) / 1000
    running, is_busy = list(nodes), True
    while running and is_busy and time.monotonic() < deadline:
        before = {node.pid: _processor_ms(node.pid) for node in running}
        running = wait_for_end(running, limit_ms=limit_ms)
        is_busy = any(_processor_ms(node.pid) - before[node.pid] >= limit_ms * BUSY_SHARE for node in running)
    return running


def _processor_ms(pid: int) -> float:
    """Processor time of a process; 0 where it is not known."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return (int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])) * 1000 / os.sysconf("SC_CLK_TCK")


def wait_for_end(nodes: Sequence[NodeRun], *, limit_ms: int) -> list[NodeRun]:
    """Wait until none runs; return those that still run at the limit."""
    deadline = time.monotonic() + limit_ms / 1000
    running = list(nodes)
    while running and time.monotonic() < deadline:
        reap([node.pid for node in running])
        running = [node for node in running if is_alive(node.pid)]
        if running:
            time.sleep(POLL_MS / 1000)
    return running


def reap(pids: Iterable[int]) -> None:
    """Reap ended children, so that they do not stay as zombies."""
    for pid in pids:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue


def kill_users(data: str) -> None:
    """Kill processes with this folder in their environment, and those that they have started meanwhile."""
    sign = b"\0KRAFT_DATA=" + os.fsencode(data) + b"\0"
    for _ in range(ROUNDS_MAX):
        found = [int(name) for name in os.listdir("/proc") if name.isdecimal() and sign in _variables_of(name)]
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return
        time.sleep(ROUND_S)


def _variables_of(pid: str) -> bytes:
    try:
        with open(f"/proc/{pid}/environ", "rb") as environment:
            return b"\0" + environment.read() + b"\0"
    except OSError:
        return b""  # another user's, or it has ended


def log_tail(path: str, *, lines_max: int = LOG_TAIL_LINES) -> list[str]:
    try:
        with open(path, "rb") as log:
            log.seek(max(0, os.path.getsize(path) - LOG_TAIL_BYTES))
            return log.read().decode("utf-8", "replace").splitlines()[-lines_max:]
    except OSError:
        return []
