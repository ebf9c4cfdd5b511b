"""What all parts of a `Cluster` share: its configuration and folders, node processes, proxies, and how to ask nodes.

Owned by one event loop. A node's process is started here and nowhere else, so that the proxy process, which
guards them, always knows which to kill when the runner dies.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from kraft.chaos.nemesis.links import LinkId
from kraft.chaos.worlds.processes.forks.commands import StartNode
from kraft.chaos.worlds.processes.forks.process import NodeProcess, NodeStarter
from kraft.chaos.worlds.processes.pace import SHORT_STORIES, Pace
from kraft.chaos.worlds.processes.proxy.process import ProxyProcess
from kraft.chaos.worlds.processes.proxy.rules import Rules
from kraft.chaos.worlds.processes.timeline import Timeline
from kraft.chaos.worlds.snapshot import NodeState
from kraft.chaos.worlds.spec import ClusterSpec, ScenarioError
from kraft.client.outcome import Answer, Outcome, Request
from kraft.client.transport import Transport
from kraft.config.models import ClusterConfig, NodeConfig
from kraft.launcher.processes import log_tail
from kraft.launcher.runfile import ClusterRun, NodeRun, save_run
from kraft.runtime.witness import WITNESS_VARIABLE

KILLED_LIMIT_MS: Final = 10_000
PROCESS_POLL_S: Final = 0.003


class Running:
    def __init__(
        self,
        *,
        spec: ClusterSpec,
        config: ClusterConfig,
        config_file: str,
        directory: Path,
        seed: int,
        starter: NodeStarter,
        pace: Pace = SHORT_STORIES,
    ) -> None:
        self.spec = spec
        self.pace = pace
        self.config = config
        self.directory = directory
        self.seed = seed
        self.rng = random.Random(seed)
        self.timeline = Timeline(directory)
        self._config_file = config_file
        self._starter = starter
        self._processes: dict[int, NodeProcess] = {}
        self._paused: set[int] = set()
        self._proxies = ProxyProcess(seed=seed)
        self._links: dict[LinkId, str] = {}
        """Link -> address of its proxy."""
        self._rules: dict[LinkId, Rules] = {}
        self._transport = Transport()

    # --- what there is ----------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> tuple[int, ...]:
        return tuple(self.spec.nodes)

    @property
    def brokers(self) -> tuple[int, ...]:
        return self.spec.brokers

    @property
    def voters(self) -> tuple[int, ...]:
        return self.spec.voters

    def rest(self, node: int) -> str:
        """Base URL of a node itself; nothing that breaks links is on this way."""
        return self._node(node).rest_url

    def data(self, node: int) -> Path:
        return Path(self._node(node).data)

    def log_directory(self, node: int) -> Path:
        """Where a node keeps its partitions."""
        return Path(self._node(node).log_dirs[0])

    def witness(self, node: int) -> Path:
        return self.directory / "witness" / f"node-{node}"

    def node_log(self, node: int, *, lines: int = 20) -> str:
        """The end of what a node wrote to standard error."""
        return "\n".join(log_tail(str(self.data(node) / "node.log"), lines_max=lines))

    def pid(self, node: int) -> int | None:
        process = self._processes.get(node)
        return process.pid if process is not None and process.is_running else None

    @property
    def proxy_pid(self) -> int:
        return self._proxies.pid

    def process_state(self, node: int) -> NodeState:
        if self.pid(node) is None:
            return "down"
        return "paused" if node in self._paused else "running"

    def running(self) -> list[int]:
        return [node for node in self.nodes if self.process_state(node) == "running"]

    def _node(self, node: int) -> NodeConfig:
        try:
            return self.config.node(node)
        except LookupError as error:
            raise ScenarioError(str(error)) from error

    # --- processes --------------------------------------------------------------------------------------------------

    async def _start_process(self, node: int) -> None:
        witness = self.witness(node)
        witness.mkdir(parents=True, exist_ok=True)
        if node in self._processes:
            await self._starter.reap([self._processes.pop(node)])
        self._processes[node] = await self._starter.start(
            StartNode(
                config=self._config_file,
                node_id=node,
                data=self.config.data,
                log=str(self.data(node) / "node.log"),
                variables={WITNESS_VARIABLE: str(witness)},
            )
        )
        self._paused.discard(node)
        await self._guard()

    async def _settle_processes(self, nodes: Iterable[int]) -> None:
        """Processes have started or ended: nobody dials a proxy that does not know it."""
        configs = [self._node(node) for node in nodes]
        ports = [(each.host, port) for each in configs for port in (each.rest_port, each.kafka_port, each.quorum_port)]
        await self._proxies.check(ports)
        await self._guard()

    async def _guard(self) -> None:
        await self._proxies.guard(process.pid for process in self._processes.values() if process.is_running)
        save_run(self._run())

    def _run(self) -> ClusterRun:
        nodes = tuple(
            NodeRun(
                id=node,
                roles=self._node(node).roles,
                pid=process.pid,
                rest=self.rest(node),
                kafka=str(self._node(node).kafka),
                quorum=None if self._node(node).quorum is None else str(self._node(node).quorum),
                data=self._node(node).data,
            )
            for node, process in self._processes.items()
        )
        return ClusterRun(
            cluster_id=self.config.cluster_id,
            config=self._config_file,
            data=self.config.data,
            launcher_pid=None,
            nodes=nodes,
        )

    def _signal(self, node: int, number: signal.Signals) -> None:
        if self.pid(node) is None:
            raise ScenarioError(f"node {node} does not run")
        self._processes[node].send_signal(number)

    async def _ended(self, node: int, *, limit_ms: int) -> bool:
        """Wait for the end of a process; False when it still runs at the limit."""
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
        """Until its HTTP door answers. Raises ScenarioError when the process ends, or takes too long."""
        await self._wait_answer(node, "/healthz", what="answer")

    async def wait_ready(self, node: int) -> None:
        """Until the node says that it takes requests."""
        await self._wait_answer(node, "/readyz", what="become ready")

    async def _wait_answer(self, node: int, path: str, *, what: str) -> None:
        loop, limit_ms = asyncio.get_running_loop(), self.pace.start_limit_ms
        deadline = loop.time() + limit_ms / 1000
        while loop.time() < deadline:
            outcome = await self.ask(node, "GET", path)
            if isinstance(outcome, Answer) and outcome.is_success:
                return
            if self.pid(node) is None:
                raise ScenarioError(f"node {node} ended instead of starting:\n{self.node_log(node)}")
            await asyncio.sleep(self.pace.poll_ms / 1000)
        raise ScenarioError(f"node {node} did not {what} within {limit_ms} ms:\n{self.node_log(node)}")

    async def _all(self, nodes: tuple[int, ...], act: Callable[[int], Awaitable[None]]) -> None:
        """Raises what the first of them to fail raises."""
        try:
            async with asyncio.TaskGroup() as group:
                for node in nodes:
                    group.create_task(_run(act, node))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

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
    ) -> Outcome:
        """One request to a node itself, past all proxies. Without a timeout: that of the run's pace."""
        limit_ms = self.pace.ask_timeout_ms if timeout_ms is None else timeout_ms
        request = Request(method=method, path=path, body=body, headers=headers or {}, timeout_ms=limit_ms)
        return await self._transport.send(self.rest(node), request)


async def _run(act: Callable[[int], Awaitable[None]], node: int) -> None:
    await act(node)
