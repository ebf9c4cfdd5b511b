"""Crashes of all processes, and power cuts."""

from __future__ import annotations

from kraft.chaos.model import ANY, SOME, Expect, Producer, Topic
from kraft.chaos.story import ScenarioRun, scenario

LOAD = Producer(name="load", topic="t", retries=20, in_flight=8)


async def _come_back(run: ScenarioRun) -> None:
    """All nodes start again, and take records."""
    await run.restart(1, 2, 3)
    await run.until(lambda now: len(now.isr("t", 0)) == 3 and len(now.isr("t", 1)) == 3)
    await run.more_acked(100)


@scenario(
    "cluster-killed",
    question="Does a crash of all processes lose records that were acknowledged?",
    topics=[
        Topic(name="t", assignment=[[1, 2, 3], [2, 3, 1]], configs={"min.insync.replicas": 2}),
    ],
    clients=[LOAD],
    expect=Expect(duplicated=ANY),
)
async def cluster_killed(run: ScenarioRun) -> None:
    """All nodes are killed at once under load, and started again."""
    await run.more_acked(250)
    await run.kill(1, 2, 3)
    await _come_back(run)


@scenario(
    "cluster-power-loss",
    question="Does min ISR 2 protect me from a power cut?",
    topics=[
        Topic(name="t", assignment=[[1, 2, 3], [2, 3, 1]], configs={"min.insync.replicas": 2}),
    ],
    clients=[LOAD],
    expect=Expect(lost=SOME, duplicated=ANY),
)
async def cluster_power_loss(run: ScenarioRun) -> None:
    """All nodes lose their power at once, without flush.messages."""
    await run.more_acked(250)
    await run.power_loss(1, 2, 3)
    await _come_back(run)


@scenario(
    "cluster-power-loss-flushed",
    question="What protects me from a power cut of all nodes?",
    topics=[
        Topic(name="t", assignment=[[1, 2, 3], [2, 3, 1]], configs={"min.insync.replicas": 2, "flush.messages": 1}),
    ],
    clients=[LOAD],
    expect=Expect(duplicated=ANY),
    is_long=True,
)
async def cluster_power_loss_flushed(run: ScenarioRun) -> None:
    """All nodes lose their power at once; flush.messages=1."""
    await run.more_acked(250)
    await run.power_loss(1, 2, 3)
    await _come_back(run)


async def _last_one_loses_its_power(run: ScenarioRun) -> None:
    """Two nodes die, the third one loses its power, and is back after the others."""
    await run.until(lambda now: now.done("load") and now.log_end(2, "t", 0) == 200 and now.log_end(3, "t", 0) == 200)
    await run.kill(2, 3)
    await run.until(lambda now: now.isr("t", 0) == [1])
    await run.power_loss(1)
    await run.until(lambda now: now.offline("t", 0))
    await run.restart(2, 3)
    await run.until(lambda now: now.state(2) == "active" and now.state(3) == "active" and now.offline("t", 0))
    await run.restart(1)
    await run.until(lambda now: now.leader("t", 0) == 1 and len(now.isr("t", 0)) == 3)
    await run.start("after")
    await run.until(lambda now: now.done("after"))


@scenario(
    "last-isr-member-power-loss",
    question="Can acks=all lose data?",
    controllers=[4],
    topics=[
        Topic(name="t", configs={"min.insync.replicas": 2}),
    ],
    clients=[
        Producer(name="load", topic="t", rate=200, limit=200, in_flight=4),
        Producer(name="after", topic="t", limit=20, retries=50, starts="in the story"),
    ],
    expect=Expect(kept=20, lost=200, holds=(lambda now: now.events("unclean_election") == 0,)),
    is_long=True,
)
async def last_isr_member_power_loss(run: ScenarioRun) -> None:
    """The last ISR member loses its power, returns as leader, and the others cut their logs.

    RF 3, min ISR 2, acks=all, no unclean election. The last member of the ISR leads when it is back, even if it has
    lost records; the others follow its log (the loss that KIP-966 describes).
    """
    await _last_one_loses_its_power(run)


@scenario(
    "last-isr-member-power-loss-flushed",
    question="How do I make acks=all survive a power cut of the last replica?",
    controllers=[4],
    topics=[
        Topic(name="t", configs={"min.insync.replicas": 2, "flush.messages": 1}),
    ],
    clients=[
        Producer(name="load", topic="t", rate=200, limit=200, in_flight=4),
        Producer(name="after", topic="t", limit=20, retries=50, starts="in the story"),
    ],
    expect=Expect(kept=220, holds=(lambda now: now.events("unclean_election") == 0,)),
    is_long=True,
)
async def last_isr_member_power_loss_flushed(run: ScenarioRun) -> None:
    """The last ISR member loses its power, returns as leader, and has everything; flush.messages=1.

    RF 3, min ISR 2, acks=all, no unclean election. The last member of the ISR leads when it is back, even if it has
    lost records; the others follow its log (the loss that KIP-966 describes).
    """
    await _last_one_loses_its_power(run)
