"""Commands of the process that runs a cluster with links for a test (`kraft.testing.fault_server`).

One JSON command a line in, one reply a line out: its owner uses its pipes, `kraft fault` a socket in the data folder.
When its input ends, or its owner, it ends its nodes and removes its folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from kraft.chaos.nemesis.links import OF_CLIENTS, OUTSIDE, parse_groups
from kraft.chaos.worlds.processes.cluster import Cluster
from kraft.chaos.worlds.processes.observer import NotInTime
from kraft.chaos.worlds.processes.pace import Pace
from kraft.chaos.worlds.processes.requests import RequestFilter
from kraft.chaos.worlds.snapshot import not_in_sync
from kraft.chaos.worlds.spec import ClusterSpec, NodeSpec, ScenarioError
from kraft.launcher.node_starter import NodeStarter
from kraft.launcher.processes import kill_users
from kraft.testing import judge

SOCKET_FILE: Final = "faults.sock"
"""Socket in the data folder, for its owner alone (mode 0600)."""
LINE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Longest line: the command for a verdict has all records of a test."""
CONNECTIONS_MAX: Final = 16
WHOLE_LIMIT_MS: Final = 30_000
"""Limit from the end of a test until the cluster is healthy again; a cluster that is not is not used a second time."""
FOLDER_PREFIX: Final = "kraft-faults-"


class Command(msgspec.Struct, kw_only=True, frozen=True):
    id: int
    do: str
    options: dict[str, Any] = {}


class Reply(msgspec.Struct, kw_only=True, frozen=True):
    id: int
    value: Any = None
    error: str = ""


class Start(msgspec.Struct, kw_only=True, frozen=True):
    roles: dict[int, tuple[str, ...]]
    settings: dict[str, Any] = {}
    secure: bool = False
    """With TLS, a user and ACLs."""
    start_limit_ms: int
    owner_pid: int = 0
    ends_users: bool = False
    """Without a clean close: every process that has the data folder in its KRAFT_DATA is killed."""


