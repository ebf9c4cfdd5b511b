"""`Cluster`: real nodes for a test, started and ended here, and killed, paused and restarted by the test.

    with Cluster(nodes=3) as cluster:
        producer = KafkaProducer(bootstrap_servers=cluster.bootstrap_servers)
        cluster.kill(cluster.leader_of("orders", 0))

The nodes are forks of a process that is started with the first cluster, loads a node's modules once, and watches this
process: when this ends, for any reason, the nodes are killed and temporary folders are removed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from kraft.client.blocking_transport import send
from kraft.client.response import Answer, Request
from kraft.launcher import actions
from kraft.launcher.client_security import ClientSecurity as ClientSecurity
from kraft.launcher.client_security import first_user
from kraft.launcher.deleted_users import delete_user, restore_first_user
from kraft.launcher.fork_messages import Launch, Prepare
from kraft.launcher.fork_start import CAN_WATCH_FORKS
from kraft.launcher.forks import ForkServer, ForkServerGone, fork_server
from kraft.launcher.processes import (
    LaunchError,
    is_alive,
    is_stopped,
    log_tail,
    reap,
    send_signal,
    stop_nodes,
    wait_for_end,
)
from kraft.launcher.python import PYTHON, environment
from kraft.launcher.readiness import StartFailed, cluster_status, explained, wait_until_ready
from kraft.launcher.runfile import ClusterRun, NodeRun, load_run, remove_run, run_of

Setting = str | int | float | bool
BOTH: Final = ("broker", "controller")
VOTERS_MAX: Final = 5
"""Voters of a cluster with a plain number of nodes; further nodes are only brokers."""
POWER_LOSS: Final = "kraft.chaos.worlds.processes.power"
EXPIRED_CERTIFICATES: Final = "kraft.launcher.expired_certificates"
"""Programs, because they need packages that are not imported in the process of other people's tests."""
REPLICAS_MAX: Final = 3
KILLED_LIMIT_MS: Final = 10_000
STATE_LIMIT_S: Final = 10.0
STATE_POLL_S: Final = 0.002


class ClusterFailed(Exception):
    """A cluster did not start, or cannot carry out a call. The text has the end of the node's log."""


class Lifespan(ABC):
    """An object that `with` and `async with` start and close: the latter in a thread, so that no event loop waits for
    it."""

    @abstractmethod
    def start(self) -> Self: ...

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)


