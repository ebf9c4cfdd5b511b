"""A scenario on real nodes: processes of this machine, with a proxy on each link between them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from kraft.chaos.evidence import Evidence, Fault
from kraft.chaos.history import Header
from kraft.chaos.live import Watcher
from kraft.chaos.model import Scenario, Topic
from kraft.chaos.result import RunResult
from kraft.chaos.run import Run
from kraft.chaos.workload.client import ClientProtocol
from kraft.chaos.workload.targets import ClientWorld
from kraft.chaos.worlds.processes.cluster import Cluster
from kraft.chaos.worlds.processes.event_counter import EventCounter
from kraft.chaos.worlds.processes.links import LinkTls
from kraft.chaos.worlds.processes.readback import SETTLE_MS, gather_evidence
from kraft.chaos.worlds.processes.timeline import now_us
from kraft.chaos.worlds.processes.world import ProcessWorld
from kraft.chaos.worlds.snapshot import Snapshot, not_in_sync
from kraft.chaos.worlds.spec import ScenarioError
from kraft.chaos.worlds.world import Clients
from kraft.launcher.node_starter import NodeStarter

IN_SYNC_LIMIT_MS: Final = 60_000
"""The limit from the end of the story until every replica is in sync."""


async def run_scenario(
    scenario: Scenario,
    *,
    seed: int,
    watcher: Watcher,
    keep: bool = False,
    report: Path | None = None,
    source: str = "",
    starter: NodeStarter | None = None,
    clients: ClientProtocol = "rest",
    tls: LinkTls | None = None,
) -> RunResult:
    """Run a scenario. A mistake of the scenario is never raised: the result contains it.

    `source` is the argument of the command, if it is not the name of the scenario. Runs may share a `starter` of nodes.
    `clients` is the protocol of the clients of the story. `tls`: the cluster has TLS, a user and ACLs, and its links
    end TLS or let it pass.
    """
    run = Run(scenario, seed=seed, watcher=watcher, keep=keep)
    try:
        begun_us = now_us()
        watcher.phase(f"starting {len(run.spec.nodes)} nodes")
        try:
            async with Cluster.start(
                run.spec, directory=run.directory, seed=seed, starter=starter, clients=clients, tls=tls
            ) as cluster:
                await run.run_on_cluster(ProcessTestbed(cluster), start_ms=(now_us() - begun_us) // 1000)
        except ScenarioError as error:
            run.failures.append(f"the cluster could not be started: {error}")
        return await asyncio.to_thread(run.conclude, report=report, command=source)
    finally:
        await asyncio.to_thread(run.remove_folder)


class ProcessTestbed:
    """Implements `Testbed`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @property
    def client_world(self) -> ClientWorld:
        return self._cluster

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def create_topic(self, topic: Topic) -> None:
        await self._cluster.admin.create_topic(topic.name, assignment=topic.assignment, configs=topic.configs)

    def watch_faults(self, watcher: Callable[[Fault], None]) -> None:
        self._cluster.timeline.watch(watcher)

    def world(self, clients: Clients, watcher: Watcher) -> ProcessWorld:
        count_events = EventCounter(self._cluster.files.data).count
        return ProcessWorld(self._cluster, clients, count_events=count_events, watcher=watcher)

    async def mend(self) -> None:
        await self._cluster.mend()

    async def until_in_sync(self) -> Snapshot:
        await self._cluster.until_ready(deadline_ms=IN_SYNC_LIMIT_MS)
        return await self._cluster.observer.until(
            lambda snapshot: not not_in_sync(snapshot), deadline_ms=IN_SYNC_LIMIT_MS, describe=not_in_sync
        )

    async def gather(self, header: Header, *, settles: bool, groups: Sequence[str]) -> Evidence:
        settle_ms = SETTLE_MS if settles else 0
        return await gather_evidence(self._cluster, header=header, settle_ms=settle_ms, groups=groups)
