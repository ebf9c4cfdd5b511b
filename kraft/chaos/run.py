"""One scenario from its story to its verdict, in any world: run the story, heal all faults, read all records, judge.

All files of a run are in one folder, which is removed afterwards unless the caller keeps it. A story that breaks off is
healed and judged too, because the losses until then are of interest. `kraft.chaos.worlds.processes.run` or
`kraft.chaos.worlds.simulated.run` starts the cluster.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

from kraft.chaos import model
from kraft.chaos.checkers.check import EVENTS_FILE, FAULTS_FILE, HISTORY_FILE, check_history
from kraft.chaos.checkers.expectation import judge
from kraft.chaos.checkers.verdict import Verdict
from kraft.chaos.evidence import Evidence, Fault
from kraft.chaos.history import Header, HistoryWriter
from kraft.chaos.live import Watcher
from kraft.chaos.questions import Now
from kraft.chaos.report.page import Report, write_report
from kraft.chaos.result import RunResult
from kraft.chaos.story import ScenarioRun, run_story
from kraft.chaos.workload.scenario_clients import ScenarioClients
from kraft.chaos.workload.targets import ClientWorld
from kraft.chaos.worlds.snapshot import Snapshot
from kraft.chaos.worlds.spec import ClusterSpec, NodeSpec, ScenarioError
from kraft.chaos.worlds.world import Clients, World
from kraft.config.models import Role
from metadata.settings import without_secrets


class Testbed(Protocol):
    """A started cluster: what a run does with it before and after the story."""

    @property
    def client_world(self) -> ClientWorld:
        """The world that clients of the scenario use."""
        ...

    async def create_topic(self, topic: model.Topic) -> None:
        """Raises ScenarioError."""
        ...

    def watch_faults(self, watcher: Callable[[Fault], None]) -> None:
        """`watcher` is called with each fault when the fault begins."""
        ...

    def world(self, clients: Clients, watcher: Watcher) -> World:
        """The world of the story."""
        ...

    def wall_ms(self) -> int:
        """The time of day."""
        ...

    async def mend(self) -> None:
        """Heal all links, disks and nodes. Raises ScenarioError."""
        ...

    async def until_in_sync(self) -> Snapshot:
        """Wait until every replica is in sync. Raises ScenarioError at the limit."""
        ...

    async def gather(self, header: Header, *, settles: bool, groups: Sequence[str]) -> Evidence:
        """Collect the evidence, after clients have finished and faults are healed. `settles`: wait until the records
        are on all replicas; the note `unsettled` names what is missing at the limit. `groups`: the groups whose
        committed offsets count."""
        ...


class Run:
    """One run of a scenario. `run_on_cluster` gets the started cluster. A mistake of the scenario is never raised: the
    result contains it."""

    def __init__(self, scenario: model.Scenario, *, seed: int, watcher: Watcher, keep: bool = False) -> None:
        self._scenario = scenario
        self._seed = seed
        self._watcher = watcher
        self._keep = keep
        self._begun = time.monotonic()
        self.directory = Path(tempfile.mkdtemp(prefix=f"kraft-{scenario.name}-"))
        self.spec = spec_of(scenario.cluster)
        self.failures: list[str] = []
        self._start_ms = 0
        self._evidence: Evidence | None = None
        self._now: Now | None = None
        """The cluster after healing."""
        self._expect = scenario.expect
        """The expectation of the scenario, with the counts that the story measured."""
        self._is_in_sync = True
        """False after the limit was passed once: there is no second wait."""
        watcher.begun(scenario)

    async def run_on_cluster(self, bed: Testbed, *, start_ms: int) -> None:
        """Run the story, heal the cluster and collect evidence. `start_ms` is the time that the start took."""
        self._start_ms = start_ms
        for topic in self._scenario.topics:
            await bed.create_topic(topic)
        bed.watch_faults(_faults_to(self._watcher, since_us=bed.client_world.now_us()))
        header = self._header(bed)
        with HistoryWriter(self.directory / HISTORY_FILE, header) as history:
            clients = ScenarioClients(self._scenario.clients, client_world=bed.client_world, record=history.record)
            world = bed.world(clients, self._watcher)
            story_run = ScenarioRun(self._scenario, world, self._watcher)
            try:
                await self._play(bed, clients, story_run)
            finally:
                await clients.close()
        now = await world.look()
        self._watcher.phase("reading all records")
        with_groups = (model.Member, model.Transactor)
        groups = sorted({each.group for each in self._scenario.clients if isinstance(each, with_groups) and each.group})
        self._evidence = await bed.gather(header, settles=self._is_in_sync, groups=groups)
        if missing := self._evidence.notes.get("unsettled"):
            self.failures.append(f"not settled: {missing}")
        self._now, self._expect = now, story_run.expected

    async def _play(self, bed: Testbed, clients: ScenarioClients, story_run: ScenarioRun) -> None:
        """Run all parts in order; a failure of one is recorded, and the next one runs."""
        self._watcher.phase("running the story")
        await self._note(clients.open())
        await self._note(run_story(self._scenario.story, story_run))
        self._watcher.phase("healing")
        await self._note(bed.mend())
        await self._note(self._until_in_sync(bed))
        await self._note(clients.finish_producers())
        await self._note(self._until_in_sync(bed))
        await self._note(clients.finish_all())

    async def _note(self, doing: Coroutine[Any, Any, None]) -> None:
        try:
            await doing
        except ScenarioError as error:
            self.failures.append(str(error))

    async def _until_in_sync(self, bed: Testbed) -> None:
        if not self._is_in_sync:
            return
        self._is_in_sync = False
        self._watcher.looked(await bed.until_in_sync())
        self._is_in_sync = True

    def _header(self, bed: Testbed) -> Header:
        plan = self._scenario
        topics = {topic.name: dict(topic.configs) for topic in plan.topics}
        return Header(
            scenario=plan.name,
            seed=self._seed,
            settings=without_secrets({**plan.cluster.all_settings, "topics": topics}),
            start_us=bed.client_world.now_us(),
            wall_ms=bed.wall_ms(),
        )

    # --- when the cluster is gone -----------------------------------------------------------------------------------

    def conclude(self, *, report: Path | None = None, command: str = "") -> RunResult:
        """Judge the history, and write the report into the folder; `command` repeats the run. Blocks; the time grows
        with the number of records."""
        verdict = self._judged()
        if report is not None and verdict is not None and self._evidence is not None:
            page = Report(
                verdict=verdict,
                history=self.directory / HISTORY_FILE,
                evidence=self._evidence,
                sentence=self._scenario.sentence,
                question=self._scenario.question,
                command=f"kraft scenario run {command or self._scenario.name} --seed {self._seed}",
            )
            self._write_whole_report(report, page)
        return RunResult(
            scenario=self._scenario.name,
            seed=self._seed,
            elapsed_ms=round((time.monotonic() - self._begun) * 1000),
            start_ms=self._start_ms,
            verdict=verdict,
            failure="; ".join(self.failures),
            directory=self.directory if self._keep else None,
        )

    def _judged(self) -> Verdict | None:
        if self._evidence is None or self._now is None:
            return None
        self._watcher.phase("judging")
        verdict = judge(check_history(self.directory / HISTORY_FILE, self._evidence), self._expect, now=self._now)
        self._watcher.ended(verdict)
        return verdict

    def _write_whole_report(self, folder: Path, report: Report) -> None:
        """Write the page and the verdict, and the files that they were made from: `kraft scenario check` reads them."""
        write_report(folder, report)
        for name in (HISTORY_FILE, EVENTS_FILE, FAULTS_FILE):
            shutil.copyfile(self.directory / name, folder / name)

    def remove_folder(self) -> None:
        """Remove the folder unless it is kept. Blocks."""
        if not self._keep:
            shutil.rmtree(self.directory, ignore_errors=True)


def spec_of(plan: model.ClusterPlan) -> ClusterSpec:
    nodes = {}
    for node in plan.node_ids:
        roles: list[Role] = ["broker"] if node in plan.brokers else []
        roles += ["controller"] if node in plan.controllers else []
        nodes[node] = NodeSpec(roles=tuple(roles))
    return ClusterSpec(nodes=nodes, settings=plan.all_settings)


def _faults_to(watcher: Watcher, *, since_us: int) -> Callable[[Fault], None]:
    def run_on_cluster(fault: Fault) -> None:
        watcher.happened(fault.text, after_ms=(fault.at_us - since_us) // 1000)

    return run_on_cluster
