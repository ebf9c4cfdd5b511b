"""One scenario from its story to its verdict: start the cluster, tell the story, heal, read everything back, judge.

Everything a run makes lies in one folder, which is gone afterwards unless it is asked for. A story that breaks off is
healed and judged all the same: what was lost until then is worth knowing.
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

from kraft.chaos.checkers.check import EVENTS_FILE, FAULTS_FILE, HISTORY_FILE, check_history
from kraft.chaos.checkers.expectation import judge
from kraft.chaos.checkers.verdict import Verdict
from kraft.chaos.evidence import Evidence, Fault
from kraft.chaos.history import Header, HistoryWriter
from kraft.chaos.live import Watcher
from kraft.chaos.model import ClusterPlan, Expect, Scenario
from kraft.chaos.questions import Now
from kraft.chaos.report.page import Report, write_report
from kraft.chaos.result import RunResult
from kraft.chaos.story import Stage, told
from kraft.chaos.workload.cast import Cast
from kraft.chaos.worlds.processes.cluster import Cluster
from kraft.chaos.worlds.processes.event_counter import EventCounter
from kraft.chaos.worlds.processes.observer import NotInTime
from kraft.chaos.worlds.processes.readback import SETTLE_MS, gather_evidence
from kraft.chaos.worlds.processes.timeline import now_us
from kraft.chaos.worlds.processes.world import ProcessWorld
from kraft.chaos.worlds.snapshot import Snapshot
from kraft.chaos.worlds.spec import ClusterSpec, NodeSpec, ScenarioError
from kraft.config.models import Role
from kraft.launcher.node_starter import NodeStarter

HEALED_LIMIT_MS: Final = 60_000
"""From the end of the story until every replica is in sync again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """What is left when the cluster is gone."""

    evidence: Evidence | None
    now: Now | None
    """The healed cluster."""
    expect: Expect
    """What the scenario expects, and what its story has found out."""
    start_ms: int
    failures: tuple[str, ...]


async def run_scenario(
    scenario: Scenario,
    *,
    seed: int,
    watcher: Watcher,
    keep: bool = False,
    report: Path | None = None,
    source: str = "",
    starter: NodeStarter | None = None,
) -> RunResult:
    """Never raises for what a scenario can do wrong: the result says it.

    `source` is what the command was given, when that is not the scenario's name. Runs may share a `starter` of nodes.
    """
    begun_us = now_us()
    directory = Path(tempfile.mkdtemp(prefix=f"kraft-{scenario.name}-"))
    watcher.begun(scenario)
    try:
        ended = await _Run(scenario, directory=directory, seed=seed, watcher=watcher, starter=starter).run()
        verdict = await _judged(ended, directory, watcher)
        if report is not None and verdict is not None and ended.evidence is not None:
            page = Report(
                verdict=verdict,
                history=directory / HISTORY_FILE,
                evidence=ended.evidence,
                sentence=scenario.sentence,
                question=scenario.question,
                command=f"kraft scenario run {source or scenario.name} --seed {seed}",
            )
            await asyncio.to_thread(write_whole_report, report, directory, page)
    finally:
        if not keep:
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
    return RunResult(
        scenario=scenario.name,
        seed=seed,
        elapsed_ms=(now_us() - begun_us) // 1000,
        start_ms=ended.start_ms,
        verdict=verdict,
        failure="; ".join(ended.failures),
        directory=directory if keep else None,
    )


