"""Stories of rare coincidences, which random events hardly ever reach.

Each story ends by itself in any case; `heal` undoes its remaining cuts, as those of all events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from kraft.chaos.worlds.simulated.cluster import SimulatedNode
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.errors import KafkaError
from metadata.controller.requests import (
    AlterConfigs,
    AlterReassignments,
    ConfigAlteration,
    ConfigResource,
    CreateTopics,
    ElectLeaders,
    NewTopic,
    PartitionReassignment,
)
from metadata.environment import ConnectionClosed
from metadata.image import PartitionImage, TopicIdPartition
from replication.requests import ProduceOptions
from tests.simulation.ambushes import BETWEEN_MS
from tests.simulation.clients import Attempt
from tests.simulation.hangs import Hangs
from tests.simulation.moments import TRANSACTION_OPEN
from tests.simulation.node_request import Watch
from tests.simulation.plan import Event
from tests.simulation.queue_plan import TOPIC

T = TypeVar("T")

LOOK_S = 0.01
WON_S = 3.0
"""Within this another voter has won an election, or nobody will."""
ROUNDS = 3
"""Two voters are left to win each election; the one that is wanted does so within a few."""
LEAVES_ISR_S = 6.0
SYNC_SLOW_US = (2_000_000, 2_500_000)
SYNC_FAST_US = (500, 2_000)
PRODUCE_MS = 8_000
REQUEST_S = 20.0
MIN_ISR = "min.insync.replicas"


class Coincidences(Hangs):
    # --- KIP-868: a controller that goes between two appends of one decision --------------------------------------

    async def _cut_off_append(self, event: Event) -> None:
        """A topic is being created in pieces; when some of them are committed, its controller goes."""
        name, partitions = f"large-{event.numbers[0] % 50}", 4 + event.numbers[1] % 6
        topic = NewTopic(name=name, partitions=partitions, replication_factor=min(3, len(self._plan.brokers)))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._create_large(topic, number=event.numbers[2]))
            moment = None
            for _ in range(1 + event.numbers[3] % 3):
                moment = await self._oracle.moments.next(TRANSACTION_OPEN, within_s=WON_S) or moment
            if moment is None or self.is_healed:
                return
            self._oracle.count("controller taken away between two pieces")
            controller, lasts_ms = self.cluster.nodes[moment[0]], event.numbers[2] % BETWEEN_MS
            match event.numbers[3] % 4:
                case 0:
                    await self._away(controller, lasts_ms, SimulatedNode.kill)
                case 1:
                    await self._away(controller, lasts_ms, self._lose_power)
                case 2:
                    await self._pause_for(controller, event.lasts_ms)
                case _:
                    await self._depose(controller)

    async def _create_large(self, topic: NewTopic, *, number: int) -> None:
        try:
            await self._ask(CreateTopics(topics=(topic,)), number=number)  # type: ignore[arg-type]
        except (KafkaError, ConnectionClosed, OSError) as error:
            self._oracle.note(f"{topic.name} was not created: {error}")

    # --- Q5: a controller of the past, whose append comes when its node leads again -------------------------------

    async def _overtaken_append(self, event: Event) -> None:
        """The controller decides, and its Raft thread gets to the append only after another controller was in office
        and its own node leads the quorum once more. The append has to change nothing."""
        controller = self._controller()
        if controller is None or controller.node is None or len(self._plan.voters) < 3:
            return
        quorum, term = controller.quorum, controller.node.log.leadership.term
        quorum.hold()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._change_retention(controller, event.numbers[0]))
                await asyncio.sleep(2 * LOOK_S)
                if await self._depose(controller):
                    await self._crown(controller, above=term)
                quorum.release()
        finally:
            quorum.release()

    async def _change_retention(self, node: SimulatedNode, number: int) -> None:
        topic = self._topic(number)
        if topic is not None:
            await self._configure_at(node, topic, "retention.ms", str(86_400_000 + number))

    async def _depose(self, node: SimulatedNode) -> bool:
        await self._without(node, until=lambda: self._image().controller_id != node.node_id)
        return self._image().controller_id != node.node_id

    async def _crown(self, node: SimulatedNode, *, above: int) -> None:
        """Let it win an election of a newer term."""
        for _ in range(ROUNDS):
            rival = self._controller()
            if rival is None or rival is node or _leads(node, above=above):
                return
            await self._without(
                rival,
                until=lambda rival=rival: _leads(node, above=above) or self._controller() is not rival,  # type: ignore[misc]
            )

    async def _without(self, node: SimulatedNode, *, until: Callable[[], bool]) -> None:
        """Cut off from the other voters, for as long as it takes."""
        others = [f"node-{voter}" for voter in self._plan.voters if voter != node.node_id]
        self._world.network.isolate(node.machine.name, others)
        await self._wait(until, within_s=WON_S)
        for other in others:
            self._world.network.heal(node.machine.name, other)

    # --- P5: in the log and committed, and the ISR is too small when the answer is due ----------------------------

    async def _min_isr_raised_in_flush(self, event: Event) -> None:
        """One request for two partitions: the one is on its whole ISR and committed, the other is still being synced
        when min.insync.replicas rises beyond that ISR."""
        away = self.cluster.nodes[self._plan.brokers[event.numbers[0] % len(self._plan.brokers)]]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._away(away, 1_000 * int(LEAVES_ISR_S), SimulatedNode.kill))
            await self._wait(lambda: self._led_together(away.node_id) is not None, within_s=LEAVES_ISR_S / 2)
            found = self._led_together(away.node_id)
            if found is not None:
                await self._raise_in_flush(*found)

    def _led_together(self, away: int) -> tuple[SimulatedNode, str, list[TopicIdPartition]] | None:
        """Two synced partitions of one topic with one leader, each with two of three replicas in the ISR."""
        for topic in self._image().topics_by_name.values():
            if self._image().config("topic", topic.name).get("flush.messages") != "1":
                continue
            by_leader: dict[int, list[TopicIdPartition]] = {}
            for partition in topic.partitions.values():
                if partition.has_leader and away not in partition.isr and _lacks_one(partition):
                    key = TopicIdPartition(partition.topic_id, partition.partition)
                    by_leader.setdefault(partition.leader, []).append(key)
            for leader, keys in by_leader.items():
                if len(keys) > 1 and self.cluster.nodes[leader].node is not None:
                    return self.cluster.nodes[leader], topic.name, keys[:2]
        return None

    async def _raise_in_flush(self, leader: SimulatedNode, topic: str, keys: list[TopicIdPartition]) -> None:
        early, late = keys
        disk = leader.machine.disk
        async with asyncio.TaskGroup() as group:
            disk.sync_us = SYNC_SLOW_US
            slow = group.create_task(self._produce(leader, [late]))
            await asyncio.sleep(2 * LOOK_S)
            disk.sync_us = SYNC_FAST_US
            both = group.create_task(self._produce(leader, keys))
            await asyncio.sleep(2 * LOOK_S)
            await self._produce(leader, [early])
            await self._configure_at(leader, topic, MIN_ISR, "3")
            await asyncio.wait([slow, both], timeout=SYNC_SLOW_US[1] / 1_000_000)
            await self._configure_at(leader, topic, MIN_ISR, "2")
        disk.sync_us = self._plan.sync_us

    async def _produce(self, node: SimulatedNode, keys: list[TopicIdPartition]) -> None:
        """One request with one record for each partition."""
        world, oracle, life = self._world, self._oracle, node.node
        if life is None:
            return
        attempts = {key: Attempt((self._value(),), key, -1, world.loop.now_us) for key in keys}
        oracle.attempts.extend(attempts.values())
        now_ms = node.machine.clock.wall_ms()
        batches = {key: build_batch([NewRecord(None, each.values[0], [], now_ms)]) for key, each in attempts.items()}
        try:
            outcomes = await self._answer(node, life.gateway.produce(batches, ProduceOptions(-1, PRODUCE_MS)))
        except (KafkaError, ConnectionClosed, OSError):
            return
        for key, attempt in attempts.items():
            attempt.outcome = outcomes[key]
            oracle.logs.answered(attempt)

    def _value(self) -> bytes:
        self._values += 1
        return b"rare.%d" % self._values

    _values = 0

    # --- U6: acknowledgements at a leader that has not heard of its successor --------------------------------------

    async def _hear_late(self, event: Event) -> None:
        """Members of share groups work for long, and the leader of a partition hears late of its successor: some of
        them acknowledge there while others have records of the successor, which has written nothing yet."""
        queues = self._oracle.queues
        assert queues.plan is not None
        queues.is_work_long = True
        try:
            await asyncio.sleep(queues.plan.lock_ms / 2_000)
            partition = self._led_besides_controller(event.numbers[0])
            if partition is not None:
                await self._move_unheard(partition, event)
        finally:
            queues.is_work_long = False

    def _led_besides_controller(self, number: int) -> PartitionImage | None:
        """A partition of the queue whose leader is another node, and has somebody to follow it."""
        topic, controller = self._image().topic(TOPIC), self._controller()
        partitions = [] if topic is None else [topic.partitions[each] for each in sorted(topic.partitions)]
        first = number % max(len(partitions), 1)
        for partition in partitions[first:] + partitions[:first]:
            leader = self.cluster.nodes.get(partition.leader)
            if leader is None or leader is controller or leader.node is None or len(partition.isr) < 2:
                continue
            return partition
        return None

    async def _move_unheard(self, partition: PartitionImage, event: Event) -> None:
        leader = self.cluster.nodes[partition.leader]
        assert leader.node is not None
        publisher, where = leader.node.publisher, (TOPIC, partition.partition)
        heir = next(each for each in partition.isr if each != leader.node_id)
        replicas = (heir, *(each for each in partition.replicas if each != heir))
        moved = PartitionReassignment(topic=TOPIC, partition=partition.partition, replicas=replicas)
        awake = [node for node in self.cluster.alive if not node.machine.process.is_paused]
        asked = next((at for at, node in enumerate(awake) if node is not leader), 0)
        self._oracle.late_news.begin(publisher)
        try:
            await self._ask(AlterReassignments(reassignments=(moved,)), number=asked)  # type: ignore[arg-type]
            await self._ask(ElectLeaders(election="preferred", partitions=(where,)), number=asked)  # type: ignore[arg-type]
            await self._wait(lambda: self._leads_queue(heir, partition.partition), within_s=WON_S)
            if self._leads_queue(heir, partition.partition):
                self._oracle.count("queue: leader hears late of its successor")
                await asyncio.sleep(event.lasts_ms / 1_000)
        finally:
            self._oracle.late_news.end(publisher)

    def _leads_queue(self, node_id: int, number: int) -> bool:
        topic = self._image().topic(TOPIC)
        return topic is not None and topic.partitions[number].leader == node_id

    # --- all of them --------------------------------------------------------------------------------------------

    async def _configure_at(self, node: SimulatedNode, topic: str, name: str, value: str) -> None:
        life = node.node
        if life is None:
            return
        resource = ConfigResource(resource_type="topic", name=topic)
        request = AlterConfigs(resources={resource: (ConfigAlteration(name=name, operation="set", value=value),)})
        try:
            answer = await self._answer(node, life.gateway.control(request, timeout_ms=PRODUCE_MS))  # type: ignore[arg-type]
        except (KafkaError, ConnectionClosed, OSError) as error:
            self._oracle.note(f"{name}={value}: {type(error).__name__}: {error}")
        else:
            self._oracle.note(f"{name}={value}: {answer}")

    async def _answer(self, node: SimulatedNode, work: Coroutine[Any, Any, T]) -> T:
        watch = Watch(node, self._world.loop.now_us)
        try:
            async with asyncio.timeout(REQUEST_S):
                return await node.machine.run(work)
        except TimeoutError:
            self._oracle.check(
                not watch.is_undisturbed,
                f"a request to node {node.node_id}, alive and awake, has not ended within {REQUEST_S} s",
            )
            raise

    async def _wait(self, holds: Callable[[], bool], *, within_s: float) -> None:
        deadline = self._world.loop.time() + within_s
        while not holds() and not self.is_healed and self._world.loop.time() < deadline:  # noqa: ASYNC110 - has a deadline
            await asyncio.sleep(LOOK_S)


def _leads(node: SimulatedNode, *, above: int) -> bool:
    """The quorum, in a later term than `above`."""
    leadership = None if node.node is None else node.node.log.leadership
    return leadership is not None and leadership.is_self and leadership.term > above


def _lacks_one(partition: PartitionImage) -> bool:
    return len(partition.replicas) == 3 and len(partition.isr) == 2 and not partition.is_reassigning
