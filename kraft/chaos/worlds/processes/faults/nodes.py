"""Faults of whole nodes: kill, controlled stop, pause, resume, restart. Each takes any number of nodes at once."""

from __future__ import annotations

import signal
from collections.abc import Iterable

from kraft.chaos.worlds.processes.administration import Administration
from kraft.chaos.worlds.processes.running import KILLED_LIMIT_MS
from kraft.chaos.worlds.snapshot import NOBODY, Snapshot
from kraft.chaos.worlds.spec import ScenarioError


class NodeFaults(Administration):
    _down: dict[int, int]
    """Node -> number of the fault that took it down, or paused it."""

    async def kill(self, *nodes: int) -> None:
        """SIGKILL; returns when the processes are gone."""
        await self._take_down("kill", nodes, text="killed {} with -9")

    async def stop(self, *nodes: int) -> None:
        """Controlled shutdown; returns when the processes are gone. Raises ScenarioError when one does not stop."""
        told = self._told(nodes)
        for node in nodes:
            self.timeline_end(node)
            self._signal(node, signal.SIGTERM)
            self._down[node] = self.timeline.begin("stop", nodes=[node], text=f"stopped {told[node]} in order")
        limit_ms = self.pace.stop_limit_ms
        for node in nodes:
            if not await self._ended(node, limit_ms=limit_ms):
                raise ScenarioError(f"node {node} did not stop within {limit_ms} ms:\n{self.node_log(node)}")
        await self._settle_processes(nodes)

    async def pause(self, *nodes: int) -> None:
        """SIGSTOP: the process stands still, its connections stay open."""
        told = self._told(nodes)
        for node in nodes:
            self._signal(node, signal.SIGSTOP)
            self._paused.add(node)
            self._down[node] = self.timeline.begin("pause", nodes=[node], text=f"paused {told[node]}")

    async def resume(self, *nodes: int) -> None:
        for node in nodes:
            self._signal(node, signal.SIGCONT)
            self._paused.discard(node)
            self.timeline_end(node)

    async def restart(self, *nodes: int) -> None:
        """Stop in order those that run, then start all at once; returns when their doors answer."""
        running = [node for node in nodes if self.pid(node) is not None]
        if running:
            await self.stop(*running)
        for node in nodes:
            await self._start_process(node)
            self.timeline_end(node)
            self.timeline.begin("restart", nodes=[node], text=f"started node {node}")
        await self._all(nodes, self._wait_started)
        await self._settle_processes(nodes)

    @property
    def ended_by_themselves(self) -> list[int]:
        """Nodes that do not run though nothing was done to them."""
        return [node for node in self.nodes if self.pid(node) is None and node not in self._down]

    def timeline_end(self, node: int) -> None:
        """Whatever had taken the node down is over."""
        number = self._down.pop(node, None)
        if number is not None:
            self.timeline.end(number)

    async def _take_down(self, fault: str, nodes: Iterable[int], *, text: str) -> None:
        nodes = tuple(nodes)
        told = self._told(nodes)
        for node in nodes:
            self._signal(node, signal.SIGKILL)
        for node in nodes:
            self.timeline_end(node)
            self._paused.discard(node)
            self._down[node] = self.timeline.begin(fault, nodes=[node], text=text.format(told[node]))
        for node in nodes:
            if not await self._ended(node, limit_ms=KILLED_LIMIT_MS):
                raise ScenarioError(f"node {node} is still there {KILLED_LIMIT_MS} ms after it was killed")
        await self._settle_processes(nodes)

    def _told(self, nodes: Iterable[int]) -> dict[int, str]:
        """`node 1 (leader of t-0, controller)`, as far as the last look at the cluster knows."""
        return {node: f"node {node}{_roles(self.latest, node)}" for node in nodes}


def _roles(snapshot: Snapshot | None, node: int) -> str:
    newest = None if snapshot is None else snapshot.newest
    if newest is None:
        return ""
    roles = [f"leader of {t}-{n}" for (t, n), found in sorted(newest.partitions.items()) if found.leader == node]
    if len(roles) > 3:
        roles = [f"leader of {len(roles)} partitions"]
    if newest.controller_id == node != NOBODY:
        roles.append("active controller")
    return f" ({', '.join(roles)})" if roles else ""
