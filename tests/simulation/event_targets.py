"""The targets of events: nodes, links, partitions and topics, chosen by number.

A node is taken away by one event at a time, which brings it back; administrative requests run on a node that is alive,
as a client's would, and have to end while it stays so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kraft.broker.gateway import Gateway
from kraft.chaos.worlds.simulated.cluster import SimulatedCluster, SimulatedNode
from metadata.controller.requests import CreateTopics, NewTopic, Request
from metadata.image import MetadataImage, PartitionImage
from metadata.quorum.durable import QuorumStorageError
from replication.storage.log_directory import StartupError
from tests.simulation.node_request import Watch
from tests.simulation.oracle import Oracle
from tests.simulation.plan import Event, Plan

ADMIN_MS = 2_000
GIVE_UP_S = 15.0
START_RETRY_S = 0.2
STARTS_MAX = 200


class EventTargets:
    """Chooses nodes, links and partitions by number, and undoes faults."""

    def __init__(self, cluster: SimulatedCluster, plan: Plan, oracle: Oracle) -> None:
        self.cluster = cluster
        self._plan = plan
        self._oracle = oracle
        self._world = cluster.world
        self._busy: set[int] = set()
        """Nodes that some event has taken away and will bring back."""
        self.is_healed = False

    # --- choosing -----------------------------------------------------------------------------------------------

    def _node(self, number: int) -> SimulatedNode:
        nodes = list(self.cluster.nodes.values())
        return nodes[number % len(nodes)]

    def _others(self, node: SimulatedNode) -> list[str]:
        return [host for host in self.cluster.hosts if host != node.machine.name]

    def _image(self) -> MetadataImage:
        return self._oracle.image

    def _partition(self, number: int) -> tuple[str, PartitionImage] | None:
        image = self._image()
        found = [(topic.name, p) for topic in image.topics_by_name.values() for p in topic.partitions.values()]
        return found[number % len(found)] if found else None

    def _topic(self, number: int) -> str | None:
        names = sorted(self._image().topic_ids)
        return names[number % len(names)] if names else None

    def _controller(self) -> SimulatedNode | None:
        return self.cluster.nodes.get(self._image().controller_id)

    async def _ask(self, request: Request[object], *, number: int) -> None:
        gateway = self._gateway(number)
        if gateway is not None:
            node, client = gateway
            watch = Watch(node, self._world.loop.now_us)
            try:
                async with asyncio.timeout(GIVE_UP_S):
                    answer = await node.machine.run(client.control(request, timeout_ms=ADMIN_MS))
            except TimeoutError:
                self._oracle.check(
                    not watch.is_undisturbed,
                    f"{request} to node {node.node_id}, alive and awake, has not ended within {GIVE_UP_S} s",
                )
                raise
            self._oracle.note(f"answer {answer}")

    def _gateway(self, number: int) -> tuple[SimulatedNode, Gateway] | None:
        alive = [node for node in self.cluster.alive if not node.machine.process.is_paused]
        if not alive:
            return None
        node = alive[number % len(alive)]
        assert node.node is not None
        return node, node.node.gateway

    async def _create(self, name: str, event: Event) -> None:
        factor = 1 + event.numbers[1] % min(3, len(self._plan.brokers))
        configs = {"min.insync.replicas": str(1 + event.numbers[2] % 2)}
        topic = NewTopic(name=name, partitions=1 + event.numbers[3] % 3, replication_factor=factor, configs=configs)
        await self._ask(CreateTopics(topics=(topic,)), number=event.numbers[0])  # type: ignore[arg-type]

    # --- links --------------------------------------------------------------------------------------------------

    def _set_link(self, one: str, other: str, low_us: int, high_us: int, *, bytes_per_s: int) -> None:
        link = self._world.network.link(one, other)
        link.latency_us, link.bytes_per_s = (low_us, high_us), bytes_per_s

    def _restore_link(self, one: str, other: str) -> None:
        self._set_link(one, other, *self._plan.latency_us_of(one, other), bytes_per_s=1_000_000_000)

    async def _heal_after(self, event: Event, pairs: list[tuple[str, str]]) -> None:
        await self._heal_in(event.lasts_ms, pairs)

    async def _heal_in(self, lasts_ms: int, pairs: list[tuple[str, str]]) -> None:
        await asyncio.sleep(lasts_ms / 1000)
        for one, other in pairs:
            self._world.network.heal(one, other)

    # --- nodes --------------------------------------------------------------------------------------------------

    def _lose_power(self, node: SimulatedNode) -> None:
        node.lose_power()
        self._oracle.promise.power_lost(node.node_id)

    async def _take_away(self, node: SimulatedNode, event: Event, how: Callable[[SimulatedNode], None]) -> None:
        await self._away(node, event.lasts_ms, how)

    async def _away(self, node: SimulatedNode, lasts_ms: int, how: Callable[[SimulatedNode], None]) -> None:
        if not node.is_running or node.node_id in self._busy or len(self._busy) >= self._plan.down_max:
            return
        self._busy.add(node.node_id)
        how(node)
        await asyncio.sleep(lasts_ms / 1000)
        await self._bring_back(node)

    async def _pause_for(self, node: SimulatedNode, lasts_ms: int) -> None:
        if node.is_running and not node.machine.process.is_paused and node.node_id not in self._busy:
            machine, process = node.machine, node.machine.process
            machine.pause()
            await asyncio.sleep(lasts_ms / 1000)
            if machine.process is process and process.is_paused:
                machine.resume()

    async def _bring_back(self, node: SimulatedNode) -> None:
        """Start a node like a supervisor: a failed start (a full disk) is tried again."""
        for attempt in range(STARTS_MAX):
            try:
                await node.start()
            except (OSError, StartupError, QuorumStorageError) as error:
                self._oracle.note(f"start {attempt} of node {node.node_id}: {error}")
                node.kill()
                self._refused(node, error)
                await asyncio.sleep(START_RETRY_S)
            else:
                self._busy.discard(node.node_id)
                return
        raise AssertionError(f"node {node.node_id} did not start in {STARTS_MAX} attempts")

    def _refused(self, _node: SimulatedNode, error: Exception) -> None:
        """What an operator does about a start that failed: of the quorum's files nothing may be wrong."""
        if isinstance(error, QuorumStorageError):
            raise error
