"""Three whole nodes in one thread: each with its own machine, disk and clock; no HTTP, no thread for the quorum."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import Any

from pydantic import SecretStr

from kraft.chaos.nemesis.links import BETWEEN_NODES, Purpose
from kraft.chaos.worlds.simulated.environment import Machine, SimulatedWorld
from kraft.chaos.worlds.simulated.loop import BESIDE
from kraft.config.models import ClusterConfig, NodeConfig, PeerAddresses, Role
from kraft.node.assembly import Node
from kraft.protocol.primitives import SettingValue
from metadata.controller.requests import CreateTopics, ErrorDetail, NewTopic
from metadata.environment import Environment, Files
from metadata.image import PartitionImage, TopicIdPartition
from metadata.quorum.identity import claim_directory
from metadata.quorum.journal import Journal
from metadata.quorum.raft_host import InlineHost
from metadata.quorum.votes import FILE_NAME, VoteStore
from metadata.watchdog import NoLock, WatchedProcess

POLL_S = 0.02
START_S = 30
STOP_S = 60
REQUEST_MS = 10_000
KAFKA_PORT = 9092
QUORUM_PORT = 9192
EVENTS = "/data/events.jsonl"
METADATA_FOLDER = "/data/__cluster_metadata"
EVENTS_BYTES = 10_000_000
EVENTS_SHOWN = 25


class SimulatedProcess:
    """Implements `metadata.watchdog.WatchedProcess` for the process that a machine runs now."""

    def __init__(self, machine: Machine, on_end: Callable[[str], None]) -> None:
        self._machine = machine
        self._life = machine.process
        self._on_end = on_end

    def busy_ms(self) -> int:
        return self._machine.busy_us() // 1_000

    def stack(self) -> list[str]:
        return [f"somewhere in {self._machine.name}"]

    def lock(self) -> NoLock:
        return NoLock()

    def end(self, reason: str) -> None:
        self._machine._world.loop.outside(self._end, reason)

    def _end(self, reason: str) -> None:
        if self._machine.process is self._life:
            self._on_end(reason)


class InlineQuorum(InlineHost):
    """The Raft part, on the loop and in the environment of the node; it continues while the main part hangs.

    In production the two parts are threads, and calls between them are a little late: by `hop_us`.
    """

    def __init__(
        self, environment: Environment, *, hop_us: tuple[int, int], rng: random.Random, process: WatchedProcess
    ) -> None:
        super().__init__()
        self.environment = environment
        self.process = process
        self._main_context = self._beside = copy_context()
        self._hop_us = hop_us
        self._rng = rng
        self._due = {"raft": 0.0, "main": 0.0}
        self._held: list[Callable[[], None]] | None = None

    def start(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._main_context, self._beside = copy_context(), copy_context()
        self._beside.run(BESIDE.set, True)
        self._beside.run(super().start, main)

    def hold(self) -> None:
        """Hold calls of the main loop to the Raft thread from now on; all else continues."""
        self._held = [] if self._held is None else self._held

    def release(self) -> None:
        held, self._held = self._held or [], None
        for call in held:
            call()

    def call(self, function: Callable[..., object], *args: object) -> None:
        if self._held is None:
            self._hop("raft", function, args)
        else:  # in the context of its process: it must not come when that is dead
            self._held.append(functools.partial(copy_context().run, self._hop, "raft", function, args))

    def call_main(self, function: Callable[..., object], *args: object) -> None:
        self._hop("main", function, args)

    def _hop(self, to: str, function: Callable[..., object], args: tuple[object, ...]) -> None:
        """Calls stay in order, with any delays."""
        if self._loop is None or self._loop.is_closed():
            return
        context = self._beside if to == "raft" else self._main_context
        if not self._hop_us[1]:
            self._loop.call_soon(function, *args, context=context)
        else:
            delay = self._rng.randint(*self._hop_us) / 1_000_000
            self._due[to] = max(self._due[to], self._loop.time() + delay)
            self._loop.call_at(self._due[to], function, *args, context=context)


BOTH: tuple[Role, ...] = ("broker", "controller")


def alias(node_id: int, purpose: Purpose) -> str:
    """The host name of a node for one purpose: each purpose has its own links."""
    return f"node-{node_id}.{purpose}"


def _peers(node_id: int, count: int) -> dict[int, PeerAddresses]:
    return {
        peer: PeerAddresses(
            quorum=f"{alias(peer, 'quorum')}:{QUORUM_PORT}",
            controller=f"{alias(peer, 'controller')}:{KAFKA_PORT}",
            fetch=f"{alias(peer, 'fetch')}:{KAFKA_PORT}",
            forward=f"{alias(peer, 'forward')}:{KAFKA_PORT}",
        )
        for peer in range(1, count + 1)
        if peer != node_id
    }


def cluster_config(
    *,
    roles: Sequence[tuple[Role, ...]] = (BOTH,) * 3,
    settings: Mapping[str, SettingValue] | None = None,
    has_links_by_purpose: bool = False,
) -> ClusterConfig:
    return ClusterConfig(
        cluster_id="simulated",
        secret=SecretStr("simulated secret"),
        data="/data",
        settings={"default.replication.factor": 3, "min.insync.replicas": 2, **(settings or {})},
        nodes=tuple(
            NodeConfig(
                id=number,
                roles=node_roles,
                host=f"node-{number}",
                rest_port=8082,
                kafka_port=KAFKA_PORT,
                quorum_port=QUORUM_PORT,
                data="/data",
                log_dirs=("/data/logs",),
                peers=_peers(number, len(roles)) if has_links_by_purpose else {},
            )
            for number, node_roles in enumerate(roles, start=1)
        ),
    )


@asynccontextmanager
async def _within(seconds: float, what: str) -> AsyncIterator[None]:
    """A time limit; its error names the missing condition."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"{what} within {seconds} s") from error


