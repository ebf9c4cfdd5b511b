"""One run: a cluster under load while the events of a plan happen, then calm, then the last judgement.

A run ends with the first violation, or when the calm cluster is whole: everything led, every ISR full, all replicas the
same, every acknowledged record where it was acknowledged, as far as the promise goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from kraft.node.assembly import Node
from metadata.controller.events import CreateTopics, ErrorDetail, NewTopic, TopicCreated
from metadata.errors import CorruptMessage, KafkaStorageError, NotController, RequestTimedOut, TopicAlreadyExists
from metadata.image import PartitionImage, TopicIdPartition
from replication.batches.records import read_batches
from replication.partition.replica import Replica
from tests.simulation.clients import Attempt, start_clients
from tests.simulation.cluster import SimulatedCluster
from tests.simulation.environment import SimulatedWorld
from tests.simulation.faults import Faults
from tests.simulation.hooks import listening
from tests.simulation.oracle import Oracle
from tests.simulation.plan import Plan
from tests.simulation.remembered_clients import RememberedClients

START_S = 30
WHOLE_S = 30
"""Virtual time after the last fault within which the cluster has to be whole."""
CALM_S = 0.5
LOOK_S = 0.1
CREATE_MS = 5_000
DRAIN_S = 15
READS_MAX = 4
"""How often all logs are read at the end: two members that are both damaged are mended one after the other."""
EVENTS_TOLD = 60


@dataclass(slots=True)
class Result:
    plan: Plan
    failure: str | None
    story: list[str]
    states: Counter[str]
    fingerprint: str
    virtual_s: float
    wall_s: float
    attempts: int = 0
    acked: int = 0
    lines: list[str] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """What a failure is about, without the numbers: for telling one bug from another while shrinking."""
        return "" if self.failure is None else "".join(c for c in self.failure[:60] if not c.isdigit())


def play(plan: Plan, *, keeps_trace: bool = False) -> Result:
    """Never raises for what the cluster does wrong: that is in the result."""
    began = time.perf_counter()  # for the speed that is told, never seen by the simulated world
    world = SimulatedWorld(plan.seed)
    if keeps_trace:
        world.lines = []
    cluster = SimulatedCluster(world, settings=plan.settings, rates=plan.rates, roles=plan.roles, is_new=plan.is_new)
    oracle = Oracle(cluster)
    failure: BaseException | None = None
    with _no_collections(), listening(oracle):
        try:
            world.run(_Run(cluster, plan, oracle).scenario())
        except Exception as error:  # noqa: BLE001 - whatever went wrong is what this run found
            failure = error
    failure = oracle.violation or failure
    if failure is not None:
        oracle.history.append(f"FAILED {_text(failure)}")
    return Result(
        plan=plan,
        failure=None if failure is None else _text(failure),
        story=oracle.history,
        states=oracle.states,
        fingerprint=f"{world.events} {world.fingerprint}",
        virtual_s=world.loop.now_us / 1e6,
        wall_s=time.perf_counter() - began,
        attempts=len(oracle.attempts),
        acked=sum(attempt.is_acked for attempt in oracle.attempts),
        lines=world.lines or [],
    )


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """A run is short: the collector would cost more than it frees. What is left is found after one of the next runs."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _text(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


