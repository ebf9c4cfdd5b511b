"""Producers of delayed records: started, and ended when all that is due has arrived."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from kraft.chaos.worlds.simulated.clock import EPOCH_MS
from kraft.protocol.batches.records import NewRecord, build_batch, read_batches
from kraft.protocol.errors import KafkaError
from metadata.image import TopicIdPartition
from replication.partition.states import LeaderState
from replication.record_times import CANCEL_HEADER, DELIVER_HEADER, EXPIRES_HEADER, ID_HEADER
from replication.requests import ProduceOptions
from tests.simulation.clients import GRACE_MS, RETRY_PAUSE_S, choose
from tests.simulation.delayed_oracle import value_of
from tests.simulation.delayed_plan import TOPIC
from tests.simulation.log_bytes import bytes_from
from tests.simulation.node_request import Unanswered, ask
from tests.simulation.queue_plan import TOPIC as TARGET

if TYPE_CHECKING:
    from tests.simulation.delayed_plan import DelayedPlan
    from tests.simulation.oracle import Oracle
    from tests.simulation.plan import Plan

TIMEOUT_MS = 3_000
FAR_MS = 360_000_000
"""A record that is due then is not due in the run, whatever clocks do: each step is of an hour and a half at most."""
SETTLE_S = 65
"""Virtual time within which all that is due has arrived, once there are no faults and all clocks are right."""
LOOK_S = 0.5


class _Producer:
    def __init__(self, number: int, plan: DelayedPlan, oracle: Oracle) -> None:
        self._name = f"l{number}"
        self._plan = plan
        self._oracle = oracle
        self._rng = oracle.cluster.world.rng(f"delayed {number}")
        self._number = 0
        self.is_stopping = False

    async def run(self) -> None:
        while not self.is_stopping:
            topic, node = self._oracle.image.topic(TOPIC), choose(self._oracle.cluster, self._rng)
            if topic is None or node is None or node.node is None:
                await asyncio.sleep(RETRY_PAUSE_S)
                continue
            where = TopicIdPartition(topic.topic_id, self._rng.choice(sorted(topic.partitions)))
            made = [self._made(node.machine.clock.wall_ms()) for _ in range(self._rng.randint(1, self._plan.records))]
            batch = build_batch([record for record, _ in made])
            produce = partial(node.node.gateway.produce, {where: batch}, ProduceOptions(-1, TIMEOUT_MS))
            try:
                within_s = (TIMEOUT_MS + GRACE_MS) / 1_000
                outcomes = await ask(self._oracle, node, produce, within_s=within_s, what="a delayed produce")
                code = outcomes[where].error_code
            except (KafkaError, Unanswered) as error:
                self._oracle.count(f"delayed produce raised {type(error).__name__}")
                code = -1
            if not code:
                self._oracle.count("delayed: record acknowledged")
                self._oracle.delayed.acked |= {record.value or b"": where for record, is_owed in made if is_owed}
            await asyncio.sleep(self._rng.uniform(0, 2 * self._plan.pause_ms) / 1_000)

    def _made(self, now_ms: int) -> tuple[NewRecord, bool]:
        """A record, and whether it has to arrive."""
        rng = self._rng
        self._number += 1
        name, draw = f"{self._name}.{self._number}", rng.random()
        key = rng.choice((None, b"a", b"b", b"c"))
        if draw < 0.05 and self._number > 1:
            cancelled = f"{self._name}.{rng.randint(1, self._number - 1)}-far".encode()
            return NewRecord(key, value_of(name, 0, 0), [(CANCEL_HEADER, cancelled)], now_ms), False
        is_far = draw < 0.15
        due_ms = 0 if draw > 0.9 else now_ms + (FAR_MS if is_far else rng.randint(-500, 4_000))
        expires_ms = max(due_ms, now_ms) + rng.randint(0, 3_000) if rng.random() < self._plan.expires else 0
        headers: list[tuple[str, bytes | None]] = [(ID_HEADER, f"{name}{'-far' * is_far}".encode())]
        if due_ms:
            headers.append((DELIVER_HEADER, b"%d" % due_ms))
        if expires_ms:
            headers.append((EXPIRES_HEADER, b"%d" % expires_ms))
        return NewRecord(key, value_of(name, due_ms, expires_ms), headers, now_ms), not is_far


class DelayedClients:
    """Nothing in a run of another profile."""

    def __init__(self, plan: Plan, oracle: Oracle) -> None:
        self._oracle = oracle
        self._plan = oracle.delayed.plan = plan.delayed
        self._producers: list[_Producer] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, tasks: asyncio.TaskGroup) -> None:
        if self._plan is not None:
            self._producers = [_Producer(number, self._plan, self._oracle) for number in range(self._plan.producers)]
            self._tasks = [tasks.create_task(each.run()) for each in self._producers]

    async def finish(self) -> None:
        """After the last fault: until all that is due has arrived."""
        if self._plan is None:
            return
        for producer in self._producers:
            producer.is_stopping = True
        await asyncio.gather(*self._tasks)
        world = self._oracle.cluster.world
        # A record is due by the clock that it was sent by, which may have been ahead: it is due for all of them now.
        now_ms = max(EPOCH_MS + int(world.loop.time() * 1_000), self._oracle.delayed.last_due_ms())
        for node in self._oracle.cluster.nodes.values():
            node.machine.clock.jump(now_ms - node.machine.clock.wall_ms())
        deadline = world.loop.time() + SETTLE_S
        while (lost := self._missing()) and self._oracle.violation is None:
            if world.loop.time() > deadline:
                self._oracle.fail(f"{SETTLE_S} s after the last fault delayed record {lost!r} has not arrived")
            await asyncio.sleep(LOOK_S)

    def _missing(self) -> bytes | None:
        found: Counter[bytes] = Counter()
        topic = self._oracle.image.topic(TARGET)
        for number, partition in {} if topic is None else topic.partitions.items():
            assert topic is not None
            where = TopicIdPartition(topic.topic_id, number)
            replica = self._oracle.replica(partition.leader, where) if partition.has_leader else None
            if replica is not None and isinstance(replica.state, LeaderState):
                found.update(each.value or b"" for each in read_batches(bytes_from(replica, 0)))
        return self._oracle.delayed.missing(found)

    def judge(self, logs: Mapping[TopicIdPartition, Mapping[int, bytes]]) -> None:
        if self._plan is None:
            return
        target, later = self._oracle.image.topic(TARGET), self._oracle.image.topic(TOPIC)
        assert target is not None
        assert later is not None
        found = Counter(
            value for key, values in logs.items() if key.topic_id == target.topic_id for value in values.values()
        )
        self._oracle.delayed.judge(found, [TopicIdPartition(later.topic_id, number) for number in later.partitions])
