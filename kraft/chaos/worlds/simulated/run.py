"""A scenario in virtual time: the nodes' own code on simulated machines in one thread, judged as a run of real nodes.

The same seed gives the same run. A minute of it takes a few seconds, and no process, port or folder of a node.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kraft.chaos.checkers.check import HISTORY_FILE, check_history
from kraft.chaos.checkers.expectation import judge
from kraft.chaos.evidence import Evidence, Fault, write_faults
from kraft.chaos.history import Header, HistoryWriter
from kraft.chaos.live import Watcher
from kraft.chaos.model import Expect, Scenario
from kraft.chaos.questions import Now
from kraft.chaos.report.page import Report
from kraft.chaos.result import RunResult
from kraft.chaos.run import is_healed, spec_of, write_whole_report
from kraft.chaos.story import Stage, told
from kraft.chaos.workload.cast import Cast
from kraft.chaos.worlds.processes.readback import unsettled_in
from kraft.chaos.worlds.processes.timeline import FAULTS_FILE
from kraft.chaos.worlds.simulated.clock import EPOCH_MS
from kraft.chaos.worlds.simulated.cluster import BOTH, SimulatedCluster
from kraft.chaos.worlds.simulated.environment import SimulatedWorld
from kraft.chaos.worlds.simulated.evidence import gather_evidence
from kraft.chaos.worlds.simulated.world import SimulatedStoryWorld
from kraft.chaos.worlds.spec import ScenarioError

HEALED_LIMIT_S: Final = 60.0
"""Virtual, from the end of the story until every replica is in sync again."""
SETTLE_LIMIT_S: Final = 20.0
LOOK_S: Final = 0.04
SAVED_S: Final = 2.0
"""Voters save how far they are about once a second."""


@dataclass(slots=True)
class _Ended:
    expect: Expect
    evidence: Evidence | None = None
    now: Now | None = None
    start_ms: int = 0


def run_simulated(
    scenario: Scenario,
    *,
    seed: int,
    watcher: Watcher,
    keep: bool = False,
    report: Path | None = None,
    source: str = "",
) -> RunResult:
    """Never raises for what a scenario can do wrong: the result says it."""
    begun = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix=f"kraft-{scenario.name}-"))
    watcher.begun(scenario)
    run = _Run(scenario, seed=seed, directory=directory, watcher=watcher)
    verdict = None
    try:
        ended = run.run()
        if ended.evidence is not None and ended.now is not None:
            watcher.phase("judging")
            verdict = judge(check_history(directory / HISTORY_FILE, ended.evidence), ended.expect, now=ended.now)
            watcher.ended(verdict)
            if report is not None:
                page = Report(
                    verdict=verdict,
                    history=directory / HISTORY_FILE,
                    evidence=ended.evidence,
                    sentence=scenario.sentence,
                    question=scenario.question,
                    command=f"kraft scenario run {source or scenario.name} --simulated --seed {seed}",
                )
                write_whole_report(report, directory, page)
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)
    return RunResult(
        scenario=scenario.name,
        seed=seed,
        elapsed_ms=round((time.monotonic() - begun) * 1000),
        start_ms=ended.start_ms,
        verdict=verdict,
        failure="; ".join(run.failures),
        directory=directory if keep else None,
    )


class _Run:
    def __init__(self, scenario: Scenario, *, seed: int, directory: Path, watcher: Watcher) -> None:
        self._scenario = scenario
        self._seed = seed
        self._directory = directory
        self._watcher = watcher
        self.failures: list[str] = []
        self._is_healed = True

    def run(self) -> _Ended:
        spec = spec_of(self._scenario.cluster)
        if tuple(spec.nodes) != tuple(range(1, len(spec.nodes) + 1)):
            self.failures.append(f"simulated nodes are numbered from 1 on, without gaps; these are {list(spec.nodes)}")
            return _Ended(self._scenario.expect)
        world = SimulatedWorld(self._seed)
        cluster = SimulatedCluster(
            world,
            settings={**PROCESS_DEFAULTS, **spec.settings},
            rates=(1.0,) * len(spec.nodes),
            roles=[tuple(node.roles) for node in spec.nodes.values()] or [BOTH],
            has_links_by_purpose=True,
        )
        self._watcher.phase(f"starting {len(spec.nodes)} simulated nodes")
        story_world = SimulatedStoryWorld(cluster, spec)
        try:
            return world.run(self._with(cluster, story_world))
        except Exception as error:  # noqa: BLE001 - what goes wrong inside the nodes is what this run found
            self.failures.append(f"inside the nodes: {_innermost(error)}")
            return _Ended(self._scenario.expect)

    async def _with(self, cluster: SimulatedCluster, world: SimulatedStoryWorld) -> _Ended:
        plan = self._scenario
        await cluster.start()
        start_ms = world.now_ms()
        header = Header(
            scenario=plan.name,
            seed=self._seed,
            settings={
                **plan.cluster.all_settings,
                "topics": {topic.name: dict(topic.configs) for topic in plan.topics},
            },
            start_us=world.now_us(),
            wall_ms=EPOCH_MS + world.now_ms(),
        )
        with HistoryWriter(self._directory / HISTORY_FILE, header) as history:
            cast = Cast(plan.clients, around=world, record=history.record)
            world.clients = cast
            for topic in plan.topics:
                await world.create_topic(topic.name, assignment=topic.assignment, configs=topic.configs)
            world.on_fault = _faults_to(self._watcher, since_us=world.now_us())
            sampling = asyncio.get_running_loop().create_task(world.sample_forever())
            stage = Stage(plan, world, self._watcher)
            try:
                await self._play(cluster, world, cast, stage)
            finally:
                sampling.cancel()
                await cast.close()
        now = await world.look()
        self._watcher.phase("reading everything back")
        await self._settle(world)
        await asyncio.sleep(SAVED_S)
        spec = spec_of(plan.cluster)
        evidence = await gather_evidence(cluster, world, spec=spec, header=header, directory=self._directory)
        write_faults(self._directory / FAULTS_FILE, world.faults)
        cluster.raise_fatal()
        return _Ended(stage.expected, evidence, now, start_ms)

    async def _play(self, cluster: SimulatedCluster, world: SimulatedStoryWorld, cast: Cast, stage: Stage) -> None:
        """Whatever goes wrong is noted, and the rest is done all the same."""
        self._watcher.phase("telling the story")
        await self._note(cast.open())
        await self._note(told(self._scenario.tell, stage))
        self._watcher.phase("healing")
        await self._note(world.mend())
        await self._note(self._until_healed(cluster, world))
        await self._note(cast.finish_producers())
        await self._note(self._until_healed(cluster, world))
        await self._note(cast.finish_all())

    async def _note(self, doing: Coroutine[Any, Any, None]) -> None:
        try:
            await doing
        except ScenarioError as error:
            self.failures.append(str(error))

    async def _until_healed(self, cluster: SimulatedCluster, world: SimulatedStoryWorld) -> None:
        if not self._is_healed:
            return
        deadline = cluster.world.loop.time() + HEALED_LIMIT_S
        while not is_healed(snapshot := world.snapshot()):
            cluster.raise_fatal()
            if cluster.world.loop.time() > deadline:
                self._is_healed = False
                raise ScenarioError(f"not every replica is in sync after {HEALED_LIMIT_S} s\n{snapshot.describe()}")
            await asyncio.sleep(LOOK_S)
        self._watcher.looked(snapshot)

    async def _settle(self, world: SimulatedStoryWorld) -> None:
        deadline = world.now_ms() + SETTLE_LIMIT_S * 1000
        while True:
            missing = unsettled_in(world.snapshot())
            if not missing or world.now_ms() >= deadline:
                break
            await asyncio.sleep(LOOK_S)
        if missing:
            self.failures.append(f"not settled: {missing}")


PROCESS_DEFAULTS: Final = {"default.replication.factor": 1, "min.insync.replicas": 1}
"""A simulated cluster has the project's defaults; stories are written against Kafka's."""


def _faults_to(watcher: Watcher, *, since_us: int) -> Callable[[Fault], None]:
    def tell(fault: Fault) -> None:
        watcher.happened(fault.text, after_ms=(fault.at_us - since_us) // 1000)

    return tell


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
