"""The fork server: the process whose forks are nodes, `python -P -m kraft.launcher.fork_process node`.

It has loaded all modules of a node, has one thread and no event loop, so that a fork is as good as a new process and
starts in a fraction of the time. It gets commands (`kraft/launcher/fork_messages.py`) from its owner over its standard
input, and for each cluster that it runs over a socket in the data folder. A user of that socket could also change the
files beside it: only the user of this process and root may open it.

It reaps its forks. Its own end ends no node, for whatever reason; nodes are killed only

- when the owner of a cluster ends (`Prepare.owner_pid`), together with the folder of a temporary one,
- by the command `Command.end`,
- when its input ends, and it never had a cluster: these are the nodes that its owner started one by one.

It ends with its input, or with the last of its clusters: a cluster without an owner ends when none of its nodes has run
for ABANDONED_MS, or when its data folder is gone. A fork is refused, and a program can be started instead, when the
code on disk differs from the loaded code, or when a fork cannot have the properties of the process that asks.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
from setproctitle import setproctitle, setthreadtitle

from kraft.config.checks import warnings
from kraft.config.models import ClusterConfig
from kraft.config.problems import ConfigError
from kraft.launcher.cluster_preparation import launch, prepare
from kraft.launcher.configuration import load_config
from kraft.launcher.foreground import run_in_foreground
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
from kraft.launcher.identity import Identity, IdentityAhead, new_identity
from kraft.launcher.processes import LaunchError, kill_users, send_signal, start_program, wait_for_end
from kraft.launcher.runfile import load_run
from kraft.node.process import warm_up

READ_BYTES: Final = 65_536
STDIN, STDOUT, STDERR = 0, 1, 2
CONNECTIONS_MAX: Final = 16
"""Connections at the sockets of all clusters. One more is closed at once; its commands then start programs."""
SEND_LIMIT_S: Final = 5.0
"""A client that does not read an answer for so long is disconnected."""
ABANDONED_MS: Final = 10_000
LOOK_MS: Final = 1_000
"""Interval of the checks of a cluster without a running node."""
KILLED_LIMIT_MS: Final = 10_000
LOG_FILE: Final = "launcher.log"
TEMPORARY_PREFIX: Final = "kraft-"
_PEER_CREDENTIALS: Final = struct.Struct("3i")
_TITLE_IN_ARGUMENTS: Final = "SPT_NOENV"
"""A variable that setproctitle reads at its first call: the title then replaces only the arguments, and
/proc/PID/environ keeps the variables, by which the processes of a test are found."""


class NoFork(Exception):
    """A fork is not possible; a program can be started."""


class _IsNode(BaseException):
    """Raised in a fork: of this process's code only `main` handles it."""

    def __init__(self, start: StartNode) -> None:
        super().__init__(start)
        self.start = start


@dataclass(slots=True)
class _Connection:
    """A client that sends commands: our owner, or one at the socket of a cluster."""

    reply_to: int
    socket: socket.socket | None = None
    received: bytes = b""


@dataclass(slots=True)
class _Cluster:
    config: ClusterConfig
    is_temporary: bool
    secure: bool
    owner: int | None
    """Descriptor of its owner's process (pidfd)."""
    listener: socket.socket | None = None
    socket_id: tuple[int, int] | None = None
    """Device and inode of the socket's file, which show whether it is still ours."""
    nodes: set[int] = field(default_factory=set)
    idle_since_ms: int | None = None


def _temporary_folder(path: str | None) -> str:
    """Make a folder that did not exist before. Raises OSError."""
    if path is None:
        return tempfile.mkdtemp(prefix=TEMPORARY_PREFIX)
    os.mkdir(path, mode=0o700)
    return path


