"""A cluster with links that can be broken, and answers that can be changed: for tests of a client's reaction.

    with FaultCluster(nodes=3) as cluster:
        cluster.create_topic("orders")
        cluster.answer("Produce", error="NOT_LEADER_OR_FOLLOWER", times=3)
        cluster.kill(cluster.leader_of("orders"))

A process of its own runs it (`kraft.testing.fault_server`), which ends with this one, for any reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final, Protocol, Self

from kraft.launcher.client_security import ClientSecurity, first_user
from kraft.launcher.fork_start import CAN_WATCH_FORKS
from kraft.launcher.python import PYTHON, environment
from kraft.launcher.runfile import load_run
from kraft.testing.assertions import Record, Sent, Verdict, records_of, verdict_of
from kraft.testing.cluster import ClusterFailed, Lifespan, Setting, defaults_of, roles_of

HOST: Final = "kraft.testing.fault_server"
"""A program, because it needs packages that are not imported in the process of other people's tests."""
SOCKET_FILE: Final = "faults.sock"
READ_BYTES: Final = 1024 * 1024
END_LIMIT_S: Final = 20.0
REMOVE_S: Final = 0.01
START_LIMIT_MS: Final = 60_000
CLIENTS: Final = "clients"
"""The other end of a link, beside the ids of nodes."""
QUICK: Final[Mapping[str, Setting]] = {
    "broker.heartbeat.interval.ms": 400,
    "broker.session.timeout.ms": 3_000,
    "replica.lag.time.max.ms": 1_500,
    "replica.fetch.backoff.ms": 100,
}
"""Settings with which a cut is noticed soon; the caller's settings override these."""

End = int | str


class ServerConnection(Protocol):
    """A connection to the process that runs the cluster."""

    def write(self, data: bytes) -> None: ...
    def read(self) -> bytes: ...
    def close(self) -> None: ...


class Pipes:
    """Implements `ServerConnection` for the process that has started it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [*PYTHON, "-m", HOST],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            bufsize=0,
            env=environment(),
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        left = memoryview(data)
        while left:
            left = left[self._process.stdin.write(left) :]

    def read(self) -> bytes:
        assert self._process.stdout is not None
        return os.read(self._process.stdout.fileno(), READ_BYTES)

    def close(self) -> None:
        """End the process; it ends its nodes, and removes its folder."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Attached:
    """Implements `ServerConnection` for another process, by the data folder. Raises OSError."""

    def __init__(self, data: str) -> None:
        folder = os.open(data, os.O_PATH | os.O_DIRECTORY)
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            # through a descriptor: the path may be longer than the address of a socket
            self._socket.connect(f"/proc/self/fd/{folder}/{SOCKET_FILE}")
        finally:
            os.close(folder)

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read(self) -> bytes:
        return self._socket.recv(READ_BYTES)

    def close(self) -> None:
        self._socket.close()


