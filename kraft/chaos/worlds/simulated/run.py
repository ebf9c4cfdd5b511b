"""A scenario in virtual time: the nodes' own code on simulated machines in one thread, judged as a run of real nodes.

The same seed gives the same run. A virtual minute takes a few seconds, without processes, ports or folders of nodes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from kraft.chaos.evidence import Evidence, Fault, write_faults
from kraft.chaos.history import Header
from kraft.chaos.live import Watcher
from kraft.chaos.model import Scenario, Topic
from kraft.chaos.result import RunResult
from kraft.chaos.run import Run
from kraft.chaos.worlds.processes.timeline import FAULTS_FILE
from kraft.chaos.worlds.simulated.clock import EPOCH_MS
from kraft.chaos.worlds.simulated.cluster import BOTH, SimulatedCluster
from kraft.chaos.worlds.simulated.environment import SimulatedWorld
from kraft.chaos.worlds.simulated.evidence import gather_evidence
from kraft.chaos.worlds.simulated.world import SimulatedStoryWorld
from kraft.chaos.worlds.snapshot import Snapshot, not_in_sync, unsettled
from kraft.chaos.worlds.spec import ScenarioError
from kraft.chaos.worlds.world import Clients

IN_SYNC_LIMIT_S: Final = 60.0
"""The limit in virtual time from the end of the story until every replica is in sync."""
SETTLE_LIMIT_S: Final = 20.0
LOOK_S: Final = 0.04
SAVED_S: Final = 2.0
"""Voters save their commit index about once a second."""
PROCESS_DEFAULTS: Final = {"default.replication.factor": 1, "min.insync.replicas": 1}
"""Stories expect Kafka's defaults; a simulated cluster has those of the project."""


def run_simulated(
    scenario: Scenario,
    *,
    seed: int,
    watcher: Watcher,
    keep: bool = False,
    report: Path | None = None,
    source: str = "",
) -> RunResult:
    """Run a scenario. A mistake of the scenario is never raised: the result contains it."""
    run = Run(scenario, seed=seed, watcher=watcher, keep=keep)
    try:
        _tell(run, seed=seed, watcher=watcher)
        return run.conclude(report=report, command=f"{source or scenario.name} --simulated")
    finally:
        run.remove_folder()


def _tell(run: Run, *, seed: int, watcher: Watcher) -> None:
    spec = run.spec
    if tuple(spec.nodes) != tuple(range(1, len(spec.nodes) + 1)):
        run.failures.append(f"simulated nodes are numbered from 1 on, without gaps; these are {list(spec.nodes)}")
        return
    world = SimulatedWorld(seed)
    cluster = SimulatedCluster(
        world,
        settings={**PROCESS_DEFAULTS, **spec.settings},
        rates=(1.0,) * len(spec.nodes),
        roles=[tuple(node.roles) for node in spec.nodes.values()] or [BOTH],
        has_links_by_purpose=True,
    )
    watcher.phase(f"starting {len(spec.nodes)} simulated nodes")
    bed = SimulatedTestbed(cluster, SimulatedStoryWorld(cluster, spec), directory=run.directory)
    try:
        world.run(_with(run, cluster, bed))
    except Exception as error:  # noqa: BLE001 - what goes wrong inside the nodes is what this run found
        run.failures.append(f"inside the nodes: {_innermost(error)}")


async def _with(run: Run, cluster: SimulatedCluster, bed: SimulatedTestbed) -> None:
    await cluster.start()
    sampling = asyncio.get_running_loop().create_task(bed.client_world.sample_forever())
    try:
        await run.run_on_cluster(bed, start_ms=bed.client_world.now_ms())
    finally:
        sampling.cancel()
    cluster.raise_fatal()


class SimulatedTestbed:
    """Implements `Testbed`."""

    def __init__(self, cluster: SimulatedCluster, world: SimulatedStoryWorld, *, directory: Path) -> None:
        self._cluster = cluster
        self._world = world
        self._directory = directory

    @property
    def client_world(self) -> SimulatedStoryWorld:
        return self._world

    def wall_ms(self) -> int:
        return EPOCH_MS + self._world.now_ms()

    async def create_topic(self, topic: Topic) -> None:
        await self._world.create_topic(topic.name, assignment=topic.assignment, configs=topic.configs)

    def watch_faults(self, watcher: Callable[[Fault], None]) -> None:
        self._world.on_fault = watcher

    def world(self, clients: Clients, _watcher: Watcher) -> SimulatedStoryWorld:
        self._world.clients = clients
        return self._world

    async def mend(self) -> None:
        await self._world.mend()

    async def until_in_sync(self) -> Snapshot:
        missing, snapshot = await self._until_nothing(not_in_sync, limit_s=IN_SYNC_LIMIT_S)
        if missing:
            raise ScenarioError(f"not in sync after {IN_SYNC_LIMIT_S} s: {missing}\n{snapshot.describe()}")
        return snapshot

    async def gather(self, header: Header, *, settles: bool, groups: Sequence[str]) -> Evidence:
        missing, _ = await self._until_nothing(unsettled, limit_s=SETTLE_LIMIT_S if settles else 0)
        await asyncio.sleep(SAVED_S)
        write_faults(self._directory / FAULTS_FILE, self._world.faults)
        evidence = await gather_evidence(
            self._cluster, self._world, header=header, directory=self._directory, groups=groups
        )
        return replace(evidence, notes={**evidence.notes, "unsettled": missing}) if missing else evidence

    async def _until_nothing(self, missing_in: Callable[[Snapshot], str], *, limit_s: float) -> tuple[str, Snapshot]:
        """Wait until nothing is missing, or the limit; returns what is missing, and the last snapshot."""
        deadline = self._cluster.world.loop.time() + limit_s
        while True:
            missing = missing_in(snapshot := self._world.snapshot())
            self._cluster.raise_fatal()
            if not missing or self._cluster.world.loop.time() >= deadline:
                return missing, snapshot
            await asyncio.sleep(LOOK_S)


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