class SimulatedNode:
    """One node of the configuration on its machine; `node` is the running instance."""

    def __init__(self, config: ClusterConfig, node_id: int, machine: Machine) -> None:
        self._config = config
        self.node_id = node_id
        self.machine = machine
        self.node: Node | None = None
        self.fatal: list[BaseException] = []
        self.ended: list[str] = []
        """The reasons for which it ended its own process."""
        self.is_running = False
        """True after a start until a stop or kill; `node` is None while it starts or stops."""
        self.on_made: Callable[[Node], None] = lambda node: None
        """Called with each instance before it starts."""
        self.hop_us = (0, 0)
        """The delay of calls between the two parts of its voter."""
        self.quorum: InlineQuorum
        """The connection of the two parts of its voter, in the last instance."""
        self._lives = 0

    @property
    def is_newcomer(self) -> bool:
        """True for a voter that has lost its files and does not vote yet."""
        engine = getattr(None if self.node is None else self.node.log, "_engine", None)
        return engine is not None and engine._journal is not None and engine._journal.votes.is_newcomer

    async def start(self) -> None:
        self.machine.power_on()
        self.is_running = True
        async with _within(START_S, f"node {self.node_id} has not started"):
            await self.machine.run(self._start())

    async def _start(self) -> None:
        environment = self.machine.environment
        self._lives += 1
        rng = self.machine._world.rng(f"{self.machine.name} hops {self._lives}")
        process = SimulatedProcess(self.machine, self._ended)
        self.quorum = InlineQuorum(environment, hop_us=self.hop_us, rng=rng, process=process)
        node = Node(
            self._config,
            self.node_id,
            environment=environment,
            quorum=self.quorum,
            door=None,
            on_fatal=self.fatal.append,
        )
        self.on_made(node)
        await node.start()
        self.node = node

    async def stop(self) -> None:
        if self.node is not None:
            node, self.node = self.node, None
            self.is_running = False
            async with _within(STOP_S, f"node {self.node_id} has not stopped"):
                await self.machine.run(node.stop())

    def _ended(self, reason: str) -> None:
        self.ended.append(reason)
        self.kill()

    def kill(self) -> None:
        self.node, self.is_running = None, False
        self.machine.kill()

    def lose_power(self) -> None:
        self.node, self.is_running = None, False
        self.machine.lose_power()