class _Host:
    """Commands from any thread, one after the other."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self.is_owner = isinstance(connection, Pipes)
        self._ids = count(1)
        self._lock = threading.Lock()
        self._received = b""

    @property
    def pid(self) -> int:
        assert isinstance(self._connection, Pipes), self._connection
        return self._connection.pid

    def ask(self, do: str, **options: Any) -> Any:
        """Send a command; return its result. Raises ClusterFailed."""
        with self._lock:
            number = next(self._ids)
            try:
                self._connection.write(json.dumps({"id": number, "do": do, "options": options}).encode() + b"\n")
                reply = self._read()
                while reply["id"] < number:  # the caller of that command was interrupted
                    reply = self._read()
            except OSError as error:
                raise ClusterFailed(f"the process that owns the cluster has ended: {error}") from error
        if reply["error"]:
            raise ClusterFailed(reply["error"])
        return reply["value"]

    def _read(self) -> dict[str, Any]:
        while b"\n" not in self._received:
            data = self._connection.read()
            if not data:
                raise ClusterFailed("the process that owns the cluster has ended")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        self._connection.close()


class FaultCluster(Lifespan):
    def __init__(
        self,
        nodes: int | Mapping[int, Sequence[str]] = 3,
        *,
        settings: Mapping[str, Setting] | None = None,
        secure: bool = False,
        owner_pid: int | None = None,
        ends_users: bool = False,
        start_limit_s: float | None = None,
    ) -> None:
        """Arguments as those of `kraft.testing.Cluster`. A dead or isolated node is noticed within seconds."""
        self._roles = dict(roles_of(nodes))
        self._settings = {**defaults_of(self._roles), **QUICK, **(settings or {})}
        self._secure = secure
        self._owner_pid = owner_pid
        self._ends_users = ends_users
        self._start_limit_ms = START_LIMIT_MS if start_limit_s is None else round(start_limit_s * 1_000)
        self._host: _Host | None = None
        self._facts: dict[str, Any] = {}
        self._is_kept = False

    @classmethod
    def attach(cls, data: str | os.PathLike[str]) -> Self:
        """The cluster that another process runs from this data folder. Closing it ends nothing. Raises
        ClusterFailed."""
        try:
            host = _Host(Attached(os.path.abspath(data)))
        except OSError as error:
            raise ClusterFailed(f"no cluster with links runs from {os.path.abspath(data)}: {error.strerror}") from error
        facts = host.ask("facts")
        cluster = cls({int(node): roles for node, roles in facts["roles"].items()})
        cluster._host, cluster._facts = host, facts
        return cluster

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Start; return when the cluster is ready. Raises ClusterFailed; then nothing of it is left."""
        if not CAN_WATCH_FORKS:
            raise ClusterFailed("kraft.testing needs Linux: elsewhere, start a cluster with `kraft up --detach`")
        self._host = _Host(Pipes())
        try:
            self._facts = self._host.ask(
                "start",
                roles={str(node): list(roles) for node, roles in self._roles.items()},
                settings=self._settings,
                secure=self._secure,
                owner_pid=self._owner_pid or os.getpid(),
                ends_users=self._ends_users,
                start_limit_ms=self._start_limit_ms,
            )
            load_run(str(self.data))  # from now on this process has the credentials of the nodes
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End it; nothing of it is left when this returns. A second call does nothing."""
        if self._host is not None:
            host, self._host = self._host, None
            if self._ends_users:
                with contextlib.suppress(ClusterFailed):
                    host.ask("end")
            host.close()
            if self._facts and not self._is_kept and host.is_owner:
                self._remove_what_is_left()

    def _remove_what_is_left(self) -> None:
        """Clean up after a killed process: its nodes are being killed at the same time."""
        deadline = time.monotonic() + END_LIMIT_S
        while os.path.exists(self.data.parent) and time.monotonic() < deadline:
            shutil.rmtree(self.data.parent, ignore_errors=True)
            time.sleep(REMOVE_S)

    def keep(self) -> None:
        """Do not remove the folder at the end. Raises ClusterFailed."""
        self._ask("keep")
        self._is_kept = True

    def _ask(self, do: str, **options: Any) -> Any:
        if self._host is None:
            raise ClusterFailed("the cluster does not run: start it, or use it in a `with` block")
        return self._host.ask(do, **options)

    # --- facts ------------------------------------------------------------------------------------------------------

    @property
    def bootstrap_servers(self) -> str:
        """The links of clients: metadata that a client gets over a link has only addresses of links."""
        return ",".join(self.bootstrap.values())

    @property
    def bootstrap(self) -> dict[int, str]:
        """The links of clients by broker."""
        return {int(node): address for node, address in self._facts["bootstrap"].items()}

    @property
    def rest_urls(self) -> dict[int, str]:
        """URLs of the nodes themselves: no fault of a link affects them."""
        return {int(node): url for node, url in self._facts["rest"].items()}

    @property
    def rest_url(self) -> str:
        return next(iter(self._facts["rest"].values()))  # type: ignore[no-any-return]

    @property
    def is_secure(self) -> bool:
        """Whether it has TLS, a user and ACLs."""
        return bool(self._facts["client"])

    @property
    def security(self) -> ClientSecurity:
        """The login of the first user, who may do everything. Raises ClusterFailed without `secure`."""
        if not self.is_secure:
            raise ClusterFailed("the cluster has no security: start it with secure=True")
        return first_user(Path(self._facts["client"]))

    @property
    def data(self) -> Path:
        """The folder of everything: `--data` of commands, `KRAFT_DATA`."""
        return Path(self._facts["data"])

    @property
    def cluster_id(self) -> str:
        return str(self._facts["cluster_id"])

    @property
    def ids(self) -> list[int]:
        return list(self._roles)

    @property
    def brokers(self) -> list[int]:
        return [node for node, roles in self._roles.items() if "broker" in roles]

    def state(self, node: int) -> str:
        """State of a node: running, paused or down."""
        states = self._ask("states")
        if str(node) not in states:
            raise ClusterFailed(f"{node} is no node; the nodes are {self.ids}")
        return str(states[str(node)])

    @property
    def controller(self) -> int:
        """The node that leads the quorum, -1 for none."""
        return int(self._ask("controller"))

    def leader_of(self, topic: str, partition: int = 0) -> int:
        """The node that leads a partition; -1: none at the moment. Raises ClusterFailed when there is no such
        partition."""
        return int(self._ask("leader_of", topic=topic, partition=partition))

    def create_topic(
        self,
        topic: str,
        *,
        partitions: int = 1,
        replicas: int | None = None,
        configs: Mapping[str, Setting] | None = None,
    ) -> None:
        """Create a topic; return when every node knows it and its leaders."""
        factor = min(3, len(self.brokers)) if replicas is None else replicas
        self._ask("create_topic", topic=topic, partitions=partitions, replicas=factor, configs=dict(configs or {}))

    def records(self, topic: str) -> list[Record]:
        """All records, by partition and offset, read without links."""
        running = [node for node in self.ids if self.state(node) == "running"]
        return records_of([self.rest_urls[node] for node in running], topic)

    def verdict(self, sent: Iterable[Sent]) -> Verdict:
        """The checker's result. Everything is healed first: records on a dead node are not lost."""
        self.heal()
        answered = self._ask("judge", name="test", sent=[each.to_document() for each in sent])
        return verdict_of(answered["verdict"])

    def judge(self, history: str, *, since_us: int, report: str = "") -> dict[str, Any]:
        """The judge's answer about the file of a history (`kraft.chaos.history`) whose clients have ended. `report`:
        folder of an HTML report; empty: none."""
        answered: dict[str, Any] = self._ask("judge", name="console", history=history, since_us=since_us, report=report)
        return answered

    # --- faults of nodes --------------------------------------------------------------------------------------------

    def kill(self, *nodes: int) -> None:
        """Kill with -9; return when the processes are gone."""
        self._of_nodes("kill", nodes)

    def stop(self, *nodes: int) -> None:
        """Stop cleanly: they first hand their leaderships over."""
        self._of_nodes("stop", nodes)

    def pause(self, *nodes: int) -> None:
        """Stop the processes with SIGSTOP; their connections stay open."""
        self._of_nodes("pause", nodes)

    def resume(self, *nodes: int) -> None:
        self._of_nodes("resume", nodes)

    def restart(self, *nodes: int) -> None:
        """Start nodes, after a clean stop of those that run; return when they answer."""
        self._of_nodes("restart", nodes)

    def power_loss(self, *nodes: int) -> None:
        """Kill, and remove everything from their disks that no fsync had made durable."""
        self._of_nodes("power_loss", nodes)

    def fill_disk(self, *nodes: int) -> None:
        """The disks raise ENOSPC from now on."""
        self._of_nodes("fill_disk", nodes)

    def free_disk(self, *nodes: int) -> None:
        self._of_nodes("free_disk", nodes)

    def _of_nodes(self, fault: str, nodes: Sequence[int]) -> None:
        if not nodes:
            raise ClusterFailed(f"{fault} which nodes? There are {self.ids}")
        self._ask("nodes", fault=fault, nodes=nodes)

    # --- faults of security -----------------------------------------------------------------------------------------

    def expire_certificate(self, *nodes: int) -> None:
        """The certificates of nodes have expired: new connections to them fail, within a second."""
        self._of_nodes("expire_certificate", nodes)

    def renew_certificate(self, *nodes: int) -> None:
        """The nodes show good certificates again, within a second."""
        self._of_nodes("renew_certificate", nodes)

    def delete_user(self, name: str | None = None) -> None:
        """A user cannot log in any more, and its connections end within a second. Default: the first user, whom
        `restore_user` brings back."""
        self._ask("delete_user", name=name or self.security.user)

    def restore_user(self) -> None:
        """The first user can log in again."""
        self._ask("restore_user")

    # --- faults of links --------------------------------------------------------------------------------------------

    def cut(self, one: End, other: End | None = None, *, one_way: bool = False) -> None:
        """These two do not reach each other, `one_way`: the first opens no connection to the second, and what the
        second has opened stays; with one node alone: it reaches no other node. `"clients"` is an end, too:
        `cut(1)` cuts node 1 off from nodes, `cut("clients", 1)` from clients."""
        self._ask("cut", one=one, other=other, one_way=one_way)

    def partition(self, *groups: Sequence[int]) -> None:
        """Nodes in different groups do not reach each other: `partition([1], [2, 3])`. Clients reach all."""
        self._ask("partition", groups=[list(group) for group in groups])

    def slow(
        self,
        one: End | None = None,
        other: End | None = None,
        *,
        ms: float = 0,
        jitter_ms: float = 0,
        bytes_per_second: int = 0,
    ) -> None:
        """All data between these two is delayed, or limited in bytes per second; None: any node."""
        self._ask("slow", one=one, other=other, ms=ms, jitter_ms=jitter_ms, bytes_per_second=bytes_per_second)

    def heal(self) -> None:
        """Repair links, disks, nodes and answers, and wait until every replica is in sync. Raises ClusterFailed when
        that does not happen."""
        healed = self._ask("heal")
        if not healed["is_whole"]:
            raise ClusterFailed(f"the cluster is not in sync: {healed['problem']}")

    # --- faults of requests -----------------------------------------------------------------------------------------

    def answer(
        self,
        api: str,
        *,
        error: str | int,
        times: int | None = 1,
        topic: str = "",
        client_id: str = "",
        node: int | None = None,
    ) -> None:
        """Answer requests of this API with this error of Kafka's, by name or number; no broker sees them. Limits:
        requests that name the topic, of this client, to this broker; `times` of them, over all links; None: until
        healed."""
        self._of_requests("answer", api, topic, client_id, node, error=error, times=times)

    def delay(
        self,
        api: str,
        *,
        ms: float,
        times: int | None = None,
        topic: str = "",
        client_id: str = "",
        node: int | None = None,
    ) -> None:
        """Delay an answer, and so all later ones on its connection."""
        self._of_requests("delay", api, topic, client_id, node, ms=ms, times=times)

    def drop_answer(
        self, api: str, *, times: int | None = 1, topic: str = "", client_id: str = "", node: int | None = None
    ) -> None:
        """Carry the request out, but close the connection instead of sending its answer."""
        self._of_requests("drop_answer", api, topic, client_id, node, times=times)

    def close_after(
        self, api: str, *, times: int | None = 1, topic: str = "", client_id: str = "", node: int | None = None
    ) -> None:
        """Send the answer, and then close the connection."""
        self._of_requests("close_after", api, topic, client_id, node, times=times)

    def _of_requests(self, fault: str, api: str, topic: str, client_id: str, node: int | None, **options: Any) -> None:
        self._ask("request", fault=fault, api=api, topic=topic, client_id=client_id, node=node, **options)

    @property
    def is_running(self) -> bool:
        """Whether the process that runs the cluster is there."""
        try:
            self._ask("states")
        except ClusterFailed:
            return False
        return True

    @property
    def host_pid(self) -> int:
        """Process id of the process that runs the cluster, which was started here."""
        assert self._host is not None
        return self._host.pid

    # --- for test runners --------------------------------------------------------------------------------------------

    def begin_span(self) -> None:
        """Begin a test."""
        self._ask("begin_span")

    def never(self) -> list[str]:
        """The faults of requests since then that no request has met."""
        found: list[str] = self._ask("never")
        return found

    def end_span(self) -> dict[str, Any]:
        """End a test, and heal: `is_whole`, and the `problem` when it is not."""
        found: dict[str, Any] = self._ask("end_span")
        return found

    def timeline(self, *, name: str, report: str = "") -> dict[str, Any]:
        """The `timeline` since the test began; with a folder for it also a `page`."""
        found: dict[str, Any] = self._ask("judge", name=name, report=report)
        return found