class _Run:
    def __init__(self, cluster: SimulatedCluster, plan: Plan, oracle: Oracle) -> None:
        self._cluster = cluster
        self._plan = plan
        self._oracle = oracle
        self._remembered = RememberedClients(plan, oracle)
        for node in cluster.nodes.values():
            node.machine.disk.sync_us = plan.sync_us
            node.machine.disk.tears_sectors = plan.strange.tears_sectors
            node.hop_us = plan.strange.hop_us
            node.on_made = self._watcher(node.node_id)
        for one in cluster.hosts:
            for other in cluster.hosts:
                cluster.world.network.link(one, other).latency_us = plan.latency_us_of(one, other)

    def _watcher(self, node_id: int) -> Callable[[Node], None]:
        def watch(node: Node) -> None:
            self._oracle.metadata.watch(node_id, node)

        return watch

    async def scenario(self) -> None:
        await self._cluster.start()
        await self._create_topics()
        faults = Faults(self._cluster, self._plan, self._oracle)
        async with asyncio.TaskGroup() as clients:
            everyone = start_clients(self._cluster, self._plan, self._oracle, clients)
            self._remembered.start(clients)
            looking = clients.create_task(self._look())
            await asyncio.sleep(0.2)
            await faults.play()
            await faults.heal()
            self._oracle.note("calm")
            await asyncio.sleep(CALM_S)
            for client in everyone:
                client.is_stopping = True
            await self._remembered.finish()
            await self._wait_whole()
            looking.cancel()
        # What clients sent last may still be on its way: to the leader (acks=0), or from it to the others.
        await asyncio.sleep(CALM_S)
        await self._wait_whole()
        await self._read_everything()
        self._judge()

    async def _create_topics(self) -> None:
        for topic in self._plan.topics:
            new = NewTopic(
                name=topic.name,
                partitions=topic.partitions,
                replication_factor=topic.replication_factor,
                configs=topic.configs,
            )
            answer = (await self._create(CreateTopics(topics=(new,))))[topic.name]
            assert not hasattr(answer, "error") or answer.error is TopicAlreadyExists, answer

    async def _create(self, request: CreateTopics) -> Mapping[str, TopicCreated | ErrorDetail]:
        """As an administrator: again while nobody governs, or the answer was lost on its way."""
        first, now_s = self._cluster.alive[0], self._cluster.world.loop.time
        assert first.node is not None
        deadline_s = now_s() + START_S
        while True:
            try:
                return await first.machine.run(first.node.gateway.control(request, timeout_ms=CREATE_MS))
            except (NotController, RequestTimedOut):
                if now_s() > deadline_s:
                    raise

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._alarm()
            self._oracle.logs.match()
            self._oracle.group_waits.check()

    def _alarm(self) -> None:
        """End the run with what was found inside the nodes, where the product may have swallowed it."""
        if self._oracle.violation is not None:
            raise self._oracle.violation
        self._cluster.raise_fatal()
        failures = self._cluster.world.loop.failures
        assert not failures, failures

    # --- after the faults ---------------------------------------------------------------------------------------

    async def _wait_whole(self) -> None:
        world = self._cluster.world
        deadline = world.loop.time() + WHOLE_S
        while (missing := self._missing()) is not None:
            if world.loop.time() > deadline:
                self._oracle.check(False, f"{WHOLE_S} s after the last fault the cluster is not whole: {missing}")
            self._alarm()
            await asyncio.sleep(LOOK_S)

    async def _read_everything(self) -> None:
        """Damage shows where somebody reads; then the log is mended from others, and the cluster is whole once more."""
        for _ in range(READS_MAX):
            looked = [self._reads_well(replica) for replica in self._replicas()]
            if all(looked):
                return
            await asyncio.sleep(CALM_S)
            await self._wait_whole()

    def _replicas(self) -> list[Replica]:
        nodes = [node.node for node in self._cluster.nodes.values() if node.node is not None]
        return [
            replica
            for node in nodes
            if node.replicas is not None
            for replica in node.replicas._registry.replicas.values()
        ]

    def _reads_well(self, replica: Replica) -> bool:
        try:
            _bytes_from(replica, replica.log.log_start_offset)
        except (CorruptMessage, KafkaStorageError):  # the latter: an index led nowhere, and the log went offline
            self._oracle.count("damage was read")
            return False
        return True

    def _missing(self) -> str | None:
        """What keeps the cluster from being whole; None when nothing does."""
        image = self._oracle.image
        for node in self._cluster.nodes.values():
            if node.node is None:
                return f"node {node.node_id} does not run"
            if node.node.log.image.offset != image.offset:
                return f"node {node.node_id} is at {node.node.log.image.offset} of {image.offset} in the metadata"
            if node.is_newcomer:
                return f"node {node.node_id} is no voter yet"
            ready, why = node.node.readiness()
            if not ready:
                return f"node {node.node_id}: {why}"
        for partition in image.all_partitions():
            if (missing := self._partition_missing(partition)) is not None:
                return missing
        return None

    def _partition_missing(self, partition: PartitionImage) -> str | None:
        key = TopicIdPartition(partition.topic_id, partition.partition)
        name = self._oracle.name(key)
        if self._is_stuck(key, partition):
            return None
        if not partition.has_leader or set(partition.isr) != set(partition.replicas) or partition.is_reassigning:
            return f"{name} is {partition}"
        ends = {}
        for node_id in partition.replicas:
            replica = self._oracle.replica(node_id, key)
            if replica is None:
                node = self._cluster.nodes[node_id].node
                assert node is not None and node.replicas is not None  # noqa: PT018
                return f"{name} has no replica on node {node_id}: {node.replicas._registry.offline.get(key)}"
            ends[node_id] = (replica.log.log_end_offset, replica.state.high_watermark)
        if len(set(ends.values())) > 1 or any(end != high_watermark for end, high_watermark in ends.values()):
            return f"{name} has (log end, high watermark) {ends}"
        return None

    def _is_stuck(self, key: TopicIdPartition, partition: PartitionImage) -> bool:
        """The one exception: the last log in sync is damaged, and nobody can get past that place."""
        (first, *others) = partition.isr
        is_stuck = (
            not others
            and first in self._oracle.promise.damaged.get(key, ())
            and self._oracle.promise.has_damage(first, key)
        )
        if is_stuck:
            self._oracle.count("the last log in sync is damaged")
            self._oracle.check(
                self._oracle.promise.may_lose(key), f"{self._oracle.name(key)} may not lose anything: {partition}"
            )
        return is_stuck

    def _judge(self) -> None:
        self._alarm()
        self._oracle.logs.match()
        contents = {}
        for partition in self._oracle.image.all_partitions():
            key = TopicIdPartition(partition.topic_id, partition.partition)
            contents[key] = self._same_everywhere(key, partition)
        self._remembered.judge({key: values for key, (_, values) in contents.items()})
        by_partition: dict[TopicIdPartition, list[Attempt]] = defaultdict(list)
        for attempt in self._oracle.attempts:
            by_partition[attempt.which].append(attempt)
        for key, attempts in by_partition.items():
            if key in contents:
                self._judge_partition(key, attempts, *contents[key])

    def _same_everywhere(self, key: TopicIdPartition, partition: PartitionImage) -> tuple[int, dict[int, bytes]]:
        """Log start, and offset -> value, after all replicas were found to have the same bytes."""
        replicas = {node_id: self._oracle.replica(node_id, key) for node_id in partition.replicas}
        start = max(replica.log.log_start_offset for replica in replicas.values() if replica is not None)
        is_stuck = self._is_stuck(key, partition)
        read = _readable_bytes_from if is_stuck else _bytes_from
        logs = {node_id: read(replica, start) for node_id, replica in replicas.items() if replica is not None}
        leader, is_excused = logs.get(partition.leader, b""), self._oracle.is_compacted(key)
        for node_id, data in logs.items():
            common = min(len(data), len(leader)) if is_stuck else None
            self._oracle.check(
                data[:common] == leader[:common] or is_excused,
                f"{self._oracle.name(key)}: nodes {node_id} and {partition.leader} have other bytes",
            )
        return start, {record.offset: record.value or b"" for record in read_batches(leader, from_offset=start)}

    def _judge_partition(
        self, key: TopicIdPartition, attempts: list[Attempt], start: int, found: dict[int, bytes]
    ) -> None:
        oracle, name = self._oracle, self._oracle.name(key)
        sent: Counter[bytes] = Counter()
        for attempt in attempts:
            if not attempt.is_surely_refused:
                sent.update(attempt.values)
        for value, times in Counter(found.values()).items():
            oracle.check(
                times <= sent[value], f"{name}: {value!r} is there {times} times and was sent {sent[value]} times"
            )
        for attempt in attempts:
            if not attempt.is_acked:
                continue
            assert attempt.outcome is not None
            for offset, value in enumerate(attempt.values, start=attempt.outcome.base_offset):
                if offset >= start and found.get(offset) != value:
                    self._lost(key, attempt, offset, value, found.get(offset))

    def _lost(self, key: TopicIdPartition, attempt: Attempt, offset: int, value: bytes, there: bytes | None) -> None:
        oracle = self._oracle
        assert attempt.outcome is not None
        oracle.count(f"acknowledged record lost, acks={attempt.acks}")
        if oracle.promise.may_lose_of(key, attempt.outcome.leader_epoch):
            return
        is_weak = attempt.acks == 1 and oracle.metadata.leader_epochs[key] > attempt.outcome.leader_epoch
        oracle.check(
            is_weak,
            f"{oracle.name(key)}: {value!r} was acknowledged (acks={attempt.acks}) at offset {offset} in epoch "
            f"{attempt.outcome.leader_epoch}, and is lost; there is {there!r}",
        )


def _readable_bytes_from(replica: Replica, start: int) -> bytes:
    """Up to where it is damaged."""
    data = b""
    with contextlib.suppress(CorruptMessage):
        offset = start
        while offset < replica.log.log_end_offset:
            read = replica.log.read(offset, bytes_max=1, upper_bound=replica.log.log_end_offset)
            data, offset = data + read.data, read.next_offset
    return data


def _bytes_from(replica: Replica, start: int) -> bytes:
    log, data, offset = replica.log, b"", start
    while offset < log.log_end_offset:
        read = log.read(offset, bytes_max=1 << 20, upper_bound=log.log_end_offset)
        if not read.data:
            break
        data, offset = data + read.data, read.next_offset
    return data
