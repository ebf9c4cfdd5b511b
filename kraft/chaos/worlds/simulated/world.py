"""A simulated cluster as the world of a story: actions, questions and clients.

Each directed link of each purpose can be broken alone, as between real nodes: a node uses another name of a peer for
each purpose, and the simulated network has a link for each name.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import Any, Final

import msgspec

from kraft.chaos.evidence import Fault, LeaderSample
from kraft.chaos.nemesis import actions
from kraft.chaos.nemesis.actions import Damage
from kraft.chaos.nemesis.links import LinkId, links_between_nodes, select, split
from kraft.chaos.questions import Now
from kraft.chaos.workload.group_client import Membership
from kraft.chaos.workload.queue_client import QueuePlan
from kraft.chaos.workload.transaction_client import TransactionPlan
from kraft.chaos.worlds.answers import SnapshotAnswers
from kraft.chaos.worlds.processes.disks import BATCH_HEADER_BYTES, FLIP, byte_of_records
from kraft.chaos.worlds.samples import LeaderSamples
from kraft.chaos.worlds.simulated.client import ClientLink, SimulatedClient
from kraft.chaos.worlds.simulated.cluster import EVENTS, EVENTS_BYTES, SimulatedCluster, SimulatedNode, alias
from kraft.chaos.worlds.simulated.group_client import SimulatedGroupClient
from kraft.chaos.worlds.simulated.network import Link
from kraft.chaos.worlds.simulated.queue_client import SimulatedQueueClient
from kraft.chaos.worlds.simulated.transaction_client import SimulatedTransactionClient
from kraft.chaos.worlds.snapshot import NodeState, NodeView, Snapshot, parse_view, roles_in
from kraft.chaos.worlds.spec import ClusterSpec, ScenarioError
from kraft.chaos.worlds.world import NOT_KNOWN, Clients
from kraft.coordinators.groups.answers import GroupDescription
from kraft.coordinators.groups.requests import DescribeGroup
from kraft.http.replicas import node_belief
from kraft.protocol.errors import KafkaError, NotController, RequestTimedOut
from kraft.protocol.primitives import SettingValue
from metadata.controller.requests import (
    AlterConfigs,
    AlterReassignments,
    ConfigAlteration,
    ConfigResource,
    CreatePartitions,
    CreateTopics,
    DeleteTopics,
    ElectLeaders,
    ErrorDetail,
    NewPartitions,
    NewTopic,
    PartitionReassignment,
    Request,
)
from metadata.environment import ConnectionClosed, Files

FOR_EVER: Final = 1_000_000_000
SAMPLE_MS: Final = 50
CHANGE_MS: Final = 5_000
CHANGE_LIMIT_S: Final = 30.0
ASK_LIMIT_S: Final = 0.5
CLUSTER_RESOURCE: Final = ""
"""The name of the resource for all brokers."""


class SimulatedStoryWorld:
    """Implements `World` and, for clients, `ClientWorld`."""

    def __init__(self, cluster: SimulatedCluster, spec: ClusterSpec) -> None:
        self._cluster = cluster
        self._spec = spec
        self._network = cluster.world.network
        self._links = list(links_between_nodes(spec))
        self._client_links: dict[LinkId, ClientLink] = {}
        self.clients: Clients
        self.latest: Snapshot | None = None
        self._samples = LeaderSamples()
        self.faults: list[Fault] = []
        self._open_faults: dict[int, int] = {}
        """Node -> number of the fault that stopped it."""
        self.on_fault: Callable[[Fault], None] = lambda fault: None

    # --- what clients need --------------------------------------------------------------------------------------

    @property
    def brokers(self) -> tuple[int, ...]:
        return self._spec.brokers

    @property
    def voters(self) -> tuple[int, ...]:
        return self._spec.voters

    def now_us(self) -> int:
        return self._cluster.world.loop.now_us

    def client(self, name: str, *, in_flight_max: int) -> SimulatedClient:
        return SimulatedClient(self._cluster, lambda node: self._client_link(name, node))

    def transaction_client(self, name: str, plan: TransactionPlan) -> SimulatedTransactionClient:
        return SimulatedTransactionClient(self.client(name, in_flight_max=1), plan)

    def group_client(self, name: str, membership: Membership) -> SimulatedGroupClient:
        client = self.client(name, in_flight_max=1)
        return SimulatedGroupClient(client, membership, name=name, now_us=self.now_us)

    def queue_client(self, name: str, plan: QueuePlan) -> SimulatedQueueClient:
        return SimulatedQueueClient(self.client(name, in_flight_max=1), plan)

    def _client_link(self, name: str, node: int) -> ClientLink:
        link = LinkId(name, node, "rest")
        if link not in self._client_links:
            self._client_links[link] = ClientLink()
            self._links.append(link)
        return self._client_links[link]

    @property
    def samples(self) -> Sequence[LeaderSample]:
        return self._samples.samples

    # --- looking ------------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        return self.now_us() // 1000

    async def sleep(self, ms: int) -> None:
        await asyncio.sleep(ms / 1000)

    async def look(self) -> Now:
        return Now(SnapshotAnswers(self.snapshot(), self.clients.counts, self.count_events).ask)

    def snapshot(self) -> Snapshot:
        self.latest = snapshot_of(self._cluster)
        return self.latest

    def count_events(self, event: str, node: int | None = None) -> int:
        return sum(self.events_of(number)[event] for number in self._cluster.nodes if node in (None, number))

    def events_of(self, node: int) -> Counter[str]:
        files = self._cluster.nodes[node].machine.environment.files
        if not files.exists(EVENTS):
            return Counter()
        file = files.open(EVENTS, read_only=True)
        lines = bytes(file.pread(0, EVENTS_BYTES)).splitlines()
        file.close()
        return Counter(str(msgspec.json.decode(line)["event"]) for line in lines if line.endswith(b"}"))

    async def sample_forever(self) -> None:
        while True:
            self._samples.take(self.snapshot())
            await asyncio.sleep(SAMPLE_MS / 1000)

    async def group_members(self, group: str) -> int:
        for node in self._cluster.alive:
            assert node.node is not None
            try:
                async with asyncio.timeout(ASK_LIMIT_S):
                    description = await node.machine.run(node.node.groups.ask(DescribeGroup(group=group)))
            except (KafkaError, ConnectionClosed, TimeoutError):
                continue
            assert isinstance(description, GroupDescription), description
            return len(description.members)
        return NOT_KNOWN

    # --- acting -------------------------------------------------------------------------------------------------

    async def act(self, action: actions.Action) -> None:
        try:
            await self._act(action)
        except ScenarioError:
            if not getattr(action, "may_be_refused", False):
                raise

    async def _act(self, action: actions.Action) -> None:
        match action:
            case actions.StartClients(clients=clients):
                for name in clients:
                    await self.clients.start(name)
            case actions.FinishClients(clients=clients):
                for name in clients:
                    await self.clients.finish(name)
            case actions.SilenceClients(clients=clients):
                for name in clients:
                    await self.clients.silence(name)
            case actions.NodeFault(do=kind, nodes=nodes):
                await self._to_nodes(kind, nodes)
            case actions.DamageFiles():
                self._damage(action)
            case actions.LinkFault() | actions.Heal() | actions.Partition() | actions.Isolate():
                self._change_links(action)
            case _:
                await self._administrate(action)

    # --- nodes --------------------------------------------------------------------------------------------------

    async def _to_nodes(self, kind: str, numbers: Sequence[int]) -> None:
        nodes = [self._node(number) for number in numbers]
        match kind:
            case "kill" | "power_loss":
                for node in nodes:
                    self._took(kind, node, "killed {} with -9" if kind == "kill" else "took the power from {}")
                    if kind == "kill":
                        node.kill()
                    else:
                        self._keep_events(node)
                        node.lose_power()
            case "pause":
                for node in nodes:
                    self._took(kind, node, "paused {}")
                    node.machine.pause()
            case "resume":
                for node in nodes:
                    node.machine.resume()
                    self._back(node)
            case "stop":
                for node in nodes:
                    self._took(kind, node, "stopped {} in order")
                    await node.stop()
            case "restart":
                await self._restart(nodes)
            case _:
                for node in nodes:
                    self._to_disk(kind, node)

    def _keep_events(self, node: SimulatedNode) -> None:
        """Keep the events of a node: they are evidence, so a power loss does not remove them."""
        files = node.machine.environment.files
        if files.exists(EVENTS):
            file = files.open(EVENTS)
            file.sync()
            file.close()
            files.sync_directory("/data")
            files.sync_directory("/")

    async def _restart(self, nodes: Sequence[SimulatedNode]) -> None:
        for node in nodes:
            if node.is_running:
                await node.stop()
            self._back(node)
            self._happened("restart", f"started node {node.node_id}", nodes=[node.node_id])
        async with asyncio.TaskGroup() as starting:
            for node in nodes:
                starting.create_task(node.start())

    def _to_disk(self, kind: str, node: SimulatedNode) -> None:
        disk = node.machine.disk
        match kind:
            case "disk_full":
                disk.is_full = True
                number = self._happened("disk_full", f"filled the disk of node {node.node_id}", nodes=[node.node_id])
                self._open_faults[-node.node_id] = number
            case "disk_free":
                disk.is_full = False
                self._ended(self._open_faults.pop(-node.node_id, None))
            case "wipe":
                self._must_be_down(node, "wiped")
                files = node.machine.environment.files
                for name in files.list_directory("/data") if files.exists("/data") else ():
                    if files.is_directory(f"/data/{name}"):
                        files.remove_tree(f"/data/{name}")
                files.sync_directory("/data")
                self._happened("wipe", f"wiped the disk of node {node.node_id}", nodes=[node.node_id])

    def _damage(self, action: actions.DamageFiles) -> None:
        node = self._node(action.node)
        self._must_be_down(node, "damaged")
        if action.spares_isr and not self._is_outside_isr(action.node, action.topic, action.partition):
            return
        kind, text = damage(
            node.machine.environment.files,
            f"/data/logs/{action.topic}-{action.partition}",
            what=action.what,
            rng=self._cluster.world.rng(f"damage {len(self.faults)}"),
        )
        self._happened(kind, f"{text} of {action.topic}-{action.partition} on node {action.node}", nodes=[action.node])

    def _is_outside_isr(self, node: int, topic: str, partition: int) -> bool:
        isr = self.snapshot().isr(topic, partition)
        return bool(isr) and node not in isr

    def _node(self, number: int) -> SimulatedNode:
        if number not in self._cluster.nodes:
            raise ScenarioError(f"{number} is no node; the nodes are {list(self._cluster.nodes)}")
        return self._cluster.nodes[number]

    def _must_be_down(self, node: SimulatedNode, done: str) -> None:
        if node.is_running:
            raise ScenarioError(f"node {node.node_id} runs: its files can only be {done} while it does not")

    # --- links --------------------------------------------------------------------------------------------------

    def _change_links(self, action: actions.LinkFault | actions.Heal | actions.Partition | actions.Isolate) -> None:
        match action:
            case actions.Partition(groups=groups, purpose=purpose):
                chosen = split(self._links, groups, nodes=self._spec.nodes, purpose=purpose)
                shown = " | ".join(f"[{', '.join(map(str, group))}]" for group in groups)
                self._break("cut", chosen, lambda link: self._cut(link), text=f"partition {shown}")
            case actions.Isolate(node=node, purpose=purpose):
                chosen = [*select(self._links, dials=node, purpose=purpose)]
                chosen += [link for link in select(self._links, answers=node, purpose=purpose) if link not in chosen]
                text = f"isolated node {node} ({', '.join(purpose)})"
                self._break("cut", chosen, lambda link: self._cut(link), text=text, nodes=[node])
            case actions.Heal():
                is_all = action == actions.Heal(do="heal")
                ends = {"dials": action.dials, "answers": action.answers, "purpose": action.purpose}
                for link in self._links if is_all else select(self._links, **ends):  # type: ignore[arg-type]
                    self._heal(link)
            case actions.LinkFault():
                chosen = select(self._links, dials=action.dials, answers=action.answers, purpose=action.purpose)
                how = {"drop_answers": "drop_answer", "close_mid_message": "close"}.get(action.do, action.do)
                text = f"{action.do.replace('_', ' ')} on {', '.join(map(str, chosen))}"
                self._break(how, chosen, lambda link: self._spoil(link, action), text=text)

    def _break(
        self,
        kind: str,
        links: Sequence[LinkId],
        change: Callable[[LinkId], None],
        *,
        text: str,
        nodes: Sequence[int] = (),
    ) -> None:
        for link in links:
            change(link)
        self._happened(kind, text, nodes=nodes, links=[str(link) for link in links])

    def _ways(self, link: LinkId) -> tuple[str, str]:
        assert isinstance(link.dials, int), link
        return f"node-{link.dials}", alias(link.answers, link.purpose)

    def _halves(self, link: LinkId) -> dict[str, Link]:
        dials, name = self._ways(link)
        return {"requests": self._network.link(dials, name), "answers": self._network.link(name, dials)}

    def _cut(self, link: LinkId) -> None:
        if link in self._client_links:
            self._client_links[link].refuses = True
            return
        self._network.refusing.add(self._ways(link))
        self._network.reset_way(*self._ways(link))

    def _heal(self, link: LinkId) -> None:
        if link in self._client_links:
            healed = ClientLink()
            for name in ClientLink.__slots__:
                setattr(self._client_links[link], name, getattr(healed, name))
            return
        dials, name = self._ways(link)
        self._network.refusing.discard((dials, name))
        for half in self._halves(link).values():
            plain = Link()
            half.latency_us, half.bytes_per_s = plain.latency_us, plain.bytes_per_s
            half.frames_until_reset, half.resets_more, half.frames_lost = None, 0, 0
        self._network.heal(dials, name)

    def _spoil(self, link: LinkId, action: actions.LinkFault) -> None:
        if link in self._client_links:
            self._spoil_client(self._client_links[link], action)
            return
        count, halves = action.count or FOR_EVER, self._halves(link)
        chosen = [half for name, half in halves.items() if action.direction in ("both", name)]
        match action.do:
            case "cut":
                self._cut(link)
            case "blackhole":
                for half in chosen:
                    half.is_cut = True
            case "delay":
                for half in chosen:
                    low = action.delay_ms * 1_000
                    half.latency_us = (low + 100, low + action.jitter_ms * 1_000 + 500)
            case "bandwidth":
                for half in chosen:
                    half.bytes_per_s = action.bytes_per_second
            case "drop_answers":
                halves["answers"].frames_lost = count
            case "close_mid_message":
                for half in chosen:
                    half.frames_until_reset, half.resets_more = 0, count - 1

    def _spoil_client(self, link: ClientLink, action: actions.LinkFault) -> None:
        match action.do:
            case "cut":
                link.refuses = True
            case "blackhole":
                link.holds_requests = action.direction in ("both", "requests")
                link.holds_answers = action.direction in ("both", "answers")
            case "delay":
                link.delay_ms = action.delay_ms
            case "drop_answers":
                link.answers_lost = action.count or FOR_EVER
            case "close_mid_message":
                if action.direction in ("both", "requests"):
                    link.requests_lost = action.count or FOR_EVER
                if action.direction in ("both", "answers"):
                    link.answers_lost = action.count or FOR_EVER
            case "bandwidth":
                raise ScenarioError("the width of a client's link needs real processes: it has no bytes here")

    # --- administration -----------------------------------------------------------------------------------------

    async def create_topic(
        self, topic: str, *, assignment: Sequence[Sequence[int]], configs: Mapping[str, SettingValue]
    ) -> None:
        new = NewTopic(
            name=topic,
            partitions=-1,
            replication_factor=-1,
            assignment={number: tuple(replicas) for number, replicas in enumerate(assignment)},
            configs={name: _text(value) for name, value in configs.items()},
        )
        _raise_detail(topic, (await self._ask(CreateTopics(topics=(new,))))[topic])
        deadline = self._cluster.world.loop.time() + CHANGE_LIMIT_S
        while not self._has_leaders(topic, len(assignment)):
            if self._cluster.world.loop.time() > deadline:
                raise ScenarioError(f"topic {topic} is not on every node, with leaders")
            await asyncio.sleep(SAMPLE_MS / 1000)

    def _has_leaders(self, topic: str, count: int) -> bool:
        snapshot = self.snapshot()
        known = all((topic, count - 1) in view.partitions for view in snapshot.views.values())
        return known and all(snapshot.leader(topic, number) >= 0 for number in range(count))

    async def _administrate(self, action: actions.Action) -> None:
        match action:
            case actions.CreateTopic(topic=topic, assignment=assignment, configs=configs):
                await self.create_topic(topic, assignment=assignment, configs=configs)
            case actions.DeleteTopic(topic=topic):
                self._happened("delete_topic", f"deleted topic {topic}")
                _raise_detail(topic, (await self._ask(DeleteTopics(topics=(topic,))))[topic])
            case actions.GrowTopic(topic=topic, partitions=count):
                self._happened("config", f"grew topic {topic} to {count} partitions")
                grown = CreatePartitions(topics=(NewPartitions(topic=topic, count=count, assignments=None),))
                _raise_detail(topic, (await self._ask(grown))[topic])
            case actions.SetTopic(topic=topic, configs=configs):
                await self._set(ConfigResource(resource_type="topic", name=topic), configs, f"topic {topic}")
            case actions.SetCluster(configs=configs):
                resource = ConfigResource(resource_type="broker", name=CLUSTER_RESOURCE)
                await self._set(resource, configs, "the whole cluster")
            case actions.SetGroup(group=group, configs=configs):
                await self._set(ConfigResource(resource_type="group", name=group), configs, f"group {group}")
            case actions.Reassign(topic=topic, partition=partition, replicas=replicas):
                self._happened("reassign", f"asked to move {topic}-{partition} to {list(replicas)}")
                moved = PartitionReassignment(topic=topic, partition=partition, replicas=tuple(replicas))
                answer = await self._ask(AlterReassignments(reassignments=(moved,)))
                _raise_detail(f"{topic}-{partition}", answer[topic, partition])
            case actions.Elect(topic=topic, partition=partition, kind=kind):
                self._happened("elect", f"asked for the {kind} leader of {topic}-{partition}")
                answer = await self._ask(ElectLeaders(election=kind, partitions=((topic, partition),)))
                _raise_detail(f"{topic}-{partition}", answer.get((topic, partition)))
            case _:
                raise ScenarioError(f"{action.do} needs real processes")

    async def _set(self, resource: ConfigResource, configs: Mapping[str, SettingValue], where: str) -> None:
        shown = ", ".join(f"{name}={_text(value)}" for name, value in configs.items())
        self._happened("config", f"set {shown} on {where}")
        changes = tuple(
            ConfigAlteration(name=name, operation="set", value=_text(value)) for name, value in configs.items()
        )
        answer = await self._ask(AlterConfigs(resources={resource: changes}))
        _raise_detail(where, answer[resource])

    async def _ask(self, request: Request[Any]) -> Any:
        """Retries while no node can do it. Raises ScenarioError."""
        loop, problem = self._cluster.world.loop, "no node runs"
        deadline = loop.time() + CHANGE_LIMIT_S
        while loop.time() < deadline:
            for node in self._cluster.alive:
                if node.machine.process.is_paused or node.node is None:
                    continue
                asked: Awaitable[Any] = node.machine.run(node.node.gateway.control(request, timeout_ms=CHANGE_MS))
                try:
                    async with asyncio.timeout(2 * CHANGE_MS / 1000):
                        return await asked
                except (NotController, RequestTimedOut, ConnectionClosed, TimeoutError) as error:
                    problem = f"node {node.node_id}: {type(error).__name__} {error}"
                except KafkaError as error:
                    raise ScenarioError(f"{type(request).__name__}: {type(error).__name__} {error}") from error
            await asyncio.sleep(SAMPLE_MS / 1000)
        raise ScenarioError(f"{type(request).__name__}: {problem}")

    # --- healing ------------------------------------------------------------------------------------------------

    async def mend(self) -> None:
        """Heal all links, disks and nodes."""
        for link in self._links:
            self._heal(link)
        for number, fault in enumerate(self.faults):
            if fault.links:
                self._ended(number)
        for node in self._cluster.nodes.values():
            if node.machine.disk.is_full:
                self._to_disk("disk_free", node)
            if node.machine.process.is_paused:
                node.machine.resume()
                self._back(node)
        down = [node for node in self._cluster.nodes.values() if not node.is_running]
        if down:
            await self._restart(down)

    # --- what is written down -----------------------------------------------------------------------------------

    def _took(self, kind: str, node: SimulatedNode, text: str) -> None:
        self._back(node)
        description = text.format(self._described(node.node_id))
        self._open_faults[node.node_id] = self._happened(kind, description, nodes=[node.node_id])

    def _back(self, node: SimulatedNode) -> None:
        self._ended(self._open_faults.pop(node.node_id, None))

    def _described(self, number: int) -> str:
        return f"node {number}{roles_in(self.snapshot(), number)}"

    def _happened(self, kind: str, text: str, *, nodes: Sequence[int] = (), links: Sequence[str] = ()) -> int:
        fault = Fault(at_us=self.now_us(), fault=kind, nodes=tuple(nodes), links=tuple(links), text=text)
        self.faults.append(fault)
        self.on_fault(fault)
        return len(self.faults) - 1

    def _ended(self, number: int | None) -> None:
        if number is not None and self.faults[number].until_us is None:
            self.faults[number] = _until(self.faults[number], self.now_us())


def snapshot_of(cluster: SimulatedCluster) -> Snapshot:
    """A snapshot without paused and dead nodes."""
    views = {number: view for number, node in cluster.nodes.items() if (view := _view(node)) is not None}
    states = {number: _state(node) for number, node in cluster.nodes.items()}
    return Snapshot(at_us=cluster.world.loop.now_us, states=states, views=views)


def _until(fault: Fault, until_us: int) -> Fault:
    return Fault(
        at_us=fault.at_us, until_us=until_us, fault=fault.fault, nodes=fault.nodes, links=fault.links, text=fault.text
    )


def _state(node: SimulatedNode) -> NodeState:
    if not node.is_running:
        return "down"
    return "paused" if node.machine.process.is_paused else "running"


def _view(node: SimulatedNode) -> NodeView | None:
    running = node.node
    if running is None or node.machine.process.is_paused:
        return None
    replicas = {} if running.broker is None else running.broker.replicas.describe()
    return parse_view(node_belief(running.gateway, replicas).model_dump())


def _text(value: SettingValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _raise_detail(what: str, answer: object) -> None:
    if isinstance(answer, ErrorDetail):
        raise ScenarioError(f"{what}: {answer.error.__name__} {answer.message}")


# --- spoiled files ----------------------------------------------------------------------------------------------------


def damage(files: Files, folder: str, *, what: Damage, rng: Random) -> tuple[str, str]:
    """The kind of fault, and a sentence about it."""
    if not files.exists(folder):
        raise ScenarioError(f"there is no folder {folder}")
    names = files.list_directory(folder)
    match what:
        case "delete log":
            files.remove_tree(folder)
            files.sync_directory(folder.rpartition("/")[0])
            return "wipe", "deleted the log"
        case "delete index":
            for name in names:
                if name.endswith((".index", ".timeindex")):
                    files.remove(f"{folder}/{name}")
            files.sync_directory(folder)
            return "flip", "deleted the indexes"
    segments = [name for name in names if name.endswith(".log")]
    if not segments or (what == "flip closed" and len(segments) < 2):
        raise ScenarioError(f"{folder} has no segment that could be spoiled; give it a small segment.bytes")
    name = segments[0] if what == "flip closed" else segments[-1]
    file = files.open(f"{folder}/{name}")
    try:
        if what == "torn tail":
            lost = rng.randrange(1, min(file.size, BATCH_HEADER_BYTES))
            file.truncate(file.size - lost)
            description = f"tore {lost} bytes off the end of {name}"
        else:
            position = byte_of_records(bytes(file.pread(0, file.size)), rng, name)
            file.pwrite(position, bytes([file.pread(position, 1)[0] ^ FLIP]))
            description = f"flipped bits at byte {position} of {name}"
        file.sync()
    finally:
        file.close()
    return "flip", description