class _Run:
    """The part of a run in which there is a cluster."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        directory: Path,
        seed: int,
        watcher: Watcher,
        starter: NodeStarter | None = None,
    ) -> None:
        self._scenario = scenario
        self._starter = starter
        self._directory = directory
        self._seed = seed
        self._watcher = watcher
        self._failures: list[str] = []
        self._is_healed = True
        """False once the limit was passed: it is not waited for a second time."""

    async def run(self) -> _Ended:
        begun_us = now_us()
        spec = spec_of(self._scenario.cluster)
        self._watcher.phase(f"starting {len(spec.nodes)} nodes")
        try:
            starting = Cluster.start(spec, directory=self._directory, seed=self._seed, starter=self._starter)
            async with starting as cluster:
                return await self._with(cluster, start_ms=(now_us() - begun_us) // 1000)
        except (ScenarioError, NotInTime) as error:
            self._failures.append(f"the cluster could not be started: {error}")
        return _Ended(evidence=None, now=None, expect=self._scenario.expect, start_ms=0, failures=tuple(self._failures))

    async def _with(self, cluster: Cluster, *, start_ms: int) -> _Ended:
        for topic in self._scenario.topics:
            await cluster.admin.create_topic(topic.name, assignment=topic.assignment, configs=topic.configs)
        cluster.timeline.watch(_faults_to(self._watcher, since_us=now_us()))
        header = self._header()
        with HistoryWriter(self._directory / HISTORY_FILE, header) as history:
            cast = Cast(self._scenario.clients, around=cluster, record=history.record)
            world = ProcessWorld(cluster, cast, count_events=_event_counter(cluster), watcher=self._watcher)
            stage = Stage(self._scenario, world, self._watcher)
            try:
                await self._play(cluster, cast, stage)
            finally:
                await cast.close()
        now = await world.look()
        self._watcher.phase("reading everything back")
        settle_ms = SETTLE_MS if self._is_healed else 0
        evidence = await gather_evidence(cluster, header=header, settle_ms=settle_ms)
        return _Ended(
            evidence=evidence, now=now, expect=stage.expected, start_ms=start_ms, failures=tuple(self._failures)
        )

    async def _play(self, cluster: Cluster, cast: Cast, stage: Stage) -> None:
        """Whatever goes wrong is noted, and the rest is done all the same."""
        self._watcher.phase("telling the story")
        await self._note(cast.open())
        await self._note(told(self._scenario.tell, stage))
        self._watcher.phase("healing")
        await self._note(cluster.mend())
        await self._note(self._until_healed(cluster))
        await self._note(cast.finish_producers())
        await self._note(self._until_healed(cluster))
        await self._note(cast.finish_all())

    async def _note(self, doing: Coroutine[Any, Any, None]) -> None:
        try:
            await doing
        except (ScenarioError, NotInTime) as error:
            self._failures.append(str(error))

    async def _until_healed(self, cluster: Cluster) -> None:
        if not self._is_healed:
            return
        self._is_healed = False
        await cluster.until_ready(deadline_ms=HEALED_LIMIT_MS)
        snapshot = await cluster.observer.until(
            is_healed, deadline_ms=HEALED_LIMIT_MS, describe="every replica in sync"
        )
        self._watcher.looked(snapshot)
        self._is_healed = True

    def _header(self) -> Header:
        plan = self._scenario
        topics = {topic.name: dict(topic.configs) for topic in plan.topics}
        return Header(
            scenario=plan.name,
            seed=self._seed,
            settings={**plan.cluster.all_settings, "topics": topics},
            start_us=now_us(),
            wall_ms=time.time_ns() // 1_000_000,
        )


def spec_of(plan: ClusterPlan) -> ClusterSpec:
    nodes = {}
    for node in plan.node_ids:
        roles: list[Role] = ["broker"] if node in plan.brokers else []
        roles += ["controller"] if node in plan.controllers else []
        nodes[node] = NodeSpec(roles=tuple(roles))
    return ClusterSpec(nodes=nodes, settings=plan.all_settings)


def is_healed(snapshot: Snapshot) -> bool:
    """Every partition has a leader and a full ISR, all nodes know it, and what leaders have is visible."""
    newest = snapshot.newest
    if newest is None or len(snapshot.views) < len(snapshot.states):
        return False
    if any(view.metadata_offset < newest.metadata_offset for view in snapshot.views.values()):
        return False
    for (topic, partition), found in newest.partitions.items():
        leader = snapshot.replica(topic, partition, node=found.leader)
        if found.is_reassigning or leader is None or set(found.isr) != set(found.replicas):
            return False
        if leader.role != "leader" or leader.high_watermark < 0:
            return False
    return True


def _event_counter(cluster: Cluster) -> Callable[[str, int | None], int]:
    return EventCounter(cluster.files.data).count


def _faults_to(watcher: Watcher, *, since_us: int) -> Callable[[Fault], None]:
    def tell(fault: Fault) -> None:
        watcher.happened(fault.text, after_ms=(fault.at_us - since_us) // 1000)

    return tell


def write_whole_report(folder: Path, directory: Path, report: Report) -> None:
    """The page and the verdict, and beside them what they were made from: `kraft scenario check` reads it again."""
    write_report(folder, report)
    for name in (HISTORY_FILE, EVENTS_FILE, FAULTS_FILE):
        shutil.copyfile(directory / name, folder / name)


async def _judged(ended: _Ended, directory: Path, watcher: Watcher) -> Verdict | None:
    if ended.evidence is None or ended.now is None:
        return None
    watcher.phase("judging")
    verdict = await asyncio.to_thread(check_history, directory / HISTORY_FILE, ended.evidence)
    verdict = judge(verdict, ended.expect, now=ended.now)
    watcher.ended(verdict)
    return verdict
