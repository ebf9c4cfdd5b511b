"""The effect of each kind of event on a cluster. An impossible event (the node is away) has none.

Everything is undone after `lasts_ms`; `heal` undoes all that is left at the end. Faults come from outside all
simulated processes; administrative requests run on a node that is alive, as a client's would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from kraft.chaos.worlds.simulated.cluster import SimulatedNode
from kraft.protocol.errors import KafkaError
from metadata.controller.requests import (
    AlterConfigs,
    AlterReassignments,
    ConfigAlteration,
    ConfigResource,
    CreatePartitions,
    DeleteTopics,
    ElectLeaders,
    NewPartitions,
    PartitionReassignment,
)
from metadata.environment import ConnectionClosed
from metadata.image import TopicIdPartition
from metadata.internal_topics import OFFSETS_TOPIC
from tests.simulation.ambushes import nowhere
from tests.simulation.decay import Decay
from tests.simulation.event_targets import ADMIN_MS, GIVE_UP_S
from tests.simulation.files import files_of, partition_of
from tests.simulation.plan import Event

QUIET_LOOK_S = 0.000_5
QUIET_LOOKS_MAX = 2_000


def _is_appending(node: SimulatedNode, number: int) -> bool:
    """Does the coordinator of this partition of the groups wait for something that it has written?"""
    broker = None if node.node is None else node.node.broker
    coordinator = None if broker is None else broker.group_coordinator
    shard = None if coordinator is None else coordinator.shards.by_partition.get(number)
    return shard is not None and bool(shard._appends)


class Faults(Decay):
    async def play(self) -> None:
        """All events at their times; returns when the last one is undone."""
        begun = self._world.loop.time()
        async with asyncio.TaskGroup() as group:
            for event in self._plan.events:
                await asyncio.sleep(max(0.0, begun + event.at_ms / 1000 - self._world.loop.time()))
                self._oracle.note(f"event {event}")
                handler: Callable[[Event], Awaitable[None]] = getattr(self, f"_{event.kind}")
                group.create_task(self._guarded(handler, event))

    async def _guarded(self, handler: Callable[[Event], Awaitable[None]], event: Event) -> None:
        try:
            await handler(event)
        except (KafkaError, ConnectionClosed, OSError) as error:
            self._oracle.note(f"{event.kind}: {type(error).__name__}: {error}")

    async def heal(self) -> None:
        network = self._world.network
        for one in self.cluster.hosts:
            for other in self.cluster.hosts:
                if one != other:
                    network.heal(one, other)
                    self._restore_link(one, other)
                    network.link(one, other).frames_until_reset = None
        for node in self.cluster.nodes.values():
            node.machine.resume()
            node.machine.disk.is_full = False
            node.machine.disk.fails = nowhere
            node.machine.disk.sync_us = self._plan.sync_us
        self.is_healed = True
        for node in list(self.cluster.nodes.values()):
            if not node.is_running:
                await self._bring_back(node)

    # --- network ------------------------------------------------------------------------------------------------

    async def _cut(self, event: Event) -> None:
        one, other = self._node(event.numbers[0]).machine.name, self._node(event.numbers[1]).machine.name
        if one != other:
            self._world.network.cut(one, other, direction=("both", "to", "from")[event.numbers[2] % 3])
            await self._heal_after(event, [(one, other)])

    async def _isolate(self, event: Event) -> None:
        node = self._node(event.numbers[0])
        direction = ("both", "both", "to", "from")[event.numbers[1] % 4]
        pairs = [(node.machine.name, other) for other in self._others(node)]
        for one, other in pairs:
            self._world.network.cut(one, other, direction=direction)
        await self._heal_after(event, pairs)

    async def _isolate_coordinator(self, event: Event) -> None:
        """Isolate the coordinator of one partition of the groups while it writes nothing, with onlookers only on its
        side: another coordinator takes over, and no failed append reveals it."""
        topic = self._image().topic(OFFSETS_TOPIC)
        if topic is None:
            return
        partition = topic.partitions[event.numbers[0] % len(topic.partitions)]
        if not partition.has_leader:
            return
        node = self.cluster.nodes[partition.leader]
        for _ in range(QUIET_LOOKS_MAX):
            if not _is_appending(node, partition.partition):
                break
            await asyncio.sleep(QUIET_LOOK_S)
        self._oracle.count("coordinator isolated")
        pairs = [(node.machine.name, other) for other in self._others(node)]
        for one, other in pairs:
            self._world.network.cut(one, other)
        self._oracle.out_of_reach.add(node.node_id)
        await self._heal_after(event, pairs)
        self._oracle.out_of_reach.discard(node.node_id)

    async def _depose_leader(self, event: Event) -> None:
        """The leader of a partition does not reach the controller and hears of no successor; its clients and the other
        brokers reach it."""
        found, controller = self._partition(event.numbers[0]), self._controller()
        if found is None or controller is None or not found[1].has_leader or found[1].leader == controller.node_id:
            return
        leader = self.cluster.nodes[found[1].leader]
        self._oracle.count("leader deposed")
        self._world.network.cut(leader.machine.name, controller.machine.name)
        await self._heal_after(event, [(leader.machine.name, controller.machine.name)])

    async def _split(self, event: Event) -> None:
        """Two groups that cannot reach each other; perhaps one node reaches both."""
        hosts = self.cluster.hosts
        mask, bridge = event.numbers[0], event.numbers[1] % (2 * len(hosts))
        pairs = [
            (one, other)
            for i, one in enumerate(hosts)
            for j, other in enumerate(hosts)
            if i < j and (mask >> i & 1) != (mask >> j & 1) and bridge not in (i, j)
        ]
        for one, other in pairs:
            self._world.network.cut(one, other)
        await self._heal_after(event, pairs)

    async def _slow_link(self, event: Event) -> None:
        one, other = self._node(event.numbers[0]).machine.name, self._node(event.numbers[1]).machine.name
        slow_us = 1_000 + event.numbers[2] * 40
        self._set_link(one, other, slow_us // 2, slow_us, bytes_per_s=10_000 + event.numbers[3] * 10)
        await asyncio.sleep(event.lasts_ms / 1000)
        self._restore_link(one, other)

    async def _slow_all(self, event: Event) -> None:
        slow_us = 1_000 + event.numbers[0] * 5
        pairs = [(one, other) for one in self.cluster.hosts for other in self.cluster.hosts]
        for one, other in pairs:
            self._set_link(one, other, 100, slow_us, bytes_per_s=1_000_000)
        await asyncio.sleep(event.lasts_ms / 1000)
        for one, other in pairs:
            self._restore_link(one, other)

    async def _cut_message(self, event: Event) -> None:
        one, other = self._node(event.numbers[0]).machine.name, self._node(event.numbers[1]).machine.name
        self._world.network.link(one, other).frames_until_reset = event.numbers[2] % 10

    async def _reset(self, event: Event) -> None:
        node = self._node(event.numbers[0])
        for other in self._others(node):
            self._world.network.reset(node.machine.name, other)

    # --- disks --------------------------------------------------------------------------------------------------

    async def _power_loss(self, event: Event) -> None:
        await self._take_away(self._node(event.numbers[0]), event, lambda node: self._lose_power(node))

    async def _blackout(self, event: Event) -> None:
        """Power loss of all nodes, or of many, in one moment."""
        chosen = [
            node
            for i, node in enumerate(self.cluster.nodes.values())
            if node.is_running
            and (event.numbers[0] % 2 or event.numbers[1] >> i & 1)
            and node.node_id not in self._busy
        ]
        self._busy.update(node.node_id for node in chosen)
        for node in chosen:
            self._lose_power(node)
        await asyncio.sleep(event.lasts_ms / 1000)
        for node in chosen:
            await self._bring_back(node)

    async def _disk_full(self, event: Event) -> None:
        node = self._node(event.numbers[0])
        disk = node.machine.disk
        disk.is_full = True
        await asyncio.sleep(event.lasts_ms / 1000)
        disk.is_full = False

    async def _disk_fails(self, event: Event) -> None:
        """EIO in one of the log folders, or in all of them."""
        disk = self._node(event.numbers[0]).machine.disk
        found = self._partition(event.numbers[1])
        folder = (
            "/data/logs/" if found is None or event.numbers[2] % 2 else f"/data/logs/{found[0]}-{found[1].partition}/"
        )
        disk.fails = lambda path: folder in path
        await asyncio.sleep(event.lasts_ms / 1000)
        disk.fails = nowhere

    async def _slow_fsync(self, event: Event) -> None:
        disk = self._node(event.numbers[0]).machine.disk
        disk.sync_us = (1_000, 5_000 + event.numbers[1] * 100)
        await asyncio.sleep(event.lasts_ms / 1000)
        disk.sync_us = self._plan.sync_us

    async def _rot(self, event: Event) -> None:
        """A bit of a log or index file flips while its node is down."""

        def flip(node: SimulatedNode) -> None:
            node.kill()
            found = files_of(node, (".log", ".index", ".timeindex"))
            if found:
                path = found[event.numbers[1] % len(found)]
                size = len(node.machine.disk.file(path).data)
                node.machine.disk.flip_bit(path, offset=event.numbers[2] % size, bit=event.numbers[3] % 8)
                self._oracle.note(f"a bit flipped in {path} of node {node.node_id}")
                key = partition_of(node, path)
                if path.endswith(".log") and key is not None:
                    self._oracle.promise.rotted(node.node_id, key)

        await self._take_away(self._node(event.numbers[0]), event, flip)

    async def _wipe_logs(self, event: Event) -> None:
        """The log folder is empty after a restart: a new disk. The metadata folder stays."""

        def wipe(node: SimulatedNode) -> None:
            node.kill()
            files = node.machine.environment.files
            if files.exists("/data/logs"):
                files.remove_tree("/data/logs")
            self._oracle.promise.disk_lost(node.node_id)

        await self._take_away(self._node(event.numbers[0]), event, wipe)

    # --- nodes --------------------------------------------------------------------------------------------------

    async def _kill(self, event: Event) -> None:
        await self._take_away(self._node(event.numbers[0]), event, lambda node: node.kill())

    async def _kill_leader(self, event: Event) -> None:
        found = self._partition(event.numbers[0])
        if found is not None and found[1].has_leader:
            await self._take_away(self.cluster.nodes[found[1].leader], event, lambda node: node.kill())

    async def _kill_controller(self, event: Event) -> None:
        controller = self.cluster.nodes.get(self._image().controller_id)
        if controller is not None:
            lose = self._lose_power if event.numbers[0] % 2 else SimulatedNode.kill
            await self._take_away(controller, event, lose)

    async def _pause(self, event: Event) -> None:
        await self._pause_for(self._node(event.numbers[0]), event.lasts_ms)

    async def _restart(self, event: Event) -> None:
        await self._restart_one(self._node(event.numbers[0]), event)

    async def _restart_one(self, node: SimulatedNode, event: Event) -> None:
        if not node.is_running or node.node_id in self._busy or node.machine.process.is_paused:
            return
        self._busy.add(node.node_id)
        await self._take_down(node, in_order=True)
        await asyncio.sleep(event.lasts_ms / 4000)
        await self._bring_back(node)

    async def _rolling_restart(self, event: Event) -> None:
        for node in list(self.cluster.nodes.values()):
            await self._restart_one(node, event)

    async def _clock_jump(self, event: Event) -> None:
        self._node(event.numbers[0]).machine.clock.jump(event.numbers[1] * 1_000 - 5_000_000)

    async def _clock_drift(self, event: Event) -> None:
        clock = self._node(event.numbers[0]).machine.clock
        clock.set_rate(0.7 + event.numbers[1] % 60 / 100)
        await asyncio.sleep(event.lasts_ms / 1000)
        clock.set_rate(1.0)

    # --- reconfiguration ----------------------------------------------------------------------------------------

    async def _create_topic(self, event: Event) -> None:
        await self._create(f"made-{event.numbers[0] % 3}", event)

    async def _delete_topic(self, event: Event) -> None:
        name = self._topic(event.numbers[0])
        if name is not None and len(self._image().topics) > 1:
            await self._ask(DeleteTopics(topics=(name,)), number=event.numbers[1])  # type: ignore[arg-type]

    async def _recreate_topic(self, event: Event) -> None:
        name = self._topic(event.numbers[0])
        if name is not None:
            await self._ask(DeleteTopics(topics=(name,)), number=event.numbers[1])  # type: ignore[arg-type]
            await self._create(name, event)

    async def _grow_topic(self, event: Event) -> None:
        name = self._topic(event.numbers[0])
        topic = None if name is None else self._image().topic(name)
        if name is not None and topic is not None and len(topic.partitions) < 5:
            grown = NewPartitions(topic=name, count=len(topic.partitions) + 1)
            await self._ask(CreatePartitions(topics=(grown,)), number=event.numbers[1])  # type: ignore[arg-type]

    async def _set_unclean(self, event: Event) -> None:
        await self._configure(event, "unclean.leader.election.enable", ("true", "false")[event.numbers[2] % 2])

    async def _set_min_isr(self, event: Event) -> None:
        await self._configure(event, "min.insync.replicas", str(1 + event.numbers[2] % 3))

    async def _configure(self, event: Event, name: str, value: str) -> None:
        topic = self._topic(event.numbers[0])
        if topic is not None:
            resource = ConfigResource(resource_type="topic", name=topic)
            alteration = ConfigAlteration(name=name, operation="set", value=value)
            await self._ask(AlterConfigs(resources={resource: (alteration,)}), number=event.numbers[1])  # type: ignore[arg-type]

    async def _elect_preferred(self, event: Event) -> None:
        await self._ask(ElectLeaders(election="preferred", partitions=None), number=event.numbers[0])  # type: ignore[arg-type]

    async def _elect_unclean(self, event: Event) -> None:
        await self._ask(ElectLeaders(election="unclean", partitions=None), number=event.numbers[0])  # type: ignore[arg-type]

    async def _reassign(self, event: Event) -> None:
        found = self._partition(event.numbers[0])
        if found is not None:
            name, partition = found
            brokers = list(self._plan.brokers)
            start, count = event.numbers[1], 1 + event.numbers[2] % min(3, len(brokers))
            replicas = tuple(brokers[(start + i) % len(brokers)] for i in range(count))
            move = PartitionReassignment(topic=name, partition=partition.partition, replicas=replicas)
            await self._ask(AlterReassignments(reassignments=(move,)), number=event.numbers[3])  # type: ignore[arg-type]

    async def _cancel_reassignment(self, event: Event) -> None:
        moving = [
            PartitionReassignment(topic=topic.name, partition=p.partition, replicas=None)
            for topic in self._image().topics_by_name.values()
            for p in topic.partitions.values()
            if p.is_reassigning
        ]
        if moving:
            await self._ask(AlterReassignments(reassignments=tuple(moving)), number=event.numbers[3])  # type: ignore[arg-type]

    async def _delete_records(self, event: Event) -> None:
        found, gateway = self._partition(event.numbers[0]), self._gateway(event.numbers[1])
        if found is not None and gateway is not None:
            node, client = gateway
            which = TopicIdPartition(found[1].topic_id, found[1].partition)
            async with asyncio.timeout(GIVE_UP_S):
                await node.machine.run(client.delete_records(which, offset=-1, timeout_ms=ADMIN_MS))
