"""Where a story takes place: its questions and actions, carried over to a running `Cluster` and its clients."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from kraft.scenarios import actions
from kraft.scenarios.cluster import Cluster
from kraft.scenarios.conditions import Value, World, parse_expression
from kraft.scenarios.links import BETWEEN_NODES, Purposes
from kraft.scenarios.live import Watcher
from kraft.scenarios.model import Step
from kraft.scenarios.observing import NotInTime
from kraft.scenarios.proxy.rules import FOR_EVER
from kraft.scenarios.references import purposes_of
from kraft.scenarios.spec import ScenarioError
from kraft.scenarios.world import ClientCounts, RunWorld

CLIENTS: Final = "clients"
"""In `dials` of a `rest` link: all clients."""

Act = Callable[..., Awaitable[object]]


class Clients(Protocol):
    """The clients of a scenario, by name."""

    @property
    def counts(self) -> Mapping[str, ClientCounts]: ...
    async def start(self, name: str) -> None: ...
    async def finish(self, name: str) -> None:
        """Send no more; returns when nothing waits for an answer."""
        ...


class ClusterStage:
    """Implements `Stage`."""

    def __init__(
        self,
        cluster: Cluster,
        clients: Clients,
        *,
        count_events: Callable[[str, int | None], int],
        watcher: Watcher,
    ) -> None:
        self._cluster = cluster
        self._clients = clients
        self._count_events = count_events
        self._watcher = watcher
        self._node_faults: Mapping[str, Act] = {
            "kill": cluster.kill,
            "stop": cluster.stop,
            "pause": cluster.pause,
            "resume": cluster.resume,
            "restart": cluster.restart,
            "power_loss": cluster.power_loss,
            "wipe": cluster.wipe,
            "disk_full": cluster.fill_disk,
            "disk_free": cluster.free_disk,
        }

    async def look(self) -> World:
        snapshot = await self._cluster.status()
        self._watcher.looked(snapshot)
        return RunWorld(snapshot, self._clients.counts, self._count_events)

    def acked(self) -> int:
        return sum(client.acked for client in self._clients.counts.values())

    async def act(self, step: Step, names: dict[str, Value]) -> None:
        try:
            await self._act(step.action, names)
        except NotInTime as error:
            raise ScenarioError(str(error)) from error
        except ScenarioError as error:
            if not getattr(step.action, "may_be_refused", False):
                raise
            self._watcher.phase(f"refused: {error}")

    async def _act(self, action: actions.Action, names: dict[str, Value]) -> None:
        match action:
            case actions.StartClients(clients=clients):
                for client in clients:
                    await self._clients.start(client)
            case actions.FinishClients(clients=clients):
                for client in clients:
                    await self._clients.finish(client)
            case actions.NodeFault(do=kind, node=node):
                await self._node_faults[kind](*await self._nodes(node, names))
            case actions.DamageFiles():
                await self._damage(action, await self._node(action.node, names))
            case actions.LinkFault() | actions.Heal() | actions.Partition() | actions.Isolate():
                await self._change_links(action, names)
            case _:
                await self._administrate(action, names)

    async def _damage(self, action: actions.DamageFiles, node: int) -> None:
        cluster, place = self._cluster, (action.topic, action.partition)
        if action.spares_isr and not await cluster.is_outside_isr(node, *place):
            self._watcher.phase(f"spared: node {node} may have the last copy of {action.topic}-{action.partition}")
            return
        match action.what:
            case "flip active":
                await cluster.corrupt(node, *place, segment="active")
            case "flip closed":
                await cluster.corrupt(node, *place, segment="closed")
            case "torn tail":
                await cluster.tear_tail(node, *place)
            case "delete index":
                await cluster.delete_index(node, *place)
            case "delete log":
                await cluster.delete_log(node, *place)

    async def _change_links(
        self, action: actions.LinkFault | actions.Heal | actions.Partition | actions.Isolate, names: dict[str, Value]
    ) -> None:
        cluster, purpose = self._cluster, purposes_of(action)
        match action:
            case actions.Partition(groups=groups):
                ends = [await self._nodes(group, names) for group in groups]
                await cluster.partition(ends, purpose=purpose)
            case actions.Isolate(node=node):
                await cluster.isolate(await self._node(node, names), purpose=purpose)
            case actions.Heal() if action == actions.Heal(do="heal"):
                await cluster.heal()
            case actions.Heal():
                await cluster.heal(*await self._ends(action, names), purpose=purpose)
            case actions.LinkFault():
                await self._break_links(action, await self._ends(action, names))

    async def _break_links(self, action: actions.LinkFault, ends: tuple[Any, Any]) -> None:
        cluster, purpose, count = self._cluster, purposes_of(action), action.count or FOR_EVER
        match action.do:
            case "cut":
                await cluster.cut(*ends, purpose=purpose)
            case "blackhole":
                await cluster.blackhole(*ends, purpose=purpose, direction=action.direction)
            case "delay":
                delay_ms, jitter_ms, direction = action.delay_ms, action.jitter_ms, action.direction
                await cluster.delay(*ends, delay_ms=delay_ms, jitter_ms=jitter_ms, purpose=purpose, direction=direction)
            case "bandwidth":
                await cluster.bandwidth(
                    *ends, bytes_per_second=action.bytes_per_second, purpose=purpose, direction=action.direction
                )
            case "drop_answers":
                every: Purposes = "all" if purpose == BETWEEN_NODES else purpose
                await cluster.drop_answers(*ends, purpose=every, count=count)
            case "close_mid_message":
                await cluster.close_mid_message(*ends, purpose=purpose, direction=action.direction, count=count)

    async def _administrate(self, action: actions.Action, names: dict[str, Value]) -> None:
        cluster = self._cluster
        match action:
            case actions.CreateTopic(topic=topic, assignment=assignment, configs=configs):
                await cluster.create_topic(topic, assignment=assignment, configs=configs)
            case actions.DeleteTopic(topic=topic):
                await cluster.delete_topic(topic)
            case actions.GrowTopic(topic=topic, partitions=partitions):
                await cluster.grow_topic(topic, partitions)
            case actions.SetTopic(topic=topic, configs=configs):
                await cluster.alter_topic(topic, configs)
            case actions.SetCluster(configs=configs):
                await cluster.alter_cluster(configs)
            case actions.Reassign(topic=topic, partition=partition, replicas=replicas):
                await cluster.reassign(topic, partition, await self._nodes(replicas, names))
            case actions.Elect(topic=topic, partition=partition, kind=kind):
                await cluster.elect(topic, partition, kind=kind)

    async def _ends(self, action: actions.LinkFault | actions.Heal, names: dict[str, Value]) -> tuple[Any, Any]:
        dials = None if action.dials is None else await self._dialling(action.dials, names)
        answers = None if action.answers is None else await self._nodes(action.answers, names)
        return dials, answers

    async def _dialling(self, dials: actions.NodesText, names: dict[str, Value]) -> list[int | str]:
        """Nodes, or clients by their name."""
        found: list[int | str] = []
        for end in dials if isinstance(dials, tuple) else (dials,):
            if end == CLIENTS:
                found += self._clients.counts
            elif end in self._clients.counts:
                found.append(end)
            else:
                found += await self._nodes(end, names)
        return found

    async def _node(self, text: actions.NodeText, names: dict[str, Value]) -> int:
        nodes = await self._nodes(text, names)
        if len(nodes) != 1:
            raise ScenarioError(f"{text} is {nodes}, and one node was asked for")
        return nodes[0]

    async def _nodes(self, texts: actions.NodesText, names: dict[str, Value]) -> list[int]:
        """Ids as they are; expressions by what they are at this moment."""
        found: list[int] = []
        for text in texts if isinstance(texts, tuple) else (texts,):
            value = text if isinstance(text, int) else await parse_expression(text).value(await self.look(), names)
            found += value if isinstance(value, list) else [value]
        for node in found:
            if node not in self._cluster.nodes:
                raise ScenarioError(f"{texts} is {node}, which is no node; the nodes are {list(self._cluster.nodes)}")
        return found
