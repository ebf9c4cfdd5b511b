"""`async with Cluster.start(spec, directory=..., seed=...) as c`: real nodes that can be broken and looked at.

    async with Cluster.start(ClusterSpec.of(3), directory=tmp_path, seed=1) as c:
        await c.create_topic("t")
        await c.kill((await c.status()).leader("t", 0))
        await c.until(lambda s: s.leader("t", 0) > 0, describe="a new leader of t-0")

Whatever was started has ended when the block is left, however it is left; and when this process is killed. In the
folder are then `data` (the nodes' folders), `faults.jsonl`, and `witness` (what each disk had made durable).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
import uuid
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from pathlib import Path

from pydantic import SecretStr

from kraft.chaos.nemesis.links import LinkId, Purpose, links_between_nodes
from kraft.chaos.workload.rest_client import RestClient
from kraft.chaos.worlds.processes.faults.links import LinkFaults
from kraft.chaos.worlds.processes.forks.process import NodeStarter, node_starter
from kraft.chaos.worlds.processes.helper_process import HelperFailed
from kraft.chaos.worlds.processes.pace import SHORT_STORIES, Pace
from kraft.chaos.worlds.processes.proxy.rules import OpenLink
from kraft.chaos.worlds.processes.running import KILLED_LIMIT_MS
from kraft.chaos.worlds.processes.timeline import now_us
from kraft.chaos.worlds.snapshot import Snapshot
from kraft.chaos.worlds.spec import ClusterSpec, ScenarioError
from kraft.config.models import ClusterConfig, NodeConfig, PeerAddresses
from kraft.config.render import render
from kraft.launcher.configuration import SECRET_FILE, write_whole
from kraft.launcher.ports import with_free_ports
from kraft.launcher.runfile import RESOLVED_FILE, remove_run


class Cluster(LinkFaults):
    """Made by `Cluster.start`. The parts: faults/ (links, disks, nodes), administration, observing, running."""

    def __init__(
        self, spec: ClusterSpec, *, directory: Path, seed: int, starter: NodeStarter, pace: Pace = SHORT_STORIES
    ) -> None:
        self._host = own_host(random.Random())
        config = _configuration(spec, directory / "data", host=self._host)
        config_file = str(Path(config.data) / RESOLVED_FILE)
        super().__init__(
            spec=spec,
            config=config,
            config_file=config_file,
            directory=directory,
            seed=seed,
            starter=starter,
            pace=pace,
        )
        self.samples = []
        self._latest = {}
        self._down = {}
        self._full = {}
        self._broken = []
        self._sampler: asyncio.Task[None] | None = None

    @staticmethod
    @contextlib.asynccontextmanager
    async def start(
        spec: ClusterSpec,
        *,
        directory: Path,
        seed: int = 0,
        starter: NodeStarter | None = None,
        pace: Pace = SHORT_STORIES,
    ) -> AsyncIterator[Cluster]:
        """Start all nodes; the block begins when every broker takes part and the quorum has a leader.

        `starter` makes their processes; clusters may share one. Without it the cluster has one of its own.
        """
        used = starter or node_starter()
        try:
            cluster = Cluster(spec, directory=_prepared(directory), seed=seed, starter=used, pace=pace)
            try:
                await cluster._open()
                yield cluster
            finally:
                await cluster._end()
        finally:
            if starter is None:
                used.close()

    async def client_address(self, client: str, node: int) -> str:
        """Base URL under which a client reaches a node, through a link of their own: `client->node rest`."""
        link = LinkId(client, node, "rest")
        if link not in self._links:
            await self._open_links([link])
        return f"http://{self._links[link]}"

    def client(self, name: str, *, in_flight_max: int) -> RestClient:
        return RestClient(name, self.client_address, connections_max=in_flight_max)

    def now_us(self) -> int:
        return now_us()

    async def mend(self) -> None:
        """Links, disks and nodes work again: heal, free, resume, restart."""
        await self.heal()
        await self.free_disk(*self._full)
        await self.resume(*[node for node in self.nodes if self.process_state(node) == "paused"])
        down = [node for node in self.nodes if self.process_state(node) == "down"]
        if down:
            await self.restart(*down)

    async def until_ready(self, *, deadline_ms: int | None = None) -> Snapshot:
        """All brokers take part, and the nodes agree on a controller."""
        limit_ms = self.pace.start_limit_ms if deadline_ms is None else deadline_ms
        return await self.until(self._is_ready, deadline_ms=limit_ms, describe="all brokers active, one controller")

    def _is_ready(self, snapshot: Snapshot) -> bool:
        views = snapshot.views.values()
        controllers = {view.controller_id for view in views}
        return (
            len(snapshot.views) == len(self.nodes)
            and len(controllers) == 1
            and min(controllers) >= 0
            and all(view.brokers.get(broker) == "active" for view in views for broker in self.brokers)
        )

    # --- life -------------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        await self._open_links(list(links_between_nodes(self.spec)))
        self._write_config()
        for node in self.nodes:
            await self._start_process(node)
        await self._all(self.nodes, self._wait_started)
        await self.until_ready()
        await self._all(self.nodes, self.wait_ready)
        self._sampler = asyncio.get_running_loop().create_task(self._sample_forever())

    async def _open_links(self, links: list[LinkId]) -> None:
        wanted = [
            OpenLink(
                name=str(link),
                kind=link.kind,
                host=self._host,
                target_host=str(self._node(link.answers).host),
                target_port=self._port(link.answers, link.purpose),
            )
            for link in links
        ]
        nodes = self.config.nodes
        reserved = {port for node in nodes for port in (node.rest_port, node.kafka_port, node.quorum_port)}
        ports = await self._proxies.open(wanted, reserved=reserved)
        self._links |= {link: f"{self._host}:{ports[str(link)]}" for link in links}

    def _port(self, node: int, purpose: Purpose) -> int:
        config: NodeConfig = self._node(node)
        match purpose:
            case "quorum":
                return config.quorum_port
            case "rest":
                return config.rest_port
            case _:
                return config.kafka_port

    def _write_config(self) -> None:
        """Every node finds its peers at its own proxies."""
        nodes = []
        for node in self.config.nodes:
            peers: dict[int, dict[str, str]] = {}
            for link, address in self._links.items():
                if link.dials == node.id:
                    peers.setdefault(link.answers, {})[link.purpose] = address
            overrides = {peer: PeerAddresses.model_validate(addresses) for peer, addresses in peers.items()}
            nodes.append(node.model_copy(update={"peers": overrides}))
        self.config = self.config.model_copy(update={"nodes": tuple(nodes)})
        secret_file = str(Path(self.config.data) / SECRET_FILE)
        write_whole(secret_file, self.config.secret.get_secret_value() + "\n", mode=0o600)
        write_whole(self._config_file, render(self.config, secret_file=secret_file))

    async def _end(self) -> None:
        if self._sampler is not None:
            self._sampler.cancel()
            await asyncio.gather(self._sampler, return_exceptions=True)
        await self._transport.close()
        for node in self.nodes:
            if self.pid(node) is not None:
                self._signal(node, signal.SIGKILL)
        for node in self._processes:
            await self._ended(node, limit_ms=KILLED_LIMIT_MS)
        with contextlib.suppress(HelperFailed):  # who is gone has let go of the nodes
            await self._starter.reap(self._processes.values())
        self._processes.clear()
        self._proxies.close()
        self.timeline.save()
        remove_run(self.config.data)


def _prepared(directory: Path) -> Path:
    absolute = Path(directory).absolute()
    (absolute / "data").mkdir(parents=True, exist_ok=True)
    return absolute


def _configuration(spec: ClusterSpec, data: Path, *, host: str) -> ClusterConfig:
    if not spec.nodes:
        raise ScenarioError("a cluster needs at least one node")
    nodes = [
        NodeConfig(
            id=node_id,
            roles=node.roles,
            host=host,
            rest_port=1,
            kafka_port=1,
            quorum_port=1,
            data=str(data / f"node-{node_id}"),
            log_dirs=(str(data / f"node-{node_id}" / "logs"),),
            rack=node.rack,
            settings=node.settings,
        )
        for node_id, node in spec.nodes.items()
    ]
    config = ClusterConfig(
        cluster_id="s" + urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("="),
        secret=SecretStr(uuid.uuid4().hex),
        data=str(data),
        settings=spec.settings,
        nodes=tuple(nodes),
    )
    return with_free_ports(config)


def own_host(rng: random.Random) -> str:
    """A loopback address of the run's own, for nodes and proxies: no other program takes a port there between two
    starts of a node. macOS has only one."""
    if sys.platform == "darwin":
        return "127.0.0.1"
    return f"127.{rng.randint(1, 254)}.{rng.randint(1, 254)}.{rng.randint(1, 254)}"
