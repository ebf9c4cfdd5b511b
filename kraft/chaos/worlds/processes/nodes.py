"""The nodes of a `Cluster`: folders, processes, requests to them, and faults of whole nodes.

Each fault takes any number of nodes at once. Owned by one event loop. Only this module starts processes of nodes, so
that the proxy process, which guards them, always knows which to kill when the runner dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from kraft.chaos.worlds.processes.links import ports_of
from kraft.chaos.worlds.processes.pace import Pace
from kraft.chaos.worlds.processes.proxy.process import ProxyProcess
from kraft.chaos.worlds.processes.timeline import Timeline
from kraft.chaos.worlds.snapshot import NodeState
from kraft.chaos.worlds.spec import ScenarioError
from kraft.client.response import Answer, Request, Response
from kraft.client.transport import Transport
from kraft.config.models import ClusterConfig, NodeConfig, has_sasl
from kraft.launcher.fork_messages import StartNode
from kraft.launcher.helper_process import HelperFailed
from kraft.launcher.node_starter import NodeProcess, NodeStarter
from kraft.launcher.processes import log_tail
from kraft.launcher.runfile import CLIENT_FOLDER, ClusterRun, NodeRun, remember_credentials, save_run
from kraft.layout import WITNESS_VARIABLE

KILLED_LIMIT_MS: Final = 10_000
PROCESS_POLL_S: Final = 0.003


class Nodes:
    def __init__(
        self,
        config: ClusterConfig,
        *,
        config_file: str,
        directory: Path,
        starter: NodeStarter,
        proxies: ProxyProcess,
        timeline: Timeline,
        pace: Pace,
        describe_roles: Callable[[int], str],
    ) -> None:
        """`describe_roles`: the roles of a node at the moment, such as ` (leader of t-0)`, for the texts of faults."""
        self.ids = tuple(node.id for node in config.nodes)
        self.brokers = tuple(node.id for node in config.brokers)
        self.voters = tuple(node.id for node in config.voters)
        self.directory = directory
        self._config = config
        self._config_file = config_file
        self._starter = starter
        self._proxies = proxies
        self._timeline = timeline
        self._pace = pace
        self._describe_roles = describe_roles
        self._processes: dict[int, NodeProcess] = {}
        self._paused: set[int] = set()
        self._down: dict[int, int] = {}
        """Node -> number of the fault that stopped or paused it."""
        self._transport = Transport()

    # --- what there is ----------------------------------------------------------------------------------------------

    def rest(self, node: int) -> str:
        """Base URL of a node itself, without a proxy."""
        return self.config(node).rest_url

    @property
    def client_folder(self) -> str | None:
        """Folder with what a client needs to log in; None without TLS."""
        has_users = any(has_sasl(node.rest_protocol) for node in self._config.nodes)
        return str(Path(self._config.data, CLIENT_FOLDER)) if has_users else None

    def data(self, node: int) -> Path:
        return Path(self.config(node).data)

    def log_directory(self, node: int) -> Path:
        """The log directory of a node."""
        return Path(self.config(node).log_dirs[0])

    def witness(self, node: int) -> Path:
        return self.directory / "witness" / f"node-{node}"

    def log(self, node: int, *, lines: int = 20) -> str:
        """The end of the standard error of a node."""
        return "\n".join(log_tail(str(self.data(node) / "node.log"), lines_max=lines))

    def pid(self, node: int) -> int | None:
        process = self._processes.get(node)
        return process.pid if process is not None and process.is_running else None

    def state(self, node: int) -> NodeState:
        if self.pid(node) is None:
            return "down"
        return "paused" if node in self._paused else "running"

    def running(self) -> list[int]:
        return [node for node in self.ids if self.state(node) == "running"]

    def config(self, node: int) -> NodeConfig:
        try:
            return self._config.node(node)
        except LookupError as error:
            raise ScenarioError(str(error)) from error

    # --- faults -------------------------------------------------------------------------------------------------------

    async def kill(self, *nodes: int) -> None:
        """SIGKILL; returns when the processes are gone."""
        await self.take_down("kill", nodes, text="killed {} with -9")

    async def stop(self, *nodes: int) -> None:
        """Controlled shutdown; returns when the processes are gone. Raises ScenarioError when one does not stop."""
        for node in nodes:
            self._end_fault(node)
            self._signal(node, signal.SIGTERM)
            self._down[node] = self._timeline.begin("stop", nodes=[node], text=f"stopped {self._named(node)} in order")
        limit_ms = self._pace.stop_limit_ms
        for node in nodes:
            if not await self._ended(node, limit_ms=limit_ms):
                raise ScenarioError(f"node {node} did not stop within {limit_ms} ms:\n{self.log(node)}")
        await self._settle_processes(nodes)

    async def pause(self, *nodes: int) -> None:
        """SIGSTOP: the process stops running, its connections stay open."""
        for node in nodes:
            self._signal(node, signal.SIGSTOP)
            self._paused.add(node)
            self._down[node] = self._timeline.begin("pause", nodes=[node], text=f"paused {self._named(node)}")

    async def resume(self, *nodes: int) -> None:
        for node in nodes:
            self._signal(node, signal.SIGCONT)
            self._paused.discard(node)
            self._end_fault(node)

    async def restart(self, *nodes: int) -> None:
        """Stop running nodes, then start all at once; returns when their HTTP ports answer."""
        running = [node for node in nodes if self.pid(node) is not None]
        if running:
            await self.stop(*running)
        for node in nodes:
            await self._start_process(node)
            self._end_fault(node)
            self._timeline.begin("restart", nodes=[node], text=f"started node {node}")
        await all_of(nodes, self._wait_started)
        await self._settle_processes(nodes)

    @property
    def ended_by_themselves(self) -> list[int]:
        """Nodes that do not run although no fault stopped them."""
        return [node for node in self.ids if self.pid(node) is None and node not in self._down]

    def _end_fault(self, node: int) -> None:
        """End the fault that stopped the node."""
        number = self._down.pop(node, None)
        if number is not None:
            self._timeline.end(number)

    async def take_down(self, fault: str, nodes: Iterable[int], *, text: str) -> None:
        nodes = tuple(nodes)
        for node in nodes:
            self._signal(node, signal.SIGKILL)
        for node in nodes:
            self._end_fault(node)
            self._paused.discard(node)
            self._down[node] = self._timeline.begin(fault, nodes=[node], text=text.format(self._named(node)))
        for node in nodes:
            if not await self._ended(node, limit_ms=KILLED_LIMIT_MS):
                raise ScenarioError(f"node {node} is still there {KILLED_LIMIT_MS} ms after it was killed")
        await self._settle_processes(nodes)

    def _named(self, node: int) -> str:
        return f"node {node}{self._describe_roles(node)}"

    # --- processes --------------------------------------------------------------------------------------------------

    async def start_all(self) -> None:
        for node in self.ids:
            await self._start_process(node)
        await all_of(self.ids, self._wait_started)

    async def end_all(self) -> None:
        """Kill all processes; returns when none is left."""
        await self._transport.close()
        for node in self.ids:
            if self.pid(node) is not None:
                self._signal(node, signal.SIGKILL)
        for node in self._processes:
            await self._ended(node, limit_ms=KILLED_LIMIT_MS)
        with contextlib.suppress(HelperFailed):  # a starter that has ended guards no nodes
            await self._starter.reap(self._processes.values())
        self._processes.clear()

    async def _start_process(self, node: int) -> None:
        witness = self.witness(node)
        witness.mkdir(parents=True, exist_ok=True)
        start = StartNode(
            config=self._config_file,
            node_id=node,
            data=self._config.data,
            log=str(self.data(node) / "node.log"),
            variables={WITNESS_VARIABLE: str(witness)},
        )
        try:
            if node in self._processes:
                await self._starter.reap([self._processes.pop(node)])
            self._processes[node] = await self._starter.start(start)
        except HelperFailed as error:
            raise ScenarioError(str(error)) from error
        self._paused.discard(node)
        await self._guard()

    async def _settle_processes(self, nodes: Iterable[int]) -> None:
        """Processes have started or ended: wait until the proxies know."""
        configs = [self.config(node) for node in nodes]
        ports = [(each.host, port) for each in configs for port in ports_of(each)]
        await self._proxies.check(ports)
        await self._guard()

    async def _guard(self) -> None:
        await self._proxies.guard(process.pid for process in self._processes.values() if process.is_running)
        run = self._run()
        remember_credentials(run)
        save_run(run)

    def _run(self) -> ClusterRun:
        client = self.client_folder
        nodes = tuple(
            NodeRun(
                id=node,
                roles=self.config(node).roles,
                pid=process.pid,
                rest=self.rest(node),
                kafka=str(self.config(node).kafka),
                quorum=None if self.config(node).quorum is None else str(self.config(node).quorum),
                data=self.config(node).data,
                ca=None if client is None else self._config.broker_settings(node).ssl_truststore_location,
                logs_in=client is not None,
            )
            for node, process in self._processes.items()
        )
        return ClusterRun(
            cluster_id=self._config.cluster_id,
            config=self._config_file,
            data=self._config.data,
            launcher_pid=None,
            nodes=nodes,
            client=client,
        )

    def _signal(self, node: int, number: signal.Signals) -> None:
        if self.pid(node) is None:
            raise ScenarioError(f"node {node} does not run")
        self._processes[node].send_signal(number)

    async def _ended(self, node: int, *, limit_ms: int) -> bool:
        """Wait for the end of a process; False if it still runs at the limit."""
        return await self._poll(lambda: self.pid(node) is None, limit_ms=limit_ms)

    async def _poll(self, condition: Callable[[], bool], *, limit_ms: int) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit_ms / 1000
        while not condition():
            if loop.time() > deadline:
                return False
            await asyncio.sleep(PROCESS_POLL_S)
        return True

    async def _wait_started(self, node: int) -> None:
        """Wait until the HTTP port answers. Raises ScenarioError if the process ends or takes too long."""
        await self._wait_answer(node, "/healthz", what="answer")

    async def wait_ready(self, node: int) -> None:
        """Wait until the node is ready for requests."""
        await self._wait_answer(node, "/readyz", what="become ready")

    async def _wait_answer(self, node: int, path: str, *, what: str) -> None:
        loop, limit_ms = asyncio.get_running_loop(), self._pace.start_limit_ms
        deadline = loop.time() + limit_ms / 1000
        while loop.time() < deadline:
            outcome = await self.ask(node, "GET", path)
            if isinstance(outcome, Answer) and outcome.is_success:
                return
            if self.pid(node) is None:
                raise ScenarioError(f"node {node} ended instead of starting:\n{self.log(node)}")
            await asyncio.sleep(self._pace.poll_ms / 1000)
        raise ScenarioError(f"node {node} did not {what} within {limit_ms} ms:\n{self.log(node)}")

    # --- questions --------------------------------------------------------------------------------------------------

    async def ask(
        self,
        node: int,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout_ms: int | None = None,
    ) -> Response:
        """One request to a node itself, without a proxy. Default timeout: that of the pace of the run."""
        limit_ms = self._pace.ask_timeout_ms if timeout_ms is None else timeout_ms
        request = Request(method=method, path=path, body=body, headers=headers or {}, timeout_ms=limit_ms)
        return await self._transport.send(self.rest(node), request)


async def all_of(nodes: Iterable[int], act: Callable[[int], Awaitable[None]]) -> None:
    """Run all; raises the first exception."""
    try:
        async with asyncio.TaskGroup() as group:
            for node in nodes:
                group.create_task(_run(act, node))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def _run(act: Callable[[int], Awaitable[None]], node: int) -> None:
    await act(node)
