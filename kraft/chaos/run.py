"""One scenario from its story to its verdict, on any world: tell the story, heal, read everything back, judge.

Everything a run makes lies in one folder, which is gone afterwards unless it is asked for. A story that breaks off is
healed and judged all the same: what was lost until then is worth knowing. Who starts the cluster is
`kraft.chaos.worlds.processes.run` or `kraft.chaos.worlds.simulated.run`.
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
from kraft.chaos.story import Stage, told
from kraft.chaos.workload.cast import Cast
from kraft.chaos.workload.targets import Surroundings
from kraft.chaos.worlds.snapshot import Snapshot
from kraft.chaos.worlds.spec import ClusterSpec, NodeSpec, ScenarioError
from kraft.chaos.worlds.world import Clients, World
from kraft.config.models import Role


class Testbed(Protocol):
    """A started cluster, as a run needs it: what comes before and after the story."""

    @property
    def around(self) -> Surroundings:
        """What its clients need."""
        ...

    async def create_topic(self, topic: model.Topic) -> None:
        """Raises ScenarioError."""
        ...

    def watch_faults(self, watcher: Callable[[Fault], None]) -> None:
        """Called with every fault when it begins."""
        ...

    def world(self, clients: Clients, watcher: Watcher) -> World:
        """What the story is told on."""
        ...

    def wall_ms(self) -> int:
        """The time of day."""
        ...

    async def mend(self) -> None:
        """Links, disks and nodes work again. Raises ScenarioError."""
        ...

    async def until_in_sync(self) -> Snapshot:
        """Every replica is in sync again. Raises ScenarioError when that takes too long."""
        ...

    async def gather(self, header: Header, *, settles: bool, groups: Sequence[str]) -> Evidence:
        """When clients have finished and faults are mended. `settles`: it is waited for until the records are
        everywhere; what is missing then is the note `unsettled`. `groups`: those whose committed offsets count."""
        ...


class Run:
    """Made for each run, and told of the cluster once it has started. Nothing that a scenario can do wrong is raised:
    the result says it."""

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
        """The healed cluster."""
        self._expect = scenario.expect
        """What the scenario expects, and what its story has found out."""
        self._is_in_sync = True
        """False once the limit was passed: it is not waited for a second time."""
        watcher.begun(scenario)

    async def tell(self, bed: Testbed, *, start_ms: int) -> None:
        """The whole part of a run in which there is a cluster. `start_ms` is what its start took."""
        self._start_ms = start_ms
        for topic in self._scenario.topics:
            await bed.create_topic(topic)
        bed.watch_faults(_faults_to(self._watcher, since_us=bed.around.now_us()))
        header = self._header(bed)
        with HistoryWriter(self.directory / HISTORY_FILE, header) as history:
            cast = Cast(self._scenario.clients, around=bed.around, record=history.record)
            world = bed.world(cast, self._watcher)
            stage = Stage(self._scenario, world, self._watcher)
            try:
                await self._play(bed, cast, stage)
            finally:
                await cast.close()
        now = await world.look()
        self._watcher.phase("reading everything back")
        with_groups = (model.Member, model.Transactor)
        groups = sorted({each.group for each in self._scenario.clients if isinstance(each, with_groups) and each.group})
        self._evidence = await bed.gather(header, settles=self._is_in_sync, groups=groups)
        if missing := self._evidence.notes.get("unsettled"):
            self.failures.append(f"not settled: {missing}")
        self._now, self._expect = now, stage.expected

    async def _play(self, bed: Testbed, cast: Cast, stage: Stage) -> None:
        """Whatever goes wrong is noted, and the rest is done all the same."""
        self._watcher.phase("telling the story")
        await self._note(cast.open())
        await self._note(told(self._scenario.tell, stage))
        self._watcher.phase("healing")
        await self._note(bed.mend())
        await self._note(self._until_in_sync(bed))
        await self._note(cast.finish_producers())
        await self._note(self._until_in_sync(bed))
        await self._note(cast.finish_all())

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
            settings={**plan.cluster.all_settings, "topics": topics},
            start_us=bed.around.now_us(),
            wall_ms=bed.wall_ms(),
        )

    # --- when the cluster is gone -----------------------------------------------------------------------------------

    def conclude(self, *, report: Path | None = None, command: str = "") -> RunResult:
        """Judge, and write the report into that folder; `command` is how to run it again. Takes as long as there are
        records, and blocks."""
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
        """The page and the verdict, and beside them what they were made from: `kraft scenario check` reads it again."""
        write_report(folder, report)
        for name in (HISTORY_FILE, EVENTS_FILE, FAULTS_FILE):
            shutil.copyfile(self.directory / name, folder / name)

    def remove_folder(self) -> None:
        """Unless it is kept. Blocks."""
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
    def tell(fault: Fault) -> None:
        watcher.happened(fault.text, after_ms=(fault.at_us - since_us) // 1000)

    return tell
