"""All replicas die, and start in the wrong order."""

from __future__ import annotations

from kraft.chaos.model import Expect, Producer, Topic
from kraft.chaos.story import ScenarioRun, scenario


@scenario(
    "all-down-wait-for-isr",
    question="All replicas were down: who may lead?",
    controllers=[4],
    topics=[
        Topic(name="t", configs={"unclean.leader.election.enable": False}),
    ],
    clients=[
        Producer(name="before", topic="t", rate=500, limit=200, batch=10),
        Producer(name="alone", topic="t", rate=200, limit=50, retries=10, starts="in the story"),
    ],
    expect=Expect(
        kept=250,
        holds=(
            lambda now: now.leader("t", 0) == 1,
            lambda now: now.events("unclean_election") == 0,
        ),
    ),
)
async def all_down_wait_for_isr(run: ScenarioRun) -> None:
    """All replicas die, and those outside the ISR come back first; unclean election is off.

    The controller is a separate node, so that the metadata survives while all brokers are down.
    """
    await run.until(lambda now: now.done("before") and now.log_end(2, "t", 0) == 200 and now.log_end(3, "t", 0) == 200)
    await run.kill(2, 3)
    await run.until(lambda now: now.isr("t", 0) == [1])
    await run.start("alone")
    await run.until(lambda now: now.acked("alone") == 50)
    await run.kill(1)
    await run.until(lambda now: now.state(1) in ["fenced", "down"] and now.offline("t", 0))
    await run.restart(2, 3)
    # time enough to elect somebody, if that were allowed
    await run.sleep(1_000)
    await run.until(lambda now: now.state(2) == "active" and now.state(3) == "active")
    await run.until(lambda now: now.offline("t", 0))
    await run.restart(1)
    await run.until(lambda now: now.leader("t", 0) == 1)


@scenario(
    "all-down-first-alive",
    question="All replicas were down: what does the first one that returns cost?",
    controllers=[4],
    topics=[
        Topic(name="t", configs={"unclean.leader.election.enable": True}),
    ],
    clients=[
        Producer(name="before", topic="t", rate=500, limit=200, batch=10),
        Producer(name="alone", topic="t", rate=200, limit=50, retries=10, starts="in the story"),
    ],
    expect=Expect(kept=200, lost=50, holds=(lambda now: now.events("unclean_election") == 1,)),
)
async def all_down_first_alive(run: ScenarioRun) -> None:
    """All replicas die, and those outside the ISR come back first; unclean election is on.

    The controller is a separate node, so that the metadata survives while all brokers are down.
    """
    await run.until(lambda now: now.done("before") and now.log_end(2, "t", 0) == 200 and now.log_end(3, "t", 0) == 200)
    await run.kill(2, 3)
    await run.until(lambda now: now.isr("t", 0) == [1])
    await run.start("alone")
    await run.until(lambda now: now.acked("alone") == 50)
    await run.kill(1)
    await run.until(lambda now: now.state(1) in ["fenced", "down"] and now.offline("t", 0))
    await run.restart(2)
    await run.until(lambda now: now.leader("t", 0) == 2)
    await run.restart(1, 3)