class Host:
    """The cluster and its commands, which are carried out one after the other."""

    def __init__(self, starter: NodeStarter) -> None:
        self._starter = starter
        self._cluster: Cluster | None = None
        self._context = contextlib.AsyncExitStack()
        self._turn = asyncio.Lock()
        self._connections = 0
        self._since_us = 0
        self._ends_users = self._is_kept = False
        self.directory: Path | None = None
        self.is_over = asyncio.Event()
        self._commands: Mapping[str, Callable[..., Awaitable[Any]]] = {
            "start": self._start,
            "facts": self._facts,
            "keep": self._keep,
            "end": self._end,
            "states": self._states,
            "leader_of": self._leader_of,
            "controller": self._controller,
            "create_topic": self._create_topic,
            "nodes": self._of_nodes,
            "cut": self._cut,
            "partition": self._partition,
            "slow": self._slow,
            "request": self._of_requests,
            "delete_user": self._delete_user,
            "restore_user": self._restore_user,
            "heal": self._heal,
            "begin_span": self._begin_span,
            "never": self._never,
            "end_span": self._end_span,
            "judge": self._judge,
        }

    async def obey(self, line: bytes) -> bytes:
        command = msgspec.json.decode(line, type=Command)
        async with self._turn:
            try:
                act = self._commands.get(command.do)
                if act is None:
                    raise ScenarioError(f"there is no command {command.do!r}")
                reply = Reply(id=command.id, value=await act(**command.options))
            except (
                ScenarioError,
                OSError,
                judge.CannotJudge,
                TypeError,
                LookupError,
                msgspec.ValidationError,
            ) as error:
                reply = Reply(id=command.id, error=str(error) or type(error).__name__)
        return msgspec.json.encode(reply) + b"\n"

    async def close(self) -> None:
        try:
            if self._ends_users and self.directory is not None:
                await asyncio.to_thread(kill_users, str(self.directory / "data"))
            await self._context.aclose()
        finally:
            if self.directory is not None and not self._is_kept:
                shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def cluster(self) -> Cluster:
        if self._cluster is None:
            raise ScenarioError("the cluster has not been started")
        return self._cluster

    # --- life -------------------------------------------------------------------------------------------------------

    async def _start(self, **options: Any) -> dict[str, Any]:
        start = msgspec.convert(options, Start, str_keys=True)
        self._ends_users = start.ends_users
        if start.owner_pid:
            _watch(start.owner_pid, self.is_over.set)
        self.directory = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        nodes = {node: msgspec.convert({"roles": roles}, _Roles).spec for node, roles in start.roles.items()}
        spec = ClusterSpec(nodes=nodes, settings=start.settings)
        context = Cluster.start(
            spec,
            directory=self.directory,
            seed=os.getpid(),
            starter=self._starter,
            pace=Pace(start_limit_ms=start.start_limit_ms),
            is_open_outside=True,
            tls="ended" if start.secure else None,
        )
        self._cluster = await self._context.enter_async_context(context)
        data = self.directory / "data"
        await self._context.enter_async_context(await self._listen(data))
        self._since_us = _now_us()
        return await self._facts()

    async def _keep(self) -> None:
        """Do not remove the folder at the end."""
        self._is_kept = True

    async def _end(self) -> None:
        """Its users end by themselves: the end of the input follows."""
        self._ends_users = False

    async def _facts(self) -> dict[str, Any]:
        cluster = self.cluster
        return {
            "data": str(cluster.directory / "data"),
            "bootstrap": dict(cluster.outside),
            "rest": {node: cluster.nodes.rest(node) for node in cluster.nodes.ids},
            "cluster_id": cluster.cluster_id,
            "client": cluster.client_folder,
            "roles": {node: list(cluster.nodes.config(node).roles) for node in cluster.nodes.ids},
        }

    async def _listen(self, data: Path) -> asyncio.Server:
        """Listen on the socket through a descriptor of the folder: its path may be longer than the address of a
        socket."""
        folder = os.open(data, os.O_PATH | os.O_DIRECTORY)
        before = os.umask(0o177)
        try:
            return await asyncio.start_unix_server(
                self._serve, f"/proc/self/fd/{folder}/{SOCKET_FILE}", limit=LINE_BYTES_MAX
            )
        finally:
            os.umask(before)
            os.close(folder)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= CONNECTIONS_MAX:
            writer.close()
            return
        self._connections += 1
        try:
            while line := await reader.readline():
                writer.write(await self.obey(line))
                await writer.drain()
        except (OSError, ValueError, msgspec.DecodeError):
            return  # it has ended, or sends no commands of ours
        finally:
            self._connections -= 1
            writer.close()

    # --- queries ----------------------------------------------------------------------------------------------------

    async def _states(self) -> dict[int, str]:
        return {node: self.cluster.nodes.state(node) for node in self.cluster.nodes.ids}

    async def _leader_of(self, topic: str, partition: int) -> int:
        snapshot = await self.cluster.observer.status()
        if snapshot.newest is None:
            raise ScenarioError("no node answers")
        if partition not in snapshot.partitions(topic):
            raise ScenarioError(f"there is no partition {topic}-{partition}")
        return snapshot.leader(topic, partition)

    async def _controller(self) -> int:
        return (await self.cluster.observer.status()).controller

    async def _create_topic(self, topic: str, partitions: int, replicas: int, configs: dict[str, Any]) -> None:
        await self.cluster.admin.create_topic(
            topic, partitions=partitions, replication_factor=replicas, configs=configs
        )

    # --- faults -----------------------------------------------------------------------------------------------------

    async def _of_nodes(self, fault: str, nodes: Sequence[int]) -> None:
        cluster = self.cluster
        acts: Mapping[str, Callable[..., Awaitable[object]]] = {
            "kill": cluster.nodes.kill,
            "stop": cluster.nodes.stop,
            "pause": cluster.nodes.pause,
            "resume": cluster.nodes.resume,
            "restart": cluster.nodes.restart,
            "power_loss": cluster.disks.power_loss,
            "fill_disk": cluster.disks.fill,
            "free_disk": cluster.disks.free,
            "expire_certificate": cluster.security.expire_certificates,
            "renew_certificate": cluster.security.renew_certificates,
        }
        for node in nodes:
            cluster.nodes.config(node)
        await acts[fault](*nodes)

    async def _delete_user(self, name: str) -> None:
        await self.cluster.security.delete_user(name)

    async def _restore_user(self) -> None:
        await self.cluster.security.restore_user()

    async def _cut(self, one: int | str, other: int | str | None, one_way: bool = False) -> None:
        links = self.cluster.links
        ends = [end for end in (one, other) if end is not None]
        self._check_ends(ends)
        match [end for end in ends if end != OUTSIDE]:
            case [int(node)] if OUTSIDE in ends:
                await links.cut(OUTSIDE, node, purpose=OF_CLIENTS)
            case [] if ends == [OUTSIDE]:
                await links.cut(OUTSIDE, None, purpose=OF_CLIENTS)
            case [int(node)]:
                await links.isolate(node)
            case _:
                await links.cut(one, other, both_ways=not one_way)

    def _check_ends(self, ends: Sequence[int | str]) -> None:
        known = [*self.cluster.nodes.ids, OUTSIDE]
        for end in ends:
            if end not in known:
                raise ScenarioError(f"{end!r} is no end of a link; there are {', '.join(map(str, known))}")

    async def _partition(self, groups: str | list[list[int | str]]) -> None:
        parsed = parse_groups(groups) if isinstance(groups, str) else groups
        await self.cluster.links.partition(parsed)

    async def _slow(
        self, one: int | str | None, other: int | str | None, ms: float, jitter_ms: float, bytes_per_second: int
    ) -> None:
        links = self.cluster.links
        self._check_ends([end for end in (one, other) if end is not None])
        if OUTSIDE in (one, other):
            node = other if one == OUTSIDE else one
            where: dict[str, Any] = {"dials": OUTSIDE, "answers": node, "purpose": OF_CLIENTS}
        else:
            where = {"dials": one, "answers": other, "both_ways": True}
        if ms or jitter_ms:
            await links.delay(**where, delay_ms=ms, jitter_ms=jitter_ms)
        if bytes_per_second:
            await links.bandwidth(**where, bytes_per_second=bytes_per_second)
        if not (ms or jitter_ms or bytes_per_second):
            raise ScenarioError("slow by how much? Use ms=, jitter_ms= or bytes_per_second=")

    async def _of_requests(
        self, fault: str, api: str, topic: str, client_id: str, node: int | None, **options: Any
    ) -> None:
        requests = self.cluster.requests
        acts: Mapping[str, Callable[..., Awaitable[object]]] = {
            "answer": requests.answer,
            "delay": requests.delay,
            "drop_answer": requests.drop_answer,
            "close_after": requests.close_after,
        }
        await acts[fault](api, which=RequestFilter(topic=topic, client_id=client_id, node=node), **options)

    async def _heal(self) -> dict[str, Any]:
        """Repair everything, and wait until every replica is in sync."""
        await self.cluster.mend()
        problem = ""
        try:
            await self.cluster.until_ready(deadline_ms=WHOLE_LIMIT_MS)
            await self.cluster.observer.until(
                lambda snapshot: not not_in_sync(snapshot), deadline_ms=WHOLE_LIMIT_MS, describe=not_in_sync
            )
        except NotInTime as error:
            problem = str(error)
        return {"is_whole": not problem, "problem": problem}

    # --- of one test ------------------------------------------------------------------------------------------------

    async def _begin_span(self) -> int:
        self._since_us = _now_us()
        return self._since_us

    async def _never(self) -> list[str]:
        await self.cluster.requests.look()
        return [fault.text for fault in self.cluster.requests.done if not fault.times]

    async def _end_span(self) -> dict[str, Any]:
        await self.cluster.requests.heal()
        self.cluster.requests.forget()
        return await self._heal()

    async def _judge(self, **options: Any) -> Any:
        asked = {"data": str(self.cluster.directory / "data"), "since_us": self._since_us, **options}
        question = msgspec.convert(asked, judge.Question)
        question = msgspec.structs.replace(question, faults=self.cluster.timeline.faults)
        samples = tuple(self.cluster.observer.samples)
        return await asyncio.to_thread(judge.answer, question, samples=samples)


class _Roles(msgspec.Struct, frozen=True):
    roles: tuple[Any, ...]

    @property
    def spec(self) -> NodeSpec:
        return NodeSpec(roles=self.roles)


def _watch(pid: int, then: Callable[[], None]) -> None:
    """Call `then` at the end of that process, where the system reports it by a descriptor; else our input ends, too."""
    if hasattr(os, "pidfd_open"):
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            then()
            return
        asyncio.get_running_loop().add_reader(descriptor, then)


def _now_us() -> int:
    return time.monotonic_ns() // 1_000


async def serve(starter: NodeStarter) -> None:
    """Serve until the input, or the owner, has ended."""
    loop = asyncio.get_running_loop()
    host = Host(starter)
    commands = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, host.is_over.set)
    over = loop.create_task(host.is_over.wait())
    serving = loop.create_task(_serve_owner(host, commands))
    try:
        await asyncio.wait({over, serving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (over, serving):
            task.cancel()
        await asyncio.gather(over, serving, return_exceptions=True)
        await host.close()


async def _serve_owner(host: Host, commands: asyncio.StreamReader) -> None:
    while line := await commands.readline():
        answer = memoryview(await host.obey(line))
        while answer:
            answer = answer[os.write(sys.stdout.fileno(), answer) :]
