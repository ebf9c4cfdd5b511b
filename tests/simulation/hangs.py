"""Nodes whose main loop hangs while its Raft half goes on, and clusters without a controller."""

from __future__ import annotations

import asyncio

from kraft.chaos.worlds.simulated.cluster import SimulatedNode
from metadata.watchdog import HANGING_MS
from tests.simulation.ambushes import Ambushes
from tests.simulation.plan import Event

NOTICED_MS = HANGING_MS * 11 // 10 + 500
"""The time after which a node knows that it hangs, with the slowest clock."""
LOOK_MS = 100


class Hangs(Ambushes):
    async def _no_controllers(self, event: Event) -> None:
        """All voters, or where they are brokers a majority, for longer than a broker's session."""
        voters = [self.cluster.nodes[number] for number in self._plan.voters]
        if set(self._plan.voters) & set(self._plan.brokers):
            begin = event.numbers[0] % len(voters)
            voters = (voters + voters)[begin : begin + len(voters) // 2 + 1]
        lasts_ms = int(str(self._plan.settings["broker.session.timeout.ms"])) + event.lasts_ms
        free = [voter for voter in voters if voter.is_running and voter.node_id not in self._busy]
        self._oracle.count("no controllers")
        async with asyncio.TaskGroup() as group:
            for voter in free:
                match event.numbers[1] % 4:
                    case 0:
                        group.create_task(self._kill_for(voter, lasts_ms))
                    case 1:
                        group.create_task(self._hang_for(voter, lasts_ms, computes=True))
                    case _:
                        group.create_task(self._pause_for(voter, lasts_ms))

    async def _kill_for(self, node: SimulatedNode, lasts_ms: int) -> None:
        self._busy.add(node.node_id)
        node.kill()
        await asyncio.sleep(lasts_ms / 1000)
        await self._bring_back(node)

    async def _hang(self, event: Event) -> None:
        await self._hang_by(self._node(event.numbers[0]), event)

    async def _hang_controller(self, event: Event) -> None:
        controller = self._controller()
        if controller is not None:
            await self._hang_by(controller, event)

    async def _hang_by(self, node: SimulatedNode, event: Event) -> None:
        """For long enough to be noticed, mostly."""
        lasts_ms = event.lasts_ms + (0 if event.numbers[1] % 4 == 0 else HANGING_MS)
        await self._hang_for(node, lasts_ms, computes=event.numbers[2] % 2 == 0)

    async def _hang_for(self, node: SimulatedNode, lasts_ms: int, *, computes: bool) -> None:
        if not node.is_running or node.machine.process.is_paused or node.node_id in self._busy:
            return
        self._busy.add(node.node_id)
        machine, process = node.machine, node.machine.process
        machine.hang(computes=computes)
        await asyncio.sleep(min(lasts_ms, NOTICED_MS) / 1000)
        for _ in range(0, lasts_ms - NOTICED_MS, LOOK_MS):
            if machine.process is process:
                leads = len(self._plan.voters) > 1 and _leads(node)
                self._oracle.check(not leads, f"node {node.node_id} leads the quorum while its main loop hangs")
                await asyncio.sleep(LOOK_MS / 1000)
        if machine.process is not process:
            self._oracle.count("node ended itself")
            await self._bring_back(node)
            return
        self._busy.discard(node.node_id)
        if process.is_paused:
            machine.resume()


def _leads(node: SimulatedNode) -> bool:
    """The term in its Raft part."""
    raft = getattr(None if node.node is None else node.node.log, "_engine", None)
    return raft is not None and raft._node is not None and raft._node.is_leader
