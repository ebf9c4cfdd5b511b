"""Networks in which not every node reaches every other node."""

from __future__ import annotations

from kraft.chaos.model import Producer, Topic
from kraft.chaos.story import ScenarioRun, scenario


@scenario(
    "bridge-partition",
    question="What does a network do to a quorum when only one node sees everybody?",
    brokers=[1, 2, 3, 4, 5],
    controllers=[1, 2, 3, 4, 5],
    topics=[
        Topic(name="t", assignment=[[1, 2, 3], [4, 5, 1], [3, 4, 5]], configs={"min.insync.replicas": 2}),
    ],
    clients=[
        Producer(name="load", topic="t", rate=60, in_flight=8, timeout_ms=3_000),
    ],
    is_long=True,
)
async def bridge_partition(run: ScenarioRun) -> None:
    """Five nodes are split into two halves, and one node reaches both."""
    await run.more_acked(60)
    await run.partition([1, 2, 3], [3, 4, 5])
    await run.sleep(4_000)
    await run.heal()
    await run.until(lambda now: len(now.isr("t", 0)) == 3 and len(now.isr("t", 1)) == 3 and (len(now.isr("t", 2)) == 3))
    await run.more_acked(30)


@scenario(
    "ring-partition",
    question="What if no node reaches a majority of the others directly?",
    brokers=[1, 2, 3, 4, 5],
    controllers=[1, 2, 3, 4, 5],
    topics=[
        Topic(name="t", assignment=[[1, 2, 3], [4, 5, 1], [3, 4, 5]], configs={"min.insync.replicas": 2}),
    ],
    clients=[
        Producer(name="load", topic="t", rate=60, in_flight=8, timeout_ms=3_000),
    ],
    is_long=True,
)
async def ring_partition(run: ScenarioRun) -> None:
    """Each of five nodes reaches only its two neighbours."""
    await run.more_acked(60)
    await run.partition([1, 2], [2, 3], [3, 4], [4, 5], [5, 1])
    await run.sleep(4_000)
    await run.heal()
    await run.until(lambda now: len(now.isr("t", 0)) == 3 and len(now.isr("t", 1)) == 3 and (len(now.isr("t", 2)) == 3))
    await run.more_acked(30)
