"""Faults that wait for their moment, come again and again, or hit some of the links of a node only.

`heal` undoes what is left of them, as of all others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from kraft.chaos.worlds.simulated.cluster import SimulatedNode
from metadata.controller.requests import CreateTopics, DeleteTopics, NewTopic
from tests.simulation.event_targets import EventTargets
from tests.simulation.moments import APPEND_SENT, JOIN_SENT, MOMENTS
from tests.simulation.plan import Event

AMBUSH_S = 3.0
"""An ambush that nobody has come by for so long is given up."""
MOMENTS_STRUCK_MAX = 3
"""An ambush strikes at so many moments of its kind."""
SLOW_START_US = (20_000, 120_000)
WAKE_MS = 100
"""The others wake up so long after their leader has gone."""
BETWEEN_MS = 150
"""A node of an ambush comes back after a part of this."""
METADATA_FOLDER = "/data/__cluster_metadata"


class Ambushes(EventTargets):
    # --- at a moment --------------------------------------------------------------------------------------------

    async def _ambush(self, event: Event) -> None:
        """A fault of the links of the node of a moment, and of a node that it concerns."""
        kind = MOMENTS[event.numbers[0] % len(MOMENTS)]
        for _ in range(1 + event.numbers[3] % MOMENTS_STRUCK_MAX):
            moment = await self._oracle.moments.next(kind, within_s=AMBUSH_S)
            if moment is None or self.is_healed:
                return
            node_id, other_id = moment
            node = self.cluster.nodes[node_id]
            other = self.cluster.nodes[other_id] if other_id in self.cluster.nodes else self._node(event.numbers[3])
            self._oracle.count(f"ambush at: {kind}")
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hit_links(event, node, other))
                group.create_task(self._hit_node(event, node, other))

    async def _hit_links(self, event: Event, node: SimulatedNode, other: SimulatedNode) -> None:
        controller = self._controller() or other
        one, two = node.machine.name, (other if controller is node else controller).machine.name
        if one == two:
            return
        match event.numbers[1] % 6:
            case 1 | 2:
                self._world.network.cut(one, two, direction=("both", "to", "from")[event.numbers[3] % 3])
                await self._heal_after(event, [(one, two)])
            case 3:
                slow_us = 1_000 * max(1, event.lasts_ms // 4)
                self._set_link(one, two, slow_us // 2, slow_us, bytes_per_s=100_000)
                await asyncio.sleep(event.lasts_ms / 1000)
                self._restore_link(one, two)
            case 4:
                self._world.network.reset(one, two)
            case _:
                return

    async def _hit_node(self, event: Event, node: SimulatedNode, other: SimulatedNode) -> None:
        lasts_ms = event.numbers[3] % BETWEEN_MS
        controller = self._controller() or other
        faults: tuple[Callable[[], Coroutine[Any, Any, None]] | None, ...] = (
            None,
            lambda: self._away(node, lasts_ms, SimulatedNode.kill),
            lambda: self._away(node, lasts_ms, self._lose_power),
            lambda: self._away(other, lasts_ms, SimulatedNode.kill),
            lambda: self._away(other, lasts_ms, self._lose_power),
            lambda: self._pause_for(node, event.lasts_ms),
            lambda: self._pause_for(controller, event.lasts_ms),
            lambda: self._away(controller, lasts_ms, SimulatedNode.kill),
        )
        fault = faults[event.numbers[2] % len(faults)]
        if fault is not None:
            await fault()

    async def _restart_joining(self, event: Event) -> None:
        """A replica that is about to join an ISR restarts while its leader's request is in flight to the controller."""
        moment = await self._oracle.moments.next(JOIN_SENT, within_s=2 * AMBUSH_S)
        controller = self._controller()
        if moment is None or moment[1] is None or controller is None or self.is_healed:
            return
        leader, joining = self.cluster.nodes[moment[0]], self.cluster.nodes[moment[1]]
        pair = leader.machine.name, controller.machine.name
        direction = ("to", "both")[event.numbers[0] % 2]
        async with asyncio.TaskGroup() as group:
            if leader is not controller:
                self._world.network.cut(*pair, direction=direction)  # type: ignore[arg-type]
                group.create_task(self._heal_in(200 + event.numbers[1] % 1_000, [pair]))
            how = (SimulatedNode.kill, self._lose_power)[event.numbers[2] % 2]
            group.create_task(self._away(joining, event.numbers[3] % BETWEEN_MS, how))

    async def _strand_leader(self, event: Event) -> None:
        """The other replicas of a partition sleep in one after the other until its leader is alone in the ISR; then it
        goes, for long, and they wake up."""
        found = self._partition(event.numbers[0])
        if found is None or not found[1].has_leader:
            return
        leader = self.cluster.nodes[found[1].leader]
        between_ms = event.numbers[2] % 400
        alone_ms = 2 * self._lag_ms() + event.numbers[1] % 500 + between_ms * len(found[1].replicas)
        async with asyncio.TaskGroup() as group:
            for replica in (each for each in found[1].replicas if each != leader.node_id):
                sleep_ms = alone_ms + WAKE_MS
                group.create_task(self._pause_for(self.cluster.nodes[replica], sleep_ms))
                await asyncio.sleep(between_ms / 1000)
                alone_ms -= between_ms
            await asyncio.sleep(alone_ms / 1000)
            how = (SimulatedNode.kill, SimulatedNode.kill, self._lose_power)[event.numbers[3] % 3]
            group.create_task(self._away(leader, 2_000 + event.lasts_ms, how))

    def _lag_ms(self) -> int:
        return int(str(self._plan.settings["replica.lag.time.max.ms"]))

    async def _pause_controller(self, event: Event) -> None:
        """In the middle of an append, if there is one soon."""
        moment = await self._oracle.moments.next(APPEND_SENT, within_s=AMBUSH_S)
        if moment is not None and not self.is_healed:
            await self._pause_for(self.cluster.nodes[moment[0]], event.lasts_ms)

    async def _swap_controllers(self, event: Event) -> None:
        """The controller is paused until another one is active, resumes, and soon may lead again."""
        first = self._controller()
        if first is None or not first.is_running or first.machine.process.is_paused or first.node_id in self._busy:
            return
        process = first.machine.process
        first.machine.pause()
        moment = await self._oracle.moments.next("controller_changed", within_s=AMBUSH_S)
        if first.machine.process is process and process.is_paused:
            first.machine.resume()
        if moment is not None and not self.is_healed:
            await asyncio.sleep((20 + event.numbers[0] % 300) / 1000)
            await self._away(self.cluster.nodes[moment[0]], event.lasts_ms, SimulatedNode.kill)

    # --- again and again ----------------------------------------------------------------------------------------

    async def _flap(self, event: Event) -> None:
        """A node that dies soon after each start."""
        node = self._node(event.numbers[0])
        how = self._lose_power if event.numbers[1] % 3 == 0 else SimulatedNode.kill
        for _ in range(2 + event.numbers[2] % 3):
            if self.is_healed:
                return
            await self._away(node, event.numbers[1] % 100, how)
            await asyncio.sleep((20 + event.numbers[3] % 700) / 1000)

    # --- some of the links, slow starts, disks -------------------------------------------------------------------

    async def _partly_isolate(self, event: Event) -> None:
        """Each of the others is reached still, or not, or in one direction only."""
        node = self._node(event.numbers[0])
        pairs = []
        for i, other in enumerate(self._others(node)):
            direction = (None, "both", "to", "from")[event.numbers[1] >> 2 * i & 3]
            if direction is not None:
                self._world.network.cut(node.machine.name, other, direction=direction)  # type: ignore[arg-type]
                pairs.append((node.machine.name, other))
        await self._heal_after(event, pairs)

    async def _slow_start(self, event: Event) -> None:
        """The node comes back with a disk that keeps it busy long."""
        node = self._node(event.numbers[0])
        disk = node.machine.disk
        disk.sync_us = SLOW_START_US
        await self._away(node, event.numbers[1] % 1_000, SimulatedNode.kill)
        disk.sync_us = self._plan.sync_us

    async def _quorum_disk_fails(self, event: Event) -> None:
        """EIO in the folder of the metadata."""
        disk = self._node(event.numbers[0]).machine.disk
        disk.fails = lambda path: METADATA_FOLDER in path
        await asyncio.sleep(event.lasts_ms / 1000)
        disk.fails = nowhere

    # --- topics -------------------------------------------------------------------------------------------------

    async def _recreate_behind(self, event: Event) -> None:
        """A topic is deleted and made again under its name while a node that held it is down."""
        found = self._partition(event.numbers[0])
        if found is None:
            return
        name, partition = found
        node = self.cluster.nodes[partition.replicas[event.numbers[1] % len(partition.replicas)]]
        if not node.is_running or node.node_id in self._busy or len(self._busy) >= self._plan.down_max:
            return
        self._busy.add(node.node_id)
        if event.numbers[2] % 3 == 0:
            self._lose_power(node)
        else:
            node.kill()
        topic = self._image().topics_by_name[name]
        again = NewTopic(
            name=name,
            partitions=len(topic.partitions),
            replication_factor=max(1, len(partition.replicas)),
            configs={"min.insync.replicas": "1"},
        )
        try:
            await self._ask(DeleteTopics(topics=(name,)), number=event.numbers[3])  # type: ignore[arg-type]
            await self._ask(CreateTopics(topics=(again,)), number=event.numbers[3])  # type: ignore[arg-type]
            await asyncio.sleep(event.lasts_ms / 1000)
        finally:
            await self._bring_back(node)


def nowhere(_path: str) -> bool:
    return False
