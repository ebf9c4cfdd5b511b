"""What the runner does when the cluster does not do its part."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kraft.chaos.checkers.verdict import Kind
from kraft.chaos.live import NobodyWatches
from kraft.chaos.model import Producer, Topic
from kraft.chaos.run import Run
from kraft.chaos.story import ScenarioRun, scenario
from kraft.chaos.worlds.processes.nodes import all_of
from kraft.chaos.worlds.processes.observer import NotInTime
from kraft.chaos.worlds.snapshot import Snapshot
from kraft.chaos.worlds.spec import ScenarioError
from tests.unit.chaos.recorded_run import clean_run, values


async def nothing(run: ScenarioRun) -> None:
    """Nothing happens."""


SMALLEST = scenario(
    "smallest", question="Nothing?", topics=[Topic(name="t")], clients=[Producer(name="p", topic="t", limit=1)]
)(nothing)
NOBODY = Snapshot(at_us=0, states={}, views={})


def test_one_node_that_ends_is_the_error_of_all() -> None:
    """And not a group of exceptions, which nobody catches."""
    waited = []

    async def start(node: int) -> None:
        if node == 2:
            raise ScenarioError("node 2 ended instead of starting")
        try:
            await asyncio.Event().wait()
        finally:
            waited.append(node)

    with pytest.raises(ScenarioError, match="node 2 ended"):
        asyncio.run(all_of((1, 2, 3), start))
    assert set(waited) == {1, 3}, "the others are not waited for"


class NeverInSync:
    asked = 0

    async def until_in_sync(self) -> Snapshot:
        self.asked += 1
        raise NotInTime("not within 60000 ms", NOBODY)


def test_a_cluster_that_does_not_heal_is_waited_for_once() -> None:
    run = Run(SMALLEST, seed=1, watcher=NobodyWatches())
    bed = NeverInSync()

    async def twice() -> None:
        for _ in range(2):
            await run._note(run._until_in_sync(bed))  # type: ignore[arg-type]

    asyncio.run(twice())
    run.remove_folder()
    assert bed.asked == 1
    assert run.failures == ["not within 60000 ms"]


def test_unreadable_log_of_isr_member_differs(tmp_path: Path) -> None:
    run = clean_run()
    run.replicas.pop()
    run.copy(3, *values(0, 4), error="the batch at position 7 has a wrong checksum")
    (anomaly,) = run.verdict(tmp_path).anomalies
    assert (anomaly.kind, anomaly.offset, anomaly.explained) == (Kind.REPLICAS_DIFFER, 4, False)
    run.fault("flip", 3, at_s=3, text="flipped bits on node 3")
    (anomaly,) = run.verdict(tmp_path).anomalies
    assert (anomaly.cause, anomaly.explained) == ("flipped bits on node 3", True)
