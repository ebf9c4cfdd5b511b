"""Unclean election is switched on while a partition is offline."""

from __future__ import annotations

from kraft.chaos.model import Expect, Measured, Producer, Topic
from kraft.chaos.story import ScenarioRun, scenario


@scenario(
    "unclean-switched-on-topic",
    question="How do I get an offline partition back, and what does it cost?",
    topics=[
        Topic(name="t", configs={"min.insync.replicas": 1, "unclean.leader.election.enable": False}),
    ],
    clients=[
        Producer(name="before", topic="t", rate=500, limit=200, batch=10),
        Producer(name="alone", topic="t", rate=200, limit=50, starts="in the story"),
        Producer(name="after", topic="t", limit=50, retries=100, starts="in the story"),
    ],
    expect=Expect(kept=250, lost=Measured("unreplicated"), holds=(lambda now: now.events("unclean_election") == 1,)),
)
async def unclean_switched_on_topic(run: ScenarioRun) -> None:
    """Unclean election is switched on for a topic whose partition is offline.

    The followers cannot fetch and leave the ISR, and the leader accepts records alone until it dies.
    """
    await run.until(lambda now: now.done("before") and now.log_end(2, "t", 0) == 200 and now.log_end(3, "t", 0) == 200)
    await run.cut(answers=1, purpose="fetch")
    # a follower that has everything stays in the ISR, however long it is silent: something must be written
    await run.start("alone")
    # what a client counts may be newer than what the nodes were asked a moment before
    now = await run.until(
        lambda now: now.isr("t", 0) == [1] and now.acked("alone") == 50 and now.log_end(1, "t", 0) == 250
    )
    unreplicated = now.log_end(1, "t", 0) - max(now.log_end(2, "t", 0), now.log_end(3, "t", 0))
    run.expect(lost=unreplicated)
    await run.kill(1)
    await run.until(lambda now: now.offline("t", 0))
    await run.set_topic("t", {"unclean.leader.election.enable": True})
    await run.until(lambda now: now.leader("t", 0) in [2, 3])
    await run.start("after")
    await run.until(lambda now: now.done("after"))
    await run.heal()
    await run.restart(1)


@scenario(
    "unclean-switched-on-cluster",
    question="Does switching on unclean election help a partition that is offline already?",
    topics=[
        Topic(name="t", configs={"min.insync.replicas": 1}),
    ],
    clients=[
        Producer(name="before", topic="t", rate=500, limit=200, batch=10),
        Producer(name="alone", topic="t", rate=200, limit=50, starts="in the story"),
        Producer(name="after", topic="t", limit=50, retries=100, starts="in the story"),
    ],
    expect=Expect(kept=250, lost=Measured("unreplicated"), holds=(lambda now: now.events("unclean_election") == 1,)),
)
async def unclean_switched_on_cluster(run: ScenarioRun) -> None:
    """Unclean election is switched on for the whole cluster while a partition is offline.

    The followers cannot fetch and leave the ISR, and the leader accepts records alone until it dies.
    """
    await run.until(lambda now: now.done("before") and now.log_end(2, "t", 0) == 200 and now.log_end(3, "t", 0) == 200)
    await run.cut(answers=1, purpose="fetch")
    # a follower that has everything stays in the ISR, however long it is silent: something must be written
    await run.start("alone")
    # what a client counts may be newer than what the nodes were asked a moment before
    now = await run.until(
        lambda now: now.isr("t", 0) == [1] and now.acked("alone") == 50 and now.log_end(1, "t", 0) == 250
    )
    unreplicated = now.log_end(1, "t", 0) - max(now.log_end(2, "t", 0), now.log_end(3, "t", 0))
    run.expect(lost=unreplicated)
    await run.kill(1)
    await run.until(lambda now: now.offline("t", 0))
    await run.set_cluster({"unclean.leader.election.enable": True})
    await run.until(lambda now: now.leader("t", 0) in [2, 3])
    await run.start("after")
    await run.until(lambda now: now.done("after"))
    await run.heal()
    await run.restart(1)