class ForkServer:
    def __init__(self, identity: Callable[[], Identity]) -> None:
        """`identity`: returns that of each new cluster."""
        self._identity = identity
        self._poll = select.poll()
        self._ready: dict[int, Callable[[], None]] = {}
        self._nodes: dict[int, int] = {}
        """Process id of each fork -> the descriptor that reports its end (pidfd)."""
        self._held: set[int] = set()
        """Forks that the owner started one by one: their ids stay reserved until the owner reaps them."""
        self._clusters: dict[str, _Cluster] = {}
        self._connections: set[int] = set()
        self._sockets: set[socket.socket] = set()
        self._has_input = True
        self._was_asked_for_a_cluster = False
        self._code = _stamps_of_code()
        self._inherited = Inherited.own()
        self._decode, self._encode = msgspec.json.Decoder(Command).decode, msgspec.json.Encoder().encode

    def serve(self) -> None:
        """Return when nothing is left to do. Raises _IsNode in forks."""
        self._watch(STDIN, self._read_of(_Connection(reply_to=STDOUT)))
        while self._has_input or self._clusters:
            is_waiting = any(not cluster.nodes for cluster in self._clusters.values())
            events = [(each, self._ready[each]) for each, _ in self._poll.poll(LOOK_MS if is_waiting else None)]
            for descriptor, act in events:
                if self._ready.get(descriptor) is act:  # an earlier one may have closed it, and opened another
                    act()
            self._look_for_abandoned()
        if not self._was_asked_for_a_cluster:
            self._kill(set(self._nodes))

    def let_go(self) -> None:
        """In a fork: close the descriptors of this process, which are not the node's."""
        for each in self._sockets:
            each.close()
        for name in os.listdir("/proc/self/fd"):
            if int(name) > STDERR:
                with contextlib.suppress(OSError):  # the descriptor of the listing itself
                    os.close(int(name))

    def _watch(self, descriptor: int, act: Callable[[], None]) -> None:
        self._ready[descriptor] = act
        self._poll.register(descriptor, select.POLLIN)

    def _ignore(self, descriptor: int) -> None:
        if self._ready.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    # --- commands ---------------------------------------------------------------------------------------------------

    def _read_of(self, connection: _Connection) -> Callable[[], None]:
        descriptor = STDIN if connection.socket is None else connection.socket.fileno()

        def read() -> None:
            try:
                data = os.read(descriptor, READ_BYTES)
                *lines, rest = (connection.received + data).split(b"\n")
                connection.received = rest
                if not data or len(rest) > LINE_BYTES_MAX:
                    self._hang_up(connection, descriptor)
                    return
                for line in lines:
                    self._answer(connection, line)
            except (OSError, msgspec.DecodeError):  # it has ended, reads no answers, or sends no commands of ours
                self._hang_up(connection, descriptor)

        return read

    def _answer(self, connection: _Connection, line: bytes) -> None:
        command = self._decode(line)
        try:
            reply = self._carry_out(command, is_owner=connection.socket is None)
        except NoFork as problem:
            reply = Reply(id=command.id, error=str(problem), is_refused=True)
        except (ConfigError, LaunchError, OSError) as problem:
            reply = Reply(id=command.id, error=str(problem) or type(problem).__name__)
        answer = memoryview(self._encode(reply) + b"\n")
        if connection.socket is not None:
            connection.socket.sendall(answer)
        else:
            while answer:
                answer = answer[os.write(connection.reply_to, answer) :]

    def _hang_up(self, connection: _Connection, descriptor: int) -> None:
        self._ignore(descriptor)
        if connection.socket is None:
            self._has_input = False
            return
        self._connections.discard(descriptor)
        self._sockets.discard(connection.socket)
        connection.socket.close()

    def _carry_out(self, command: Command, *, is_owner: bool) -> Reply:
        if command.start is not None:
            return Reply(id=command.id, pid=self._start(command.start, is_held=is_owner))
        if command.prepare is not None:
            return Reply(id=command.id, document=self._prepare(command.prepare))
        if command.launch is not None:
            return Reply(id=command.id, document=self._launch(command.launch))
        if command.keep and (kept := self._clusters.get(command.keep)) is not None:
            kept.is_temporary = False
        if command.end:
            self._end(os.path.abspath(command.end))
        for pid in self._held.intersection(command.reap):
            self._reap(pid)
        return Reply(id=command.id)

    # --- nodes ------------------------------------------------------------------------------------------------------

    def _start(self, start: StartNode, *, is_held: bool) -> int:
        """Fork a node. Raises NoFork, and _IsNode in the fork."""
        self._refuse_what_no_fork_can_be(start)
        _derive_keys(start)
        os.makedirs(os.path.dirname(start.log), mode=0o700, exist_ok=True)
        log = os.open(start.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        pid = os.fork()
        if pid == 0:
            _talk_into(log)
            raise _IsNode(start)
        os.close(log)
        descriptor = self._nodes[pid] = os.pidfd_open(pid)
        if is_held:
            self._held.add(pid)
            return pid
        cluster = self._clusters.get(start.data)
        if cluster is not None:
            cluster.nodes.add(pid)
            cluster.idle_since_ms = None
        self._watch(descriptor, lambda: self._reap(pid))
        return pid

    def _refuse_what_no_fork_can_be(self, start: StartNode) -> None:
        threads = len(os.listdir("/proc/self/task"))
        if threads != 1:
            raise NoFork(f"the fork server has {threads} threads")
        if start.inherited is not None and (why := start.inherited.why_not_of(self._inherited)):
            raise NoFork(f"the fork server cannot make it: {why}")
        if changed := _changed(self._code):
            raise NoFork(f"{changed} is not the file that the fork server has loaded")

    def _reap(self, pid: int) -> None:
        descriptor = self._nodes.pop(pid)
        self._ignore(descriptor)
        os.waitpid(pid, 0)
        os.close(descriptor)
        self._held.discard(pid)
        for cluster in self._clusters.values():
            cluster.nodes.discard(pid)

    def _kill(self, pids: set[int]) -> None:
        """Kill forks; none of them is left, not even its process id."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._nodes[pid], signal.SIGKILL)
        for pid in pids:
            self._reap(pid)

    # --- clusters ---------------------------------------------------------------------------------------------------

    def _prepare(self, asked: Prepare) -> dict[str, object]:
        self._was_asked_for_a_cluster = True
        owner = None if asked.owner_pid is None else os.pidfd_open(asked.owner_pid)
        data, made = asked.data, None
        try:
            if asked.is_temporary:
                data = made = _temporary_folder(asked.data)
            config = prepare(
                asked.config,
                text=asked.text,
                data=data,
                free_ports=asked.free_ports,
                secure=asked.secure,
                identity=self._identity,
            )
        except BaseException:
            if made is not None:
                shutil.rmtree(made, ignore_errors=True)
            if owner is not None:
                os.close(owner)
            raise
        if config.data in self._clusters:
            self._forget(config.data)
        self._clusters[config.data] = _Cluster(
            config=config, is_temporary=asked.is_temporary, secure=asked.secure, owner=owner
        )
        if owner is not None:
            self._watch(owner, lambda: self._end_with_owner(config.data, ends_users=asked.ends_users))
        return {"data": config.data, "warnings": list(warnings(config))}

    def _launch(self, asked: Launch) -> dict[str, object]:
        cluster = self._clusters.get(asked.data)
        if cluster is None:
            raise LaunchError(f"the cluster of {asked.data} was not prepared")
        _say_into(os.path.join(asked.data, LOG_FILE))
        self._listen(asked.data, cluster)
        run = launch(
            cluster.config,
            parent_pid=asked.parent_pid,
            start=self._start_node,
            has_witness=asked.has_witness,
            secure=cluster.secure,
        )
        return run.to_document()

    def _start_node(
        self, *, config: str, node_id: int, data: str, log: str, parent_pid: int | None, variables: Mapping[str, str]
    ) -> int:
        """Implements `StartProcess`."""
        start = StartNode(
            config=config, node_id=node_id, data=data, log=log, parent_pid=parent_pid, variables=dict(variables)
        )
        try:
            return self._start(start, is_held=False)
        except NoFork:
            return start_program(
                config=config, node_id=node_id, data=data, log=log, parent_pid=parent_pid, variables=variables
            )

    def _listen(self, data: str, cluster: _Cluster) -> None:
        """Listen on the socket through a descriptor of the folder: its path may be longer than the address of a
        socket."""
        path = os.path.join(data, SOCKET_FILE)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # of a process that was killed
        folder = os.open(data, os.O_PATH | os.O_DIRECTORY)
        umask = os.umask(0o177)
        try:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(f"/proc/self/fd/{folder}/{SOCKET_FILE}")
            listener.listen(CONNECTIONS_MAX)
        finally:
            os.umask(umask)
            os.close(folder)
        found = os.stat(path)
        cluster.listener, cluster.socket_id = listener, (found.st_dev, found.st_ino)
        self._sockets.add(listener)
        self._watch(listener.fileno(), lambda: self._accept(listener))

    def _accept(self, listener: socket.socket) -> None:
        accepted, _ = listener.accept()
        _, user, _ = _PEER_CREDENTIALS.unpack(
            accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
        )
        if user not in (0, os.geteuid()) or len(self._connections) >= CONNECTIONS_MAX:
            accepted.close()
            return
        accepted.settimeout(SEND_LIMIT_S)
        descriptor = accepted.fileno()
        self._connections.add(descriptor)
        self._sockets.add(accepted)
        self._watch(descriptor, self._read_of(_Connection(reply_to=descriptor, socket=accepted)))

    def _end_with_owner(self, data: str, *, ends_users: bool) -> None:
        if ends_users:
            kill_users(data)
        self._end(data)

    def _end(self, data: str) -> None:
        """End a cluster: no process of it is left, and no file of a temporary one."""
        cluster = self._clusters.get(data)
        if cluster is None:
            return
        self._kill(set(cluster.nodes))
        _kill_programs(data)
        is_temporary = cluster.is_temporary
        self._forget(data)
        if is_temporary:
            shutil.rmtree(data, ignore_errors=True)

    def _forget(self, data: str) -> None:
        cluster = self._clusters.pop(data)
        if cluster.owner is not None:
            self._ignore(cluster.owner)
            os.close(cluster.owner)
        if cluster.listener is not None:
            self._ignore(cluster.listener.fileno())
            self._sockets.discard(cluster.listener)
            cluster.listener.close()
            if _is_at(os.path.join(data, SOCKET_FILE), cluster.socket_id):
                os.unlink(os.path.join(data, SOCKET_FILE))

    def _look_for_abandoned(self) -> None:
        now_ms = int(time.monotonic() * 1_000)
        for data, cluster in list(self._clusters.items()):
            if cluster.nodes or cluster.owner is not None:
                continue
            if cluster.idle_since_ms is None:
                cluster.idle_since_ms = now_ms
            is_ours = cluster.listener is None or _is_at(os.path.join(data, SOCKET_FILE), cluster.socket_id)
            if not is_ours or (now_ms - cluster.idle_since_ms >= ABANDONED_MS and not self._has_input):
                self._forget(data)


def _derive_keys(start: StartNode) -> None:
    """Derive the keys here, which is slow on purpose: all forks of a cluster then have them."""
    with contextlib.suppress(ConfigError):  # the node reports it
        _ = load_config(start.config, data=start.data).keys


def _kill_programs(data: str) -> None:
    """Kill nodes that were restarted as programs."""
    run = load_run(data)
    if run is not None:
        wait_for_end([node for node in run.nodes if send_signal(node, signal.SIGKILL)], limit_ms=KILLED_LIMIT_MS)


def _is_at(path: str, identity: tuple[int, int] | None) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == identity


def _say_into(path: str) -> None:
    """Redirect standard error: a reader of our owner's standard error must not wait for our end."""
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, STDERR)
    os.close(log)


