"""One run: a cluster under load while the events of a plan happen, then calm, then the last judgement.

A run ends with the first violation, or when the calm cluster is whole: everything led, every ISR full, all replicas the
same, every acknowledged record where it was acknowledged, as far as the promise goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from kraft.chaos.worlds.simulated.cluster import SimulatedCluster
from kraft.chaos.worlds.simulated.environment import SimulatedWorld
from kraft.node.assembly import Node
from kraft.protocol.errors import NotController, RequestTimedOut, TopicAlreadyExists
from metadata.controller.requests import CreateTopics, ErrorDetail, NewTopic, TopicCreated
from tests.simulation.clients import start_clients
from tests.simulation.convergence import Convergence
from tests.simulation.delayed_clients import DelayedClients
from tests.simulation.delayed_plan import few_records
from tests.simulation.faults import Faults
from tests.simulation.final_check import FinalCheck
from tests.simulation.hooks import listening
from tests.simulation.oracle import Oracle
from tests.simulation.pieces_plan import small_steps
from tests.simulation.plan import Plan
from tests.simulation.queue_clients import QueueClients
from tests.simulation.routed_clients import RoutedClients
from tests.simulation.routed_plan import short_transactions
from tests.simulation.stateful_clients import StatefulClients
from tests.simulation.transactional import TransactionalClients
from tests.simulation.transactional_plan import few_epochs

START_S = 30
WHOLE_S = 30
"""Virtual time after the last fault within which the cluster has to be whole."""
CALM_S = 0.5
LOOK_S = 0.1
RUN_S_MAX = 500
"""Virtual time of a run; most take 5 to 30 s. Each wait in it has a limit of its own, and all of them take less: a run
that reaches this one has a client that retries for ever."""
CREATE_MS = 5_000
READS_MAX = 4
"""How often all logs are read at the end: two members that are both damaged are mended one after the other."""


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
    began = time.perf_counter()  # for the reported speed; the simulated world never uses it
    world = SimulatedWorld(plan.seed)
    world.loop.s_max = RUN_S_MAX
    if keeps_trace:
        world.lines = []
    cluster = SimulatedCluster(world, settings=plan.settings, rates=plan.rates, roles=plan.roles, is_new=plan.is_new)
    oracle = Oracle(cluster)
    failure: BaseException | None = None
    with (
        _no_collections(),
        small_steps(plan.profile),
        few_epochs(plan.profile),
        few_records(plan.profile),
        short_transactions(plan.profile),
        listening(oracle),
    ):
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
        self._remembered = StatefulClients(plan, oracle)
        self._wholeness = Convergence(oracle)
        self._transactional = TransactionalClients(plan, oracle)
        self._queues = QueueClients(plan, oracle)
        self._delayed = DelayedClients(plan, oracle)
        self._routed = RoutedClients(plan, oracle)
        self._judgement = FinalCheck(
            oracle, (self._remembered.judge, self._queues.judge, self._delayed.judge), self._wholeness
        )
        for node in cluster.nodes.values():
            node.machine.disk.sync_us = plan.sync_us
            node.machine.disk.tears_sectors = plan.strange.tears_sectors
            node.hop_us = plan.strange.hop_us
            node.on_made = self._watcher(node.node_id)
        cluster.world.network.turn_us = plan.strange.turn_us
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
            self._transactional.start(clients)
            self._queues.start(clients)
            self._delayed.start(clients)
            self._routed.start(clients)
            looking = clients.create_task(self._look())
            await asyncio.sleep(0.2)
            await faults.play()
            await faults.heal()
            self._oracle.note("calm")
            await asyncio.sleep(CALM_S)
            for client in everyone:
                client.is_stopping = True
            await self._remembered.finish()
            await self._transactional.finish()
            await self._delayed.finish()
            await self._routed.finish()
            await self._queues.finish()
            await self._wait_whole()
            await self._transactional.read_back()
            await self._routed.read_back()
            looking.cancel()
        # What clients sent last may still be on its way: to the leader (acks=0), or from it to the others.
        await asyncio.sleep(CALM_S)
        await self._wait_whole()
        await self._read_everything()
        self._alarm()
        self._judgement.judge()
        self._transactional.judge()
        self._routed.judge()

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
        """An administrator: retries while there is no controller, or after a lost answer."""
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
        while missing := self._wholeness.missing():
            if world.loop.time() > deadline:
                self._oracle.fail(f"{WHOLE_S} s after the last fault the cluster is not whole: {missing}")
            self._alarm()
            await asyncio.sleep(LOOK_S)

    async def _read_everything(self) -> None:
        """Damage shows where somebody reads; then the log is mended from others, and the cluster is whole once more."""
        for _ in range(READS_MAX):
            if self._wholeness.reads_well():
                return
            await asyncio.sleep(CALM_S)
            await self._wait_whole()