class Cluster(Lifespan):
    def __init__(
        self,
        nodes: int | Mapping[int, Sequence[str]] = 3,
        *,
        settings: Mapping[str, Setting] | None = None,
        node_settings: Mapping[int, Mapping[str, Setting]] | None = None,
        folder: str | os.PathLike[str] | None = None,
        temporary_folder: str | os.PathLike[str] | None = None,
        power_loss: bool = False,
        secure: bool = False,
        owner_pid: int | None = None,
        ends_users: bool = False,
        start_limit_s: float | None = None,
    ) -> None:
        """`nodes`: their number, or the roles ("broker", "controller") of each by its id. `settings`: Kafka's, by
        Kafka's names, for all nodes; `node_settings` for single ones. `folder` keeps all data for a later cluster;
        None: a temporary one, removed at the end, which is made here as `temporary_folder` if that is set.
        `power_loss`: the disks of the nodes keep a witness of durable data, which a power loss needs. `secure`: with
        TLS, a user and ACLs (`security` has what clients need). `owner_pid`: the process with which the cluster ends;
        None: this one. `ends_users`: when that process ends and has not closed the cluster, every process that has its
        folder in KRAFT_DATA is killed with it. `start_limit_s`: seconds; None: as long as the start makes progress."""
        self._roles = dict(roles_of(nodes))
        self._settings = {**defaults_of(self._roles), **(settings or {})}
        self._node_settings = node_settings or {}
        self._folder = None if folder is None else os.path.abspath(folder)
        self._temporary_folder = None if temporary_folder is None else os.path.abspath(temporary_folder)
        self._has_witness = power_loss
        self._secure = secure
        self._owner_pid = owner_pid
        self._ends_users = ends_users
        self._limit_ms = None if start_limit_s is None else round(start_limit_s * 1_000)
        self._server: ForkServer | None = None
        self._run: ClusterRun | None = None

    @classmethod
    def attach(cls, data: str | os.PathLike[str]) -> Self:
        """The cluster that another process runs from this data folder. Closing it ends nothing. Raises
        ClusterFailed."""
        found = load_run(os.path.abspath(data))
        if found is None:
            raise ClusterFailed(f"no cluster runs from {os.path.abspath(data)}")
        cluster = cls({node.id: node.roles for node in found.nodes}, folder=data)
        cluster._run = found
        return cluster

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start; return when the cluster is ready: the quorum has a leader, and every broker is active. Raises
        ClusterFailed; then nothing of it is left."""
        if self._run is not None:
            raise ClusterFailed(f"the cluster of {self._run.data} was started already")
        if not CAN_WATCH_FORKS:
            raise ClusterFailed("kraft.testing needs Linux: elsewhere, start a cluster with `kraft up --detach`")
        self._server = server = fork_server()
        try:
            plan = server.prepare(self._asked())
        except (LaunchError, ForkServerGone) as error:
            raise ClusterFailed(str(error)) from error
        try:
            launch = Launch(data=plan["data"], parent_pid=self._owner, has_witness=self._has_witness)
            self._run = run_of(server.launch(launch))
            wait_until_ready(self._run.nodes, show=lambda _: None, limit_ms=self._limit_ms)
        except StartFailed as failure:
            text = explained(failure)
            self._end(plan["data"])
            raise ClusterFailed(text) from failure
        except (LaunchError, ForkServerGone) as error:
            self._end(plan["data"])
            raise ClusterFailed(str(error)) from error
        except BaseException:
            self._end(plan["data"])
            raise
        return self

    def close(self) -> None:
        """End all nodes. A temporary folder is removed; with a `folder` the nodes stop cleanly. A second call does
        nothing."""
        if self._server is None:
            self._run = None  # another process runs it
        elif self._run is not None:
            if self._folder is not None:
                stop_nodes(self._now().nodes, say=_nothing)
                remove_run(self._run.data)
            self._end(self._run.data)

    def keep(self) -> None:
        """Do not remove a temporary folder at the end, and stop the nodes cleanly. Raises ClusterFailed."""
        data = self._now().data
        try:
            if self._server is not None:
                self._server.keep(data)
        except ForkServerGone as error:
            raise ClusterFailed(str(error)) from error
        self._folder = data

    def _end(self, data: str) -> None:
        assert self._server is not None
        programs = [] if self._run is None else [node.pid for node in self._now().nodes]
        try:
            self._server.end(data)
            reap(programs)
        except ForkServerGone:
            self._end_what_is_left(data)
        finally:
            self._run = None

    def _end_what_is_left(self, data: str) -> None:
        """End the rest of a cluster whose fork server was killed."""
        import shutil

        run = load_run(data)
        for node in run.nodes if run is not None else ():
            send_signal(node, signal.SIGKILL)
        if run is not None:
            wait_for_end(run.nodes, limit_ms=KILLED_LIMIT_MS)
        if self._folder is None:
            shutil.rmtree(data, ignore_errors=True)

    def _asked(self) -> Prepare:
        text = "\n".join(self._configuration()) + "\n"
        return Prepare(
            text=text,
            data=self._folder or self._temporary_folder,
            is_temporary=self._folder is None,
            free_ports=True,
            secure=self._secure,
            owner_pid=self._owner,
            ends_users=self._ends_users,
        )

    @property
    def _owner(self) -> int:
        return self._owner_pid or os.getpid()

    def _configuration(self) -> Iterator[str]:
        """Lines of cluster.toml; JSON's strings, numbers, booleans and arrays of strings are TOML's too."""
        host = _own_host()
        yield "[settings]"
        for name, value in self._settings.items():
            yield f"{json.dumps(name)} = {json.dumps(value)}"
        for node, roles in self._roles.items():
            yield f'[[nodes]]\nid = {node}\nroles = {json.dumps(list(roles))}\nhost = "{host}"'
            if node in self._node_settings:
                yield "[nodes.settings]"
                for name, value in self._node_settings[node].items():
                    yield f"{json.dumps(name)} = {json.dumps(value)}"

    # --- facts ------------------------------------------------------------------------------------------------------

    @property
    def data(self) -> Path:
        """The folder of everything: `--data` of commands, `KRAFT_DATA`."""
        return Path(self._now().data)

    @property
    def cluster_id(self) -> str:
        return self._now().cluster_id

    @property
    def bootstrap_servers(self) -> str:
        """Addresses of all brokers for Kafka clients: host:port,host:port."""
        return ",".join(node.kafka for node in self._now().nodes if node.is_broker)

    @property
    def is_secure(self) -> bool:
        """Whether it has TLS, a user and ACLs."""
        return self._now().client is not None

    @property
    def security(self) -> ClientSecurity:
        """The login of the first user, who may do everything. Raises ClusterFailed without `secure`."""
        folder = self._now().client
        if folder is None:
            raise ClusterFailed("the cluster has no security: start it with secure=True")
        return first_user(Path(folder))

    @property
    def rest_url(self) -> str:
        """URL of the first node."""
        return self._now().nodes[0].rest

    @property
    def rest_urls(self) -> dict[int, str]:
        return {node.id: node.rest for node in self._now().nodes}

    @property
    def ids(self) -> list[int]:
        return list(self._roles)

    @property
    def brokers(self) -> list[int]:
        return [node for node, roles in self._roles.items() if "broker" in roles]

    def node(self, node_id: int) -> NodeRun:
        """A node's process, addresses and folder. Raises ClusterFailed."""
        try:
            return self._now().node(node_id)
        except LookupError as error:
            raise ClusterFailed(str(error)) from error

    def witness(self, node_id: int) -> Path | None:
        """Folder of the witness that the disk of this node keeps, if it does."""
        folder = self._now().witness_of(self.node(node_id).id)
        return None if folder is None else Path(folder)

    def state(self, node_id: int) -> str:
        """State of a node: running, paused or down."""
        pid = self.node(node_id).pid
        if not is_alive(pid):
            return "down"
        return "paused" if is_stopped(pid) else "running"

    def log_tail(self, node_id: int, *, lines: int = 20) -> str:
        """The end of the node's standard error."""
        return "\n".join(log_tail(self.node(node_id).log, lines_max=lines))

    def status(self) -> dict[str, Any]:
        """/kraft/status of the first node that answers. Raises ClusterFailed when none does."""
        found = cluster_status(self._awake())
        if found is None:
            raise ClusterFailed("no node answers")
        return found

    @property
    def controller(self) -> int:
        """The node that leads the quorum, -1 for none. Raises ClusterFailed when no node answers."""
        return int(self.status().get("controller_id", -1))

    def leader_of(self, topic: str, partition: int = 0) -> int:
        """The node that leads a partition, -1 for none, by the first node that answers. Raises ClusterFailed when no
        node answers, or none knows the partition."""
        request = Request(method="GET", path=f"/topics/{topic}/partitions/{partition}")
        problem = "no node answers"
        for node in self._awake():
            outcome = send(node.rest, request)
            if isinstance(outcome, Answer) and outcome.is_success:
                leader = outcome.json()["leader"]
                return -1 if leader is None else int(leader)
            problem = str(outcome)
        raise ClusterFailed(f"no node reports the leader of {topic}-{partition}: {problem}")

    def wait_until_ready(self, limit_s: float | None = None) -> None:
        """Wait until all running nodes are ready, the quorum has a leader, and none of their brokers is fenced. Raises
        ClusterFailed after `limit_s`, or without progress."""
        limit_ms = None if limit_s is None else round(limit_s * 1_000)
        try:
            wait_until_ready(self._awake(), show=lambda _: None, limit_ms=limit_ms)
        except StartFailed as failure:
            raise ClusterFailed(str(failure)) from failure

    # --- faults of nodes --------------------------------------------------------------------------------------------

    def kill(self, *nodes: int) -> None:
        """Kill with -9; return when the processes are gone. Raises ClusterFailed when one does not run."""
        killed = [self._running(node) for node in nodes]
        for each in killed:
            send_signal(each, signal.SIGKILL)
        left = wait_for_end(killed, limit_ms=KILLED_LIMIT_MS)
        if left:
            raise ClusterFailed(f"node {left[0].id} is still there {KILLED_LIMIT_MS} ms after it was killed")

    def power_loss(self, *nodes: int) -> None:
        """Kill, and remove everything from their disks that no fsync had made durable. Needs a cluster with
        `power_loss=True`."""
        if self._now().witness is None:
            raise ClusterFailed("the disks keep no witness of what is durable: make it a Cluster(power_loss=True)")
        self.kill(*nodes)
        for node in nodes:
            command = [*PYTHON, "-m", POWER_LOSS, self.node(node).data, str(self.witness(node))]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
            if done.returncode != 0:
                raise ClusterFailed(f"the power loss of node {node} failed: {done.stderr}")

    def pause(self, *nodes: int) -> None:
        """Stop the processes with SIGSTOP; their connections stay open."""
        for each in [self._running(node) for node in nodes]:
            send_signal(each, signal.SIGSTOP)
            _wait_for(partial(is_stopped, each.pid), what=f"node {each.id} to pause")

    def resume(self, *nodes: int) -> None:
        for each in [self._running(node) for node in nodes]:
            send_signal(each, signal.SIGCONT)
            _wait_for(lambda: not is_stopped(each.pid), what=f"node {each.id} to resume")  # noqa: B023 - called here

    def stop(self, *nodes: int) -> None:
        """Stop cleanly: they first hand their leaderships over."""
        stop_nodes([self._running(node) for node in nodes], say=_nothing)

    def restart(self, *nodes: int, wait: bool = True) -> None:
        """Start nodes, after a clean stop of those that run. With `wait` return when they are ready, or can only wait
        for a majority of the voters. Raises ClusterFailed."""
        data = self._now().data
        try:
            started = [actions.start_again(data, self.node(node).id, say=_nothing) for node in nodes]
            if wait and started:
                actions.wait_for_started(data, started, say=_nothing, limit_ms=self._limit_ms)
        except (actions.NotRunning, StartFailed, OSError) as error:
            raise ClusterFailed(str(error)) from error

    # --- faults of security -----------------------------------------------------------------------------------------

    def expire_certificate(self, *nodes: int) -> None:
        """The certificates of nodes have expired: new connections to them fail, within a second. Raises
        ClusterFailed."""
        self._write_certificates("expire", nodes)

    def renew_certificate(self, *nodes: int) -> None:
        """The nodes show good certificates again, within a second."""
        self._write_certificates("renew", nodes)

    def delete_user(self, name: str | None = None) -> None:
        """A user cannot log in any more, and its connections end within a second. Default: the first user, whom
        `restore_user` brings back. Raises ClusterFailed."""
        self._alter_users(partial(delete_user, name=name or self.security.user))

    def restore_user(self) -> None:
        """The first user can log in again."""
        self._alter_users(partial(restore_first_user, login=self.security))

    def _write_certificates(self, what: str, nodes: Sequence[int]) -> None:
        chosen = [str(self.node(node).id) for node in nodes]
        command = [*PYTHON, "-m", EXPIRED_CERTIFICATES, str(self.security.folder.parent), what, *chosen]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
        if done.returncode != 0:
            raise ClusterFailed(done.stderr.strip())

    def _alter_users(self, alter: Callable[[list[str]], None]) -> None:
        try:
            alter([node.rest for node in self._awake()])
        except LaunchError as error:
            raise ClusterFailed(str(error)) from error

    def _now(self) -> ClusterRun:
        """The current run: restarted nodes have other processes, also after a restart by another command."""
        if self._run is None:
            raise ClusterFailed("the cluster does not run: start it, or use it in a `with` block")
        return load_run(self._run.data) or self._run

    def _awake(self) -> list[NodeRun]:
        """Nodes that can answer."""
        return [node for node in self._now().nodes if is_alive(node.pid) and not is_stopped(node.pid)]

    def _running(self, node_id: int) -> NodeRun:
        node = self.node(node_id)
        if not is_alive(node.pid):
            raise ClusterFailed(f"node {node_id} does not run")
        return node


