"""Clients of a simulated cluster: producers that record each attempt, readers that report what they read.

A client talks to any node that runs, as through a load balancer. It lives outside all nodes, so it can see a node
die in the middle of its request; it gives up after its own timeout, and then knows nothing of the outcome.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection
from dataclasses import dataclass, field

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster, SimulatedNode
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches
from kraft.protocol.errors import KafkaError
from metadata.environment import ConnectionClosed
from metadata.image import TopicIdPartition
from replication.requests import ProduceOptions, ProduceOutcome, ReadOptions
from tests.simulation.node_request import Watch
from tests.simulation.oracle import Oracle
from tests.simulation.plan import Plan, ProducerPlan

GRACE_MS = 6_000
"""A request to a node that stays alive and awake ends within its timeout and this."""
READ_BYTES = 4_000
RETRY_PAUSE_S = 0.05
WAIT_MS_MAX = 200


@dataclass(slots=True)
class Attempt:
    """One produce request for one record batch."""

    values: tuple[bytes, ...]
    which: TopicIdPartition
    acks: int
    began_us: int
    outcome: ProduceOutcome | None = None
    """None: no answer, the client gave up or the node died."""

    @property
    def is_acked(self) -> bool:
        return self.outcome is not None and self.outcome.error_code == 0 and self.acks != 0

    @property
    def is_surely_refused(self) -> bool:
        """The answer means that nothing was appended."""
        return self.outcome is not None and self.outcome.error_code != 0 and not self.outcome.is_appended


class Producer:
    def __init__(self, cluster: SimulatedCluster, plan: ProducerPlan, topic: str, oracle: Oracle) -> None:
        self._cluster = cluster
        self._plan = plan
        self._topic = topic
        self._oracle = oracle
        self._rng = cluster.world.rng(f"producer {plan.name}")
        self._number = 0
        self.is_stopping = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._plan.in_flight):
                group.create_task(self._send_all())

    async def _send_all(self) -> None:
        while not self.is_stopping:
            self._number += 1
            count = self._rng.randint(1, self._plan.records)
            names = [b"%s.%d.%d" % (self._plan.name.encode(), self._number, i) for i in range(count)]
            values = tuple(name.ljust(self._plan.value_bytes, b".") for name in names)
            await self._send(values)
            await asyncio.sleep(self._rng.uniform(0, 2 * self._plan.pause_ms) / 1000)

    async def _send(self, values: tuple[bytes, ...]) -> None:
        """With retries as Kafka's producer without idempotence: after any retriable error, also an unknown outcome."""
        for _ in range(1 + self._plan.retries):
            node = choose(self._cluster, self._rng, out_of_reach=self._oracle.out_of_reach)
            which = self._which()
            if node is not None and which is not None:
                attempt = await self._attempt(node, which, values)
                if attempt.is_acked or self._plan.acks == 0:
                    return
            await asyncio.sleep(RETRY_PAUSE_S)

    def _which(self) -> TopicIdPartition | None:
        topic = self._oracle.image.topic(self._topic)
        return None if topic is None else TopicIdPartition(topic.topic_id, self._number % len(topic.partitions))

    async def _attempt(self, node: SimulatedNode, which: TopicIdPartition, values: tuple[bytes, ...]) -> Attempt:
        plan, loop = self._plan, self._cluster.world.loop
        assert node.node is not None
        attempt = Attempt(values, which, plan.acks, loop.now_us)
        self._oracle.attempts.append(attempt)
        now_ms = node.machine.clock.wall_ms()
        batch = build_batch([NewRecord(None, value, [], now_ms) for value in values])
        produce = node.node.gateway.produce({which: batch}, ProduceOptions(plan.acks, plan.timeout_ms))
        watch = Watch(node, loop.now_us)
        try:
            async with asyncio.timeout((plan.timeout_ms + GRACE_MS) / 1000):
                attempt.outcome = (await node.machine.run(produce))[which]
        except (KafkaError, ConnectionClosed) as error:
            self._oracle.count(f"produce raised {type(error).__name__}")
        except TimeoutError:
            assert not watch.is_undisturbed, (
                f"a produce to node {node.node_id}, alive and awake, has not ended within "
                f"{plan.timeout_ms} + {GRACE_MS} ms"
            )
            self._oracle.count("request to a node that died or slept")
        else:
            self._oracle.logs.answered(attempt)
        return attempt


@dataclass
class Reader:
    """Reads one topic's partitions through any node, and reports each (offset, value) to the oracle."""

    cluster: SimulatedCluster
    topic: str
    oracle: Oracle
    rng: random.Random
    is_stopping: bool = False
    _offsets: dict[TopicIdPartition, int] = field(default_factory=dict)
    _guessed: set[TopicIdPartition] = field(default_factory=set)
    """Partitions whose offset no read has led to."""

    async def run(self) -> None:
        while not self.is_stopping:
            topic, node = (
                self.oracle.image.topic(self.topic),
                choose(self.cluster, self.rng, out_of_reach=self.oracle.out_of_reach),
            )
            if topic is not None and node is not None:
                for number in list(topic.partitions):
                    await self._read(node, TopicIdPartition(topic.topic_id, number))
            await asyncio.sleep(self.rng.uniform(0.01, 0.1))

    async def _read(self, node: SimulatedNode, which: TopicIdPartition) -> None:
        if node.node is None:
            return
        offset = self._offsets.get(which, 0)
        wait_ms = self.rng.randint(0, WAIT_MS_MAX)
        options = ReadOptions(bytes_max=READ_BYTES, bytes_min=1, wait_ms_max=wait_ms)
        read = node.node.gateway.read(which, offset, options)
        watch = Watch(node, self.cluster.world.loop.now_us)
        try:
            async with asyncio.timeout((wait_ms + GRACE_MS) / 1000):
                records = await node.machine.run(read)
        except (KafkaError, ConnectionClosed) as error:
            if error.__class__.__name__ == "OffsetOutOfRange":
                self.oracle.count("reader out of range")
                if offset and which not in self._guessed:
                    self.oracle.logs.called_out_of_range(which, offset, by=node.node_id)
                self._guessed.add(which)
                self._offsets[which] = max(0, offset - 20) if self.rng.random() < 0.8 else offset + 5
            return
        except TimeoutError:
            assert not watch.is_undisturbed, f"a read from node {node.node_id}, alive and awake, has not ended"
            return
        found = list(read_batches(records.data, from_offset=offset))
        values = [(record.offset, record.value or b"") for record in found]
        self.oracle.logs.was_read(which, values, leader_epoch=records.leader_epoch)
        if found:
            self._offsets[which] = found[-1].offset + 1
            self._guessed.discard(which)


def choose(
    cluster: SimulatedCluster, rng: random.Random, *, out_of_reach: Collection[int] = ()
) -> SimulatedNode | None:
    alive = [node for node in cluster.alive if node.node_id not in out_of_reach]
    return rng.choice(alive) if alive else None


def start_clients(
    cluster: SimulatedCluster, plan: Plan, oracle: Oracle, group: asyncio.TaskGroup
) -> list[Producer | Reader]:
    clients: list[Producer | Reader] = [
        Producer(cluster, each, plan.topics[each.topic].name, oracle) for each in plan.producers
    ]
    for number in range(plan.readers):
        rng = cluster.world.rng(f"reader {number}")
        clients.append(Reader(cluster, plan.topics[number % len(plan.topics)].name, oracle, rng))
    for client in clients:
        group.create_task(client.run())
    return clients
