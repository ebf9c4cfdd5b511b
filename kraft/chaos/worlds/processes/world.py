"""Real processes as the world of a story: applies questions and actions to a `Cluster` and its clients."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from kraft.chaos.live import Watcher
from kraft.chaos.nemesis import actions
from kraft.chaos.nemesis.links import BETWEEN_NODES, Purposes
from kraft.chaos.questions import Now
from kraft.chaos.worlds.answers import SnapshotAnswers
from kraft.chaos.worlds.processes.cluster import Cluster
from kraft.chaos.worlds.processes.observer import NotInTime
from kraft.chaos.worlds.processes.proxy.rules import FOR_EVER
from kraft.chaos.worlds.processes.requests import RequestFilter
from kraft.chaos.worlds.processes.timeline import now_us
from kraft.chaos.worlds.spec import ScenarioError
from kraft.chaos.worlds.world import NOT_KNOWN, Clients
from kraft.client.response import Answer

Act = Callable[..., Awaitable[object]]


class ProcessWorld:
    """Implements `World`."""

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
            "kill": cluster.nodes.kill,
            "stop": cluster.nodes.stop,
            "pause": cluster.nodes.pause,
            "resume": cluster.nodes.resume,
            "restart": cluster.nodes.restart,
            "power_loss": cluster.disks.power_loss,
            "wipe": cluster.disks.wipe,
            "disk_full": cluster.disks.fill,
            "disk_free": cluster.disks.free,
        }

    async def look(self) -> Now:
        snapshot = await self._cluster.observer.status()
        self._watcher.looked(snapshot)
        return Now(SnapshotAnswers(snapshot, self._clients.counts, self._count_events).ask)

    async def sleep(self, ms: int) -> None:
        await asyncio.sleep(ms / 1000)

    def now_ms(self) -> int:
        return now_us() // 1000

    async def group_members(self, group: str) -> int:
        path = f"/v3/clusters/{self._cluster.admin.cluster_id}/consumer-groups/{quote(group)}/consumers"
        for node in self._cluster.nodes.running():
            answer = await self._cluster.nodes.ask(node, "GET", path)
            if isinstance(answer, Answer) and answer.is_success:
                return len(msgspec.json.decode(answer.body)["data"])
        return NOT_KNOWN

    async def act(self, action: actions.Action) -> None:
        try:
            await self._act(action)
        except NotInTime:  # carried out, and without the effect that was waited for: that is no refusal
            raise
        except ScenarioError as error:
            if not getattr(action, "may_be_refused", False):
                raise
            self._watcher.phase(f"refused: {error}")

    async def _act(self, action: actions.Action) -> None:
        match action:
            case actions.StartClients(clients=clients):
                for client in clients:
                    await self._clients.start(client)
            case actions.FinishClients(clients=clients):
                for client in clients:
                    await self._clients.finish(client)
            case actions.SilenceClients(clients=clients):
                for client in clients:
                    await self._clients.silence(client)
            case actions.NodeFault(do=kind, nodes=nodes):
                await self._node_faults[kind](*self._existing(nodes))
            case actions.DamageFiles():
                await self._damage(action, *self._existing((action.node,)))
            case actions.LinkFault() | actions.Heal() | actions.Partition() | actions.Isolate():
                await self._change_links(action)
            case actions.RequestFault():
                await self._change_answers(action)
            case _:
                await self._administrate(action)

    async def _damage(self, action: actions.DamageFiles, node: int) -> None:
        cluster, place = self._cluster, (action.topic, action.partition)
        if action.spares_isr and not await cluster.observer.is_outside_isr(node, *place):
            self._watcher.phase(f"spared: node {node} may have the last copy of {action.topic}-{action.partition}")
            return
        match action.what:
            case "flip active":
                await cluster.disks.corrupt(node, *place, segment="active")
            case "flip closed":
                await cluster.disks.corrupt(node, *place, segment="closed")
            case "torn tail":
                await cluster.disks.tear_tail(node, *place)
            case "delete index":
                await cluster.disks.delete_index(node, *place)
            case "delete log":
                await cluster.disks.delete_log(node, *place)

    async def _change_links(
        self, action: actions.LinkFault | actions.Heal | actions.Partition | actions.Isolate
    ) -> None:
        links, purpose = self._cluster.links, action.purpose
        match action:
            case actions.Partition(groups=groups):
                await links.partition(groups, purpose=purpose)
            case actions.Isolate(node=node):
                await links.isolate(*self._existing((node,)), purpose=purpose)
            case actions.Heal() if action == actions.Heal(do="heal"):
                await links.heal()
                await self._cluster.requests.heal()
            case actions.Heal():
                await links.heal(action.dials, action.answers, purpose=purpose)
            case actions.LinkFault():
                await self._break_links(action, (action.dials, action.answers))

    async def _break_links(self, action: actions.LinkFault, ends: tuple[Any, Any]) -> None:
        links, purpose, count = self._cluster.links, action.purpose, action.count or FOR_EVER
        match action.do:
            case "cut":
                await links.cut(*ends, purpose=purpose)
            case "blackhole":
                await links.blackhole(*ends, purpose=purpose, direction=action.direction)
            case "delay":
                delay_ms, jitter_ms, direction = action.delay_ms, action.jitter_ms, action.direction
                await links.delay(*ends, delay_ms=delay_ms, jitter_ms=jitter_ms, purpose=purpose, direction=direction)
            case "bandwidth":
                await links.bandwidth(
                    *ends, bytes_per_second=action.bytes_per_second, purpose=purpose, direction=action.direction
                )
            case "drop_answers":
                every: Purposes = "all" if purpose == BETWEEN_NODES else purpose
                await links.drop_answers(*ends, purpose=every, count=count)
            case "close_mid_message":
                await links.close_mid_message(*ends, purpose=purpose, direction=action.direction, count=count)

    async def _change_answers(self, action: actions.RequestFault) -> None:
        if self._cluster.protocol == "rest":
            raise ScenarioError(f"{action.do} is for Kafka clients, and these speak REST; run it with --client kafka")
        which = RequestFilter(topic=action.topic or "", node=action.node)
        requests, times = self._cluster.requests, action.times or None
        match action.do:
            case "answer":
                await requests.answer(action.api, error=action.error, times=times, which=which)
            case "delay_answer":
                await requests.delay(action.api, ms=action.delay_ms, times=times, which=which)
            case "drop_answer":
                await requests.drop_answer(action.api, times=times, which=which)
            case "close_after":
                await requests.close_after(action.api, times=times, which=which)

    async def _administrate(self, action: actions.Action) -> None:
        admin = self._cluster.admin
        match action:
            case actions.CreateTopic(topic=topic, assignment=assignment, configs=configs):
                await admin.create_topic(topic, assignment=assignment, configs=configs)
            case actions.DeleteTopic(topic=topic):
                await admin.delete_topic(topic)
            case actions.GrowTopic(topic=topic, partitions=partitions):
                await admin.grow_topic(topic, partitions)
            case actions.SetTopic(topic=topic, configs=configs):
                await admin.alter_topic(topic, configs)
            case actions.SetCluster(configs=configs):
                await admin.alter_cluster(configs)
            case actions.SetGroup(group=group, configs=configs):
                await admin.alter_group(group, configs)
            case actions.Reassign(topic=topic, partition=partition, replicas=replicas):
                await admin.reassign(topic, partition, list(replicas))
            case actions.Elect(topic=topic, partition=partition, kind=kind):
                await admin.elect(topic, partition, kind=kind)

    def _existing(self, nodes: Sequence[int]) -> Sequence[int]:
        for node in nodes:
            if node not in self._cluster.nodes.ids:
                raise ScenarioError(f"{node} is no node; the nodes are {list(self._cluster.nodes.ids)}")
        return nodes
