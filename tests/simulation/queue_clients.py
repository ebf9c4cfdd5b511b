"""The share groups of a run of the profile "queues": started, and ended when they have worked off all records."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kraft.coordinators.shares.state import ShareKey
from kraft.protocol.errors import KafkaError
from metadata.controller.requests import AlterConfigs, ConfigAlteration, ConfigResource
from metadata.environment import ConnectionClosed
from metadata.image import TopicIdPartition
from replication.partition.states import LeaderState
from tests.simulation.clients import choose
from tests.simulation.oracle import Oracle
from tests.simulation.queue_member import QueueMember
from tests.simulation.queue_plan import DEAD_LETTERS, TOPIC

if TYPE_CHECKING:
    from tests.simulation.plan import Plan

SETTLE_S = 60
"""Virtual time after the last fault within which all is worked off: the longest path is a coordinator that is looked
for in vain for ten seconds, with each record's last lock behind it."""
LOOK_S = 0.2
ADMIN_S = 10


class QueueClients:
    """Nothing in a run of another profile."""

    def __init__(self, plan: Plan, oracle: Oracle) -> None:
        self._oracle = oracle
        self._plan = oracle.queues.plan = plan.queues
        self._members: list[QueueMember] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._rng = oracle.cluster.world.rng("looking at queues")

    def start(self, tasks: asyncio.TaskGroup) -> None:
        for group, members in () if self._plan is None else self._plan.groups:
            those = [QueueMember(each, group, self._oracle) for each in members]
            self._members += those
            self._tasks.append(tasks.create_task(self._begin(group, those)))

    async def _begin(self, group: str, members: list[QueueMember]) -> None:
        """Its group begins with the first record, which Kafka's default does not."""
        resource = ConfigResource(resource_type="group", name=group)
        assert self._plan is not None
        configs = {"share.auto.offset.reset": "earliest"}
        if self._plan.has_dead_letters:
            configs["errors.deadletterqueue.topic.name"] = DEAD_LETTERS
        alterations = tuple(ConfigAlteration(name=name, operation="set", value=configs[name]) for name in configs)
        request = AlterConfigs(resources={resource: alterations})
        while self._oracle.image.config("group", group).get("share.auto.offset.reset") != "earliest":
            node = choose(self._oracle.cluster, self._rng)
            if node is not None and node.node is not None:
                try:
                    async with asyncio.timeout(ADMIN_S):
                        await node.machine.run(node.node.gateway.control(request, timeout_ms=1_000))
                except (KafkaError, ConnectionClosed, TimeoutError):
                    self._oracle.count("queue: configuration asked for again")
            await asyncio.sleep(LOOK_S)
        await asyncio.gather(*(member.run() for member in members))

    # --- the end ------------------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """After the last fault, and after the last record: members work until nothing is left."""
        if self._plan is None:
            return
        for member in self._members:
            member.is_calm = True
        world = self._oracle.cluster.world
        deadline = world.loop.time() + SETTLE_S
        while (left := await self._left()) and self._oracle.violation is None:
            if world.loop.time() > deadline:
                self._oracle.fail(f"{SETTLE_S} s after the last fault {left}")
            await asyncio.sleep(LOOK_S)
        for member in self._members:
            member.is_stopping = True
        await asyncio.gather(*self._tasks)

    async def _left(self) -> str:
        for key in self._keys():
            if not self._oracle.queues.is_certain(key):
                continue
            where = TopicIdPartition(key.topic_id, key.partition)
            partition = self._oracle.image.partition(where.topic_id, where.partition)
            assert partition is not None, where
            replica = self._oracle.replica(partition.leader, where) if partition.has_leader else None
            if replica is None or not isinstance(replica.state, LeaderState):
                return f"{self._oracle.name(where)} has no leader"
            start, end = await self._start_offset(key), replica.state.high_watermark
            self._oracle.queues.done_with(key, start)
            if end and start < end:
                return f"group {key.group} is done up to {start} of {end} in {self._oracle.name(where)}"
        return ""

    async def _start_offset(self, key: ShareKey) -> int:
        node = choose(self._oracle.cluster, self._rng)
        if node is None or node.node is None:
            return -1
        try:
            async with asyncio.timeout(ADMIN_S):
                return (await node.machine.run(node.node.share_persister.summary(key))).start_offset
        except (KafkaError, ConnectionClosed, TimeoutError):
            return -1

    def _keys(self) -> list[ShareKey]:
        topic = self._oracle.image.topic(TOPIC)
        assert topic is not None
        assert self._plan is not None
        groups = [group for group, _ in self._plan.groups]
        return [ShareKey(group, topic.topic_id, number) for group in groups for number in sorted(topic.partitions)]

    def judge(self, logs: Mapping[TopicIdPartition, Mapping[int, bytes]]) -> None:
        if self._plan is not None:
            self._oracle.queues.judge(self._keys(), logs)