class SimulatedCluster:
    def __init__(
        self,
        world: SimulatedWorld,
        *,
        settings: Mapping[str, SettingValue] | None = None,
        rates: tuple[float, ...] = (1, 1, 1),
        roles: Sequence[tuple[Role, ...]] | None = None,
        is_new: bool = False,
        has_links_by_purpose: bool = False,
    ) -> None:
        """False for a new cluster, whose voters must first meet."""
        self.world = world
        self.config = cluster_config(
            roles=roles or (BOTH,) * len(rates), settings=settings, has_links_by_purpose=has_links_by_purpose
        )
        for node in self.config.nodes if has_links_by_purpose else ():
            world.network.aliases |= {alias(node.id, purpose): f"node-{node.id}" for purpose in BETWEEN_NODES}
        self.nodes = {
            node.id: SimulatedNode(self.config, node.id, world.machine(f"node-{node.id}", rate=rate))
            for node, rate in zip(self.config.nodes, rates, strict=True)
        }
        for voter in () if is_new else self.config.voters:
            files = self.nodes[voter.id].machine.environment.files
            form_voter(files, METADATA_FOLDER, cluster_id=self.config.cluster_id, node_id=voter.id)

    @property
    def hosts(self) -> list[str]:
        return [f"node-{node_id}" for node_id in self.nodes]

    @property
    def alive(self) -> list[SimulatedNode]:
        return [node for node in self.nodes.values() if node.node is not None]

    async def start(self) -> None:
        async with asyncio.TaskGroup() as group:
            for node in self.nodes.values():
                group.create_task(node.start())
        await self.wait_ready()

    async def stop(self) -> None:
        async with asyncio.TaskGroup() as group:
            for node in self.alive:
                group.create_task(node.stop())

    async def wait_ready(self, *, within_s: float = START_S) -> None:
        """Wait until every running node is unfenced and knows the leader of the quorum."""
        deadline_s = self.world.loop.time() + within_s
        while why := self._unready():
            self.raise_fatal()
            assert self.world.loop.time() < deadline_s, f"not ready within {within_s} s: {why}"
            await asyncio.sleep(POLL_S)

    def _unready(self) -> dict[int, str]:
        """Node -> the reason why it is not ready."""
        looked = {node.node_id: node.node.awaiting.service() for node in self.alive if node.node is not None}
        return {node_id: why for node_id, why in looked.items() if why}

    def raise_fatal(self) -> None:
        for node in self.nodes.values():
            assert not node.fatal, (node.node_id, node.fatal)

    async def create_topic(self, name: str, *, configs: Mapping[str, str] | None = None) -> TopicIdPartition:
        """One partition on all nodes; returns once every node knows its leader."""
        new = NewTopic(name=name, partitions=1, replication_factor=len(self.nodes), configs=configs or {})
        first = self.alive[0]
        assert first.node is not None
        gateway = first.node.gateway
        created = await first.machine.run(gateway.control(CreateTopics(topics=(new,)), timeout_ms=REQUEST_MS))
        answer = created[name]
        assert not isinstance(answer, ErrorDetail), answer
        which = TopicIdPartition(answer.topic_id, 0)
        await self.wait_in_sync(which)
        return which

    async def wait_in_sync(self, which: TopicIdPartition, *, within_s: float = 60) -> None:
        """Wait until every node has a leader and the whole assignment in sync."""
        deadline = self.world.loop.time() + within_s
        while not all(self._is_in_sync(node, which) for node in self.alive):
            self.raise_fatal()
            assert self.world.loop.time() < deadline, self._story(which)
            await asyncio.sleep(POLL_S)

    def _story(self, which: TopicIdPartition) -> str:
        """The state of each node and its last events, for the message of a failed wait."""
        lines = [f"seed {self.world.seed}, {self.world.loop.now_us} us: {which} is not in sync"]
        for node in self.nodes.values():
            lines.append(f"--- node {node.node_id}, running: {node.node is not None}: {self.partition(node, which)}")
            files = node.machine.environment.files
            if files.exists(EVENTS):
                lines += files.open(EVENTS).pread(0, EVENTS_BYTES).decode().splitlines()[-EVENTS_SHOWN:]
        return "\n".join(lines)

    def _is_in_sync(self, node: SimulatedNode, which: TopicIdPartition) -> bool:
        partition = self.partition(node, which)
        return partition is not None and partition.has_leader and len(partition.isr) == len(self.nodes)

    def partition(self, node: SimulatedNode, which: TopicIdPartition) -> PartitionImage | None:
        if node.node is None:
            return None
        topic = node.node.publisher.image.topics.get(which.topic_id)
        return None if topic is None else topic.partitions.get(which.partition)

    def leader(self, which: TopicIdPartition) -> SimulatedNode | None:
        """The leader in the newest metadata of all nodes."""
        known = [found for node in self.alive if (found := self.partition(node, which)) is not None]
        newest = max(known, key=lambda partition: partition.leader_epoch, default=None)
        return None if newest is None or not newest.has_leader else self.nodes[newest.leader]


# --- voters that have met before --------------------------------------------------------------------------------------


def form_voter(files: Files, directory: str, *, cluster_id: str, node_id: int) -> None:
    lock = claim_directory(files, directory, cluster_id=cluster_id, node_id=node_id)
    votes = VoteStore(files, directory)
    Journal(files, directory, votes=votes, snapshot=None).close()
    files.remove(
        f"{directory}/{FILE_NAME}"
    )  # so it comes after the journal in the folder: a loss of power goes by that
    votes.settle()
    votes.save(term=0, voted_for=None)
    lock.release()
