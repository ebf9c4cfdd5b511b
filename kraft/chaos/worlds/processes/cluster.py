"""`async with Cluster.start(spec, directory=..., seed=...) as c`: real nodes that can be broken and looked at.

    async with Cluster.start(ClusterSpec.of(3), directory=tmp_path, seed=1) as c:
        await c.admin.create_topic("t")
        await c.nodes.kill((await c.observer.status()).leader("t", 0))
        await c.observer.until(lambda s: s.leader("t", 0) > 0, describe="a new leader of t-0")

All processes have ended when the block ends, for any reason, and also when this process is killed. The folder then
contains `data` (the nodes' folders), `faults.jsonl`, and `witness` (the durable data of each disk).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import uuid
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from kraft.chaos.nemesis.links import links_between_nodes
from kraft.chaos.workload.client import Client, ClientProtocol
from kraft.chaos.workload.group_client import GroupClient, Membership
from kraft.chaos.workload.queue_client import QueueClient, QueuePlan
from kraft.chaos.workload.rest_client import RestClient
from kraft.chaos.workload.rest_group_client import RestGroupClient
from kraft.chaos.workload.rest_queue_client import RestQueueClient
from kraft.chaos.workload.rest_transaction_client import RestTransactionClient
from kraft.chaos.workload.transaction_client import TransactionClient, TransactionPlan
from kraft.chaos.worlds.processes.administration import Administration
from kraft.chaos.worlds.processes.disks import Disks
from kraft.chaos.worlds.processes.links import OUTSIDE_LISTENER, Links, LinkTls
from kraft.chaos.worlds.processes.logs import RunFiles
from kraft.chaos.worlds.processes.nodes import Nodes, all_of
from kraft.chaos.worlds.processes.observer import Observer
from kraft.chaos.worlds.processes.pace import SHORT_STORIES, Pace
from kraft.chaos.worlds.processes.proxy.process import ProxyProcess
from kraft.chaos.worlds.processes.requests import RequestFaults
from kraft.chaos.worlds.processes.security import SecurityFaults
from kraft.chaos.worlds.processes.timeline import Timeline, now_us
from kraft.chaos.worlds.snapshot import Snapshot, roles_in
from kraft.chaos.worlds.spec import ClusterSpec, ScenarioError
from kraft.config.models import ClusterConfig, ListenerConfig, NodeConfig, PeerAddresses
from kraft.config.render import render
from kraft.launcher.client_security import first_user
from kraft.launcher.configuration import write_whole
from kraft.launcher.node_starter import NodeStarter, node_starter
from kraft.launcher.ports import with_free_ports
from kraft.launcher.processes import LaunchError
from kraft.launcher.runfile import RESOLVED_FILE, remove_run
from kraft.launcher.secured import secured
from kraft.layout import OPERATOR_FILE, SECRET_FILE


class Cluster:
    """A cluster of real nodes, made by `Cluster.start`. Faults are methods of `nodes`, `disks` and `links`."""

    def __init__(
        self,
        spec: ClusterSpec,
        *,
        directory: Path,
        seed: int,
        starter: NodeStarter,
        pace: Pace,
        clients: ClientProtocol,
        is_open_outside: bool,
        tls: LinkTls | None,
    ) -> None:
        host = own_host(random.Random())
        config = _configuration(spec, directory / "data", host=host, is_open_outside=is_open_outside)
        if tls is not None:
            config = _secured(config)
        self.directory = directory
        self._config = config
        self._config_file = str(Path(config.data) / RESOLVED_FILE)
        self._pace = pace
        self._clients = clients
        self._is_open_outside = is_open_outside
        self._outside: Mapping[int, str] = {}
        self._proxies = ProxyProcess(seed=seed)
        self.timeline = Timeline(directory)
        self.nodes = Nodes(
            config,
            config_file=self._config_file,
            directory=directory,
            starter=starter,
            proxies=self._proxies,
            timeline=self.timeline,
            pace=pace,
            describe_roles=lambda node: roles_in(self.observer.latest, node),
        )
        self.links = Links(config, host=host, proxies=self._proxies, timeline=self.timeline, tls=tls)
        self.requests = RequestFaults(config, proxies=self._proxies, timeline=self.timeline, tls=tls)
        self.security = SecurityFaults(config, nodes=self.nodes, proxies=self._proxies, timeline=self.timeline)
        self.disks = Disks(self.nodes, self.timeline, random.Random(seed))
        self.observer = Observer(self.nodes, pace)
        self.admin = Administration(config.cluster_id, self.nodes, self.observer, self.timeline, pace)
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
        clients: ClientProtocol = "rest",
        is_open_outside: bool = False,
        tls: LinkTls | None = None,
    ) -> AsyncIterator[Cluster]:
        """Start all nodes; the block begins when every broker takes part and the quorum has a leader.

        `starter` makes their processes; clusters may share one. Without it the cluster has its own. `clients` is the
        protocol of the clients of the story. `is_open_outside`: Kafka clients of other programs may connect too,
        through links (`outside`), and `requests` has faults for their requests. `tls`: the cluster has TLS, a user and
        ACLs, and the links end the TLS of their connections with the certificate of the node, or let it pass.
        """
        used = starter or node_starter()
        try:
            cluster = Cluster(
                spec,
                directory=_prepared(directory),
                seed=seed,
                starter=used,
                pace=pace,
                clients=clients,
                is_open_outside=is_open_outside,
                tls=tls,
            )
            try:
                await cluster._open(spec)
                yield cluster
            finally:
                await cluster._end()
        finally:
            if starter is None:
                used.close()

    @property
    def proxy_pid(self) -> int:
        return self._proxies.pid

    @property
    def cluster_id(self) -> str:
        return self._config.cluster_id

    @property
    def protocol(self) -> ClientProtocol:
        """The protocol of the clients of the story."""
        return self._clients

    @property
    def client_folder(self) -> str | None:
        """Folder with what a client needs to log in; None without TLS."""
        return self.nodes.client_folder

    @property
    def outside(self) -> Mapping[int, str]:
        """Broker -> host:port of its link for clients of other programs; the brokers advertise these addresses."""
        return self._outside

    @property
    def files(self) -> RunFiles:
        """The files of the run, to read."""
        return RunFiles(
            directory=self.directory,
            brokers=self.nodes.brokers,
            voters=self.nodes.voters,
            data={node: self.nodes.data(node) for node in self.nodes.ids},
            logs={node: self.nodes.log_directory(node) for node in self.nodes.ids},
        )

    async def mend(self) -> None:
        """Heal all links, disks and nodes: heal, free, resume, restart."""
        await self.links.heal()
        await self.requests.heal()
        await self.disks.free(*self.disks.full)
        await self.nodes.resume(*[node for node in self.nodes.ids if self.nodes.state(node) == "paused"])
        down = [node for node in self.nodes.ids if self.nodes.state(node) == "down"]
        if down:
            await self.nodes.restart(*down)
        await self.security.heal()

    async def until_ready(self, *, deadline_ms: int | None = None) -> Snapshot:
        """Wait until all brokers are active, and the nodes agree on a controller."""
        limit_ms = self._pace.start_limit_ms if deadline_ms is None else deadline_ms
        return await self.observer.until(
            self._is_ready, deadline_ms=limit_ms, describe="all brokers active, one controller"
        )

    def _is_ready(self, snapshot: Snapshot) -> bool:
        views = snapshot.views.values()
        controllers = {view.controller_id for view in views}
        return (
            len(snapshot.views) == len(self.nodes.ids)
            and len(controllers) == 1
            and min(controllers) >= 0
            and all(view.brokers.get(broker) == "active" for view in views for broker in self.nodes.brokers)
        )

    # --- as clients see it: implements `ClientWorld` ----------------------------------------------------------------

    @property
    def brokers(self) -> tuple[int, ...]:
        return self.nodes.brokers

    @property
    def latest(self) -> Snapshot | None:
        return self.observer.latest

    def client(self, name: str, *, in_flight_max: int) -> Client:
        if self._clients == "rest":
            return RestClient(name, self.links.client_address, connections_max=in_flight_max)
        from kraft.chaos.workload.kafka_client import KafkaClient  # only when asked for: it loads a client library

        return KafkaClient(name, self.links.kafka_address, brokers=self.brokers, login=self._kafka_login())

    def transaction_client(self, name: str, plan: TransactionPlan) -> TransactionClient:
        if self._clients == "rest":
            return RestTransactionClient(name, self.links.client_address, plan)
        from kraft.chaos.workload.kafka_transaction_client import KafkaTransactionClient

        return KafkaTransactionClient(
            name, self.links.kafka_address, plan, brokers=self.brokers, login=self._kafka_login()
        )

    def group_client(self, name: str, membership: Membership) -> GroupClient:
        if self._clients == "rest":
            return RestGroupClient(name, self.links.client_address, membership, now_us=now_us)
        from kraft.chaos.workload.kafka_group_client import KafkaGroupClient

        return KafkaGroupClient(
            name,
            self.links.kafka_address,
            membership,
            brokers=self.brokers,
            now_us=now_us,
            login=self._kafka_login(),
        )

    def queue_client(self, name: str, plan: QueuePlan) -> QueueClient:
        """Over REST, whatever the protocol of the other clients is: aiokafka has no share consumer."""
        return RestQueueClient(name, self.links.client_address, plan, cluster_id=self.admin.cluster_id)

    def _kafka_login(self) -> Mapping[str, Any]:
        """Arguments with which aiokafka's clients log in."""
        return {} if self.client_folder is None else first_user(Path(self.client_folder)).aiokafka()

    def now_us(self) -> int:
        return now_us()

    # --- life -------------------------------------------------------------------------------------------------------

    async def _open(self, spec: ClusterSpec) -> None:
        await self.links.open(list(links_between_nodes(spec)))
        if self._is_open_outside:
            self._outside = await self.links.open_outside()
        self._write_config()
        await self.nodes.start_all()
        await self.until_ready()
        await all_of(self.nodes.ids, self.nodes.wait_ready)
        self._sampler = asyncio.get_running_loop().create_task(self.observer.sample_forever())

    def _write_config(self) -> None:
        """Write the configuration: each node reaches its peers through its own proxies."""
        nodes = []
        for node in self._config.nodes:
            peers = self.links.peers(node.id)
            overrides = {peer: PeerAddresses.model_validate(addresses) for peer, addresses in peers.items()}
            listeners = tuple(each.model_copy(update={"advertised": self._outside[node.id]}) for each in node.listeners)
            nodes.append(node.model_copy(update={"peers": overrides, "listeners": listeners}))
        config = self._config.model_copy(update={"nodes": tuple(nodes)})
        secret_file = str(Path(config.data) / SECRET_FILE)
        write_whole(secret_file, config.secret.get_secret_value() + "\n", mode=0o600)
        write_whole(self._config_file, render(config, secret_file=secret_file), mode=0o600)
        if self.client_folder is not None:
            operator = str(Path(config.data) / OPERATOR_FILE)
            write_whole(operator, config.keys.operator.hex() + "\n", mode=0o600)

    async def _end(self) -> None:
        if self._sampler is not None:
            self._sampler.cancel()
            await asyncio.gather(self._sampler, return_exceptions=True)
        await self.nodes.end_all()
        self._proxies.close()
        self.timeline.save()
        remove_run(self._config.data)


def _prepared(directory: Path) -> Path:
    absolute = Path(directory).absolute()
    (absolute / "data").mkdir(parents=True, exist_ok=True)
    return absolute


def _configuration(spec: ClusterSpec, data: Path, *, host: str, is_open_outside: bool = False) -> ClusterConfig:
    if not spec.nodes:
        raise ScenarioError("a cluster needs at least one node")
    outside = (ListenerConfig(name=OUTSIDE_LISTENER, port=1),) if is_open_outside else ()
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
            listeners=outside if "broker" in node.roles else (),
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


def _secured(config: ClusterConfig) -> ClusterConfig:
    try:
        return secured(config)
    except LaunchError as error:
        raise ScenarioError(str(error)) from error


def own_host(rng: random.Random) -> str:
    """A loopback address for this run only, for nodes and proxies: no other program takes a port there between two
    starts of a node. macOS has only one address."""
    if sys.platform == "darwin":
        return "127.0.0.1"
    return f"127.{rng.randint(1, 254)}.{rng.randint(1, 254)}.{rng.randint(1, 254)}"
