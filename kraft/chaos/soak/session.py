"""One soak: a cluster of three nodes, clients, random faults until the time is up, and the verdict.

A soak consists of rounds. One seed decides the random faults of a round; at its end all faults are healed, and all
replicas must be in sync within a limit. Memory is bounded: the history is on disk, rates are fixed, and the state of
nodes and members does not grow with the records.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Final

from kraft.chaos.checkers.check import HISTORY_FILE, check_history
from kraft.chaos.checkers.expectation import judge
from kraft.chaos.checkers.verdict import Verdict
from kraft.chaos.history import Header, HistoryWriter
from kraft.chaos.live import NobodyWatches
from kraft.chaos.model import ClusterPlan
from kraft.chaos.questions import Now
from kraft.chaos.run import spec_of
from kraft.chaos.soak.faults import ClusterState, next_fault
from kraft.chaos.soak.leaks import Usage, growth_of
from kraft.chaos.soak.members import GroupCounts, Members
from kraft.chaos.soak.plan import (
    EXPECT,
    GROUP,
    GROUP_TOPIC,
    MEMBER_PLACES,
    PACE,
    SETTINGS,
    TOPIC_SETTINGS,
    SoakOptions,
    clients_of,
    is_judged,
    topics_of,
)
from kraft.chaos.soak.result import SoakResult
from kraft.chaos.workload.scenario_clients import ScenarioClients
from kraft.chaos.worlds.processes.cluster import Cluster
from kraft.chaos.worlds.processes.event_counter import EventCounter
from kraft.chaos.worlds.processes.readback import gather_evidence
from kraft.chaos.worlds.processes.timeline import now_us
from kraft.chaos.worlds.processes.world import ProcessWorld
from kraft.chaos.worlds.snapshot import not_in_sync
from kraft.chaos.worlds.spec import ScenarioError

ROUND_S: Final = 240.0
"""The number of faults in a round."""
ROUNDS_MIN: Final = 2
WHOLE_LIMIT_MS: Final = 240_000
"""The limit from healing until every replica is in sync."""
GROUP_LIMIT_S: Final = 120.0
"""The limit for one member to read the remaining records."""
USAGE_S: Final = 5.0
TELL_S: Final = 20.0
STRIKE_LIMIT_S: Final = 400.0
"""The limit of one fault; longer than the limits of the pace."""

CHANGES: Final = ("elect", "reassign")
CHANGE_LIMIT_S: Final = 10.0
"""The limit of an action that needs a controller, so that another fault can be healed when there is none."""

Say = Callable[[str], None]


async def soak(options: SoakOptions, *, say: Say, keep: bool = False) -> SoakResult:
    """Run a soak. A failure of the cluster is never raised: the result contains it. The files of a failed soak are
    kept."""
    directory = Path(tempfile.mkdtemp(prefix=f"kraft-soak-{options.seed}-"))
    result = await _Soak(options, directory, say).run()
    if keep or result.exit_code:
        return result
    await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
    return SoakResult(**{name: getattr(result, name) for name in result.__slots__} | {"directory": None})


class _Soak:
    def __init__(self, options: SoakOptions, directory: Path, say: Say) -> None:
        self._options = options
        self._directory = directory
        self._say = say
        self._rng = Random(f"soak/{options.seed}")
        self._begun_us = now_us()
        self._faults: Counter[str] = Counter()
        self._whole_ms: list[int] = []
        self._usage: dict[int, list[Usage]] = {}
        self._failures: list[str] = []
        self._group = GroupCounts()
        self._verdict: Verdict | None = None

    async def run(self) -> SoakResult:
        spec = spec_of(ClusterPlan(settings=SETTINGS))
        self._say(f"soak of {self._options.minutes:g} minutes, seed {self._options.seed}, in {self._directory}")
        try:
            starting = Cluster.start(spec, directory=self._directory, seed=self._options.seed, pace=PACE)
            async with starting as cluster:
                await self._with(cluster)
        except ScenarioError as error:
            self._fail(f"the soak broke off: {error}")
        return SoakResult(
            options=self._options,
            elapsed_ms=(now_us() - self._begun_us) // 1_000,
            faults=self._faults,
            whole_ms=tuple(self._whole_ms),
            group=self._group,
            growth=growth_of(self._usage, replicas=self._options.partitions),
            verdict=self._verdict,
            failures=tuple(self._failures),
            directory=self._directory,
        )

    def _fail(self, problem: str) -> None:
        self._failures.append(problem)
        self._report(f"PROBLEM: {problem}")

    def _report(self, text: str) -> None:
        seconds = (now_us() - self._begun_us) // 1_000_000
        self._say(f"{seconds // 60:4}:{seconds % 60:02}  {text}")

    async def _with(self, cluster: Cluster) -> None:
        topics = topics_of(self._options)
        for topic, partitions in topics.items():
            await cluster.admin.create_topic(topic, partitions=partitions, replication_factor=3, configs=TOPIC_SETTINGS)
        self._report(f"{len(topics)} topics with {sum(topics.values())} partitions are led")
        header = self._header()
        with HistoryWriter(self._directory / HISTORY_FILE, header) as history:
            clients = ScenarioClients(clients_of(self._options), client_world=cluster, record=history.record)
            members = Members(GROUP, GROUP_TOPIC, places=MEMBER_PLACES, seed=self._options.seed, client_world=cluster)
            self._group = members.counts
            try:
                async with self._watched(cluster, clients):
                    await self._play(cluster, clients, members)
            finally:
                await clients.close()
                await members.close()
        await self._judge(cluster, header)

    def _header(self) -> Header:
        settings = {**SETTINGS, "topics": {topic: dict(TOPIC_SETTINGS) for topic in topics_of(self._options)}}
        return Header(
            scenario="soak",
            seed=self._options.seed,
            settings=settings,
            start_us=now_us(),
            wall_ms=time.time_ns() // 1_000_000,
        )

    # --- faults -----------------------------------------------------------------------------------------------------

    async def _play(self, cluster: Cluster, clients: ScenarioClients, members: Members) -> None:
        await clients.open()
        await members.start()
        counter = EventCounter(cluster.files.data)
        world = ProcessWorld(cluster, clients, count_events=counter.count, watcher=NobodyWatches())
        spared = self._rng.choice(cluster.nodes.ids)
        self._report(f"node {spared} is spared: it is paused and cut off, and never killed")
        seconds = self._options.minutes * 60
        end, round_s = time.monotonic() + seconds, min(ROUND_S, seconds / ROUNDS_MIN)
        is_whole = True
        while is_whole and time.monotonic() < end:
            await self._inject_until(min(end, time.monotonic() + round_s), cluster, world, spared)
            is_whole = await self._make_whole(cluster)
        await clients.finish_producers()
        await members.finish()
        await self._read_the_rest(cluster, members)
        await clients.finish_all()

    async def _inject_until(self, end: float, cluster: Cluster, world: ProcessWorld, spared: int) -> None:
        partitions = [(topic, number) for topic, count in topics_of(self._options).items() for number in range(count)]
        while True:
            wait_s = self._rng.uniform(0, 2 * self._options.pace_s)
            await asyncio.sleep(max(0.0, min(wait_s, end - time.monotonic())))
            if time.monotonic() >= end:
                return
            await self._bring_back(cluster)
            kind, action = next_fault(self._cluster_state(cluster, spared), self._rng, partitions=partitions)
            self._faults[kind] += 1
            try:
                async with asyncio.timeout(CHANGE_LIMIT_S if kind in CHANGES else STRIKE_LIMIT_S):
                    await world.act(action)
            except TimeoutError:
                if kind not in CHANGES:
                    self._fail(f"{kind}, {action!r}: not done within {STRIKE_LIMIT_S:g} s")
                    return
            except ScenarioError as error:
                self._fail(f"{kind}, {action!r}: {error}")
                return

    async def _bring_back(self, cluster: Cluster) -> None:
        """A node that ended by itself is a failure; the soak starts it again and continues."""
        for node in cluster.nodes.ended_by_themselves:
            self._fail(f"node {node} ended by itself:\n{cluster.nodes.log(node)}")
            await cluster.nodes.restart(node)

    def _cluster_state(self, cluster: Cluster, spared: int) -> ClusterState:
        states = {node: cluster.nodes.state(node) for node in cluster.nodes.ids}
        return ClusterState(
            nodes=cluster.nodes.ids,
            spared=spared,
            controller=-1 if cluster.observer.latest is None else cluster.observer.latest.controller,
            down=frozenset(node for node, state in states.items() if state == "down"),
            paused=frozenset(node for node, state in states.items() if state == "paused"),
            full=cluster.disks.full,
            cuts=cluster.links.faults,
        )

    async def _make_whole(self, cluster: Cluster) -> bool:
        """Heal all faults; False: replicas did not become in sync, so that further faults would show nothing."""
        begun_us = now_us()
        try:
            await cluster.mend()
            await cluster.until_ready(deadline_ms=WHOLE_LIMIT_MS)
            await cluster.observer.until(
                lambda snapshot: not not_in_sync(snapshot), deadline_ms=WHOLE_LIMIT_MS, describe=not_in_sync
            )
        except ScenarioError as error:
            self._fail(f"not in sync: {error}"[:4_000])
            return False
        self._whole_ms.append((now_us() - begun_us) // 1_000)
        self._report(f"in sync after {self._whole_ms[-1] / 1_000:.1f} s")
        await self._bring_back(cluster)
        return True

    async def _read_the_rest(self, cluster: Cluster, members: Members) -> None:
        snapshot = await cluster.observer.status()
        ends = {number: snapshot.hw(GROUP_TOPIC, number) for number in snapshot.partitions(GROUP_TOPIC)}
        try:
            final = await members.read_to(ends, limit_s=GROUP_LIMIT_S)
        except TimeoutError:
            committed = members.reached.committed
            self._fail(f"no member read to {ends} within {GROUP_LIMIT_S:g} s; committed is {committed}")
            return
        for problem in members.reached.problems(final=final, ends=ends):
            self._fail(f"group {GROUP}: {problem}")

    # --- looking ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _watched(self, cluster: Cluster, clients: ScenarioClients) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._take_usage(cluster)), asyncio.create_task(self._report_progress(clients))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take_usage(self, cluster: Cluster) -> None:
        while True:
            for node in cluster.nodes.ids:
                pid = cluster.nodes.pid(node)
                usage = None if pid is None else usage_of(pid, at_ms=now_us() // 1_000)
                if usage is not None:
                    self._usage.setdefault(node, []).append(usage)
            await asyncio.sleep(USAGE_S)

    async def _report_progress(self, clients: ScenarioClients) -> None:
        while True:
            await asyncio.sleep(TELL_S)
            acked = sum(client.acked for client in clients.counts.values())
            unknown = sum(client.unknown for client in clients.counts.values())
            memory = [f"{samples[-1].memory_bytes / 1e6:.0f}" for _, samples in sorted(self._usage.items())]
            files = [str(samples[-1].open_files) for _, samples in sorted(self._usage.items())]
            own = usage_of(os.getpid(), at_ms=0)
            self._report(
                f"{sum(self._faults.values())} faults, {acked:,} records acknowledged, {unknown} unknown; "
                f"members: {self._group.joined} joined, {self._group.read:,} read, {self._group.commits:,} commits; "
                f"MB {'/'.join(memory)}, files {'/'.join(files)}"
                + (f"; this process {own.memory_bytes / 1e6:.0f} MB" if own else "")
            )

    # --- the end ----------------------------------------------------------------------------------------------------

    async def _judge(self, cluster: Cluster, header: Header) -> None:
        self._report("reading all records")
        evidence = await gather_evidence(cluster, header=header, settle_ms=WHOLE_LIMIT_MS, is_judged=is_judged)
        if unsettled := evidence.notes.get("unsettled"):
            self._fail(f"not settled at the end: {unsettled}"[:4_000])
        self._report("judging")
        verdict = await asyncio.to_thread(check_history, self._directory / HISTORY_FILE, evidence)
        self._verdict = judge(verdict, EXPECT, now=Now(_nothing))


def _nothing(question: str, arguments: tuple[object, ...]) -> None:
    """Never called: `EXPECT` has no conditions."""
    raise AssertionError((question, arguments))


# --- what a process uses ----------------------------------------------------------------------------------------------


def usage_of(pid: int, *, at_ms: int) -> Usage | None:
    """The usage from /proc. None: the process is gone, or the system has no /proc (macOS)."""
    folder = Path(f"/proc/{pid}")
    try:
        pages = int((folder / "statm").read_text().split()[1])
        files = len(os.listdir(folder / "fd"))
    except OSError:
        return None
    return Usage(at_ms=at_ms, memory_bytes=pages * os.sysconf("SC_PAGE_SIZE"), open_files=files)