Stamps = Mapping[str, tuple[int, int, int]]


def _stamps_of_code() -> Stamps:
    """Inode, time and size of each loaded file: another version has others."""
    paths = {path for module in list(sys.modules.values()) if (path := getattr(module, "__file__", None))}
    return {path: stamp for path in paths if (stamp := _stamp(path)) is not None}


def _changed(code: Stamps) -> str:
    return next((path for path, stamp in code.items() if _stamp(path) != stamp), "")


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


# --- a fork becomes a node --------------------------------------------------------------------------------------------


def _talk_into(log: int) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, STDIN)
    os.dup2(log, STDOUT)
    os.dup2(log, STDERR)


def _be_node(start: StartNode, inherited: Inherited) -> int:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    properties = start.inherited or inherited
    os.umask(properties.umask)
    if start.inherited is not None:
        os.environ.clear()
    os.environ.update({**properties.variables, **start.variables})
    _be_called(f"kraft-node-{start.node_id}", f"kraft node --id {start.node_id} --data {start.data}")
    return run_in_foreground(start.config, node_id=start.node_id, data=start.data, parent_pid=start.parent_pid)


def _be_called(name: str, command: str) -> None:
    """Set the name of this process and its command line, as in ps, top and pgrep. The name may have 15 bytes, and the
    command line as many as the arguments of this program had at its start."""
    os.environ.setdefault(_TITLE_IN_ARGUMENTS, "1")
    setproctitle(command)
    setthreadtitle(name)


def main(ahead: IdentityAhead | None) -> int:
    """Run the server; return its exit code, or in a fork that of its node. `ahead`: identity of the first new
    cluster."""
    _be_called("kraft-fork", "kraft fork-server node")  # `node`: its forks are known as such from the first
    warm_up()
    if ahead is not None:
        ahead.wait()
    gc.freeze()  # pages that no collection writes to are shared by all nodes
    server = ForkServer(new_identity if ahead is None else ahead.take)
    inherited = Inherited.own()
    start: StartNode | None = None
    try:
        server.serve()
    except _IsNode as fork:
        start = fork.start
    if start is None:
        return 0
    server.let_go()
    return _be_node(start, inherited)