def _nothing(_: str) -> None:
    """Ignore the launcher's messages for people."""


def _wait_for(is_so: Callable[[], bool], *, what: str) -> None:
    deadline = time.monotonic() + STATE_LIMIT_S
    while not is_so():
        if time.monotonic() > deadline:
            raise ClusterFailed(f"waited {STATE_LIMIT_S:g} s for {what}")
        time.sleep(STATE_POLL_S)


def roles_of(nodes: int | Mapping[int, Sequence[str]]) -> Iterator[tuple[int, Sequence[str]]]:
    if not isinstance(nodes, int):
        yield from nodes.items()
        return
    for node in range(1, nodes + 1):
        yield node, BOTH if node <= VOTERS_MAX else BOTH[:1]


def defaults_of(roles: Mapping[int, Sequence[str]]) -> dict[str, Setting]:
    """Settings for tests: as many replicas as so many brokers can have, topics created at a client's first use, as is
    Kafka's own default, and no wait for more members of a group."""
    brokers = sum("broker" in each for each in roles.values())
    replicas = max(1, min(REPLICAS_MAX, brokers))
    return {
        "default.replication.factor": replicas,
        "min.insync.replicas": min(2, replicas),
        "offsets.topic.replication.factor": replicas,
        "auto.create.topics.enable": True,
        "group.initial.rebalance.delay.ms": 0,
    }


def _own_host() -> str:
    """A loopback address for this cluster alone: no other program takes a port there between two starts of a node.
    macOS has only one."""
    if sys.platform == "darwin":
        return "127.0.0.1"
    rng = random.Random()
    return f"127.{rng.randint(1, 254)}.{rng.randint(1, 254)}.{rng.randint(1, 254)}"
