"""Producers whose records go to several topics, and the promise of a route: readers of committed records have each
record in all of its topics or in none, once; in all of them if it was acknowledged, and in none if it was refused.

They call what the REST API calls, on any node. A partition whose log may have lost what acks=all acknowledged, or one
of the coordinators', excuses the run.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kraft.chaos.worlds.simulated.cluster import SimulatedNode
from kraft.chaos.worlds.simulated.loop import Process
from kraft.coordinators.routed import RoutedWrites, UnknownEnd
from kraft.protocol.batches.records import NewRecord, build_batch
from kraft.protocol.errors import KafkaError
from metadata.image import TopicIdPartition
from tests.simulation.clients import RETRY_PAUSE_S, choose
from tests.simulation.committed import is_excused, read_committed, wait_decided
from tests.simulation.node_request import Unanswered, ask

if TYPE_CHECKING:
    from kraft.node.assembly import Node
    from tests.simulation.oracle import Oracle
    from tests.simulation.plan import Plan
    from tests.simulation.routed_plan import RoutedPlan

TIMEOUT_MS = 2_000
WITHIN_S = 60.0
"""A coordinator that moves is asked for half a minute, at the beginning of a transaction and at its end."""


class _Producer:
    def __init__(self, number: int, clients: RoutedClients, plan: RoutedPlan, oracle: Oracle) -> None:
        self._name = f"r{number}"
        self._clients = clients
        self._plan = plan
        self._oracle = oracle
        self._rng = oracle.cluster.world.rng(f"routed {number}")
        self._number = 0
        self.is_stopping = False

    async def run(self) -> None:
        while not self.is_stopping:
            node = choose(self._oracle.cluster, self._rng)
            topics = [self._oracle.image.topic(name) for name in self._plan.topics]
            if node is None or node.node is None or None in topics:
                await asyncio.sleep(RETRY_PAUSE_S)
                continue
            await self._write(node, node.node)
            await asyncio.sleep(self._rng.uniform(0, 2 * self._plan.pause_ms) / 1_000)

    async def _write(self, node: SimulatedNode, alive: Node) -> None:
        values = [f"route|{self._name}.{self._number + each}".encode() for each in range(self._plan.records)]
        self._number += len(values)
        batches: dict[TopicIdPartition, Sequence[tuple[int, bytes]]] = {}
        for name in self._plan.topics:
            topic = self._oracle.image.topic(name)
            assert topic is not None
            where = TopicIdPartition(topic.topic_id, self._rng.choice(sorted(topic.partitions)))
            records = [NewRecord(None, value, [], node.machine.clock.wall_ms()) for value in values]
            batches[where] = [(len(values), build_batch(records))]
        writes, fates = self._clients.writes_of(node, alive), self._clients.fates
        try:
            await ask(
                self._oracle,
                node,
                lambda: writes.write(batches, gateway=alive.gateway, timeout_ms=TIMEOUT_MS),
                within_s=WITHIN_S,
                what="a write to a route",
            )
            fates |= dict.fromkeys(values, "acknowledged")
        except (Unanswered, UnknownEnd):
            fates |= dict.fromkeys(values, "unknown")
        except KafkaError:
            fates |= dict.fromkeys(values, "refused")
        self._oracle.count(f"route: record {fates[values[0]]}")


class RoutedClients:
    """Nothing in a run of another profile."""

    def __init__(self, plan: Plan, oracle: Oracle) -> None:
        self._oracle = oracle
        self._plan = plan.routed
        self._producers: list[_Producer] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._writes: dict[Process, RoutedWrites] = {}
        self._found: Mapping[str, Counter[bytes]] = {}
        self.fates: dict[bytes, str] = {}
        """What became of each value, as far as its producer knows."""

    def writes_of(self, node: SimulatedNode, alive: Node) -> RoutedWrites:
        """Those of the node's life, as its HTTP server has them."""
        life = node.machine.process
        if life not in self._writes:
            self._writes[life] = RoutedWrites(node.node_id, alive.transactions)
        return self._writes[life]

    def start(self, tasks: asyncio.TaskGroup) -> None:
        if self._plan is not None:
            numbers = range(self._plan.producers)
            self._producers = [_Producer(number, self, self._plan, self._oracle) for number in numbers]
            self._tasks = [tasks.create_task(each.run()) for each in self._producers]

    async def finish(self) -> None:
        """After the last fault: until every transaction has ended."""
        if self._plan is not None:
            for producer in self._producers:
                producer.is_stopping = True
            await asyncio.gather(*self._tasks)
            await wait_decided(self._oracle, self._plan.topics)

    async def read_back(self) -> None:
        """What readers of committed records have in a whole cluster."""
        found: dict[str, Counter[bytes]] = {}
        for name in () if self._plan is None else self._plan.topics:
            topic = self._oracle.image.topic(name)
            assert topic is not None
            found[name] = Counter()
            for number in topic.partitions:
                records, _ = await read_committed(self._oracle, TopicIdPartition(topic.topic_id, number))
                found[name].update(each.value.encode() for each in records)
        self._found = found

    def judge(self) -> None:
        if self._plan is None or is_excused(self._oracle, self._plan.topics):
            return
        for value, fate in self.fates.items():
            counts = {name: found[value] for name, found in self._found.items()}
            there = "; ".join(f"{count} in {name}" for name, count in counts.items())
            times = set(counts.values())
            self._oracle.check(len(times) == 1, f"half a route: record {value!r}, {fate}, is there {there}")
            self._oracle.check(max(times) <= 1, f"record {value!r} of a route, {fate}, is there {there}")
            self._oracle.check(
                fate == "unknown" or (fate == "acknowledged") == (times == {1}),
                f"record {value!r} of a route was {fate}, and is there {there}",
            )
